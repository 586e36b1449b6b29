/** Bearer tokens and PEM files: how they are read, and how a token is checked. */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { z } from "zod";
import { hideSecret } from "./log.js";
import type { Kind } from "./setting-kinds.js";

/** Certificate and key of a server, as PEM texts. */
export interface ServerTls {
  cert: string;
  key: string;
  /** Certificate authority of clients: each must show a certificate of it. */
  clientCa?: string;
}

/** The bearer tokens that a server accepts. */
export interface TokenSource {
  /** Empty: no token is asked for. */
  tokens: string[];
  /** The file that they came from; it is read again when it changes, so tokens can be rotated without a restart. */
  file?: string;
}

/** Tokens in a text: one a line, blank lines and lines that begin with # left out. */
export function parseTokens(content: string): string[] {
  return content.split(/\r?\n/).flatMap((line) => {
    const token = line.trim();
    return token === "" || token.startsWith("#") ? [] : [token];
  });
}

/** One token a line. Each is hidden from logs. */
export const tokenList = (): Kind<string[]> => ({
  form: "token",
  schema: z
    .string()
    .transform(parseTokens)
    .refine((tokens) => tokens.length > 0, "has no token")
    .refine((tokens) => tokens.every((token) => /^[\x21-\x7e]{8,512}$/.test(token)), {
      error: "has a token that is not 8 to 512 printable characters without spaces",
    })
    .transform((tokens) => {
      tokens.forEach(hideSecret);
      return tokens;
    }) as Kind<string[]>["schema"],
});

/** The text of a PEM file. Its key material is hidden from logs by its form. */
export function readPem(path: string): string {
  return readFileSync(path, "utf8");
}

/** Checks bearer tokens. */
export interface TokenCheck {
  /** Whether calls must show a token at all. */
  readonly required: boolean;
  /** Whether `token` is one of the accepted ones; takes the same time whichever it is. */
  accepts(token: string): boolean;
}

/** How often the token file is looked at, at most: soon enough for a revoked token, no system call per request. */
const reloadMs = 5_000;

/** A check against the tokens of `source`, which follows changes of its file. A file that vanishes or is emptied changes nothing. */
export function createTokenCheck(source: TokenSource, now: () => number = () => performance.now()): TokenCheck {
  let digests = source.tokens.map(digest);
  let lookedAt = now();
  let version = source.file ? fileVersion(source.file) : undefined;

  const reload = (path: string): void => {
    if (now() - lookedAt < reloadMs) return;
    lookedAt = now();
    const found = fileVersion(path);
    if (found === undefined || found === version) return;
    version = found;
    const parsed = tokenList().schema.safeParse(readFileSync(path, "utf8"));
    if (parsed.success) digests = parsed.data.map(digest);
  };

  return {
    required: source.tokens.length > 0,
    accepts(token) {
      if (source.file) reload(source.file);
      const given = digest(token);
      let accepted = false;
      // Digests have one length and all are compared: time tells neither length nor place.
      for (const known of digests) accepted = timingSafeEqual(given, known) || accepted;
      return accepted;
    },
  };
}

/** The token of an Authorization header's value; undefined if it is no bearer token. */
export function bearerToken(header: string | undefined): string | undefined {
  return /^bearer +([\x21-\x7e]{1,512})$/i.exec(header?.trim() ?? "")?.[1];
}

function digest(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

function fileVersion(path: string): string | undefined {
  try {
    const { mtimeMs, size, ino } = statSync(path);
    return `${mtimeMs}/${size}/${ino}`;
  } catch {
    return undefined;
  }
}

/**
 * One exchange: the request, the redirects that follow from it, and the body of the last answer, under one deadline.
 *
 *   hop -> redirect? -> hop ... (5 at most) -> read body -> decode
 *
 * Credentials, cookies and a Host header written for one origin never reach another one that a redirect names.
 */
import { isUtf8 } from "node:buffer";
import type { Readable } from "node:stream";
import { fail } from "@taskmesh/action-sdk";
import { type Dispatcher, request } from "undici";
import { RedirectPolicy, type RequestRequest, type RequestResponse } from "../gen/taskmesh/http/v1/http.js";
import { checkTextSize, decodeText, parseContentType, readBody } from "./incoming.js";
import { type Outgoing, parseHttpUrl, safeMethods } from "./outgoing.js";

/** Redirects that are followed. */
export const redirectsMax = 5;
/** Largest body when the request does not say. */
export const bodyBytesDefault = 8 * 1024 * 1024;
/** Largest body at all: with the headers it must fit into a payload of 64 MiB. */
export const bodyBytesMax = 60 * 1024 * 1024;
/** How much of the body of a redirect or a failure is read, so that the connection can be used again. */
const leftoverBytesMax = 64 * 1024;

/** An answer, still without its body. */
interface Hop {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Readable & { dump(options: { limit: number }): Promise<void> };
}

/** Sends the request and reads the answer. Rejects with errors of undici, of incoming.ts, of egress.ts, or an ActionFailure. */
export async function exchange(
  input: RequestRequest,
  first: Outgoing,
  options: { dispatcher: Dispatcher; signal: AbortSignal },
): Promise<RequestResponse> {
  let outgoing = first;
  for (let redirectCount = 0; ; redirectCount++) {
    const hop = await sendSafely(outgoing, options);
    try {
      const next = input.redirects === RedirectPolicy.REDIRECT_POLICY_NONE ? undefined : redirected(outgoing, hop);
      if (next === undefined) return await toResponse(input, outgoing, hop, redirectCount);
      if (redirectCount === redirectsMax) {
        throw fail.final("HTTP_REDIRECT", `more than ${redirectsMax} redirects, the last to ${next.url.host}`);
      }
      await hop.body.dump({ limit: leftoverBytesMax });
      outgoing = next;
    } finally {
      hop.body.on("error", ignore).destroy();
    }
  }
}

// A destroyed body reports its destruction; whoever destroyed it knows.
const ignore = (): void => undefined;

/**
 * A connection that was kept may be closed by its server at the very moment when it is used again. For methods that change nothing
 * the request is sent once more, on another connection; for others the step's retry policy decides.
 */
async function sendSafely(outgoing: Outgoing, options: { dispatcher: Dispatcher; signal: AbortSignal }): Promise<Hop> {
  try {
    return await send(outgoing, options);
  } catch (error) {
    const { code } = error as { code?: unknown };
    const closed = code === "UND_ERR_SOCKET" || code === "ECONNRESET" || code === "EPIPE";
    if (!closed || !safeMethods.has(outgoing.method) || options.signal.aborted) throw error;
    return send(outgoing, options);
  }
}

async function send(
  outgoing: Outgoing,
  { dispatcher, signal }: { dispatcher: Dispatcher; signal: AbortSignal },
): Promise<Hop> {
  const answer = await request(outgoing.url, {
    dispatcher,
    signal,
    method: outgoing.method as Dispatcher.HttpMethod,
    headers: [...outgoing.headers].flat(),
    body: outgoing.body ?? null,
  });
  return { status: answer.statusCode, headers: answer.headers, body: answer.body };
}

/** The request that a redirect asks for, undefined if the answer is no redirect. Throws HTTP_REDIRECT if it leads nowhere. */
function redirected(from: Outgoing, hop: Hop): Outgoing | undefined {
  const location = headerOf(hop, "location");
  if (![301, 302, 303, 307, 308].includes(hop.status) || location === undefined) return undefined;
  let url: URL;
  try {
    url = parseHttpUrl(asUtf8(location), from.url);
  } catch (cause) {
    throw fail.final("HTTP_REDIRECT", `${from.url.host} redirects to an address that is not allowed`, { cause });
  }
  const headers = new Map(from.headers);
  if (url.origin !== from.url.origin) {
    for (const name of ["authorization", "cookie", "host"]) headers.delete(name);
  }
  const { status } = hop;
  const toGet = (status === 303 && from.method !== "HEAD") || (status <= 302 && from.method === "POST");
  if (!toGet) return { method: from.method, url, headers, body: from.body };
  for (const name of headers.keys()) if (name.startsWith("content-")) headers.delete(name);
  return { method: "GET", url, headers, body: undefined };
}

/** Node reads header bytes as Latin-1; a server that puts raw UTF-8 there means UTF-8. */
function asUtf8(header: string): string {
  const bytes = Buffer.from(header, "latin1");
  return isUtf8(bytes) ? bytes.toString("utf8") : header;
}

async function toResponse(
  input: RequestRequest,
  sent: Outgoing,
  hop: Hop,
  redirectCount: number,
): Promise<RequestResponse> {
  const failed = hop.status >= 400 && input.failOnStatus !== false;
  const body = failed ? await readExcerpt(hop) : await readWhole(input, sent, hop);
  const contentType = headerOf(hop, "content-type") ?? "";
  const text = decodeText(body, contentType);
  if (text !== undefined) checkTextSize(text, bodyBytesMax);
  return {
    status: hop.status,
    headers: Object.fromEntries(
      Object.keys(hop.headers)
        .filter((name) => name !== "set-cookie")
        .map((name) => [name, headerOf(hop, name) ?? ""]),
    ),
    setCookies: [hop.headers["set-cookie"] ?? []].flat().map(wellFormed),
    text: text ?? "",
    binary: text === undefined ? body : Buffer.alloc(0),
    url: sent.url.href,
    contentType: parseContentType(contentType).mediaType,
    sizeBytes: BigInt(body.length),
    redirectCount,
  };
}

function readWhole(input: RequestRequest, sent: Outgoing, hop: Hop): Promise<Buffer> {
  const bytesMax = input.maxBytes > 0n ? Math.min(Number(input.maxBytes), bodyBytesMax) : bodyBytesDefault;
  const announced = Number(headerOf(hop, "content-length") ?? 0);
  // Known before a byte of it is read; a compressed one is larger still.
  if (announced > bytesMax && sent.method !== "HEAD") {
    throw fail.final(
      "HTTP_TOO_LARGE",
      `the body of ${announced} bytes is larger than the ${bytesMax} that are accepted`,
    );
  }
  return readBody(hop.body, headerOf(hop, "content-encoding") ?? "", bytesMax);
}

/** The body of an answer that fails the step anyway: nothing about it may hide its status. */
async function readExcerpt(hop: Hop): Promise<Buffer> {
  try {
    return await readBody(hop.body, headerOf(hop, "content-encoding") ?? "", leftoverBytesMax);
  } catch {
    return Buffer.alloc(0);
  }
}

function headerOf(hop: Hop, name: string): string | undefined {
  const value = hop.headers[name];
  return value === undefined ? undefined : wellFormed([value].flat().join(", "));
}

// A string field must be valid UTF-8; Latin-1 header bytes decode to whole characters, so this changes nothing in practice.
const wellFormed = (text: string): string => text.replace(/[\ud800-\udfff]/g, "\ufffd");

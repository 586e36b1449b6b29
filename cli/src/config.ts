/**
 * What the command line and the environment say, checked. The one file of this package that reads `process.env`.
 * An option beats its environment variable; a variable beats the default.
 */
import { readFileSync } from "node:fs";
import { usageError } from "./exit.js";

/** Where the gateway of an embedded mesh listens. */
export const defaultUrl = "http://127.0.0.1:7480";

/** The options that every command takes. */
export interface GlobalOptions {
  url?: string | undefined;
  namespace?: string | undefined;
  token?: string | undefined;
  tokenFile?: string | undefined;
  tlsCa?: string | undefined;
  tlsCert?: string | undefined;
  tlsKey?: string | undefined;
  json?: boolean | undefined;
}

/** How to reach the gateway. */
export interface Connection {
  /** Base of the REST API; a path in it is kept as a prefix. */
  url: URL;
  /** Absent: the one that the credential belongs to. */
  namespace?: string;
  /** Bearer token. Never printed. */
  token?: string;
  /** PEM texts. */
  tls: { ca?: string; cert?: string; key?: string };
}

type Environment = Record<string, string | undefined>;

/** An empty variable is an absent one. */
const set = (value: string | undefined): string | undefined =>
  value === undefined || value === "" ? undefined : value;

function readNamed(path: string, what: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw usageError(`can't read the ${what} ${path}: ${(error as Error).message}`);
  }
}

/** A token file may list several, for rotation; the first is the one to show. */
function firstToken(content: string, path: string): string {
  // Read here: loading the runtime for this would cost every command a third of a second.
  const token = content
    .split("\n")
    .map((line) => line.trim())
    .find((line) => line !== "" && !line.startsWith("#"));
  if (token === undefined) throw usageError(`the token file ${path} has no token`);
  return token;
}

function parseUrl(text: string): URL {
  // "localhost:7480" parses as a URL with the scheme "localhost", which nobody means.
  const candidate = /^[a-z]+:\/\//i.test(text) ? text : `http://${text}`;
  const url = URL.canParse(candidate) ? new URL(candidate) : undefined;
  if (!url || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw usageError(`"${text}" is not an http or https URL`, `An example: --url ${defaultUrl}`);
  }
  return url;
}

/**
 * The connection that options and environment ask for.
 * @throws CliError (usage) for a URL or a file that can't be used.
 */
export function resolveConnection(options: GlobalOptions, env: Environment = process.env): Connection {
  const url = parseUrl(options.url ?? set(env.TASKMESH_URL) ?? defaultUrl);
  const namespace = options.namespace ?? set(env.TASKMESH_NAMESPACE);
  const tokenFile = options.tokenFile ?? (options.token === undefined ? set(env.TASKMESH_TOKEN_FILE) : undefined);
  const token =
    options.token ??
    (tokenFile === undefined ? set(env.TASKMESH_TOKEN) : firstToken(readNamed(tokenFile, "token file"), tokenFile));
  const tls: Connection["tls"] = {};
  const files = {
    ca: options.tlsCa ?? set(env.TASKMESH_TLS_CA),
    cert: options.tlsCert ?? set(env.TASKMESH_TLS_CERT),
    key: options.tlsKey ?? set(env.TASKMESH_TLS_KEY),
  };
  if (url.protocol === "https:") {
    if ((files.cert === undefined) !== (files.key === undefined)) {
      throw usageError("a client certificate needs both --tls-cert and --tls-key");
    }
    if (files.ca !== undefined) tls.ca = readNamed(files.ca, "CA file");
    if (files.cert !== undefined) tls.cert = readNamed(files.cert, "certificate");
    if (files.key !== undefined) tls.key = readNamed(files.key, "key");
  }
  return {
    url,
    tls,
    ...(namespace === undefined ? {} : { namespace }),
    ...(token === undefined ? {} : { token }),
  };
}

/** Whether and how wide to draw for a person. */
export interface TerminalFacts {
  color: boolean;
  /** Redraw in place. */
  live: boolean;
  /** Columns; undefined: not a terminal, so lines are never cut. */
  width: number | undefined;
  /** Rows; undefined: not a terminal. */
  height: number | undefined;
}

/** What the terminal behind `stream` can show; honours NO_COLOR, FORCE_COLOR and TERM=dumb. */
export function terminalFacts(
  stream: { isTTY?: boolean; columns?: number; rows?: number } = process.stdout,
  env: Environment = process.env,
): TerminalFacts {
  const terminal = stream.isTTY === true;
  const dumb = env.TERM === "dumb";
  const force = set(env.FORCE_COLOR);
  const color = set(env.NO_COLOR) === undefined && (force === undefined ? terminal && !dumb : force !== "0");
  // A terminal that does not know its size reports 0.
  const size = (given: number | undefined, usual: number) => (terminal ? given || usual : undefined);
  return { color, live: terminal && !dumb, width: size(stream.columns, 80), height: size(stream.rows, 24) };
}

/** The environment for a child process. */
export const childEnvironment = (extra: Record<string, string> = {}): NodeJS.ProcessEnv => ({
  ...process.env,
  ...extra,
});

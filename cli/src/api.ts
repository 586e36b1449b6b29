/**
 * The REST API of the gateway, as the commands need it: JSON calls, and event streams that survive a broken connection.
 *
 * node:http and node:https rather than fetch: client certificates need the latter, and one path serves both.
 */
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Connection } from "./config.js";
import { CliError, type ExitCode, exitCode, usageError } from "./exit.js";
import { type Json, type JsonObject, object, objects, text } from "./json.js";
import { plain } from "./output.js";
import { readServerEvents, type ServerEvent } from "./server-events.js";

/** A request without an answer for this long is given up; waiting calls say how much longer they may take. */
const answerTimeoutMs = 30_000;
/** A list page of 1,000 runs is far below; a result may be a payload of 64 MiB as JSON. */
const answerBytesMax = 256 * 1024 * 1024;
/** Pauses between tries to continue a broken event stream; after the last one it counts as unreachable. */
const resumePausesMs = [200, 400, 800, 1_500, 3_000, 5_000, 5_000, 5_000, 5_000, 5_000];

/** Query parameters; undefined ones are left out, lists are repeated. */
export type Query = Record<string, string | number | boolean | readonly string[] | undefined>;

export interface CallOptions {
  query?: Query;
  body?: unknown;
  /** A body that is JSON already, sent as it is: parsing and printing would round large integers. */
  bodyText?: string;
  headers?: Record<string, string>;
  /** Extra time that the server may take because it was asked to wait. */
  waitMs?: number;
  signal?: AbortSignal | undefined;
}

export interface Api {
  readonly connection: Connection;
  /** One call. @throws CliError with the exit code that fits the failure. */
  call(method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE", path: string, options?: CallOptions): Promise<JsonObject>;
  /** The events of a stream; after a broken connection it goes on behind the last event seen. Ends when the server ends it. */
  events(path: string, options?: { after?: string; signal?: AbortSignal }): AsyncGenerator<ServerEvent>;
}

/** The URL of a path below the connection's base. */
export function urlOf(connection: Connection, path: string, query: Query = {}): URL {
  const url = new URL(connection.url);
  url.pathname = `${url.pathname.replace(/\/+$/, "")}${path}`;
  const all: Query = connection.namespace === undefined ? query : { namespace: connection.namespace, ...query };
  for (const [name, value] of Object.entries(all)) {
    if (value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) url.searchParams.append(name, String(one));
  }
  return url;
}

function unreachable(connection: Connection, cause: unknown): CliError {
  const { code, message } = cause as { code?: string; message: string };
  const where = connection.url.origin;
  if (code === "ECONNREFUSED") {
    return new CliError(exitCode.unreachable, `nothing answers at ${where}`, {
      hint: "Start a mesh with `npx taskmesh dev`, or name another one with --url or TASKMESH_URL.",
      cause,
    });
  }
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") {
    return new CliError(exitCode.unreachable, `no host named ${connection.url.hostname}`, {
      hint: "Check --url or TASKMESH_URL.",
      cause,
    });
  }
  const hint = /certificate|self.signed|SSL|TLS/i.test(`${code} ${message}`)
    ? "Name the authority with --tls-ca, and a client certificate with --tls-cert and --tls-key."
    : "Check --url or TASKMESH_URL, and that the mesh is running.";
  // OpenSSL's own texts name source files and end in a line break; its reason is what a person can read.
  const why = (cause as { reason?: string }).reason ?? message.trim();
  return new CliError(exitCode.unreachable, `can't reach ${where}: ${plain(why)}`, { hint, cause });
}

function open(connection: Connection, method: string, url: URL, options: CallOptions): Promise<IncomingMessage> {
  const bodyText = options.bodyText ?? (options.body === undefined ? undefined : JSON.stringify(options.body));
  const body = bodyText === undefined ? undefined : Buffer.from(bodyText);
  const headers: Record<string, string | number> = { accept: "application/json", ...options.headers };
  if (body) {
    headers["content-type"] = "application/json";
    headers["content-length"] = body.length;
  }
  if (connection.token !== undefined) headers.authorization = `Bearer ${connection.token}`;
  return new Promise((resolve, reject) => {
    const send = url.protocol === "https:" ? httpsRequest : httpRequest;
    const call = send(
      url,
      { method, headers, agent: false, ...connection.tls, ...(options.signal ? { signal: options.signal } : {}) },
      resolve,
    );
    call.setTimeout(answerTimeoutMs + (options.waitMs ?? 0), () =>
      call.destroy(new Error(`no answer for ${(answerTimeoutMs + (options.waitMs ?? 0)) / 1000} s`)),
    );
    call.once("error", reject);
    call.end(body);
  });
}

async function readBody(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > answerBytesMax) throw new Error(`the answer is over ${answerBytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const exitCodeOf = (status: number): ExitCode => {
  if (status === 404) return exitCode.notFound;
  if (status === 502 || status === 503 || status === 504) return exitCode.unreachable;
  return exitCode.refused;
};

/** What a problem document (RFC 9457) says, as an error of ours. Violations of single fields follow the sentence. */
export function problemError(status: number, document: Json | undefined, connection: Connection): CliError {
  const problem = object(document);
  const lines = [plain(text(problem.detail) || text(problem.title) || `the mesh answered ${status}`)];
  for (const { field, message } of objects(problem.errors)) {
    const said = plain(text(message));
    if (said !== "" && !lines[0]?.includes(said)) lines.push(`  ${plain(text(field))}: ${said}`);
  }
  const hint =
    status === 401
      ? "Give a credential with --token, --token-file, TASKMESH_TOKEN or a client certificate."
      : status >= 502 && status <= 504
        ? `The gateway at ${connection.url.origin} answers, but not the mesh behind it. Try again.`
        : undefined;
  return new CliError(exitCodeOf(status), lines.join("\n"), { problem, ...(hint === undefined ? {} : { hint }) });
}

function parseBody(body: Buffer, response: IncomingMessage, connection: Connection): Json | undefined {
  if (body.length === 0) return undefined;
  try {
    return JSON.parse(body.toString("utf8")) as Json;
  } catch (cause) {
    if ((response.statusCode ?? 500) >= 400) return { detail: body.toString("utf8").slice(0, 200).trim() };
    throw new CliError(exitCode.unreachable, `${connection.url.origin} does not speak the Taskmesh API`, {
      hint: "Check --url or TASKMESH_URL: it names the REST address of the gateway.",
      cause,
    });
  }
}

async function callOnce(connection: Connection, method: string, path: string, options: CallOptions) {
  let response: IncomingMessage;
  let body: Buffer;
  try {
    response = await open(connection, method, urlOf(connection, path, options.query), options);
    body = await readBody(response);
  } catch (error) {
    if (options.signal?.aborted) throw options.signal.reason;
    throw unreachable(connection, error);
  }
  const document = parseBody(body, response, connection);
  const status = response.statusCode ?? 500;
  if (status >= 400) throw problemError(status, document, connection);
  return object(document);
}

const pause = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal?.addEventListener("abort", finish, { once: true });
  });

async function* streamEvents(
  connection: Connection,
  path: string,
  { after, signal }: { after?: string; signal?: AbortSignal } = {},
): AsyncGenerator<ServerEvent> {
  let last = after;
  for (let failures = 0; ; ) {
    try {
      const response = await open(connection, "GET", urlOf(connection, path), {
        headers: { accept: "text/event-stream", ...(last === undefined ? {} : { "last-event-id": last }) },
        signal,
      });
      const status = response.statusCode ?? 500;
      if (status === 204) return;
      if (status >= 400)
        throw problemError(status, parseBody(await readBody(response), response, connection), connection);
      for await (const event of readServerEvents(response)) {
        failures = 0;
        if (event.id !== undefined) last = event.id;
        yield event;
      }
      return;
    } catch (error) {
      if (signal?.aborted) return;
      const final = error instanceof CliError && error.code !== exitCode.unreachable;
      // Never reached at all: say so at once, rather than after a minute of silence.
      const fresh = last === undefined && failures === 0;
      const wait = resumePausesMs[failures];
      if (final || fresh || wait === undefined)
        throw error instanceof CliError ? error : unreachable(connection, error);
      failures += 1;
      await pause(wait, signal);
      if (signal?.aborted) return;
    }
  }
}

/** The API behind `connection`. */
export function createApi(connection: Connection): Api {
  return {
    connection,
    call: (method, path, options = {}) => callOnce(connection, method, path, options),
    events: (path, options) => streamEvents(connection, path, options),
  };
}

/**
 * "acme.pages.v1.PageActions/Score" as two path segments.
 * @throws CliError (usage) for anything that is not a full method name.
 */
export function methodPath(method: string): string {
  const parts = method.replace(/^\//, "").split("/");
  if (parts.length !== 2 || parts.some((part) => part === "")) {
    throw usageError(
      `"${method}" is not a full method name`,
      "It reads package.Service/Method: acme.pages.v1.PageActions/Score",
    );
  }
  return parts.map(encodeURIComponent).join("/");
}

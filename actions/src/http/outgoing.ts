/** From the input of a request to what goes over the wire. Every refusal is a final failure that names what is wrong. */
import { type ActionContext, fail } from "@taskmesh/action-sdk";
import type { RequestRequest } from "../gen/taskmesh/http/v1/http.js";

/** One request as it is sent; header names are in lower case. */
export interface Outgoing {
  method: string;
  url: URL;
  headers: Map<string, string>;
  body: Buffer | undefined;
}

/** Longest header block that is sent. */
const headerBytesMax = 64 * 1024;
/** The connection is ours: these would break its framing or let one request pass for two. */
const ownHeaders = new Set([
  "connection",
  "content-length",
  "expect",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
/** Methods that change nothing by their definition: safe to send twice, no key needed. */
export const safeMethods = new Set(["GET", "HEAD", "OPTIONS"]);
/** CONNECT opens a tunnel past the egress rules; TRACE and TRACK echo credentials. */
const refusedMethods = new Set(["CONNECT", "TRACE", "TRACK"]);

/** Builds the first request. Throws METHOD_INVALID, URL_INVALID, HEADER_INVALID. */
export function buildRequest(input: RequestRequest, ctx: ActionContext): Outgoing {
  const method = methodOf(input.method);
  const url = parseHttpUrl(input.url);
  const query = Object.entries(input.query).map(([name, value]) => `${escapePart(name)}=${escapePart(value)}`);
  if (query.length > 0) url.search += `${url.search === "" ? "?" : "&"}${query.join("&")}`;

  const headers = headersOf(input.headers);
  const { body, contentType } = bodyOf(input);
  const setDefault = (name: string, value: string) => {
    if (!headers.has(name)) headers.set(name, value);
  };
  if (contentType !== undefined) setDefault("content-type", contentType);
  setAuth(input, headers);
  setDefault("accept", "*/*");
  setDefault("accept-encoding", "gzip, deflate, br");
  setDefault("user-agent", "taskmesh/0.1");
  if (!safeMethods.has(method)) setDefault("idempotency-key", asHeaderValue(ctx.idempotencyKey));
  for (const [name, value] of Object.entries(ctx.trace.headers())) setDefault(name.toLowerCase(), value);
  return { method, url, headers, body };
}

function methodOf(given: string): string {
  const method = given === "" ? "GET" : given.toUpperCase();
  if (!/^[!#$%&'*+.^_`|~0-9A-Z-]+$/.test(method) || refusedMethods.has(method)) {
    throw fail.final("METHOD_INVALID", `${JSON.stringify(given)} is not a method that can be sent`);
  }
  return method;
}

/** Parses an absolute http or https address. Throws URL_INVALID; the message does not repeat the address, which may hold a secret. */
export function parseHttpUrl(text: string, base?: URL): URL {
  let url: URL;
  try {
    url = new URL(text, base);
  } catch (cause) {
    throw fail.final("URL_INVALID", "the address cannot be parsed; it must be absolute, such as https://example.org/", {
      cause,
    });
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw fail.final("URL_INVALID", `${url.protocol}// is not supported, only http:// and https://`);
  }
  if (url.username !== "" || url.password !== "") {
    throw fail.final("URL_INVALID", "the address holds credentials; put them into auth");
  }
  url.hash = "";
  return url;
}

// encodeURIComponent throws on lone surrogates, which a decoded protobuf string cannot hold.
const escapePart = (text: string): string => encodeURIComponent(text);

function headersOf(given: Record<string, string>): Map<string, string> {
  const headers = new Map<string, string>();
  let size = 0;
  for (const [written, value] of Object.entries(given)) {
    const name = written.toLowerCase();
    const wrong = headerFault(name, value, headers);
    if (wrong !== undefined)
      throw fail.final("HEADER_INVALID", `header ${JSON.stringify(written.slice(0, 100))} ${wrong}`);
    size += name.length + value.length + 4;
    headers.set(name, value);
  }
  if (size > headerBytesMax)
    throw fail.final("HEADER_INVALID", `the headers have ${size} bytes, over ${headerBytesMax}`);
  return headers;
}

/** What is wrong with a header; never its value, which may be a secret. */
function headerFault(name: string, value: string, sofar: Map<string, string>): string | undefined {
  if (!/^[!#$%&'*+.^_`|~0-9a-z-]{1,256}$/.test(name)) return "has a name with characters that are not allowed";
  if (ownHeaders.has(name) || name.startsWith("proxy-")) return "is set by the connection itself";
  if (sofar.has(name)) return "is given twice";
  // Line ends would let a value add headers or a second request.
  if (/[^\t\x20-\x7e\x80-\xff]/.test(value)) return "has a value with line ends, control or non-Latin-1 characters";
  return undefined;
}

function bodyOf({ body }: RequestRequest): { body: Buffer | undefined; contentType?: string } {
  switch (body?.$case) {
    case undefined:
      return { body: undefined };
    case "text":
      return { body: Buffer.from(body.value), contentType: "text/plain; charset=utf-8" };
    case "binary":
      return { body: body.value, contentType: "application/octet-stream" };
    case "form":
      return {
        body: Buffer.from(new URLSearchParams(body.value.fields).toString()),
        contentType: "application/x-www-form-urlencoded",
      };
    case "json":
      return { body: Buffer.from(JSON.stringify(body.value ?? null)), contentType: "application/json" };
  }
}

function setAuth({ auth }: RequestRequest, headers: Map<string, string>): void {
  if (auth === undefined) return;
  if (headers.has("authorization")) {
    throw fail.final("HEADER_INVALID", 'header "authorization" is given beside auth');
  }
  if (auth.$case === "bearer") {
    const token = auth.value;
    if (!/^[\x21-\x7e]+$/.test(token))
      throw fail.final("HEADER_INVALID", "the bearer token has characters that are not allowed");
    headers.set("authorization", `Bearer ${token}`);
    return;
  }
  const { username, password } = auth.value;
  // A colon ends the user name, so the password would begin inside of it.
  if (username.includes(":")) throw fail.final("HEADER_INVALID", "a user name of basic auth has no colon");
  headers.set("authorization", `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`);
}

const asHeaderValue = (text: string): string => text.replace(/[^\x21-\x7e]/g, (char) => escapePart(char));

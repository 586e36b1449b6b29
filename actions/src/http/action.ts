/**
 * The action `taskmesh.http.v1.HttpActions/Request`: one HTTP request to the world outside.
 *
 * What goes out is built in outgoing.ts, where it may go is decided in egress.ts, exchange.ts talks, incoming.ts reads the answer.
 * This file has the limits of the connection, the deadline, and what each error means to a retry policy.
 */
import { type ActionContext, ActionFailure, type AnyAction, defineAction, detail, fail } from "@taskmesh/action-sdk";
import { errorDetails } from "@taskmesh/proto";
import { Agent, type Dispatcher } from "undici";
import {
  HttpActionsService,
  HttpStatusDetail,
  type RequestRequest,
  type RequestResponse,
} from "../gen/taskmesh/http/v1/http.js";
import { createConnector, EgressRefused, parseAllowList, type Resolve } from "./egress.js";
import { exchange } from "./exchange.js";
import { BodyBroken, BodyTooLarge, parseRetryAfter } from "./incoming.js";
import { buildRequest } from "./outgoing.js";

/** Settings of the HTTP action. */
export interface HttpSettings {
  /** IP addresses, CIDR ranges and host names that may be reached though they are not public. Default none. */
  allow?: readonly string[];
  /** How names become addresses. Default: the system's resolver. */
  resolve?: Resolve;
}

/** Time of a request that does not say. */
const timeoutDefaultMs = 30_000;
/** Longest time of a request, as the contract says. */
const timeoutMaxMs = 300_000;
/** A body that sends nothing for this long is given up, though its deadline may be later. */
const idleTimeoutMs = 60_000;
/** Largest header block of an answer. */
const headerBytesMax = 64 * 1024;
/** Idle connections are closed before servers usually do (5 s), so that a request seldom meets one that is just closing. */
const keepAliveMs = 4_000;
/** Statuses that a later attempt may not get again. */
const retryableStatuses = new Set([408, 425, 429]);
const excerptCharsMax = 2_048;

/** Makes the action. Throws an Error if an entry of `allow` can't be parsed. */
export function httpActions(settings: HttpSettings = {}): AnyAction[] {
  const policy = parseAllowList(settings.allow ?? []);
  const dispatcher = new Agent({
    connect: createConnector(policy, settings.resolve),
    headersTimeout: timeoutMaxMs,
    bodyTimeout: idleTimeoutMs,
    keepAliveTimeout: keepAliveMs,
    keepAliveMaxTimeout: keepAliveMs,
    maxHeaderSize: headerBytesMax,
    pipelining: 1,
  });
  return [defineAction(HttpActionsService.request, (input, ctx) => requestOnce(input, ctx, dispatcher))];
}

async function requestOnce(
  input: RequestRequest,
  ctx: ActionContext,
  dispatcher: Dispatcher,
): Promise<RequestResponse> {
  const outgoing = buildRequest(input, ctx);
  const timeoutMs = timeoutOf(input);
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(new TimedOut()), timeoutMs);
  const passOn = () => stop.abort(ctx.signal.reason);
  ctx.signal.addEventListener("abort", passOn, { once: true });
  if (ctx.signal.aborted) passOn();
  let response: RequestResponse;
  try {
    response = await exchange(input, outgoing, { dispatcher, signal: stop.signal });
  } catch (error) {
    // Asked to stop: the worker knows why and reports it.
    if (ctx.signal.aborted) throw ctx.signal.reason;
    if (stop.signal.aborted) {
      throw fail.retryable("HTTP_TIMEOUT", `${outgoing.url.host} did not answer within ${timeoutMs} ms`);
    }
    throw toFailure(error, outgoing.url.host);
  } finally {
    clearTimeout(timer);
    ctx.signal.removeEventListener("abort", passOn);
  }
  if (response.status >= 400 && input.failOnStatus !== false) throw statusFailure(response);
  return response;
}

class TimedOut extends Error {}

function timeoutOf({ timeout }: RequestRequest): number {
  if (timeout === undefined) return timeoutDefaultMs;
  const ms = Number(timeout.seconds) * 1_000 + Math.ceil(timeout.nanos / 1_000_000);
  return Math.min(Math.max(1, ms), timeoutMaxMs);
}

function statusFailure(response: RequestResponse): ActionFailure {
  const { status, headers, text } = response;
  const waitMs = parseRetryAfter(headers["retry-after"], Date.now());
  const retryAfter = waitMs === undefined ? undefined : { seconds: BigInt(Math.floor(waitMs / 1_000)), nanos: 0 };
  // A cut must not tear a pair.
  const bodyExcerpt = text.slice(0, excerptCharsMax).replace(/[\ud800-\udbff]$/, "");
  const details = [detail("taskmesh.http.v1.HttpStatusDetail", HttpStatusDetail, { status, retryAfter, bodyExcerpt })];
  if (retryAfter) {
    details.push(detail("google.rpc.RetryInfo", errorDetails.RetryInfo, { retryDelay: retryAfter }));
  }
  const kind = status >= 500 || retryableStatuses.has(status) ? fail.retryable : fail.final;
  return kind("HTTP_STATUS", `${new URL(response.url).host} answered ${status}`, { details });
}

/** Codes of errors that say the answer or the connection broke after it was made. */
const protocolCodes = /^(UND_ERR_SOCKET|UND_ERR_RES_CONTENT_LENGTH_MISMATCH|UND_ERR_RESPONSE|HPE_.*|ECONNRESET|EPIPE)$/;

/** What an error of the exchange means. Addresses are not repeated beyond the host: their query may hold secrets. */
function toFailure(error: unknown, host: string): Error {
  if (error instanceof ActionFailure) return error;
  if (error instanceof EgressRefused) return fail.final("EGRESS_REFUSED", error.message);
  if (error instanceof BodyTooLarge) return fail.final("HTTP_TOO_LARGE", `${host}: ${error.message}`);
  if (error instanceof BodyBroken)
    return fail.retryable("HTTP_PROTOCOL", `${host}: ${error.message}`, { cause: error });
  const code = codeOf(error);
  if (code === undefined) return error as Error;
  switch (code) {
    case "UND_ERR_HEADERS_OVERFLOW":
    case "HPE_HEADER_OVERFLOW":
      return fail.final("HTTP_TOO_LARGE", `the headers of ${host} have more than ${headerBytesMax} bytes`, {
        cause: error,
      });
    case "UND_ERR_HEADERS_TIMEOUT":
    case "UND_ERR_BODY_TIMEOUT":
      return fail.retryable("HTTP_TIMEOUT", `${host} stopped sending`, { cause: error });
  }
  if (protocolCodes.test(code)) {
    return fail.retryable("HTTP_PROTOCOL", `the answer of ${host} broke off or is not HTTP (${code})`, {
      cause: error,
    });
  }
  return fail.retryable("HTTP_CONNECT", `cannot connect to ${host} (${code})`, { cause: error });
}

/** The code of a network error, of its cause, or of the first address that was tried. */
function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code } = error as { code?: unknown };
  if (typeof code === "string") return code;
  if (error.name === "HTTPParserError") return "HPE_INVALID";
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  return codeOf(error.cause);
}

/**
 * What a caller is told when something throws: the one place that knows how errors of other layers become statuses.
 *
 * StatusErrors go out as they are. An unreachable database is UNAVAILABLE: it is safe to call again with the same idempotency
 * key. Anything else is a bug of ours: INTERNAL, opaque, with the cause in the log under the trace id.
 */
import { internalError, isStatusError, type StatusError, statusError } from "@taskmesh/runtime";

/** A retry before this would meet the same outage. */
const retryAfterMs = 1_000;
/** Deeper chains of causes are cycles, or of no interest. */
const causesMax = 8;

/** Codes of sockets and of postgres.js that mean: no connection, or none any more. */
const connectionCodes = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "CONNECTION_CLOSED",
  "CONNECTION_ENDED",
  "CONNECTION_DESTROYED",
  "CONNECT_TIMEOUT",
]);

/**
 * SQLSTATE classes and codes of a server that can't take the statement now: connection exceptions, resources exhausted,
 * operator intervention (shutdown, crash, starting up), a read-only standby, and transactions that lost to others.
 */
const unavailableSqlState = /^(?:08...|53...|57P0[1-5]|25006|40001|40P01|55P03)$/;

/** The status that stands for `error`. `traceId` goes into an INTERNAL, so that the log line can be found. */
export function toStatus(error: unknown, traceId?: string): StatusError {
  if (isStatusError(error)) return error;
  for (const code of codes(error)) {
    if (connectionCodes.has(code) || unavailableSqlState.test(code)) {
      const message = "the database can't be reached; retry";
      return statusError({ reason: "DATABASE_UNAVAILABLE", message, retryAfterMs, cause: error });
    }
  }
  if (error instanceof Error && error.name === "AbortError") {
    return statusError({ reason: "CALL_CANCELLED", message: "the call was given up", cause: error });
  }
  return internalError(error, traceId);
}

function* codes(error: unknown): Generator<string> {
  let current: unknown = error;
  for (let depth = 0; depth < causesMax && current instanceof Error; depth += 1) {
    if ("code" in current && typeof current.code === "string") yield current.code;
    // Several addresses of one host that all refused.
    if (current instanceof AggregateError) for (const inner of current.errors) yield* codes(inner);
    current = current.cause;
  }
}

/** What becomes of work that the database can't or won't store. */
import { status, statusError } from "@taskmesh/runtime";
import { sqlState } from "../store/db.js";
import type { EventWork } from "./work.js";

/** A completion whose output the database refuses becomes a failed attempt, once. */
export function asDataError(item: EventWork, message: string): EventWork | undefined {
  const { event } = item;
  if (event.kind !== "complete" || item.refused) return undefined;
  const failure = {
    reason: "DATA_ERROR",
    message: `can't be stored: ${message}`,
    retryable: false,
    details: [],
    cause: undefined,
  };
  const { logs: _, ...rest } = item;
  return { ...rest, fresh: true, refused: true, event: { ...event, outcome: { kind: "failure", failure } } };
}

/** No answer, or an answer that says nothing about the statement: the connection, the server's resources, its shutdown. */
export function isUnavailable(error: unknown): boolean {
  // What could not even be encoded never reached the database.
  if (error instanceof TypeError || error instanceof RangeError) return false;
  const state = sqlState(error);
  return state === undefined || /^(08|53|57|58)/.test(state);
}

/** The run or its plan can't be read. */
export function asUnavailable(cause: unknown): Error {
  return statusError({
    code: status.UNAVAILABLE,
    reason: "DATABASE_UNAVAILABLE",
    message: "the run can't be read now",
    retryAfterMs: 500,
    cause,
  });
}

/** The sender of a value that can't be stored hears so. */
export function asUnstorable(message: string): Error {
  return statusError({
    code: status.INVALID_ARGUMENT,
    reason: "ARGUMENT_INVALID",
    message: `can't be stored: ${message}`,
  });
}

import type { Failure } from "@taskmesh/proto";
import type { FailureReason } from "@taskmesh/runtime";

/**
 * The HTTP status that stands for a failed run. 422 for what an action itself reports (the caller's input or the world is not as it
 * must be), 5xx for what went wrong on the way: 500 in the handler or the chain, 502 a dying worker, 503 no worker, 504 too slow.
 */
export function failureHttpStatus(failure: Failure): number {
  return Object.hasOwn(statusByReason, failure.reason)
    ? statusByReason[failure.reason as FailureReason]
    : ACTION_REPORTED;
}

const ACTION_REPORTED = 422;

const statusByReason: Readonly<Record<FailureReason, number>> = {
  ATTEMPTS_LOST: 502,
  ITEMS_FAILED: 502,
  SCHEDULE_TO_START_TIMEOUT: 503,
  START_TO_CLOSE_TIMEOUT: 504,
  HEARTBEAT_TIMEOUT: 504,
  SCHEDULE_TO_CLOSE_TIMEOUT: 504,
  RUN_EXPIRED: 504,
  CANCELLED: 409,
  TERMINATED: 409,
  INPUT_INVALID: 422,
  OUTPUT_INVALID: 500,
  PAYLOAD_TOO_LARGE: 500,
  EXPRESSION_FAILED: 500,
  DATA_ERROR: 500,
  METHOD_UNKNOWN: 503,
  PAYLOAD_UNREADABLE: 503,
  HANDLER_ERROR: 500,
  DRAINED: 503,
  DEPTH_EXCEEDED: 500,
  BRANCHES_FAILED: 500,
  ROUNDS_EXHAUSTED: 504,
};

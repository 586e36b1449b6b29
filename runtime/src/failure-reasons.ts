/** The reasons that the mesh itself gives to failures; see reasons.ts. */

/** One reason of a Failure. */
export interface FailureReasonEntry {
  /** Whether another attempt is made if the step's retry policy allows one. */
  retryable: boolean;
  /** What happened. */
  meaning: string;
}

/** Reasons that the mesh itself gives to failed attempts, steps and runs; actions add their own. */
export const failureReasons = {
  ATTEMPTS_LOST: {
    retryable: false,
    meaning: "Workers died or fell silent in as many attempts as are allowed (3); the step may be what kills them.",
  },
  ITEMS_FAILED: { retryable: false, meaning: "More items of a fan-out step failed than it tolerates." },
  SCHEDULE_TO_START_TIMEOUT: { retryable: false, meaning: "No worker took the step in time." },
  START_TO_CLOSE_TIMEOUT: { retryable: true, meaning: "The attempt took longer than one attempt may." },
  HEARTBEAT_TIMEOUT: { retryable: true, meaning: "The handler reported no progress for longer than it may." },
  SCHEDULE_TO_CLOSE_TIMEOUT: { retryable: false, meaning: "The step took longer than all its attempts together may." },
  RUN_EXPIRED: { retryable: false, meaning: "The run reached its deadline." },
  CANCELLED: { retryable: false, meaning: "The run was cancelled." },
  TERMINATED: { retryable: false, meaning: "The run was ended at once, by somebody's wish." },
  INPUT_INVALID: { retryable: false, meaning: "The input of the step breaks the action's contract." },
  OUTPUT_INVALID: { retryable: false, meaning: "What the handler returned breaks the action's contract." },
  PAYLOAD_TOO_LARGE: { retryable: false, meaning: "What the handler returned is over 64 MiB." },
  EXPRESSION_FAILED: { retryable: false, meaning: "An expression of the chain failed on the values of this run." },
  DATA_ERROR: { retryable: false, meaning: "The database refuses the value that the step recorded." },
  METHOD_UNKNOWN: { retryable: true, meaning: "The worker was given a method that it does not implement." },
  PAYLOAD_UNREADABLE: { retryable: true, meaning: "A payload by reference could not be fetched or stored." },
  HANDLER_ERROR: { retryable: true, meaning: "The handler threw an error that is no ActionFailure." },
  DEPTH_EXCEEDED: {
    retryable: false,
    meaning: "The run has 16 runs above it, as many as may be: a chain that calls itself must come to an end.",
  },
  BRANCHES_FAILED: { retryable: false, meaning: "No branch of a join that takes the first success succeeded." },
  ROUNDS_EXHAUSTED: {
    retryable: false,
    meaning: "The step has called as often as it may, and the condition that ends it does not hold.",
  },
  DRAINED: { retryable: true, meaning: "The worker was shut down before the handler ended." },
} as const satisfies Record<string, FailureReasonEntry>;

/** Name of a reason that the mesh gives to failures. */
export type FailureReason = keyof typeof failureReasons;

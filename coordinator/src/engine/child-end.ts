/** What a child's end makes of the step that started it. Only the child of the current attempt is heard (E2). */
import { type Failure, RunStatus, StepStatus } from "@taskmesh/proto";
import { attemptFailed, attemptSucceeded, completeCancelled } from "./attempts.js";
import { wake } from "./control.js";
import type { ChainPlan, StepPlan } from "./plan.js";
import { releaseLease } from "./run-end.js";
import type { Advance, Context, RunEvent } from "./run-event.js";
import type { RunState } from "./run-state.js";
import { stepIndex } from "./step-index.js";
import { beginTurn, editStep, meshFailure, unchanged } from "./turn.js";

type ChildEnded = Extract<RunEvent, { kind: "child-ended" }>;

export function onChildEnded(run: RunState, plan: ChainPlan, event: ChildEnded, context: Context): Advance {
  const index = stepIndex(plan, event.stepId);
  if (index === undefined || !plan.steps[index]!.child) return unchanged(run, "unknown-step");
  const { status, lease } = run.steps[index]!;
  if (lease !== event.childId) return unchanged(run, "stale-lease");
  if (status !== StepStatus.STEP_STATUS_RUNNING) return unchanged(run, "duplicate");
  const turn = beginTurn(run, plan, context);
  // The child is over: nothing that follows may take it for one that still runs.
  releaseLease(turn, index);
  editStep(turn, index).status = StepStatus.STEP_STATUS_RETRYING;
  const succeeded = event.status === RunStatus.RUN_STATUS_SUCCEEDED;
  if (run.cancel || (run.closing && !succeeded)) return completeCancelled(turn, index, {});
  // The deadline came down from here: what it ends below is this run's own expiry, whoever notices first.
  if (!succeeded && run.deadlineAtMs <= turn.nowMs) return wake(turn);
  const stepPlan = plan.steps[index]!;
  if (!succeeded || !event.output) return attemptFailed(turn, index, failureOf(stepPlan, event), {});
  const wrong = event.output.bytes && stepPlan.checkOutput(event.output.bytes);
  if (wrong !== undefined) return attemptFailed(turn, index, meshFailure("OUTPUT_INVALID", wrong, false), {});
  return attemptSucceeded(turn, index, event.output, {});
}

/** Longest message of a failure that comes up from a child: each level adds to it. */
const messageMax = 2_048;

/** The child's failure as the step's: the reason stays, so that policies match it at any height; a new child may do better. */
function failureOf(plan: StepPlan, { status, childId, failure, refused }: ChildEnded): Failure {
  if (refused && failure) return failure;
  const cause = failure ?? meshFailure("DATA_ERROR", "it ended without an output", false);
  const message = `${plan.method} (run ${childId}): ${cause.message}`;
  return {
    reason: cause.reason,
    message: message.length > messageMax ? `${message.slice(0, messageMax)}…` : message,
    retryable: status !== RunStatus.RUN_STATUS_CANCELLED,
    details: cause.details,
    cause: { ...cause, details: [] },
  };
}

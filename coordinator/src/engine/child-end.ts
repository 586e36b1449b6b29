/** What a child's end makes of the step that started it. Only the child of the current attempt is heard (E2). */
import { type Failure, RunStatus, StepStatus } from "@taskmesh/proto";
import { attemptFailed, attemptSucceeded, completeCancelled } from "./attempts.js";
import { wake } from "./control.js";
import { reportItem } from "./items.js";
import type { ChainPlan, StepPlan } from "./plan.js";
import { releaseLease } from "./run-end.js";
import type { Advance, Context, RunEvent, Unchanged } from "./run-event.js";
import { type RunState, type StepState, stateOf } from "./run-state.js";
import { stepIndex } from "./step-index.js";
import { beginTurn, changed, editStep, meshFailure, type Turn, unchanged } from "./turn.js";

type ChildEnded = Extract<RunEvent, { kind: "child-ended" }>;

export function onChildEnded(run: RunState, plan: ChainPlan, event: ChildEnded, context: Context): Advance {
  const index = stepIndex(plan, event.stepId);
  if (index === undefined || !plan.steps[index]!.child) return unchanged(run, "unknown-step");
  const { item = 0 } = event;
  // The deadline came down from here: what it ends below is this run's own expiry, whoever notices first.
  const expired = isExpiry(run, event, context);
  if (plan.steps[index]!.each && !expired)
    return reportItem(run, plan, { index, item, context }, (turn) => ended(turn, index, event));
  const refused = refusal(stateOf(run, index, item), event);
  if (refused) return unchanged(run, refused);
  const turn = beginTurn(run, plan, context);
  return expired ? wake(turn) : ended(turn, index, event);
}

/** Only the child of the current attempt is heard (E2). */
function refusal(state: StepState | undefined, event: ChildEnded): Unchanged | undefined {
  if (state?.lease !== event.childId) return "stale-lease";
  return state.status === StepStatus.STEP_STATUS_RUNNING ? undefined : "duplicate";
}

/** Whether the child's end is the run's. Undos have limits of their own (U4); after a cancel, and while the run closes, its end is decided. */
function isExpiry(run: RunState, event: ChildEnded, { nowMs }: Context): boolean {
  if (event.status === RunStatus.RUN_STATUS_SUCCEEDED || run.cancel || run.closing || run.undo || run.broken)
    return false;
  return run.deadlineAtMs <= Math.max(nowMs, run.nowMs);
}

function ended(turn: Turn, index: number, event: ChildEnded): Advance {
  const { run, plan } = turn;
  const refused = refusal(run.steps[index], event);
  if (refused) return unchanged(run, refused);
  // The child is over: nothing that follows may take it for one that still runs.
  releaseLease(turn, index);
  editStep(turn, index).status = StepStatus.STEP_STATUS_RETRYING;
  const succeeded = event.status === RunStatus.RUN_STATUS_SUCCEEDED;
  if (run.cancel || (run.closing && !succeeded)) return completeCancelled(turn, index, {});
  // The child could not know that its parent waits for people: the step goes on with another one when the run does.
  if (!succeeded && run.broken && run.deadlineAtMs <= turn.nowMs) return changed(turn);
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

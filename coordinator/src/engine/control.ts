/** What happens to runs that no worker reports: time, cancels, room in lanes, evaluations, starts that must be sent again. */
import { EventKind, type Failure } from "@taskmesh/proto";
import { attemptFailed } from "./attempts.js";
import { evaluatedFallback } from "./catch.js";
import { resumeChild } from "./children.js";
import { isIdleUndo } from "./compensation.js";
import { attemptLimitMs, dueOf } from "./deadlines.js";
import { escalate } from "./escalations.js";
import { leaveHold, noteOperation } from "./hold.js";
import { cancelItems, itemsEvaluated, onItem, redispatchItems, wakeItems } from "./items.js";
import type { ChainPlan } from "./plan.js";
import { answerOfCaller } from "./responds.js";
import { askChild, endCancelled, endRun, failStep, finishIfOver, forgetLease, stopStep } from "./run-end.js";
import type { Advance, Context, Evaluation, RunEvent } from "./run-event.js";
import {
  cancelGraceMs,
  inFlight,
  isEvaluating,
  isFinal,
  isHeld,
  isOver,
  type RunState,
  RunStatus,
  StepStatus,
} from "./run-state.js";
import { startHeldBack } from "./run-time.js";
import { stepIndex } from "./step-index.js";
import { offerStep, skipStep, startReady, startWait } from "./step-start.js";
import { beginTurn, changed, editStep, meshFailure, move, record, type Turn, unchanged } from "./turn.js";
import { endWait } from "./waits.js";

/** Starts that may never arrive are sent again under new leases; evaluations that may never answer are asked for again. */
export function redispatch(turn: Turn, event: Extract<RunEvent, { kind: "redispatch" }>): Advance {
  const { run, plan } = turn;
  const { report, beforeMs = Number.POSITIVE_INFINITY, why } = event;
  let touched = false;
  plan.steps.forEach((stepPlan, index) => {
    const step = run.steps[index]!;
    if (isFinal(run.status) || (report && report.stepId !== stepPlan.id)) return;
    if (step.each) {
      if (redispatchItems(turn, index, event)) touched = true;
      return;
    }
    if (stepPlan.child) resumeChild(turn, stepPlan, event);
    if (isEvaluating(step)) turn.effects.push({ kind: "evaluate", stepId: stepPlan.id });
    if (step.status !== StepStatus.STEP_STATUS_DISPATCHED || run.cancel) return;
    if (report ? report.lease !== step.lease : step.attemptAtMs >= beforeMs) return;
    forgetLease(turn, index);
    touched = true;
    record(turn, EventKind.EVENT_KIND_STEP_DISPATCHED, { step: index, attempt: step.attempt, note: why });
    offerStep(turn, stepPlan);
  });
  if (run.evaluatingOutput) turn.effects.push({ kind: "evaluate", stepId: "" });
  if (run.parent && answerOfCaller(run) && !event.startsOnly) turn.effects.push({ kind: "tell-parent" });
  return touched || turn.effects.length > 0 ? changed(turn) : unchanged(run, "not-due");
}

export function admit(turn: Turn, index: number, item?: number): Advance {
  const step = turn.run.steps[index];
  if (item !== undefined && step?.each && !turn.at) return onItem(turn, index, item, () => admit(turn, index));
  if (!step) return unchanged(turn.run, "unknown-step");
  const refused = turn.run.cancel || isHeld(turn.run.status);
  if (step.status !== StepStatus.STEP_STATUS_READY || refused) return unchanged(turn.run, "not-ready");
  const plan = turn.plan.steps[index]!;
  const before = turn.records.length;
  const sent = offerStep(turn, plan, true);
  return sent || turn.records.length > before ? changed(turn) : unchanged(turn.run, "no-room");
}

export function evaluated(turn: Turn, stepId: string, evaluation: Evaluation): Advance {
  if (stepId === "") return evaluatedOutput(turn, evaluation);
  const index = stepIndex(turn.plan, stepId);
  if (index === undefined) return unchanged(turn.run, "unknown-step");
  const opened = turn.plan.steps[index]!.each && itemsEvaluated(turn, index, evaluation);
  if (opened) return opened;
  if (!isEvaluating(turn.run.steps[index]!) || turn.run.cancel) return unchanged(turn.run, "not-ready");
  if (turn.run.catching?.[index]) return evaluatedFallback(turn, index, evaluation);
  const plan = turn.plan.steps[index]!;
  if (evaluation.kind === "failed") {
    failStep(turn, index, evaluation.failure);
    return changed(turn);
  }
  record(turn, EventKind.EVENT_KIND_STEP_READY, { step: index });
  if (evaluation.kind === "skip") {
    skipStep(turn, index);
    startReady(turn, plan.neededBy);
    return changed(turn);
  }
  if (evaluation.kind === "items") return unchanged(turn.run, "not-ready");
  editStep(turn, index).input = evaluation.value;
  if (!plan.wait) offerStep(turn, plan);
  else if (startWait(turn, plan) === "over") startReady(turn, plan.neededBy);
  return changed(turn);
}

function evaluatedOutput(turn: Turn, evaluation: Evaluation): Advance {
  if (!turn.run.evaluatingOutput) return unchanged(turn.run, "not-ready");
  if (evaluation.kind === "value") endRun(turn, RunStatus.RUN_STATUS_SUCCEEDED, undefined, evaluation.value);
  else {
    const failure =
      evaluation.kind === "failed"
        ? evaluation.failure
        : meshFailure("EXPRESSION_FAILED", "the output has no value", false);
    endRun(turn, RunStatus.RUN_STATUS_FAILED, failure);
  }
  return changed(turn);
}

/** Nothing new starts from here on; attempts under way may clean up for a while. */
export function cancel(
  run: RunState,
  plan: ChainPlan,
  event: Extract<RunEvent, { kind: "cancel" }>,
  context: Context,
): Advance {
  if (event.id !== undefined && run.operation === event.id) return unchanged(run, "applied");
  if (run.cancel || run.closing || run.undo) return unchanged(run, "cancelling");
  const { reason, by } = event;
  const turn = beginTurn(run, plan, context);
  noteOperation(turn, event);
  cancelNow(turn, { note: reason, ...(by ? { by } : {}) });
  return changed(turn);
}

/** Cancels a run that is not being cancelled; `note` says why. */
export function cancelNow(turn: Turn, asked: { note: string; by?: string }): void {
  const { plan } = turn;
  leaveHold(turn);
  turn.run.cancel = { reason: asked.note, graceUntilMs: turn.nowMs + cancelGraceMs };
  turn.run.evaluatingOutput = false;
  record(turn, EventKind.EVENT_KIND_CANCEL_REQUESTED, asked);
  turn.run.steps.forEach((step, index) => {
    const abandoned = plan.steps[index]!.child?.onParentClose === "abandon";
    if (isOver(step.status) || isIdleUndo(plan.steps[index]!, step)) return;
    if (step.each) {
      cancelItems(turn, index);
      return;
    }
    if (inFlight(step.status) && !abandoned) {
      askChild(turn, index);
      return;
    }
    const stopped = stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED);
    move(turn, index, stopped.status, stopped.attempt);
  });
  finishIfOver(turn);
}

/** Looks for everything that is due. Always counts as a change, so that the next wake-up is stored. */
export function wake(turn: Turn): Advance {
  const { run, plan, nowMs } = turn;
  // A cancel that was accepted decides how the run ends, also when its deadline comes first.
  if (run.undo) for (const step of plan.steps) wakeStep(turn, step.index);
  else if (run.closing) {
    if (run.deadlineAtMs <= nowMs) endRun(turn, run.closing.status, run.closing.failure);
  } else if (run.cancel && Math.min(run.cancel.graceUntilMs, run.deadlineAtMs) <= nowMs) endCancelled(turn);
  else if (run.broken && run.broken.untilMs <= nowMs) endRun(turn, RunStatus.RUN_STATUS_FAILED, run.failure);
  else if (isOverdue(run, nowMs)) expire(turn);
  else if (!run.cancel) {
    if (run.startAtMs !== undefined && run.startAtMs <= nowMs && !isHeld(run.status)) startHeldBack(turn);
    for (const step of plan.steps) wakeStep(turn, step.index);
  }
  return changed(turn, true);
}

/** Whether nothing but its deadline decides any more how the run ends. */
const isOverdue = (run: RunState, nowMs: number): boolean =>
  run.deadlineAtMs <= nowMs && !run.undo && !run.closing && !run.cancel && !run.broken;

function expire(turn: Turn): void {
  const { deadlineAtMs, acceptedAtMs } = turn.run;
  const message = `the run did not end within ${deadlineAtMs - acceptedAtMs} ms`;
  endRun(turn, RunStatus.RUN_STATUS_EXPIRED, meshFailure("RUN_EXPIRED", message, false));
}

/**
 * The deadline's verdict on a run whose attempt fails when it is over: a handler throws because the deadline aborted it, and its report may be
 * here before the sweeper is. Undefined: the report counts for itself, as a result does at any time.
 */
export function failedTooLate(
  run: RunState,
  plan: ChainPlan,
  event: Extract<RunEvent, { kind: "complete" }>,
  context: Context,
): Advance | undefined {
  if (event.outcome.kind === "output" || !isOverdue(run, context.nowMs)) return undefined;
  const turn = beginTurn(run, plan, context);
  expire(turn);
  return changed(turn, true);
}

function wakeStep(turn: Turn, index: number): void {
  if (isFinal(turn.run.status)) return;
  const plan = turn.plan.steps[index]!;
  const step = turn.run.steps[index]!;
  if (step.each) return wakeItems(turn, index, () => wakeStep(turn, index));
  // Its limits have done what they can; the evaluation has one of its own.
  if (turn.run.catching?.[index]) return;
  if (isHeld(turn.run.status) && !inFlight(step.status)) return;
  const due = dueOf(step, plan, turn.nowMs);
  const expired = StepStatus.STEP_STATUS_EXPIRED;
  switch (due) {
    case undefined:
      return;
    case "schedule-to-close":
      return failStep(
        turn,
        index,
        timeout("SCHEDULE_TO_CLOSE_TIMEOUT", "the step did not end", plan.scheduleToCloseMs),
        expired,
      );
    case "schedule-to-start":
      return failStep(
        turn,
        index,
        timeout("SCHEDULE_TO_START_TIMEOUT", "no worker started the step", plan.scheduleToStartMs),
        expired,
      );
    case "start-to-close": {
      const failure = {
        ...timeout("START_TO_CLOSE_TIMEOUT", "the attempt did not end", attemptLimitMs(step, plan)),
        retryable: true,
      };
      attemptFailed(turn, index, failure, { session: step.session }, EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT);
      return;
    }
    case "retry":
      record(turn, EventKind.EVENT_KIND_STEP_READY, { step: index, attempt: step.attempt });
      editStep(turn, index).attemptAtMs = turn.nowMs;
      offerStep(turn, plan);
      return;
    case "escalate":
      return escalate(turn, plan);
    case "wait":
      endWait(turn, plan);
      startReady(turn, plan.neededBy);
  }
}

const timeout = (reason: string, what: string, limitMs = 0): Failure =>
  meshFailure(reason, `${what} within ${limitMs} ms`, false);

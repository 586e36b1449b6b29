/** What workers report of attempts, and what becomes of attempts that nobody reports any more. Only the current lease is heard (E2). */
import { EventKind, type Failure } from "@taskmesh/proto";
import { noteDone } from "./compensation.js";
import { attemptLimitMs } from "./deadlines.js";
import { reportItem } from "./items.js";
import type { ChainPlan, Value } from "./plan.js";
import { nextRetryAtMs } from "./retry.js";
import { endRound } from "./rounds.js";
import { failStep, finishIfOver, forgetLease, releaseLease, stopStep } from "./run-end.js";
import type { Advance, Context, Report, RunEvent } from "./run-event.js";
import { inFlight, lateMax, lostMax, type RunState, StepStatus } from "./run-state.js";
import { stepIndex } from "./step-index.js";
import { inputOf } from "./step-input.js";
import { giveLease, offerStep, resumeOf, startReady } from "./step-start.js";
import { beginTurn, changed, editStep, meshFailure, move, record, type Turn, unchanged } from "./turn.js";

type ReportEvent = Extract<RunEvent, { report: Report; kind: "complete" | "bind" | "lose" | "claim" }>;

/** Only the holder of the current lease is heard (E2). */
export function onReport(run: RunState, plan: ChainPlan, event: ReportEvent, context: Context): Advance {
  const index = stepIndex(plan, event.report.stepId);
  if (index === undefined) return unchanged(run, "unknown-step");
  // No worker holds a child's lease, whoever knows it: it is no secret.
  if (plan.steps[index]!.child) return unchanged(run, "stale-lease");
  if (plan.steps[index]!.each) {
    const { item } = event.report;
    return reportItem(run, plan, { index, item, context }, (turn) => apply(turn, event, index));
  }
  if (event.report.item !== 0) return unchanged(run, "unknown-step");
  const step = run.steps[index]!;
  if (event.report.lease !== step.lease || !inFlight(step.status)) {
    return refuseReport(() => beginTurn(run, plan, context), run, event, index);
  }
  return act(beginTurn(run, plan, context), event, index);
}

/** The same within a turn: for an item that stands in its step's place. */
function apply(turn: Turn, event: ReportEvent, index: number): Advance {
  const step = turn.run.steps[index]!;
  const current = event.report.lease === step.lease && inFlight(step.status);
  return current ? act(turn, event, index) : refuseReport(() => turn, turn.run, event, index);
}

function act(turn: Turn, event: ReportEvent, index: number): Advance {
  switch (event.kind) {
    case "complete":
      return complete(turn, index, event);
    case "bind":
      return bind(turn, index, event);
    case "lose":
      return lose(turn, index, event.why);
    case "claim":
      return claim(turn, index, event);
  }
}

/** A completion of a superseded attempt is kept as a late one; everything else that is stale leaves no trace. */
function refuseReport(begin: () => Turn, run: RunState, event: ReportEvent, index: number): Advance {
  const step = run.steps[index]!;
  const { lease, attempt } = event.report;
  if (lease === step.lease) return unchanged(run, "duplicate");
  const known = lease !== "" && attempt >= 1 && attempt <= step.attempt;
  if (event.kind !== "complete" || !known || step.late >= lateMax) return unchanged(run, "stale-lease");
  const turn = begin();
  editStep(turn, index).late += 1;
  const note = event.outcome.kind;
  record(turn, EventKind.EVENT_KIND_COMPLETION_LATE, { step: index, attempt, session: event.session, note });
  return changed(turn);
}

function complete(turn: Turn, index: number, event: Extract<RunEvent, { kind: "complete" }>): Advance {
  const { outcome, session, executionMs } = event;
  const about = { session, executionMs, waitedMs: waitedMs(turn, index, executionMs) };
  if (event.checkpointed) editStep(turn, index).checkpointed = true;
  if (turn.run.cancel) return completeCancelled(turn, index, about);
  if (outcome.kind === "cancelled") {
    const message = outcome.message || "the worker stopped the attempt";
    return attemptFailed(turn, index, meshFailure("DRAINED", message, true), about);
  }
  if (outcome.kind === "failure") return attemptFailed(turn, index, outcome.failure, about);
  const wrong = outcome.value.bytes && turn.plan.steps[index]!.checkOutput(outcome.value.bytes);
  if (wrong !== undefined) return attemptFailed(turn, index, meshFailure("OUTPUT_INVALID", wrong, false), about);
  return attemptSucceeded(turn, index, outcome.value, about);
}

type About = { session?: string; executionMs?: number; waitedMs?: number };

/** From when the attempt could run to its start: as a beat told it, else counted back from now. */
function waitedMs(turn: Turn, index: number, executionMs: number): number {
  const { status, startedAtMs, attemptAtMs } = turn.run.steps[index]!;
  const startAtMs = status === StepStatus.STEP_STATUS_RUNNING ? startedAtMs : turn.nowMs - executionMs;
  return Math.max(0, startAtMs - attemptAtMs);
}

/** The attempt's output is the step's; the steps that need it start. */
export function attemptSucceeded(turn: Turn, index: number, output: Value, about: About): Advance {
  const { repeat } = turn.plan.steps[index]!;
  const round = repeat ? endRound(turn, index, repeat, output, about) : "over";
  if (round === "again") return changed(turn);
  if (round !== "over") return attemptFailed(turn, index, round, about);
  releaseLease(turn, index);
  const step = editStep(turn, index);
  step.status = StepStatus.STEP_STATUS_SUCCEEDED;
  step.endedAtMs = turn.nowMs;
  const { attempt, key } = step;
  if (turn.at) turn.at.outputBytes = output.sizeBytes;
  else {
    turn.run.outputs[index] = output;
    noteDone(turn, index);
  }
  const kind = turn.at ? EventKind.EVENT_KIND_ITEM_SUCCEEDED : EventKind.EVENT_KIND_STEP_SUCCEEDED;
  const note = key === undefined ? {} : { note: key };
  record(turn, kind, { step: index, attempt, payload: output, ...note, ...about });
  startReady(turn, turn.plan.steps[index]!.neededBy);
  return changed(turn);
}

/** Whatever the attempt says after a cancel, no success is recorded (E6). */
export function completeCancelled(turn: Turn, index: number, about: About): Advance {
  const step = stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED);
  record(turn, EventKind.EVENT_KIND_STEP_CANCELLED, { step: index, attempt: step.attempt, ...about });
  finishIfOver(turn);
  return changed(turn);
}

/** Retries, or ends the step. */
export function attemptFailed(
  turn: Turn,
  index: number,
  failure: Failure,
  about: About,
  kind: EventKind = EventKind.EVENT_KIND_ATTEMPT_FAILED,
): Advance {
  const plan = turn.plan.steps[index]!;
  if (kind === EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT) forgetLease(turn, index);
  else releaseLease(turn, index);
  const step = editStep(turn, index);
  step.failures += 1;
  step.status = StepStatus.STEP_STATUS_RETRYING;
  record(turn, kind, { step: index, attempt: step.attempt, failure, ...about });
  const at = { failures: step.failures, readyAtMs: step.readyAtMs, nowMs: turn.nowMs, random: turn.context.random() };
  const retryAtMs = nextRetryAtMs(plan.retry, failure, at);
  if (retryAtMs === undefined) {
    failStep(turn, index, failure);
  } else {
    step.retryAtMs = retryAtMs;
    move(turn, index, step.status, step.attempt, retryAtMs);
  }
  return changed(turn);
}

function bind(turn: Turn, index: number, event: Extract<RunEvent, { kind: "bind" }>): Advance {
  const plan = turn.plan.steps[index]!;
  const before = turn.run.steps[index]!;
  if (plan.heartbeatMs !== undefined && event.sinceReportMs > plan.heartbeatMs && !turn.run.cancel) {
    const message = `the handler reported nothing for ${event.sinceReportMs} ms; its limit is ${plan.heartbeatMs} ms`;
    const failure = meshFailure("HEARTBEAT_TIMEOUT", message, true);
    return attemptFailed(turn, index, failure, { session: event.session }, EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT);
  }
  const isNew = event.checkpointed === true && before.checkpointed !== true;
  if (isNew) editStep(turn, index).checkpointed = true;
  const again = before.status === StepStatus.STEP_STATUS_RUNNING && before.session === event.session;
  if (!again) hold(turn, index, event.session, Math.min(turn.nowMs, event.startedAtMs || turn.nowMs));
  const isLonger = extend(turn, index, event.startToCloseMs);
  if (!again || isNew || isLonger) return changed(turn);
  return unchanged(turn.run, turn.run.cancel ? "cancelling" : "already-bound");
}

/** Gives the attempt the time that its handler asks for; answers whether that is more than it had. The later wake-up is the sweeper's to find. */
function extend(turn: Turn, index: number, askedMs = 0): boolean {
  if (askedMs <= attemptLimitMs(turn.run.steps[index]!, turn.plan.steps[index]!)) return false;
  editStep(turn, index).extendedMs = askedMs;
  return true;
}

/** Records that a session runs the step's current lease. */
function hold(turn: Turn, index: number, session: string, startedAtMs: number): void {
  const step = editStep(turn, index);
  step.status = StepStatus.STEP_STATUS_RUNNING;
  step.session = session;
  // Whoever runs it now counts from a start of its own.
  if (step.extendedMs !== undefined) delete step.extendedMs;
  step.startedAtMs = Math.max(startedAtMs, step.attemptAtMs);
  const { attempt, lease } = step;
  turn.effects.push({
    kind: "bind",
    step: turn.plan.steps[index]!,
    attempt,
    lease,
    session,
    startedAtMs: step.startedAtMs,
  });
  record(turn, EventKind.EVENT_KIND_STEP_BOUND, { step: index, attempt, session });
  move(turn, index, step.status, attempt);
}

/** The attempt is gone with its worker: the next one starts at once, unless too many were lost. */
function lose(turn: Turn, index: number, why: string): Advance {
  const step = loseAttempt(turn, index, why);
  if (turn.run.cancel) return completeCancelled(turn, index, {});
  if (step.lost > lostMax) failStep(turn, index, meshFailure("ATTEMPTS_LOST", lostMessage(step.lost), false));
  else offerStep(turn, turn.plan.steps[index]!);
  return changed(turn);
}

function loseAttempt(turn: Turn, index: number, why: string) {
  forgetLease(turn, index);
  const step = editStep(turn, index);
  step.lost += 1;
  // Not in flight any more; a later report of the old lease finds it superseded or the step over.
  step.status = StepStatus.STEP_STATUS_RETRYING;
  step.retryAtMs = turn.nowMs;
  record(turn, EventKind.EVENT_KIND_ATTEMPT_LOST, { step: index, attempt: step.attempt, note: why });
  return step;
}

const lostMessage = (lost: number): string =>
  `${lost} attempts ended with the loss of their worker; at most ${lostMax} may`;

/**
 * A delivered start asks to run. An exclusive action claims its first delivery under the lease that it has; otherwise the start was
 * delivered before, whoever had it may have run it, and the claimer gets a new attempt, bound to it from the start.
 */
function claim(turn: Turn, index: number, event: Extract<RunEvent, { kind: "claim" }>): Advance {
  const plan = turn.plan.steps[index]!;
  if (turn.run.steps[index]!.status === StepStatus.STEP_STATUS_RUNNING) return unchanged(turn.run, "already-bound");
  if (turn.run.cancel) return unchanged(turn.run, "cancelling");
  const input = inputOf(turn, plan);
  if (typeof input === "string") return changed(turn);
  if (plan.exclusive) {
    const { attempt, lease } = turn.run.steps[index]!;
    turn.effects.push({
      kind: "dispatch",
      runMethod: turn.plan.method,
      step: plan,
      attempt,
      lease,
      input,
      claimed: true,
      ...resumeOf(turn.run.steps[index]!),
    });
    hold(turn, index, event.session, turn.nowMs);
    return changed(turn);
  }
  const step = loseAttempt(turn, index, "its start was delivered again");
  if (step.lost > lostMax) {
    failStep(turn, index, meshFailure("ATTEMPTS_LOST", lostMessage(step.lost), false));
    return changed(turn);
  }
  giveLease(turn, plan, editStep(turn, index), turn.context.lease(), input, true);
  hold(turn, index, event.session, turn.nowMs);
  return changed(turn);
}

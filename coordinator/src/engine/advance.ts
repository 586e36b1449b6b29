/**
 * The engine: what an event makes of a run. Pure and synchronous; see run-state.ts for the picture and the invariants E1 to E6.
 *
 * The caller stores the changed run with its records in one transaction, and only then performs the effects.
 */
import { EventKind, type Failure } from "@taskmesh/proto";
import { dueOf } from "./deadlines.js";
import type { ChainPlan, Value } from "./plan.js";
import { nextRetryAtMs } from "./retry.js";
import { endCancelled, endRun, failStep, finishIfOver, releaseLease, stopStep } from "./run-end.js";
import type { Advance, Context, Evaluation, Report, RunEvent } from "./run-event.js";
import {
  cancelGraceMs,
  inFlight,
  isFinal,
  isOver,
  lateMax,
  lostMax,
  pendingStep,
  type RunState,
  RunStatus,
  StepStatus,
} from "./run-state.js";
import { giveLease, inputOf, offerStep, skipStep, startReady } from "./step-start.js";
import { beginTurn, changed, editStep, meshFailure, move, record, type Turn, unchanged } from "./turn.js";

/** What a new run begins with. */
export interface Acceptance {
  id: string;
  namespaceId: number;
  namespace: string;
  input: Value;
  labels: Readonly<Record<string, string>>;
  priority: number;
  timeoutMs?: number;
  trace?: Readonly<Record<string, string>>;
}

/** Accepts a run: its first steps start in the same turn. */
export function accept(plan: ChainPlan, acceptance: Acceptance, context: Context): Advance {
  const { timeoutMs, ...given } = acceptance;
  const run: RunState = {
    ...given,
    acceptedAtMs: context.nowMs,
    deadlineAtMs: context.nowMs + (timeoutMs ?? plan.runTimeoutMs),
    status: RunStatus.RUN_STATUS_RUNNING,
    version: 0,
    lastSeq: 0,
    nowMs: context.nowMs,
    wakeupAtMs: 0,
    endedAtMs: 0,
    steps: plan.steps.map(pendingStep),
    evaluatingOutput: false,
    outputs: plan.steps.map(() => undefined),
  };
  const turn = beginTurn(run, plan, context);
  record(turn, EventKind.EVENT_KIND_RUN_ACCEPTED, { payload: acceptance.input });
  startReady(turn, plan.steps.keys());
  return changed(turn, true);
}

/** The run after `event`, with what must be stored and done; `unchanged` with the reason where the run's state refuses the event. */
export function advance(run: RunState, plan: ChainPlan, event: RunEvent, context: Context): Advance {
  if (isFinal(run.status)) return unchanged(run, "run-ended"); // E4
  switch (event.kind) {
    case "complete":
    case "bind":
    case "lose":
    case "claim":
      return onReport(run, plan, event, context);
    case "redispatch":
      return redispatch(beginTurn(run, plan, context), event);
    case "admit":
      return admit(beginTurn(run, plan, context), event.step);
    case "evaluated":
      return evaluated(beginTurn(run, plan, context), event.stepId, event.evaluation);
    case "cancel":
      return cancel(run, plan, event.reason, context);
    case "wake":
      return wake(beginTurn(run, plan, context));
  }
}

type ReportEvent = Extract<RunEvent, { report: Report; kind: "complete" | "bind" | "lose" | "claim" }>;

/** Only the holder of the current lease is heard (E2). */
function onReport(run: RunState, plan: ChainPlan, event: ReportEvent, context: Context): Advance {
  const index = stepIndex(plan, event.report.stepId);
  if (index === undefined || event.report.item !== 0) return unchanged(run, "unknown-step");
  const step = run.steps[index]!;
  if (event.report.lease !== step.lease || !inFlight(step.status)) {
    return refuseReport(run, plan, event, index, context);
  }
  const turn = beginTurn(run, plan, context);
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
function refuseReport(run: RunState, plan: ChainPlan, event: ReportEvent, index: number, context: Context): Advance {
  const step = run.steps[index]!;
  const { lease, attempt } = event.report;
  if (lease === step.lease) return unchanged(run, "duplicate");
  const known = lease !== "" && attempt >= 1 && attempt <= step.attempt;
  if (event.kind !== "complete" || !known || step.late >= lateMax) return unchanged(run, "stale-lease");
  const turn = beginTurn(run, plan, context);
  editStep(turn, index).late += 1;
  const note = event.outcome.kind;
  record(turn, EventKind.EVENT_KIND_COMPLETION_LATE, { step: index, attempt, session: event.session, note });
  return changed(turn);
}

function complete(turn: Turn, index: number, event: Extract<RunEvent, { kind: "complete" }>): Advance {
  const { outcome, session, executionMs } = event;
  const about = { session, executionMs };
  if (turn.run.cancel) return completeCancelled(turn, index, about);
  if (outcome.kind === "cancelled") {
    const message = outcome.message || "the worker stopped the attempt";
    return attemptFailed(turn, index, meshFailure("DRAINED", message, true), about);
  }
  if (outcome.kind === "failure") return attemptFailed(turn, index, outcome.failure, about);
  const wrong = outcome.value.bytes && turn.plan.steps[index]!.checkOutput(outcome.value.bytes);
  if (wrong !== undefined) return attemptFailed(turn, index, meshFailure("OUTPUT_INVALID", wrong, false), about);
  releaseLease(turn, index);
  const step = editStep(turn, index);
  step.status = StepStatus.STEP_STATUS_SUCCEEDED;
  step.endedAtMs = turn.nowMs;
  turn.run.outputs[index] = outcome.value;
  record(turn, EventKind.EVENT_KIND_STEP_SUCCEEDED, {
    step: index,
    attempt: step.attempt,
    payload: outcome.value,
    ...about,
  });
  startReady(turn, turn.plan.steps[index]!.neededBy);
  return changed(turn);
}

type About = { session?: string; executionMs?: number };

/** Whatever the attempt says after a cancel, no success is recorded (E6). */
function completeCancelled(turn: Turn, index: number, about: About): Advance {
  const step = stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED);
  record(turn, EventKind.EVENT_KIND_STEP_CANCELLED, { step: index, attempt: step.attempt, ...about });
  finishIfOver(turn);
  return changed(turn);
}

/** Retries, or ends the step. */
function attemptFailed(
  turn: Turn,
  index: number,
  failure: Failure,
  about: About,
  kind: EventKind = EventKind.EVENT_KIND_ATTEMPT_FAILED,
): Advance {
  const plan = turn.plan.steps[index]!;
  releaseLease(turn, index);
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
  const again = before.status === StepStatus.STEP_STATUS_RUNNING && before.session === event.session;
  if (again) return unchanged(turn.run, turn.run.cancel ? "cancelling" : "already-bound");
  hold(turn, index, event.session, Math.min(turn.nowMs, event.startedAtMs || turn.nowMs));
  return changed(turn);
}

/** Records that a session runs the step's current lease. */
function hold(turn: Turn, index: number, session: string, startedAtMs: number): void {
  const step = editStep(turn, index);
  step.status = StepStatus.STEP_STATUS_RUNNING;
  step.session = session;
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
  releaseLease(turn, index);
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

/** Starts that may never arrive are sent again under new leases; evaluations that may never answer are asked for again. */
function redispatch(turn: Turn, event: Extract<RunEvent, { kind: "redispatch" }>): Advance {
  const { run, plan } = turn;
  const { report, beforeMs = Number.POSITIVE_INFINITY, why } = event;
  let touched = false;
  plan.steps.forEach((stepPlan, index) => {
    const step = run.steps[index]!;
    if (isFinal(run.status) || (report && report.stepId !== stepPlan.id)) return;
    if (step.status === StepStatus.STEP_STATUS_WAITING) turn.effects.push({ kind: "evaluate", stepId: stepPlan.id });
    if (step.status !== StepStatus.STEP_STATUS_DISPATCHED || run.cancel) return;
    if (report ? report.lease !== step.lease : step.attemptAtMs >= beforeMs) return;
    releaseLease(turn, index);
    touched = true;
    record(turn, EventKind.EVENT_KIND_STEP_DISPATCHED, { step: index, attempt: step.attempt, note: why });
    offerStep(turn, stepPlan);
  });
  if (run.evaluatingOutput) turn.effects.push({ kind: "evaluate", stepId: "" });
  return touched || turn.effects.length > 0 ? changed(turn) : unchanged(run, "not-due");
}

function admit(turn: Turn, index: number): Advance {
  const step = turn.run.steps[index];
  if (!step) return unchanged(turn.run, "unknown-step");
  if (step.status !== StepStatus.STEP_STATUS_READY || turn.run.cancel) return unchanged(turn.run, "not-ready");
  const plan = turn.plan.steps[index]!;
  const before = turn.records.length;
  const sent = offerStep(turn, plan, true);
  return sent || turn.records.length > before ? changed(turn) : unchanged(turn.run, "no-room");
}

function evaluated(turn: Turn, stepId: string, evaluation: Evaluation): Advance {
  if (stepId === "") return evaluatedOutput(turn, evaluation);
  const index = stepIndex(turn.plan, stepId);
  if (index === undefined) return unchanged(turn.run, "unknown-step");
  const waiting = turn.run.steps[index]!.status === StepStatus.STEP_STATUS_WAITING;
  if (!waiting || turn.run.cancel) return unchanged(turn.run, "not-ready");
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
  editStep(turn, index).input = evaluation.value;
  offerStep(turn, plan);
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
function cancel(run: RunState, plan: ChainPlan, reason: string, context: Context): Advance {
  if (run.cancel) return unchanged(run, "cancelling");
  const turn = beginTurn(run, plan, context);
  turn.run.cancel = { reason, graceUntilMs: turn.nowMs + cancelGraceMs };
  turn.run.evaluatingOutput = false;
  record(turn, EventKind.EVENT_KIND_CANCEL_REQUESTED, { note: reason });
  turn.run.steps.forEach((step, index) => {
    if (isOver(step.status) || inFlight(step.status)) return;
    const stopped = stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED);
    move(turn, index, stopped.status, stopped.attempt);
  });
  finishIfOver(turn);
  return changed(turn);
}

/** Looks for everything that is due. Always counts as a change, so that the next wake-up is stored. */
function wake(turn: Turn): Advance {
  const { run, plan, nowMs } = turn;
  if (run.cancel && run.cancel.graceUntilMs <= nowMs) endCancelled(turn);
  else if (run.deadlineAtMs <= nowMs) {
    const message = `the run did not end within ${run.deadlineAtMs - run.acceptedAtMs} ms`;
    endRun(turn, RunStatus.RUN_STATUS_EXPIRED, meshFailure("RUN_EXPIRED", message, false));
  } else if (!run.cancel) for (const step of plan.steps) wakeStep(turn, step.index);
  return changed(turn, true);
}

function wakeStep(turn: Turn, index: number): void {
  if (isFinal(turn.run.status)) return;
  const plan = turn.plan.steps[index]!;
  const step = turn.run.steps[index]!;
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
        ...timeout("START_TO_CLOSE_TIMEOUT", "the attempt did not end", plan.startToCloseMs),
        retryable: true,
      };
      attemptFailed(turn, index, failure, { session: step.session }, EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT);
      return;
    }
    case "retry":
      record(turn, EventKind.EVENT_KIND_STEP_READY, { step: index, attempt: step.attempt });
      editStep(turn, index).attemptAtMs = turn.nowMs;
      offerStep(turn, plan);
  }
}

const timeout = (reason: string, what: string, limitMs = 0): Failure =>
  meshFailure(reason, `${what} within ${limitMs} ms`, false);

const indexes = new WeakMap<ChainPlan, Map<string, number>>();

/** Where a step stands in its plan. */
export function stepIndex(plan: ChainPlan, id: string): number | undefined {
  let known = indexes.get(plan);
  if (!known) {
    known = new Map(plan.steps.map((step) => [step.id, step.index]));
    indexes.set(plan, known);
  }
  return known.get(id);
}

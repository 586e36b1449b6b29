/**
 * Undoing what a run has done, when it does not succeed (`compensate`).
 *
 *   FAILED, EXPIRED or CANCELLED is decided ─► every other step is let go ─► undo ─► undo ─► … ─► the run ends so
 *                                                                             └── fails: kept beside the run's failure, the next goes on
 *
 * An undo is a step behind the chain's own (`undoes`), which nothing but this file begins: its attempts, retries and limits are those of any step.
 *
 * U1. `done` holds the steps that succeeded and have an undo, in the order in which they did; nothing else is undone.
 * U2. Undos run one at a time, the newest of `done` first; each ends once, and none is left out unless the run is terminated.
 * U3. What the run ends with is decided before the first undo and is not changed by any.
 * U4. The run's deadline does not bound its undos; each has a schedule_to_close of its own.
 * U5. Of a fan-out every item that succeeded is undone, whatever became of the step: its undo goes over them, the newest first, one at a time.
 */
import { EventKind, type Failure } from "@taskmesh/proto";
import { leaveHold } from "./hold.js";
import type { StepPlan } from "./plan.js";
import { endNow, stopStep } from "./run-end.js";
import { isOver, type RunState, RunStatus, type StepState, StepStatus } from "./run-state.js";
import { evaluateLater, offerStep } from "./step-start.js";
import { editStep, meshFailure, move, record, type Turn } from "./turn.js";

/** Whether the step is an undo that nobody has asked for. */
export const isIdleUndo = (plan: StepPlan, step: StepState): boolean =>
  plan.undoes !== undefined && step.status === StepStatus.STEP_STATUS_PENDING;

/** A step has succeeded: remembers it, if it can be undone (U1). */
export function noteDone(turn: Turn, index: number): void {
  const { undo, each } = turn.plan.steps[index]!;
  if (each && turn.run.steps[index]!.each?.succeeded === 0) return;
  if (undo !== undefined) turn.run.done = [...(turn.run.done ?? []), index];
}

/** Begins to undo, if the run ends badly and has done anything that can be undone; answers whether that is so. */
export function beginUndos(turn: Turn, status: RunStatus, failure: Failure | undefined): boolean {
  const { run } = turn;
  if (run.undo) return true;
  if (status === RunStatus.RUN_STATUS_SUCCEEDED || (!run.done?.length && partlyDone(turn).length === 0)) return false;
  record(turn, EventKind.EVENT_KIND_RUN_COMPENSATING, { runStatus: status, ...(failure ? { failure } : {}) });
  leaveHold(turn);
  letGo(turn);
  const endedAt = (index: number): number => run.steps[index]!.endedAtMs;
  run.done = [...(run.done ?? []), ...partlyDone(turn)].sort((a, b) => endedAt(a) - endedAt(b));
  delete run.closing;
  // Its word is kept in `undo`: from here on attempts are to run again.
  delete run.cancel;
  delete run.catching;
  run.evaluatingOutput = false;
  run.undo = { status, ...(failure ? { failure } : {}), failures: [] };
  goOnUndoing(turn);
  return true;
}

/** Fan-outs that did not succeed as a whole, and of which items have: those have done something (U5). */
const partlyDone = ({ run, plan }: Turn): number[] =>
  plan.steps.flatMap(({ index, undo }) => {
    const { each, status } = run.steps[index]!;
    // One that succeeded is in `done`, unless another run did it.
    if (status === StepStatus.STEP_STATUS_SUCCEEDED) return [];
    return undo !== undefined && each && each.succeeded > 0 && !run.done?.includes(index) ? [index] : [];
  });

function letGo(turn: Turn): void {
  turn.run.steps.forEach((step, index) => {
    if (isOver(step.status) || turn.plan.steps[index]!.undoes !== undefined) return;
    const stopped = stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED);
    move(turn, index, stopped.status, stopped.attempt);
  });
}

/** Begins the next undo if none is under way, and ends the run behind the last one. */
export function goOnUndoing(turn: Turn): void {
  const { run, plan } = turn;
  if (turn.undoing || !run.undo) return;
  turn.undoing = true;
  for (const index of (run.done ?? []).toReversed()) {
    const undo = plan.steps[plan.steps[index]!.undo!]!;
    if (isIdleUndo(undo, run.steps[undo.index]!)) begin(turn, undo);
    if (isOver(run.steps[undo.index]!.status)) continue;
    turn.undoing = false;
    return;
  }
  turn.undoing = false;
  endNow(turn, run.undo.status, run.undo.failure);
}

function begin(turn: Turn, undo: StepPlan): void {
  const step = editStep(turn, undo.index);
  step.readyAtMs = turn.nowMs;
  step.attemptAtMs = turn.nowMs;
  if (undo.each) evaluateLater(turn, undo, step);
  else offerStep(turn, undo);
}

/** An undo has failed for good. */
export function failUndo(turn: Turn, index: number, failure: Failure, status: StepStatus): void {
  const { attempt } = stopStep(turn, index, status);
  const expired = status === StepStatus.STEP_STATUS_EXPIRED;
  const kind = expired ? EventKind.EVENT_KIND_STEP_EXPIRED : EventKind.EVENT_KIND_STEP_FAILED;
  record(turn, kind, { step: index, attempt, failure });
  const undo = turn.run.undo!;
  turn.run.undo = { ...undo, failures: [...undo.failures, { step: index, failure }] };
  goOnUndoing(turn);
}

/** The run is terminated: what is not undone by now stays as it is, and is reported. */
export function giveUpUndos(turn: Turn): void {
  const { run, plan } = turn;
  if (!run.undo) return;
  const left = (run.done ?? []).map((index) => plan.steps[index]!.undo!).filter((at) => !isOver(run.steps[at]!.status));
  const failure = meshFailure("TERMINATED", "the run was terminated before its end", false);
  run.undo = { ...run.undo, failures: [...run.undo.failures, ...left.map((step) => ({ step, failure }))] };
}

/** The failure that the run ends with: where undos failed, it says so too. */
export function withUndoFailures(turn: Turn, failure: Failure | undefined): Failure | undefined {
  const { plan, run } = turn;
  const failures = run.undo?.failures ?? [];
  if (!failure || failures.length === 0) return failure;
  const list = failures.map(({ step, failure: own }) => `"${plan.steps[step]!.id}" (${own.reason})`).join(", ");
  const left = `compensation failed in ${failures.length} of ${run.done?.length ?? 0}: ${list}`;
  return { ...failure, message: `${failure.message}; ${left}` };
}

/** Whether the run is undoing what it has done. */
export const isUndoing = ({ undo, endedAtMs }: Pick<RunState, "undo" | "endedAtMs">): boolean =>
  undo !== undefined && endedAtMs === 0;

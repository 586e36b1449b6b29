/**
 * Runs that are held: PAUSED by somebody, or BROKEN (broken.ts). Nothing new starts (E7), attempts under way end and are recorded.
 *
 * L1. A step that would start while its run is held is READY without a place in the ready queue; it is offered when the hold ends.
 * L2. Time goes on for the run and its attempts; what waits with the run has no limit of its own meanwhile.
 * L3. The time that a run stood BROKEN does not count for its deadline: it waited for people, and has a bound of its own.
 */
import { EventKind } from "@taskmesh/proto";
import { mended } from "./broken.js";
import { forItems, goOnWithItems } from "./items.js";
import type { StepPlan } from "./plan.js";
import type { OperateEvent } from "./run-event.js";
import { inFlight, isHeld, isOver, RunStatus, StepStatus } from "./run-state.js";
import { offerStep, startReady } from "./step-start.js";
import { editStep, move, record, type Turn } from "./turn.js";

/** Takes what waits in the ready queue out of it. */
export function holdQueued(turn: Turn): void {
  const { steps } = turn.run;
  const dequeue = (index: number): void => {
    if (steps[index]!.status === StepStatus.STEP_STATUS_READY)
      turn.effects.push({ kind: "dequeue", step: turn.plan.steps[index]! });
  };
  steps.forEach(({ each }, index) => {
    if (each) forItems(turn, index, () => dequeue(index));
    else dequeue(index);
  });
}

/** The step waits with its run (L1). */
export function holdStep(turn: Turn, plan: StepPlan): void {
  if (turn.run.steps[plan.index]!.status === StepStatus.STEP_STATUS_READY) return;
  const step = editStep(turn, plan.index);
  step.status = StepStatus.STEP_STATUS_READY;
  if (turn.records.length === 0)
    record(turn, EventKind.EVENT_KIND_STEP_READY, { step: plan.index, attempt: step.attempt });
  move(turn, plan.index, step.status, step.attempt);
}

/** The run goes on: what waited with it is offered, and what became startable meanwhile is started. */
export function goOn(turn: Turn): void {
  const { run, plan } = turn;
  // It was accepted to start at an instant that has not come.
  if (run.startAtMs !== undefined) return;
  const offer = (index: number): void => {
    if (run.steps[index]!.status !== StepStatus.STEP_STATUS_READY) return;
    editStep(turn, index).attemptAtMs = turn.nowMs;
    offerStep(turn, plan.steps[index]!);
  };
  for (const index of run.steps.keys()) {
    // An earlier one may have failed by its expressions, and held or ended the run again.
    if (run.status !== RunStatus.RUN_STATUS_RUNNING || run.undo) return;
    if (run.steps[index]!.each) goOnWithItems(turn, index, () => offer(index));
    else offer(index);
  }
  startReady(turn, plan.steps.keys());
}

/** The hold is over, since the run is about to end: it counts as running until then. */
export function leaveHold(turn: Turn): void {
  const { run } = turn;
  if (!isHeld(run.status)) return;
  if (run.broken) leaveBroken(turn);
  run.status = RunStatus.RUN_STATUS_RUNNING;
}

/** Ends being BROKEN. The limits of what waited are counted as if it had been no time (L3). */
export function leaveBroken(turn: Turn): void {
  const { run, nowMs } = turn;
  const stoodMs = nowMs - run.broken!.sinceMs;
  // A child stays within what its parent gave it.
  if (!run.parent) {
    run.extraMs = (run.extraMs ?? 0) + stoodMs;
    run.deadlineAtMs += stoodMs;
  }
  const putOff = (index: number): void => {
    const { status, readyAtMs } = run.steps[index]!;
    if (!isOver(status) && !inFlight(status) && readyAtMs > 0) editStep(turn, index).readyAtMs += stoodMs;
  };
  run.steps.forEach(({ each }, index) => {
    if (each) forItems(turn, index, () => putOff(index));
    else putOff(index);
  });
  delete run.failure;
  mended(turn);
}

/** Remembers which bulk operation it was. */
export function noteOperation(turn: Turn, { id }: Pick<OperateEvent, "id">): void {
  if (id !== undefined) turn.run.operation = id;
}

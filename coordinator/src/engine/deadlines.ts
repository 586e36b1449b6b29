/**
 * The instants at which a run needs to be looked at though nobody reports anything.
 *
 * D1. An attempt that nobody reports is given up when its limit and a grace are over, and not before.
 * D2. The limit is the step's `start_to_close`, or more time that the attempt's holder has asked for by a beat. It is the attempt's own: the next one,
 *     and another session that runs this one, begin with the step's.
 * D3. What is asked for never shortens the limit, and moves no other: not the step's `schedule_to_close`, not the run's deadline.
 */
import { escalatesAtMs } from "./escalations.js";
import type { ChainPlan, StepPlan } from "./plan.js";
import type { ItemChange } from "./run-event.js";
import {
  inFlight,
  isFinal,
  isHeld,
  isOver,
  type RunState,
  type StepState,
  StepStatus,
  timeoutGraceMs,
} from "./run-state.js";

/** What is due for a step at an instant, most final first. */
export type Due = "schedule-to-close" | "schedule-to-start" | "start-to-close" | "retry" | "escalate" | "wait";

/** The first thing that is due for the step at `nowMs`. */
export function dueOf(step: StepState, plan: StepPlan, nowMs: number): Due | undefined {
  if (isOver(step.status) || step.status === StepStatus.STEP_STATUS_PENDING) return undefined;
  if (scheduleToCloseAtMs(step, plan) <= nowMs) return "schedule-to-close";
  if (scheduleToStartAtMs(step, plan) <= nowMs) return "schedule-to-start";
  if (startToCloseAtMs(step, plan) <= nowMs) return "start-to-close";
  if (step.status === StepStatus.STEP_STATUS_RETRYING && step.retryAtMs <= nowMs) return "retry";
  if (escalatesAtMs(step, plan) <= nowMs) return "escalate";
  if (waitEndsAtMs(step) <= nowMs) return "wait";
  return undefined;
}

const scheduleToCloseAtMs = (step: StepState, plan: StepPlan): number =>
  plan.scheduleToCloseMs === undefined ? Infinity : step.readyAtMs + plan.scheduleToCloseMs;

/** Counts while no worker is known to run the attempt. */
function scheduleToStartAtMs(step: StepState, plan: StepPlan): number {
  const waits = step.status === StepStatus.STEP_STATUS_READY || step.status === StepStatus.STEP_STATUS_DISPATCHED;
  return waits && plan.scheduleToStartMs !== undefined ? step.attemptAtMs + plan.scheduleToStartMs : Infinity;
}

/** Time that the newest attempt may take: the plan's, or what its handler has asked for beyond that. */
export const attemptLimitMs = ({ extendedMs }: StepState, { startToCloseMs }: StepPlan): number =>
  extendedMs === undefined ? startToCloseMs : Math.max(startToCloseMs, extendedMs);

/** The worker enforces it to the millisecond; this is for one that cannot report. */
const startToCloseAtMs = (step: StepState, plan: StepPlan): number =>
  step.status === StepStatus.STEP_STATUS_RUNNING
    ? step.startedAtMs + attemptLimitMs(step, plan) + timeoutGraceMs
    : Infinity;

/** When a wait ends by itself. */
const waitEndsAtMs = (step: StepState): number => step.wait?.endsAtMs || Infinity;

/** The earliest instant at which anything of the run is due; 0 if it has ended. Of items, only those of `changes` are looked at, if given. */
export function nextWakeupAtMs(run: RunState, plan: ChainPlan, changes?: ReadonlyMap<string, ItemChange>): number {
  if (isFinal(run.status)) return 0;
  if (run.closing) return run.deadlineAtMs;
  // After a cancel no limit of a step counts any more: waking for one would change nothing, again and again.
  if (run.cancel) return Math.min(run.deadlineAtMs, run.cancel.graceUntilMs);
  const held = isHeld(run.status);
  const latestMs = run.undo ? Infinity : run.deadlineAtMs; // U4
  let at = run.broken ? run.broken.untilMs : latestMs;
  if (run.startAtMs !== undefined && !held) at = Math.min(at, run.startAtMs);
  for (let i = 0; i < run.steps.length; i++) {
    const step = run.steps[i]!;
    if (step.status === StepStatus.STEP_STATUS_PENDING || isOver(step.status) || run.catching?.[i]) continue;
    const stepPlan = plan.steps[i]!;
    // Nothing else bounds the evaluation of what is undone next.
    if (step.each?.opening && stepPlan.undoes !== undefined)
      at = Math.min(at, run.nowMs + (stepPlan.scheduleToCloseMs ?? 0));
    if (!step.each) at = Math.min(at, wakeupOf(step, stepPlan, held));
    else if (!changes)
      for (const item of run.items?.get(i)?.values() ?? []) at = Math.min(at, wakeupOf(item, stepPlan, held));
  }
  for (const { step, item } of changes?.values() ?? []) {
    const state = run.items?.get(step)?.get(item);
    if (state) at = Math.min(at, wakeupOf(state, plan.steps[step]!, held));
  }
  return at;
}

/** When something of the step, or of the item, is due next. What waits with a run that is held has no limit of its own meanwhile. */
function wakeupOf(step: StepState, plan: StepPlan, held: boolean): number {
  if (step.status === StepStatus.STEP_STATUS_PENDING || (held && !inFlight(step.status))) return Infinity;
  let at = step.status === StepStatus.STEP_STATUS_RETRYING ? step.retryAtMs : Infinity;
  at = Math.min(at, scheduleToCloseAtMs(step, plan), scheduleToStartAtMs(step, plan));
  if (step.wait) at = Math.min(at, waitEndsAtMs(step), escalatesAtMs(step, plan));
  return inFlight(step.status) ? Math.min(at, startToCloseAtMs(step, plan)) : at;
}

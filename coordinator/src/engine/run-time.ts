/** When a run begins, and from when its time counts. */
import { EventKind } from "@taskmesh/proto";
import type { ChainPlan } from "./plan.js";
import { isOver, type RunState, StepStatus, unstartedMsMax } from "./run-state.js";
import { startReady } from "./step-start.js";
import { record, type Turn } from "./turn.js";

/** The times that a run is accepted with. A run that starts later has its whole time from then. */
export function acceptedTimes(
  plan: ChainPlan,
  nowMs: number,
  given: { timeoutMs?: number | undefined; startAtMs?: number | undefined; deadlineAtMs: number },
): Pick<RunState, "deadlineAtMs"> & Partial<Pick<RunState, "startAtMs" | "timed">> {
  const { timeoutMs = plan.runTimeoutMs, startAtMs = 0 } = given;
  const beginsAtMs = Math.max(nowMs, startAtMs);
  const lengthMs = plan.timedFromStart ? Math.max(timeoutMs, unstartedMsMax) : timeoutMs;
  return {
    deadlineAtMs: Math.min(beginsAtMs + lengthMs, given.deadlineAtMs),
    ...(startAtMs > nowMs ? { startAtMs } : {}),
    ...(plan.timedFromStart ? { timed: { timeoutMs, startedAtMs: 0 } } : {}),
  };
}

/** The instant has come that the run was to start at. */
export function startHeldBack(turn: Turn): void {
  delete turn.run.startAtMs;
  record(turn, EventKind.EVENT_KIND_RUN_STARTED);
  startReady(turn, turn.plan.steps.keys());
}

/** The run's time begins when the first of its steps is seen to run, or begins to wait. */
export function noteFirstStart(run: RunState): void {
  const { timed } = run;
  if (timed === undefined || timed.startedAtMs > 0) return;
  let startedAtMs = Infinity;
  for (const { status, wait, startedAtMs: boundAtMs } of run.steps) {
    const hasRun = wait !== undefined || (isOver(status) && status !== StepStatus.STEP_STATUS_SKIPPED);
    if (boundAtMs > 0) startedAtMs = Math.min(startedAtMs, boundAtMs);
    else if (hasRun) startedAtMs = Math.min(startedAtMs, run.nowMs);
  }
  if (startedAtMs === Infinity) return;
  run.timed = { ...timed, startedAtMs };
  const { extraMs = 0 } = run;
  run.deadlineAtMs = deadlineOf(run.deadlineAtMs - extraMs, run.timed) + extraMs;
}

/** The deadline of a run whose time counts from its start; `latestMs`: the one that it was accepted with. */
export const deadlineOf = (latestMs: number, timed: RunState["timed"]): number =>
  timed && timed.startedAtMs > 0 ? Math.min(latestMs, timed.startedAtMs + timed.timeoutMs) : latestMs;

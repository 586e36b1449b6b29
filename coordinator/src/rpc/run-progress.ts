/** How far a run is: its steps that are over, and what the handlers of the running ones reported, or what is estimated of them. */
import type { Progress, RunProgress } from "@taskmesh/proto";
import type { ChainPlan } from "../engine/plan.js";
import { type EachState, isOver, type StepState, StepStatus } from "../engine/run-state.js";
import type { ProgressRow } from "../store/reports.js";

/** What the handler of each running attempt reported last, by step index. Reports of attempts that are over are none. */
export function currentReports(
  steps: readonly StepState[],
  plan: ChainPlan,
  rows: readonly ProgressRow[],
): Map<number, Progress> {
  const current = new Map<number, Progress>();
  for (const { index, id } of plan.steps) {
    const step = steps[index]!;
    if (step.status !== StepStatus.STEP_STATUS_RUNNING || step.each) continue;
    const row = rows.find((one) => one.stepId === id && one.item === 0 && one.attempt === step.attempt);
    if (row && (row.percent > 0 || row.message !== "")) {
      current.set(index, { percent: row.percent, message: row.message, estimated: false });
    }
  }
  return current;
}

/** Below 100 in tenths: every step counts alike. Only a run that has ended (`isOver`) is whole. */
export function percentOf(
  steps: readonly StepState[],
  plan: ChainPlan,
  current: ReadonlyMap<number, Progress>,
  ended: boolean,
): number {
  if (ended) return 100;
  let done = 0;
  // Undos are no part of what the run is to do.
  const own = steps.filter((_, index) => plan.steps[index]!.undoes === undefined);
  own.forEach((step, index) => {
    done += isOver(step.status) ? 1 : step.each ? shareOf(step.each) : (current.get(index)?.percent ?? 0) / 100;
  });
  return Math.min(percentMax, Math.round((done / Math.max(1, own.length)) * 1_000) / 10);
}

/** Of a run that goes on: also when all its steps are over or their handlers say that they are. */
const percentMax = 99.9;

const shareOf = ({ succeeded, failed, total }: EachState): number => (succeeded + failed) / Math.max(1, total);

/** Whether any of it is an estimate. */
export const isEstimated = (current: ReadonlyMap<number, Progress>): boolean =>
  [...current.values()].some(({ estimated }) => estimated);

/** The same as watchers are told, of a run that goes on. */
export function toRunProgress(
  steps: readonly StepState[],
  plan: ChainPlan,
  current: ReadonlyMap<number, Progress>,
): RunProgress {
  return {
    percent: percentOf(steps, plan, current, false),
    estimated: isEstimated(current),
    steps: [...current].map(([index, progress]) => ({ stepId: plan.steps[index]!.id, item: 0, progress })),
  };
}

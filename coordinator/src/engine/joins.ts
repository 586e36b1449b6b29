/**
 * Joins: steps that begin when one of several has succeeded, and races, whose other branches are not wanted any more then.
 *
 * J1. A join begins once: with the first of its steps that succeeded, or with none when all of them are over.
 * J2. It sees the output of that one alone, then and later, so its input is the same in every attempt; `via` is stored for that.
 * J3. In a race a branch that fails ends alone while another one may still succeed; the last one's failure is the race's.
 * J4. When a race begins, what only its other branches are for is cancelled.
 */
import { EventKind, type Failure } from "@taskmesh/proto";
import type { StepPlan, Value } from "./plan.js";
import { stopStep } from "./run-end.js";
import { isOver, type RunState, type StepState, StepStatus } from "./run-state.js";
import { startReady } from "./step-start.js";
import { editStep, meshFailure, move, record, type Turn } from "./turn.js";

const succeeded = ({ status }: StepState): boolean => status === StepStatus.STEP_STATUS_SUCCEEDED;

/** Whether what the step needs is there, so that it may begin. */
export function mayBegin({ steps }: RunState, plan: StepPlan): boolean {
  if (plan.undoes !== undefined) return false;
  const { join, escalation } = plan;
  if (!join) return plan.needs.every((need) => isOver(steps[need]!.status) || isOpenFor(escalation, need, steps));
  const others = plan.needs.filter((need) => !join.of.includes(need));
  if (!others.every((need) => isOver(steps[need]!.status))) return false;
  return join.of.some((at) => succeeded(steps[at]!)) || join.of.every((at) => isOver(steps[at]!.status));
}

/** The step begins while the one that has escalated goes on. */
const isOpenFor = (escalation: StepPlan["escalation"], need: number, steps: readonly StepState[]): boolean =>
  escalation !== undefined && escalation.of === need && (steps[need]!.level ?? 0) >= escalation.level;

/** Decides what a join begins with, and lets go of the rest; answers a failure if every branch of a race has failed. */
export function beginJoin(turn: Turn, plan: StepPlan): Failure | undefined {
  const { join } = plan;
  if (!join) return undefined;
  const { steps } = turn.run;
  const won = join.of
    .filter((at) => succeeded(steps[at]!))
    .sort((a, b) => steps[a]!.endedAtMs - steps[b]!.endedAtMs)[0];
  if (won !== undefined) editStep(turn, plan.index).via = won;
  if (!join.cancelsOthers) return undefined;
  if (won !== undefined)
    cancelBranches(
      turn,
      plan.index,
      join.of.filter((at) => at !== won),
    );
  else if (join.of.some((at) => hasFailed(steps[at]!.status)))
    return meshFailure("BRANCHES_FAILED", "none of the branches of the race succeeded", false);
  return undefined;
}

const hasFailed = (status: StepStatus): boolean =>
  status === StepStatus.STEP_STATUS_FAILED ||
  status === StepStatus.STEP_STATUS_EXPIRED ||
  status === StepStatus.STEP_STATUS_CANCELLED;

/** Outputs as the step sees them (J2). */
export function seenBy(
  { join, escalation }: StepPlan,
  { via }: StepState,
  outputs: RunState["outputs"],
): readonly (Value | undefined)[] {
  if (escalation) return outputs.map((output, at) => (at === escalation.of ? undefined : output));
  return join ? outputs.map((output, at) => (join.of.includes(at) && at !== via ? undefined : output)) : outputs;
}

/** Cancels the steps at these ends, and before them whatever nothing else waits for. */
function cancelBranches(turn: Turn, join: number, ends: readonly number[]): void {
  const dropped = new Set<number>();
  const open = [...ends];
  const isWanted = (user: number): boolean =>
    user !== join && !dropped.has(user) && !isOver(turn.run.steps[user]!.status);
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    const { neededBy, needs } = turn.plan.steps[at]!;
    if (dropped.has(at) || neededBy.some(isWanted)) continue;
    dropped.add(at);
    if (!isOver(turn.run.steps[at]!.status)) {
      const stopped = stopStep(turn, at, StepStatus.STEP_STATUS_CANCELLED);
      move(turn, at, stopped.status, stopped.attempt);
    }
    open.push(...needs);
  }
}

/** Lets a step of a race fail alone (J3); answers whether it did. */
export function failInRace(
  turn: Turn,
  index: number,
  failure: Failure,
  status: StepStatus.STEP_STATUS_FAILED | StepStatus.STEP_STATUS_EXPIRED,
): boolean {
  const { race } = turn.plan.steps[index]!;
  if (!race || turn.run.closing || turn.run.steps[race.join]!.status !== StepStatus.STEP_STATUS_PENDING) return false;
  const ends = turn.plan.steps[race.join]!.join?.of ?? [];
  // A branch that has succeeded while the race waits for something else wins it.
  const isHopeful = (at: number): boolean => {
    const state = turn.run.steps[at]!;
    return at !== race.end && (!isOver(state.status) || succeeded(state));
  };
  if (!ends.some(isHopeful)) return false;
  const step = stopStep(turn, index, status);
  const kind =
    status === StepStatus.STEP_STATUS_FAILED ? EventKind.EVENT_KIND_STEP_FAILED : EventKind.EVENT_KIND_STEP_EXPIRED;
  record(turn, kind, { step: index, attempt: step.attempt, failure });
  cancelBranches(turn, race.join, [race.end]);
  startReady(turn, [race.join]);
  return true;
}

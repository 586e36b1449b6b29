/**
 * What a run takes over from another one, so that it goes on from a step of it (a restart). The step and all behind it are done anew; every
 * other result is kept, and what has none yet is done.
 *
 * T1. A result is taken over whole or not at all: its output passes the contract that the new run's version pins, or the restart is refused.
 * T2. A result that was undone is no result, and one that could no longer be undone is not left behind: both refuse the restart.
 * T3. Undoing is handed over by a BROKEN run alone, which ends without undoing in the same commit: so a result is undone at most once.
 * T4. A run that has ended is only read.
 */
import { EventKind } from "@taskmesh/proto";
import { itemsReference, itemsValue } from "./items.js";
import type { ChainPlan, StepPlan, Value } from "./plan.js";
import { type EachState, isOver, type RunState, type StepState, StepStatus } from "./run-state.js";
import { stepIndex } from "./step-index.js";
import { editStep, move, record, type Turn } from "./turn.js";

/** How one step of the new run begins: over. */
export interface TakenStep {
  step: number;
  /** Its index in the other run's plan. */
  from: number;
  status: StepStatus;
  output?: Value;
  each?: EachState;
  via?: number;
}

export interface TakeOver {
  steps: readonly TakenStep[];
  /** Indexes of the steps that are now this run's to undo, in the order in which they succeeded. */
  done: readonly number[];
}

/** A step whose result does not fit; no id: the whole. */
export interface Unfit {
  stepId: string;
  problem: string;
}

/** What can be taken over, or why nothing can. `stepId` is a step of `plan`, or "" for all anew. */
export function takeOver(
  old: RunState,
  oldPlan: ChainPlan,
  plan: ChainPlan,
  stepId: string,
): { taken: TakeOver } | { unfit: Unfit[] } {
  const anew = behind(plan, stepId);
  const settled = settledSteps(old, oldPlan);
  const taken: TakenStep[] = [];
  const unfit: Unfit[] = [];
  for (const step of plan.steps) {
    const from = stepIndex(oldPlan, step.id);
    if (anew.has(step.index) || step.undoes !== undefined || from === undefined || !settled.has(from)) continue;
    const problem = unfitness(old, oldPlan.steps[from]!, step);
    if (problem === undefined) taken.push(takenStep(old, from, step, oldPlan, plan));
    else unfit.push({ stepId: step.id, problem });
  }
  unfit.push(...gaps(oldPlan, plan, new Set(taken.map(({ step }) => step))));
  const done = handedOver(old, oldPlan, plan, taken);
  unfit.push(...done.unfit);
  return unfit.length > 0 ? { unfit } : { taken: { steps: taken, done: done.done } };
}

/** The step and all that come behind it. */
function behind(plan: ChainPlan, stepId: string): ReadonlySet<number> {
  if (stepId === "") return new Set(plan.steps.keys());
  const found = new Set<number>();
  const open = [stepIndex(plan, stepId)!];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (found.has(at)) continue;
    found.add(at);
    open.push(...plan.steps[at]!.neededBy);
  }
  return found;
}

/**
 * Steps of the old run that are decided: those with a result, those that were skipped, and those without one that the run went on behind (a
 * caught failure, the branches that lost a race).
 */
function settledSteps({ steps, broken }: RunState, plan: ChainPlan): ReadonlySet<number> {
  const known = new Map<number, boolean>();
  const isSettled = (index: number): boolean => {
    const before = known.get(index);
    if (before !== undefined) return before;
    const { status } = steps[index]!;
    const { neededBy } = plan.steps[index]!;
    const good = status === StepStatus.STEP_STATUS_SUCCEEDED || status === StepStatus.STEP_STATUS_SKIPPED;
    const passed = isOver(status) && !broken?.steps.includes(index) && neededBy.length > 0;
    const decided = good || (passed && neededBy.every((next) => hasBegun(steps[next]!) || isSettled(next)));
    known.set(index, decided);
    return decided;
  };
  return new Set([...steps.keys()].filter(isSettled));
}

const hasBegun = ({ readyAtMs }: StepState): boolean => readyAtMs > 0;

/** Whether the output is that of a fan-out's items, and not one value in their place. */
const isOfItems = (output: Value | undefined): boolean => output?.reference?.startsWith(itemsReference) ?? false;

/** Why the result of `before` can't be that of `step`. */
function unfitness(old: RunState, before: StepPlan, step: StepPlan): string | undefined {
  const state = old.steps[before.index]!;
  if (before.undo !== undefined && old.steps[before.undo]!.status !== StepStatus.STEP_STATUS_PENDING)
    return "its work was undone: restart from it, or from a step before it";
  if (before.method !== step.method || before.wait?.kind !== step.wait?.kind || before.each?.kind !== step.each?.kind)
    return "is another step in the version asked for: restart from it, or use the pinned version";
  const output = old.outputs[before.index];
  if (state.status !== StepStatus.STEP_STATUS_SUCCEEDED || before.contract === step.contract) return undefined;
  if (output?.bytes === undefined)
    return "its output was written with another revision of its contract and is too large to be checked: use the pinned version";
  const wrong = step.checkOutput(output.bytes);
  return wrong === undefined ? undefined : `its output breaks the contract that the version asked for pins: ${wrong}`;
}

function takenStep(old: RunState, from: number, step: StepPlan, oldPlan: ChainPlan, plan: ChainPlan): TakenStep {
  const { status, each, via } = old.steps[from]!;
  const output = old.outputs[from];
  const ofItems = isOfItems(output);
  const winner = via === undefined ? undefined : stepIndex(plan, oldPlan.steps[via]!.id);
  return {
    ...{ step: step.index, from, status },
    ...(output && !ofItems ? { output } : {}),
    ...(each && ofItems ? { each } : {}),
    ...(winner === undefined ? {} : { via: winner }),
  };
}

/** Steps that the new version has before ones whose results are kept. */
function gaps(oldPlan: ChainPlan, plan: ChainPlan, taken: ReadonlySet<number>): Unfit[] {
  if (plan === oldPlan) return [];
  const found: Unfit[] = [];
  for (const index of taken) {
    const { id, needs } = plan.steps[index]!;
    const before = oldPlan.steps[stepIndex(oldPlan, id)!]!.needs.map((need) => oldPlan.steps[need]!.id);
    const fresh = needs
      .map((need) => plan.steps[need]!)
      .find((need) => !taken.has(need.index) && !before.includes(need.id));
    if (fresh)
      found.push({
        stepId: id,
        problem: `comes behind ${JSON.stringify(fresh.id)}, which has no result: restart from that step, or use the pinned version`,
      });
  }
  return found;
}

/** What a BROKEN run leaves to be undone (T3). */
function handedOver(
  { broken, done }: RunState,
  oldPlan: ChainPlan,
  plan: ChainPlan,
  taken: readonly TakenStep[],
): { done: number[]; unfit: Unfit[] } {
  const found: { done: number[]; unfit: Unfit[] } = { done: [], unfit: [] };
  if (!broken) return found;
  for (const index of done ?? []) {
    const stepId = oldPlan.steps[index]!.id;
    const step = taken.find(({ from }) => from === index)?.step;
    if (step === undefined) {
      const problem =
        "has done something that would never be undone: restart from a step behind it, or cancel the run, which undoes it, and restart that";
      found.unfit.push({ stepId, problem });
    } else if (plan.steps[step]!.undo === undefined) {
      found.unfit.push({ stepId, problem: "has no compensation in the version asked for: use the pinned version" });
    } else found.done.push(step);
  }
  return found;
}

/** Begins the run with what it took over from the run of that id. */
export function beginTakenOver(turn: Turn, { steps, done }: TakeOver, runId: string): void {
  for (const { step, status, via } of steps) {
    const state = editStep(turn, step);
    state.status = status;
    state.readyAtMs = turn.nowMs;
    state.endedAtMs = turn.nowMs;
    if (via !== undefined) state.via = via;
    if (status !== StepStatus.STEP_STATUS_SUCCEEDED) move(turn, step, status, 0);
  }
  for (const taken of steps) if (taken.status === StepStatus.STEP_STATUS_SUCCEEDED) takeResult(turn, taken, runId);
  if (done.length > 0) turn.run.done = [...done];
  const answered = steps.find(({ step, status }) => {
    const { wait } = turn.plan.steps[step]!;
    return status === StepStatus.STEP_STATUS_SUCCEEDED && wait?.kind === "respond" && wait.to === undefined;
  });
  // What the other run's caller was answered is this one's output too.
  if (answered) turn.run.answered = answered.step;
}

function takeResult(turn: Turn, { step, from, output, each }: TakenStep, runId: string): void {
  const { run } = turn;
  record(turn, EventKind.EVENT_KIND_STEP_REUSED, { step, other: runId, ...(output ? { payload: output } : {}) });
  move(turn, step, StepStatus.STEP_STATUS_SUCCEEDED, 0);
  if (output) run.outputs[step] = output;
  if (!each) return;
  const items = each.succeeded + each.failed;
  run.steps[step]!.each = { ...each, opening: false };
  run.outputs[step] = itemsValue(step, each);
  // Their rows are copied in the same commit, and take the numbers that follow.
  turn.effects.push({ kind: "copy-items", runId, from, step, afterSeq: run.lastSeq, items });
  run.lastSeq += items;
}

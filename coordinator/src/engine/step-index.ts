/** Where a step stands in its plan. */
import type { ChainPlan } from "./plan.js";

const indexes = new WeakMap<ChainPlan, Map<string, number>>();

/** The index of the step with this id, undefined if the plan has none. */
export function stepIndex(plan: ChainPlan, id: string): number | undefined {
  let known = indexes.get(plan);
  if (!known) {
    known = new Map(plan.steps.map((step) => [step.id, step.index]));
    indexes.set(plan, known);
  }
  return known.get(id);
}

/** Joins and races: which steps a join waits for, which steps are on the branches of a race, and what their readers must expect. */
import { Join, type StepSpec } from "@taskmesh/proto";
import type { JoinPlan, RacePlan } from "../engine/plan.js";
import type { ScopeTypes } from "./cel/scope-types.js";
import { neededBy } from "./chain-graph.js";
import type { Report } from "./compile-message.js";

interface Step {
  spec: StepSpec;
  index: number;
  path: string;
  needs: ReadonlySet<number>;
  /** The step begins while the one that it names may go on. */
  escalation?: { of: number };
}

const isPartial = ({ join }: StepSpec): boolean => join === Join.JOIN_ANY || join === Join.JOIN_FIRST_SUCCESS;

/** The steps that a join names; undefined: the step waits for all that it needs. */
function namedBy({ spec }: Step, steps: readonly Step[]): number[] | undefined {
  if (!isPartial(spec)) return undefined;
  return steps.filter((other) => spec.needs.includes(other.spec.id)).map(({ index }) => index);
}

/** A join of some needs at least two. */
export function checkJoin({ spec, path }: Step, report: Report): void {
  if (!isPartial(spec) || new Set(spec.needs).size > 1) return;
  const message = "a join that does not wait for all steps needs two of them or more in `needs`";
  const place = { path: `${path}.needs`, stepId: spec.id, field: "needs" };
  report({ ...place, reason: "MISSING_VALUE", message, expected: "two steps or more" });
}

/**
 * The types as somebody sees them for whom these steps' outputs may be missing. Readers within a branch are cancelled with what they read, so
 * that is the join itself, and the chain's output.
 */
export function typesWithout(types: ScopeTypes, missing: ReadonlySet<number>): ScopeTypes {
  if (missing.size === 0) return types;
  const steps = [...types.steps].map(
    ([id, one]) => [id, missing.has(one.index) ? { ...one, skippable: true } : one] as const,
  );
  return { ...types, steps: new Map(steps) };
}

/** The steps whose outputs the step may miss: those that it joins, and what is on their branches. */
export function missedBy(step: Step, steps: readonly Step[]): ReadonlySet<number> {
  const missed = new Set(namedBy(step, steps));
  if (step.escalation) missed.add(step.escalation.of);
  if (step.spec.join !== Join.JOIN_FIRST_SUCCESS) return missed;
  for (const [at, { join }] of racesOf(steps)) if (join === step.index) missed.add(at);
  return missed;
}

/** The plan of a step's join. */
export function joinPlan(step: Step, steps: readonly Step[]): JoinPlan | undefined {
  const of = namedBy(step, steps);
  return of && { of, cancelsOthers: step.spec.join === Join.JOIN_FIRST_SUCCESS };
}

/** By index: the race that the step is on a branch of. Only what nothing outside of the branch needs belongs to it. */
export function racesOf(steps: readonly Step[]): Map<number, RacePlan> {
  const races = new Map<number, RacePlan>();
  const users = neededBy(steps.map(({ needs }) => needs));
  for (const step of steps) {
    if (step.spec.join !== Join.JOIN_FIRST_SUCCESS) continue;
    for (const end of namedBy(step, steps) ?? []) {
      const branch = new Set<number>();
      const open = [end];
      for (let at = open.pop(); at !== undefined; at = open.pop()) {
        const outside = users[at]!.some((user) => user !== step.index && !branch.has(user));
        if (branch.has(at) || outside || races.has(at)) continue;
        branch.add(at);
        open.push(...steps[at]!.needs);
      }
      for (const at of branch) races.set(at, { join: step.index, end });
    }
  }
  return races;
}

/** Races last: what their branches are is known when the edges of all others are. */
export function inOrderOfJoins<T extends Step>(steps: readonly T[]): T[] {
  const isRace = ({ spec }: Step): boolean => spec.join === Join.JOIN_FIRST_SUCCESS;
  return [...steps.filter((step) => !isRace(step)), ...steps.filter(isRace)];
}

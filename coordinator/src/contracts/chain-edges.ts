/** The edges of a chain's steps as people see them. */
import type { ChainEdge, StepSpec } from "@taskmesh/proto";
import { findCycle } from "./chain-graph.js";
import type { Report } from "./compile-message.js";

interface Step {
  spec: StepSpec;
  path: string;
  needs: ReadonlySet<number>;
}

/** Every edge, those that expressions make included. */
export function edgesOf(steps: readonly Step[]): ChainEdge[] {
  return steps.flatMap((step) =>
    [...step.needs].sort((a, b) => a - b).map((index) => ({ from: steps[index]!.spec.id, to: step.spec.id })),
  );
}

/** Reports steps that wait for each other. */
export function reportCycle(steps: readonly Step[], needs: readonly ReadonlySet<number>[], report: Report): void {
  const cycle = findCycle(needs);
  if (cycle === undefined) return;
  const [first] = cycle;
  const { spec, path } = steps[first!]!;
  const ids = [...cycle, first!].map((index) => steps[index]!.spec.id);
  const shown = ids.length > 12 ? [...ids.slice(0, 10), "…", ids.at(-1)] : ids;
  const message =
    cycle.length === 1
      ? `step "${spec.id}" waits for itself`
      : `the steps wait for each other in a circle: ${shown.join(" needs ")}`;
  report({ reason: "CYCLE", path, stepId: spec.id, message });
}

/** Refuses steps whose id is taken. */
export function refuseDuplicateIds(
  steps: readonly { spec: StepSpec; index: number; path: string }[],
  report: Report,
): void {
  const first = new Map<string, number>();
  for (const { spec, index, path } of steps) {
    const other = first.get(spec.id);
    if (other === undefined) first.set(spec.id, index);
    else {
      const message = `the id "${spec.id}" is taken by steps[${other}]`;
      report({ reason: "DUPLICATE_ID", path: `${path}.id`, stepId: spec.id, field: "id", message });
    }
  }
}

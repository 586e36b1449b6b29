/** What a caller is told whose operation a run's state refuses. */
import { RunStatus } from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import { labelsMax } from "../engine/operate.js";
import type { Operation } from "../engine/run-event.js";
import { runEnded } from "./intake.js";
import type { Operated } from "./ports.js";
import type { Settled } from "./work.js";

const invalidLabels = () =>
  statusError({
    reason: "ARGUMENT_INVALID",
    message: `set_labels: the run would have more than ${labelsMax} labels; remove some`,
    fieldViolations: [{ field: "set_labels", description: `at most ${labelsMax} labels are allowed in all` }],
  });

/** "unchanged" where the run is as it was asked to be; throws the status of any other refusal. */
export function refusedOperation(
  { why, run }: Extract<Settled, { verdict: "unchanged" }>,
  operation: Operation,
): Operated {
  const named = operation.kind === "skip" ? [operation.step] : operation.kind === "retry" ? operation.steps : [];
  const steps = named.map((id) => JSON.stringify(id.slice(0, 64))).join(", ");
  switch (why) {
    case "already":
      return "unchanged";
    // It was this very operation that did it.
    case "applied":
      return "changed";
    case "run-ended":
      if (operation.kind === "terminate" && run.status === RunStatus.RUN_STATUS_CANCELLED) return "unchanged";
      throw runEnded(run);
    case "cancelling":
      throw statusError({ reason: "RUN_CANCELLING", message: "the run is being cancelled" });
    case "unknown-step":
      throw statusError({ reason: "STEP_NOT_FOUND", message: `the run has no step ${steps}` });
    case "not-broken":
      throw statusError({ reason: "RUN_NOT_BROKEN", message: "the run is not BROKEN" });
    case "step-not-broken":
      throw statusError({ reason: "STEP_NOT_BROKEN", message: `not every step of ${steps} broke the run` });
    case "output-needed":
      throw statusError({
        reason: "OUTPUT_NEEDED",
        message: `expressions rely on the output of step ${steps}; give one`,
      });
    case "too-many-labels":
      throw invalidLabels();
    default:
      throw new Error(`an operation was refused as ${why}`);
  }
}

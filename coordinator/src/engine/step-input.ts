/** The input of a step's attempt: what its expressions make of stored values, or what was stored because they could not be evaluated here. */
import type { StepPlan, Value } from "./plan.js";
import { failStep } from "./run-end.js";
import { meshFailure, scopeOf, type Turn } from "./turn.js";

/** Largest input that travels in a start message; a larger one is stored first. Equals the transport's inline bound. */
export const inlineInputBytesMax = 128 * 1024;

/** The input to dispatch with. A mistake in its expressions fails the step here. */
export function inputOf(turn: Turn, plan: StepPlan): Value | "deferred" | "failed" {
  const stored = turn.run.steps[plan.index]!.input;
  if (stored) return stored;
  const bound = plan.bindInput(scopeOf(turn, plan.index));
  if (bound.kind === "failed") {
    failStep(turn, plan.index, evaluationFailure(bound.error));
    return "failed";
  }
  if (bound.kind === "deferred" || bound.value.length > inlineInputBytesMax) return "deferred";
  return { contract: plan.contract, sizeBytes: bound.value.length, sha256: noHash, bytes: bound.value };
}

/** Filled in where the value is written: hashing is not the engine's business. */
export const noHash = new Uint8Array(0);

/** A mistake that an expression made, as the failure of its step. */
export const evaluationFailure = (error: { reason: string; message: string }) =>
  meshFailure(error.reason, error.message, false);

/** Whether a failed attempt is followed by another, and when. Jitter is the share of the delay that is random (AWS, "Exponential Backoff And Jitter"). */
import type { Failure } from "@taskmesh/proto";
import type { RetryPlan } from "./plan.js";

/** Delay in ms before the attempt after the `failures`-th failed one, counted from 1. `random` in [0, 1). */
export function retryDelayMs(plan: RetryPlan, failures: number, random: number): number {
  // Nothing times an overflown factor is no number.
  const full =
    plan.initialMs === 0 && plan.kind === "exponential" ? 0 : Math.min(plan.capMs, baseDelayMs(plan, failures));
  return Math.round(full * (1 - plan.jitter) + full * plan.jitter * random);
}

function baseDelayMs(plan: RetryPlan, failures: number): number {
  switch (plan.kind) {
    case "fixed":
      return plan.initialMs;
    case "linear":
      return plan.initialMs + plan.incrementMs * (failures - 1);
    case "exponential":
      return plan.initialMs * plan.factor ** (failures - 1);
  }
}

/** When the next attempt is due, or undefined if the failure is final. `readyAtMs`: when the step first became ready. */
export function nextRetryAtMs(
  plan: RetryPlan,
  failure: Failure,
  at: { failures: number; readyAtMs: number; nowMs: number; random: number },
): number | undefined {
  if (!failure.retryable || at.failures >= plan.attemptsMax) return undefined;
  if (plan.nonRetryable.includes(failure.reason)) return undefined;
  const dueMs = at.nowMs + retryDelayMs(plan, at.failures, at.random);
  if (plan.budgetMs !== undefined && dueMs > at.readyAtMs + plan.budgetMs) return undefined;
  return dueMs;
}

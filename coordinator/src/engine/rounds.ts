/**
 * Steps that call again until a condition holds.
 *
 *   DISPATCHED | RUNNING ─► RETRYING (until the delay is over) ─► the next round      while `until` is false
 *                   └─────► SUCCEEDED                                                once it is true
 *
 * Each round has the whole retry policy; schedule_to_close counts over all of them.
 */
import { EventKind, type Failure } from "@taskmesh/proto";
import type { RepeatPlan, Value } from "./plan.js";
import { releaseLease } from "./run-end.js";
import { StepStatus } from "./run-state.js";
import { evaluationFailure } from "./step-input.js";
import { editStep, meshFailure, move, record, scopeOf, type Turn } from "./turn.js";

type About = { session?: string; executionMs?: number; waitedMs?: number };

/** What a call's output means for the step: its end, another round (which is then planned), or a failure. */
export function endRound(
  turn: Turn,
  index: number,
  repeat: RepeatPlan,
  output: Value,
  about: About,
): "over" | "again" | Failure {
  const scope = scopeOf(turn, index);
  const until = repeat.until({ ...scope, outputs: scope.outputs.map((other, at) => (at === index ? output : other)) });
  if (until.kind === "failed") return evaluationFailure(until.error);
  if (until.kind === "deferred") {
    const message = `the output has ${output.sizeBytes} bytes, too many for the condition of "until"; let the step return less`;
    return meshFailure("EXPRESSION_FAILED", message, false);
  }
  if (until.value) return "over";
  const rounds = (turn.run.steps[index]!.rounds ?? 0) + 1;
  if (rounds >= repeat.roundsMax)
    return meshFailure("ROUNDS_EXHAUSTED", `the condition did not hold after ${rounds} rounds`, false);
  releaseLease(turn, index);
  const step = editStep(turn, index);
  step.status = StepStatus.STEP_STATUS_RETRYING;
  step.rounds = rounds;
  step.failures = 0;
  step.retryAtMs = turn.nowMs + repeat.delayMs;
  delete step.checkpointed;
  record(turn, EventKind.EVENT_KIND_STEP_ROUND, { step: index, attempt: step.attempt, ...about });
  move(turn, index, step.status, step.attempt, step.retryAtMs);
  return "again";
}

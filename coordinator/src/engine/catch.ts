/**
 * What a step's own rules make of its failure (`on_failure`): an output in place of the one that it could not give, or none.
 *
 *   failed for good ──► first rule for the reason ──► continue   FAILED or EXPIRED, no output, the run goes on
 *                              │                 └──► fallback   SUCCEEDED with the rule's value
 *                              └── none, or its value can't be evaluated ──► the failure is nobody's (run-end.ts)
 *
 * K1. A failure is caught once: what a rule's own expression does wrong is not caught again.
 * K2. Joins fire behind a caught failure as behind a success.
 */
import { EventKind, type Failure } from "@taskmesh/proto";
import type { CatchPlan, StepPlan, Value } from "./plan.js";
import { respond } from "./responds.js";
import { failUncaught, stopStep } from "./run-end.js";
import type { Advance, Evaluation } from "./run-event.js";
import { StepStatus } from "./run-state.js";
import { inlineInputBytesMax, noHash } from "./step-input.js";
import { startReady } from "./step-start.js";
import { changed, editStep, meshFailure, move, record, scopeOf, type Turn } from "./turn.js";

type Bad = StepStatus.STEP_STATUS_FAILED | StepStatus.STEP_STATUS_EXPIRED;

/** The rule that is for the failure. */
export const ruleFor = (plan: StepPlan, failure: Failure): CatchPlan | undefined =>
  plan.catches?.find(({ reasons }) => reasons.length === 0 || reasons.includes(failure.reason));

/** Catches the failure if a rule of the step is for it; answers whether that is so, or was tried. */
export function catchFailure(turn: Turn, index: number, failure: Failure, status: Bad): boolean {
  const plan = turn.plan.steps[index]!;
  const rule = ruleFor(plan, failure);
  if (!rule) return false;
  if (!rule.bindOutput) {
    settle(turn, index, failure, status);
    return true;
  }
  const bound = rule.bindOutput(scopeOf(turn, index, failure));
  if (bound.kind === "failed") failFallback(turn, index, failure, bound.error.message);
  else if (bound.kind === "deferred" || bound.value.length > inlineInputBytesMax) evaluateLater(turn, index, failure);
  else {
    const { value: bytes } = bound;
    const value = { contract: plan.contract, sizeBytes: bytes.length, sha256: noHash, bytes };
    settle(turn, index, failure, StepStatus.STEP_STATUS_SUCCEEDED, value);
  }
  return true;
}

/** The fallback value that was evaluated off the engine. */
export function evaluatedFallback(turn: Turn, index: number, evaluation: Evaluation): Advance {
  const failure = turn.run.catching![index]!;
  const { [index]: _, ...others } = turn.run.catching!;
  if (Object.keys(others).length > 0) turn.run.catching = others;
  else delete turn.run.catching;
  if (evaluation.kind === "value") settle(turn, index, failure, StepStatus.STEP_STATUS_SUCCEEDED, evaluation.value);
  else {
    const why = evaluation.kind === "failed" ? evaluation.failure.message : "the fallback has no value";
    failFallback(turn, index, failure, why);
  }
  return changed(turn);
}

function settle(
  turn: Turn,
  index: number,
  failure: Failure,
  status: Bad | StepStatus.STEP_STATUS_SUCCEEDED,
  value?: Value,
) {
  const step = stopStep(turn, index, status);
  const payload = value ? { payload: value } : {};
  if (value) turn.run.outputs[index] = value;
  record(turn, EventKind.EVENT_KIND_STEP_CAUGHT, { step: index, attempt: step.attempt, failure, ...payload });
  if (value) respond(turn, turn.plan.steps[index]!);
  move(turn, index, status, step.attempt);
  startReady(turn, turn.plan.steps[index]!.neededBy);
}

function failFallback(turn: Turn, index: number, failure: Failure, why: string): void {
  const own = meshFailure("EXPRESSION_FAILED", `the fallback for ${failure.reason}: ${why}`, false, failure);
  failUncaught(turn, index, own);
}

/** Over large payloads, or too costly: the failure is kept until the value is there. */
function evaluateLater(turn: Turn, index: number, failure: Failure): void {
  stopStep(turn, index, StepStatus.STEP_STATUS_WAITING);
  const step = editStep(turn, index);
  step.endedAtMs = 0;
  turn.run.catching = { ...turn.run.catching, [index]: failure };
  if (turn.records.length === 0) record(turn, EventKind.EVENT_KIND_STEP_READY, { step: index });
  turn.effects.push({ kind: "evaluate", stepId: turn.plan.steps[index]!.id });
  move(turn, index, step.status, step.attempt);
}

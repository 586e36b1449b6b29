/**
 * BROKEN runs: a failure that nothing catches stops the run where it is, until an operator mends it (`on_unhandled: BREAK`).
 *
 *   RUNNING ──a step fails──► BROKEN ──every broken step retried or skipped──► RUNNING
 *                               ├── cancel, terminate ──► CANCELLED
 *                               └── broken_ttl is over ──► FAILED, by the failure that broke it
 *
 * B1. `broken.steps` are the FAILED or EXPIRED steps that nobody caught; only they can be retried or skipped, each once per failure.
 * B2. A retried step starts when no broken step is left: a run is never half mended.
 * B3. A retried step keeps counting attempts, so that no late report can be taken for a new one (E2, E3).
 */
import { EventKind, type Failure } from "@taskmesh/proto";
import { goOn, holdQueued, leaveBroken } from "./hold.js";
import type { Value } from "./plan.js";
import { respond } from "./responds.js";
import { isHeld, pendingStep, RunStatus, StepStatus } from "./run-state.js";
import { editStep, move, record, type Turn } from "./turn.js";

/** The step's failure is nobody's: the run waits for an operator. `failure` is the run's. */
export function breakRun(turn: Turn, index: number, failure: Failure): void {
  const { run, plan, nowMs } = turn;
  if (run.broken) {
    run.broken = { ...run.broken, steps: [...run.broken.steps, index] };
    return;
  }
  const paused = run.status === RunStatus.RUN_STATUS_PAUSED;
  if (!isHeld(run.status)) holdQueued(turn);
  run.status = RunStatus.RUN_STATUS_BROKEN;
  run.failure = failure;
  // What waits for this run has a bound that mending must not move.
  const untilMs = Math.min(nowMs + (plan.brokenTtlMs ?? 0), run.parent ? run.deadlineAtMs : Infinity);
  run.broken = { sinceMs: nowMs, untilMs, steps: [index], ...(paused ? { paused } : {}) };
  record(turn, EventKind.EVENT_KIND_RUN_BROKEN, { runStatus: run.status, failure });
  turn.effects.push({ kind: "broken", step: plan.steps[index]!, reason: failure.reason });
}

/** The run is BROKEN no more, whatever it is now. */
export function mended(turn: Turn): void {
  delete turn.run.broken;
  turn.effects.push({ kind: "mended" });
}

type Asked = { by?: string; note?: string };

/** Gives broken steps new attempts; `input` stands in for what their expressions give. */
export function retrySteps(turn: Turn, indexes: readonly number[], input: Value | undefined, asked: Asked): void {
  for (const index of indexes) {
    const before = turn.run.steps[index]!;
    const { attempt, late, input: kept } = before;
    const given = input ?? kept;
    turn.run.steps[index] = { ...pendingStep(), attempt, late, ...(given ? { input: given } : {}) };
    const payload = input ? { payload: input } : {};
    record(turn, EventKind.EVENT_KIND_STEP_RETRIED, { step: index, attempt, ...payload, ...asked });
    move(turn, index, StepStatus.STEP_STATUS_PENDING, attempt);
  }
  repaired(turn, indexes);
}

/** A broken step counts as done. */
export function skipBroken(turn: Turn, index: number, output: Value | undefined, asked: Asked): void {
  const step = editStep(turn, index);
  step.status = output ? StepStatus.STEP_STATUS_SUCCEEDED : StepStatus.STEP_STATUS_SKIPPED;
  step.endedAtMs = turn.nowMs;
  const payload = output ? { payload: output } : {};
  if (output) turn.run.outputs[index] = output;
  record(turn, EventKind.EVENT_KIND_STEP_OVERRIDDEN, { step: index, attempt: step.attempt, ...payload, ...asked });
  if (output) respond(turn, turn.plan.steps[index]!);
  move(turn, index, step.status, step.attempt);
  repaired(turn, [index]);
}

/** These steps are broken no more; with the last of them the run goes on, or is PAUSED again. */
function repaired(turn: Turn, indexes: readonly number[]): void {
  const { run } = turn;
  const broken = run.broken!;
  const steps = broken.steps.filter((index) => !indexes.includes(index));
  run.broken = { ...broken, steps };
  if (steps.length > 0) return;
  leaveBroken(turn);
  run.status = broken.paused ? RunStatus.RUN_STATUS_PAUSED : RunStatus.RUN_STATUS_RUNNING;
  if (!broken.paused) goOn(turn);
}

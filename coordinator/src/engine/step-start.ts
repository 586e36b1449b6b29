/**
 * How a step begins: its needs are over, its condition holds, its input is bound, a lane has room.
 *
 * Only here are leases given (E1), and only here is work dispatched, so E6 is checked here.
 */
import { EventKind } from "@taskmesh/proto";
import { startChild } from "./children.js";
import { isEscalated } from "./escalations.js";
import { holdStep } from "./hold.js";
import { beginJoin, mayBegin } from "./joins.js";
import type { StepPlan, Value } from "./plan.js";
import { failStep, finishIfOver } from "./run-end.js";
import { isHeld, RunStatus, type StepState, StepStatus } from "./run-state.js";
import { evaluationFailure, inputOf } from "./step-input.js";
import { editStep, move, record, scopeOf, type Turn } from "./turn.js";
import { beginWait } from "./waits.js";

/** Starts every step of `candidates` whose needs are over, and those that this in turn makes startable; ends the run if none is left. */
export function startReady(turn: Turn, candidates: Iterable<number>): void {
  if (turn.at) return;
  if (isHeld(turn.run.status)) return finishIfOver(turn); // E7
  // Within a start, what a caught failure makes startable waits its turn: chains of them must not grow the stack.
  if (turn.starting) {
    turn.starting.push(...candidates);
    return;
  }
  const queue = [...candidates];
  turn.starting = queue;
  // A step that fails on the way may end or break the run.
  for (let at = 0; at < queue.length && turn.run.status === RunStatus.RUN_STATUS_RUNNING; at++) {
    const index = queue[at]!;
    const plan = turn.plan.steps[index]!;
    if (turn.run.steps[index]!.status !== StepStatus.STEP_STATUS_PENDING) continue;
    if (!mayBegin(turn.run, plan)) continue;
    if (beginStep(turn, plan) === "over") queue.push(...plan.neededBy);
  }
  turn.starting = undefined;
  finishIfOver(turn);
}

function beginStep(turn: Turn, plan: StepPlan): "begun" | "over" {
  if (plan.escalation && !isEscalated(turn.run, plan)) {
    skipStep(turn, plan.index);
    return "over";
  }
  const failed = beginJoin(turn, plan);
  if (failed) {
    failStep(turn, plan.index, failed);
    return "begun";
  }
  // An input that an operator has given is to be used.
  const condition = turn.run.steps[plan.index]!.input ? undefined : plan.condition?.(scopeOf(turn, plan.index));
  if (condition?.kind === "failed") {
    failStep(turn, plan.index, evaluationFailure(condition.error));
    return "begun";
  }
  const step = editStep(turn, plan.index);
  step.readyAtMs = turn.nowMs;
  step.attemptAtMs = turn.nowMs;
  if (condition?.kind === "value" && !condition.value) {
    skipStep(turn, plan.index);
    return "over";
  }
  if (condition?.kind === "deferred" || plan.each) evaluateLater(turn, plan, step);
  else if (plan.wait) return startWait(turn, plan);
  else offerStep(turn, plan);
  return "begun";
}

/** Begins a step that waits instead of calling; answers whether it is over already. */
export function startWait(turn: Turn, plan: StepPlan): "begun" | "over" {
  const input = inputOf(turn, plan);
  if (input === "deferred") evaluateLater(turn, plan, editStep(turn, plan.index));
  else if (plan.wait && input !== "failed") return beginWait(turn, plan, plan.wait, input);
  return "begun";
}

/** The step's condition is false. */
export function skipStep(turn: Turn, index: number): void {
  const step = editStep(turn, index);
  step.status = StepStatus.STEP_STATUS_SKIPPED;
  step.endedAtMs = turn.nowMs;
  move(turn, index, step.status, 0);
}

/**
 * Gives the step a new attempt in a lane, or a place in the ready queue if no lane has room. `fromQueue`: it holds such a place now.
 * Answers whether it was dispatched.
 */
export function offerStep(turn: Turn, plan: StepPlan, fromQueue = false): boolean {
  if (isHeld(turn.run.status)) {
    holdStep(turn, plan);
    return false;
  }
  const bound = inputOf(turn, plan);
  if (bound === "failed") return false;
  if (plan.child && bound !== "deferred") return startChild(turn, plan, bound);
  const step = editStep(turn, plan.index);
  if (bound === "deferred") {
    if (fromQueue) turn.effects.push({ kind: "dequeue", step: plan });
    evaluateLater(turn, plan, step);
    return false;
  }
  const lease = turn.context.lease();
  if (turn.context.admit(plan, lease, fromQueue)) {
    if (fromQueue) turn.effects.push({ kind: "dequeue", step: plan });
    giveLease(turn, plan, step, lease, bound);
    return true;
  }
  if (!fromQueue) {
    step.status = StepStatus.STEP_STATUS_READY;
    step.attemptAtMs = turn.nowMs;
    const priority = plan.priority ?? turn.run.priority;
    turn.effects.push({ kind: "enqueue", step: plan, atMs: turn.nowMs, priority });
    move(turn, plan.index, step.status, step.attempt);
  }
  return false;
}

/** Makes `lease` the current lease of a new attempt and sends it off; `claimed`: its worker is the one that asks. */
export function giveLease(
  turn: Turn,
  plan: StepPlan,
  step: StepState,
  lease: string,
  input: Value,
  claimed = false,
): void {
  // The time in the ready queue counts for schedule_to_start too.
  if (step.status !== StepStatus.STEP_STATUS_READY) step.attemptAtMs = turn.nowMs;
  step.status = StepStatus.STEP_STATUS_DISPATCHED;
  step.attempt += 1;
  step.lease = lease;
  step.startedAtMs = 0;
  step.session = "";
  if (step.extendedMs !== undefined) delete step.extendedMs;
  turn.effects.push({
    kind: "dispatch",
    runMethod: turn.plan.method,
    step: plan,
    attempt: step.attempt,
    lease,
    input,
    claimed,
    ...resumeOf(step),
  });
  if (turn.records.length === 0 && !turn.at)
    record(turn, EventKind.EVENT_KIND_STEP_DISPATCHED, { step: plan.index, attempt: step.attempt });
  move(turn, plan.index, step.status, step.attempt);
}

/** Says that a checkpoint goes along, where there may be one. */
export const resumeOf = (step: StepState): { resume?: true } => (step.checkpointed ? { resume: true } : {});

/** What the step reads is not in memory, or takes long: the pipeline evaluates it. */
export function evaluateLater(turn: Turn, plan: StepPlan, step: StepState): void {
  step.status = StepStatus.STEP_STATUS_WAITING;
  if (turn.records.length === 0) record(turn, EventKind.EVENT_KIND_STEP_READY, { step: plan.index });
  turn.effects.push({ kind: "evaluate", stepId: plan.id });
  move(turn, plan.index, step.status, step.attempt);
}

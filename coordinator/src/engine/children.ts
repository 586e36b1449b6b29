/**
 * Steps whose callee is a chain: each attempt is a run of its own, the child.
 *
 *   PENDING ─► RUNNING ─► SUCCEEDED | RETRYING (then a new child) | FAILED       as the child's end says (child-end.ts)
 *
 * S1. A child's run id is the lease of its attempt: chosen and stored with the parent's commit, so starting it again is the same start.
 * S2. While the attempt is current, a row of `bindings` names the child; a child is stored only while that row is there, so none begins after
 *     its step has let go of it.
 * S3. A child's deadline is never later than the end of what its attempt, its step and the parent's run may take.
 * S4. A child that its step lets go of before its end is asked to stop, unless its `onParentClose` lets it go on.
 */
import { EventKind } from "@taskmesh/proto";
import type { StepPlan, Value } from "./plan.js";
import { failStep } from "./run-end.js";
import type { RunEvent } from "./run-event.js";
import { StepStatus } from "./run-state.js";
import { inputOf } from "./step-input.js";
import { editStep, meshFailure, move, record, type Turn } from "./turn.js";

/** Runs above one another at most: what calls itself without end must end. */
export const depthMax = 16;

/** Stands in `bindings` where the session of a worker would: the attempt is a run. */
export const childSession = "child";

/** Begins an attempt of a step that calls a chain; answers whether a child was started. */
export function startChild(turn: Turn, plan: StepPlan, input: Value): boolean {
  const depth = (turn.run.parent?.depth ?? 0) + 1;
  if (depth > depthMax) {
    const message = `the run has ${depth - 1} runs above it, and at most ${depthMax} are allowed; does the chain call itself without end?`;
    failStep(turn, plan.index, meshFailure("DEPTH_EXCEEDED", message, false));
    return false;
  }
  const step = editStep(turn, plan.index);
  step.status = StepStatus.STEP_STATUS_RUNNING;
  step.attempt += 1;
  step.lease = turn.context.childId();
  step.attemptAtMs = turn.nowMs;
  step.startedAtMs = turn.nowMs;
  const { attempt, lease } = step;
  record(turn, EventKind.EVENT_KIND_CHILD_STARTED, { step: plan.index, attempt, note: lease });
  move(turn, plan.index, step.status, attempt);
  const bound = { attempt, lease, session: childSession, startedAtMs: turn.nowMs };
  turn.effects.push({ kind: "bind", step: plan, ...bound });
  turn.effects.push(childStart(turn, plan, input, false));
  return true;
}

function childStart(turn: Turn, plan: StepPlan, input: Value, again: boolean) {
  const { run } = turn;
  const step = run.steps[plan.index]!;
  const attemptEndMs = step.startedAtMs + plan.startToCloseMs;
  const stepEndMs = plan.scheduleToCloseMs === undefined ? Infinity : step.readyAtMs + plan.scheduleToCloseMs;
  return {
    kind: "start-child" as const,
    step: plan,
    childId: step.lease,
    attempt: step.attempt,
    input,
    // S3; the run's deadline does not bound its undos (U4).
    deadlineAtMs: Math.min(plan.undoes === undefined ? run.deadlineAtMs : Infinity, attemptEndMs, stepEndMs),
    depth: (run.parent?.depth ?? 0) + 1,
    again,
  };
}

/** Derives again what a commit of this step had set in motion and what may never have been done. */
export function resumeChild(turn: Turn, plan: StepPlan, event: Extract<RunEvent, { kind: "redispatch" }>): void {
  const step = turn.run.steps[plan.index]!;
  if (event.startsOnly || (event.report && event.report.lease !== step.lease) || step.lease === "") return;
  const stops = plan.child?.onParentClose === "cancel";
  if (step.status === StepStatus.STEP_STATUS_CANCELLED) {
    if (stops) turn.effects.push({ kind: "cancel-child", step: plan, childId: step.lease });
    return;
  }
  if (step.status !== StepStatus.STEP_STATUS_RUNNING) return;
  if (turn.run.cancel) {
    if (stops) turn.effects.push({ kind: "cancel-child", step: plan, childId: step.lease });
    return;
  }
  const input = inputOf(turn, plan);
  if (typeof input !== "string") turn.effects.push(childStart(turn, plan, input, true));
}

/** How steps fail and runs end. A run ends once; what was under way is told to stop by the loss of its lease. */
import { EventKind, type Failure } from "@taskmesh/proto";
import { breakRun, mended } from "./broken.js";
import { catchFailure } from "./catch.js";
import { beginUndos, failUndo, goOnUndoing, isIdleUndo, withUndoFailures } from "./compensation.js";
import { leaveHold } from "./hold.js";
import { closeItems, dropItems } from "./items.js";
import { failInRace } from "./joins.js";
import type { Value } from "./plan.js";
import { answerOfCaller } from "./responds.js";
import { inFlight, isFinal, isOver, RunStatus, type StepState, StepStatus } from "./run-state.js";
import { editStep, type ItemTurn, meshFailure, move, record, scopeOf, type Turn } from "./turn.js";
import { closeWait } from "./waits.js";

/** Largest result that is kept in the history row itself; equals the transport's inline bound. */
const inlineResultBytesMax = 128 * 1024;

type Bad = StepStatus.STEP_STATUS_FAILED | StepStatus.STEP_STATUS_EXPIRED;

/** A step has failed for good: a rule of its own catches that, or the run fails with it. */
export function failStep(
  turn: Turn,
  index: number,
  failure: Failure,
  status: Bad = StepStatus.STEP_STATUS_FAILED,
): void {
  if (turn.at) failItem(turn, index, failure, turn.at, status);
  else if (turn.plan.steps[index]!.undoes !== undefined) failUndo(turn, index, failure, status);
  else if (!catchFailure(turn, index, failure, status)) failUncaught(turn, index, failure, status);
}

/** An item fails alone; what that means for its step is decided behind it (items.ts). */
function failItem(turn: Turn, index: number, failure: Failure, at: ItemTurn, status: Bad): void {
  const { attempt, key } = stopStep(turn, index, status);
  at.failure = failure;
  const note = key === undefined ? {} : { note: key };
  record(turn, EventKind.EVENT_KIND_ITEM_FAILED, { step: index, attempt, failure, ...note });
}

/** Ends a step badly, and with it the run, unless a race goes on without it. */
export function failUncaught(
  turn: Turn,
  index: number,
  failure: Failure,
  status: Bad = StepStatus.STEP_STATUS_FAILED,
): void {
  if (failInRace(turn, index, failure, status)) return;
  const step = stopStep(turn, index, status);
  const kind =
    status === StepStatus.STEP_STATUS_FAILED ? EventKind.EVENT_KIND_STEP_FAILED : EventKind.EVENT_KIND_STEP_EXPIRED;
  record(turn, kind, { step: index, attempt: step.attempt, failure });
  const whole = failureOfRun(turn, index, failure);
  if (turn.plan.brokenTtlMs === undefined || turn.run.closing) endRun(turn, RunStatus.RUN_STATUS_FAILED, whole);
  else breakRun(turn, index, whole);
}

/** The caller's view: the step's own reason and details, and where it happened. A lone action's failure is passed on as it is. */
function failureOfRun(turn: Turn, index: number, failure: Failure): Failure {
  if (turn.plan.version === 0) return failure;
  const message = `step "${turn.plan.steps[index]!.id}": ${failure.message}`;
  return { ...failure, message, retryable: false, cause: failure };
}

/** Takes a step out of whatever it was doing; its lease, queue place and binding are gone. */
export function stopStep(turn: Turn, index: number, status: StepStatus) {
  const plan = turn.plan.steps[index]!;
  askChild(turn, index);
  // Items write to their step too: its draft is taken behind them.
  if (turn.run.steps[index]!.each) dropItems(turn, index);
  else releaseLease(turn, index);
  const step = editStep(turn, index);
  if (step.status === StepStatus.STEP_STATUS_READY) turn.effects.push({ kind: "dequeue", step: plan });
  closeWait(turn, plan, step);
  step.status = status;
  step.endedAtMs = turn.nowMs;
  return step;
}

/** The step's lease is no longer current: its window place and its binding go. */
export function releaseLease(turn: Turn, index: number): void {
  const step = turn.run.steps[index]!;
  if (!inFlight(step.status)) return;
  turn.effects.push({ kind: "free", lease: step.lease });
  if (step.status === StepStatus.STEP_STATUS_RUNNING)
    turn.effects.push({ kind: "unbind", step: turn.plan.steps[index]! });
}

/** Asks the child that the step runs to stop, unless it may go on. */
export function askChild(turn: Turn, index: number): void {
  const { status, lease } = turn.run.steps[index]!;
  const plan = turn.plan.steps[index]!;
  // A fan-out has no lease: its items have.
  if (plan.child?.onParentClose !== "cancel" || status !== StepStatus.STEP_STATUS_RUNNING || lease === "") return;
  turn.effects.push({ kind: "cancel-child", step: plan, childId: lease });
}

/** Likewise where the holder did not report: should it still do so, its report is a late one and no repetition. */
export function forgetLease(turn: Turn, index: number): void {
  askChild(turn, index);
  releaseLease(turn, index);
  editStep(turn, index).lease = "";
}

/** Ends the run, or lets it wait for children that are to end before it, and for its undos: every other step that is not over is cancelled. */
export function endRun(turn: Turn, ending: RunStatus, cause?: Failure, output?: Value): void {
  if (closeRun(turn, ending, cause)) return;
  const { status, failure } = turn.run.closing ?? { status: ending, failure: cause };
  if (!beginUndos(turn, status, failure)) endNow(turn, status, failure, output);
}

/** Ends the run whatever it would have to wait for. */
export function endNow(turn: Turn, ending: RunStatus, cause?: Failure, output?: Value): void {
  const decided = turn.run.undo ?? turn.run.closing ?? { status: ending, failure: cause };
  const { status } = decided;
  const failure = withUndoFailures(turn, decided.failure);
  record(turn, EventKind.EVENT_KIND_RUN_ENDED, {
    runStatus: status,
    ...(failure ? { failure } : {}),
    ...(output ? { payload: output } : {}),
  });
  turn.run.steps.forEach((step, index) => {
    if (isOver(step.status) || isIdleUndo(turn.plan.steps[index]!, step)) return;
    const stopped = stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED);
    move(turn, index, stopped.status, stopped.attempt);
  });
  delete turn.run.closing;
  delete turn.run.done;
  if (turn.run.undo?.failures.length === 0) delete turn.run.undo;
  turn.run.status = status;
  turn.run.endedAtMs = turn.nowMs;
  turn.run.evaluatingOutput = false;
  delete turn.run.catching;
  if (turn.run.broken) mended(turn);
  if (failure) turn.run.failure = failure;
  turn.effects.push({ kind: "ended" });
  if (turn.run.parent) turn.effects.push({ kind: "tell-parent", ...(output ? { output } : {}) });
}

/** Whether the step runs a child that its parent may not end before. */
function isWaitedFor(turn: Turn, index: number): boolean {
  if (turn.plan.steps[index]!.child?.onParentClose !== "wait") return false;
  const isRunning = ({ status }: StepState): boolean => status === StepStatus.STEP_STATUS_RUNNING;
  const { each } = turn.run.steps[index]!;
  return each ? [...(turn.run.items?.get(index)?.values() ?? [])].some(isRunning) : isRunning(turn.run.steps[index]!);
}

/** Decides how the run ends, if that must wait for children. They can't outlive the run's deadline, so it ends then at the latest. */
function closeRun(turn: Turn, status: RunStatus, failure: Failure | undefined): boolean {
  const { run } = turn;
  if (run.undo || run.deadlineAtMs <= turn.nowMs || !run.steps.some((_, index) => isWaitedFor(turn, index)))
    return false;
  if (run.closing) return true;
  record(turn, EventKind.EVENT_KIND_RUN_CLOSING, { runStatus: status, ...(failure ? { failure } : {}) });
  leaveHold(turn);
  run.closing = { status, ...(failure ? { failure } : {}) };
  run.steps.forEach((step, index) => {
    if (isOver(step.status) || isIdleUndo(turn.plan.steps[index]!, step)) return;
    if (isWaitedFor(turn, index)) {
      if (step.each) closeItems(turn, index);
      return;
    }
    const stopped = stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED);
    move(turn, index, stopped.status, stopped.attempt);
  });
  return true;
}

/** Ends the run if all its steps are over. */
export function finishIfOver(turn: Turn): void {
  const { run } = turn;
  if (turn.at || isFinal(run.status) || run.broken || run.evaluatingOutput) return;
  if (run.undo) return goOnUndoing(turn);
  if (!run.steps.every((step, index) => isOver(step.status) || turn.plan.steps[index]!.undoes !== undefined)) return;
  if (run.closing) return endRun(turn, run.closing.status, run.closing.failure);
  if (run.cancel) return endCancelled(turn);
  const answer = answerOfCaller(run);
  if (answer) return endRun(turn, RunStatus.RUN_STATUS_SUCCEEDED, undefined, answer);
  const output = turn.plan.bindOutput(scopeOf(turn));
  if (output.kind === "failed") {
    return endRun(turn, RunStatus.RUN_STATUS_FAILED, meshFailure(output.error.reason, output.error.message, false));
  }
  if (output.kind === "deferred" || output.value.length > inlineResultBytesMax) {
    run.evaluatingOutput = true;
    turn.effects.push({ kind: "evaluate", stepId: "" });
    return;
  }
  const value: Value = {
    contract: turn.plan.outputContract,
    sizeBytes: output.value.length,
    sha256: new Uint8Array(0),
    bytes: output.value,
  };
  endRun(turn, RunStatus.RUN_STATUS_SUCCEEDED, undefined, value);
}

/** Ends a run whose cancel has run its course. */
export function endCancelled(turn: Turn): void {
  const reason = turn.run.cancel?.reason ?? "";
  endRun(turn, RunStatus.RUN_STATUS_CANCELLED, meshFailure("CANCELLED", reason || "the run was cancelled", false));
}

/** What people do to runs: pause, resume, terminate, change, and mend what broke. Each leaves a history row with who and why. */
import { EventKind } from "@taskmesh/proto";
import { retrySteps, skipBroken } from "./broken.js";
import { giveUpUndos } from "./compensation.js";
import { cancelNow } from "./control.js";
import { goOn, holdQueued, noteOperation } from "./hold.js";
import type { ChainPlan } from "./plan.js";
import { endNow } from "./run-end.js";
import type { Advance, Context, OperateEvent, Operation, Unchanged } from "./run-event.js";
import { isHeld, type RunState, RunStatus, StepStatus } from "./run-state.js";
import { stepIndex } from "./step-index.js";
import { beginTurn, changed, meshFailure, record, type Turn, unchanged } from "./turn.js";

/** Does what was asked for, or says why the run's state refuses it. */
export function operate(run: RunState, plan: ChainPlan, event: OperateEvent, context: Context): Advance {
  const { operation, by, reason, id } = event;
  if (id !== undefined && run.operation === id) return unchanged(run, "applied");
  const refused = refusal(run, plan, operation);
  if (refused) return unchanged(run, refused);
  const turn = beginTurn(run, plan, context);
  noteOperation(turn, event);
  perform(turn, operation, { ...(by === "" ? {} : { by }), ...(reason === "" ? {} : { note: reason }) });
  // What waited with the run, and was not looked at, may be due.
  return changed(turn, true);
}

function refusal(run: RunState, plan: ChainPlan, operation: Operation): Unchanged | undefined {
  switch (operation.kind) {
    case "terminate":
      return undefined;
    case "replace":
      return !operation.terminate && (run.cancel || run.closing || run.undo) ? "cancelling" : undefined;
    case "pause":
      if (run.cancel || run.closing || run.undo) return "cancelling";
      return run.status === RunStatus.RUN_STATUS_PAUSED || run.broken?.paused ? "already" : undefined;
    case "resume":
      return run.status === RunStatus.RUN_STATUS_PAUSED || run.broken?.paused ? undefined : "already";
    case "update":
      return Object.keys(labelsAfter(run, operation)).length > labelsMax ? "too-many-labels" : undefined;
    case "retry": {
      if (!run.broken) return "not-broken";
      return operation.steps.map((id) => brokenStep(run, plan, id)).find((why) => typeof why === "string");
    }
    case "skip": {
      if (!run.broken) return "not-broken";
      const index = brokenStep(run, plan, operation.step);
      if (typeof index === "string") return index;
      return operation.output || plan.steps[index]!.mayBeUnset ? undefined : "output-needed";
    }
  }
}

function brokenStep(run: RunState, plan: ChainPlan, id: string): number | Unchanged {
  const index = stepIndex(plan, id);
  if (index === undefined) return "unknown-step";
  return run.broken?.steps.includes(index) ? index : "step-not-broken";
}

type Asked = { by?: string; note?: string };

function perform(turn: Turn, operation: Operation, asked: Asked): void {
  const { run, plan } = turn;
  switch (operation.kind) {
    case "pause":
      record(turn, EventKind.EVENT_KIND_RUN_PAUSED, { runStatus: RunStatus.RUN_STATUS_PAUSED, ...asked });
      if (run.broken) run.broken = { ...run.broken, paused: true };
      else {
        run.status = RunStatus.RUN_STATUS_PAUSED;
        holdQueued(turn);
      }
      return;
    case "resume":
      return resume(turn, asked);
    case "terminate":
      record(turn, EventKind.EVENT_KIND_RUN_TERMINATED, asked);
      return terminate(turn, asked.note ?? "the run was terminated");
    case "replace":
      return replace(turn, operation, asked);
    case "update":
      return update(turn, operation, asked);
    case "retry": {
      const chosen = operation.steps.map((id) => stepIndex(plan, id)!);
      return retrySteps(turn, chosen.length > 0 ? [...new Set(chosen)] : run.broken!.steps, operation.input, asked);
    }
    case "skip":
      return skipBroken(turn, stepIndex(plan, operation.step)!, operation.output, asked);
  }
}

function terminate(turn: Turn, message: string): void {
  giveUpUndos(turn);
  endNow(turn, RunStatus.RUN_STATUS_CANCELLED, meshFailure("TERMINATED", message, false));
}

/** Its place is another run's: what is left of this one ends. */
function replace(
  turn: Turn,
  { successor, hash, terminate: atOnce }: Extract<Operation, { kind: "replace" }>,
  asked: Asked,
): void {
  turn.run.successor = { runId: successor, hash };
  record(turn, EventKind.EVENT_KIND_RUN_REPLACED, { other: successor, ...asked });
  const why = `run ${successor} goes on in its place${asked.note === undefined ? "" : `: ${asked.note}`}`;
  if (atOnce) terminate(turn, why);
  else cancelNow(turn, { ...asked, note: why });
}

function resume(turn: Turn, asked: Asked): void {
  const { run } = turn;
  const runStatus = run.broken ? RunStatus.RUN_STATUS_BROKEN : RunStatus.RUN_STATUS_RUNNING;
  record(turn, EventKind.EVENT_KIND_RUN_RESUMED, { runStatus, ...asked });
  if (run.broken) {
    const { paused: _, ...broken } = run.broken;
    run.broken = broken;
  } else {
    run.status = runStatus;
    goOn(turn);
  }
}

type Update = Extract<Operation, { kind: "update" }>;

/** Labels that a run may have. */
export const labelsMax = 32;

function labelsAfter({ labels }: RunState, { setLabels = {}, removeLabels = [] }: Update): Record<string, string> {
  const kept = Object.entries(labels).filter(([key]) => !removeLabels.includes(key));
  return { ...Object.fromEntries(kept), ...setLabels };
}

/** A new priority counts for what waits in the ready queue too. */
function update(turn: Turn, operation: Update, asked: Asked): void {
  const { run, plan } = turn;
  const { priority, setLabels, removeLabels } = operation;
  record(turn, EventKind.EVENT_KIND_RUN_CHANGED, asked);
  turn.effects.push({ kind: "columns" });
  if (setLabels || removeLabels) run.labels = labelsAfter(run, operation);
  if (priority === undefined) return;
  run.priority = priority;
  if (isHeld(run.status)) return;
  run.steps.forEach((step, index) => {
    const stepPlan = plan.steps[index]!;
    if (step.status !== StepStatus.STEP_STATUS_READY || stepPlan.priority !== undefined) return;
    turn.effects.push({ kind: "enqueue", step: stepPlan, atMs: step.attemptAtMs, priority });
  });
}

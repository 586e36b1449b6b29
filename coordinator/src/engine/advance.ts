/**
 * The engine: what an event makes of a run. Pure and synchronous; see run-state.ts for the picture and the invariants E1 to E6.
 *
 * The caller stores the changed run with its records in one transaction, and only then performs the effects.
 */
import { EventKind } from "@taskmesh/proto";
import { assignment } from "./assignments.js";
import { onReport } from "./attempts.js";
import { onChildEnded } from "./child-end.js";
import { admit, cancel, evaluated, failedTooLate, redispatch, wake } from "./control.js";
import { receive } from "./messages.js";
import { operate } from "./operate.js";
import type { ChainPlan, Value } from "./plan.js";
import type { Advance, Context, RunEvent } from "./run-event.js";
import { isFinal, type Origin, type ParentRef, pendingStep, type RunState, RunStatus } from "./run-state.js";
import { acceptedTimes } from "./run-time.js";
import { startReady } from "./step-start.js";
import { beginTakenOver, type TakeOver } from "./take-over.js";
import { beginTurn, changed, record, unchanged } from "./turn.js";

/** What a new run begins with. */
export interface Acceptance {
  id: string;
  namespaceId: number;
  namespace: string;
  input: Value;
  labels: Readonly<Record<string, string>>;
  priority: number;
  timeoutMs?: number;
  /** Nothing starts before. */
  startAtMs?: number;
  /** The run ends by then, whatever its time-out. */
  deadlineAtMs?: number;
  /** The step that starts it. */
  parent?: ParentRef;
  trace?: Readonly<Record<string, string>>;
  starter?: string;
  customId?: string;
  /** The run that it is made from, and what it takes over. */
  origin?: Origin;
  takeOver?: TakeOver;
  /** The bulk operation that makes it. */
  operation?: string;
  /** Why, and who asked for it, if not the starter. */
  note?: string;
  by?: string;
}

/** Accepts a run: its first steps start in the same turn. */
export function accept(plan: ChainPlan, acceptance: Acceptance, context: Context): Advance {
  const turn = beginTurn(newRun(plan, acceptance, context), plan, context);
  const { run } = turn;
  const { takeOver, note, by } = acceptance;
  record(turn, EventKind.EVENT_KIND_RUN_ACCEPTED, {
    payload: acceptance.input,
    ...(by ? { by } : {}),
    ...(note ? { note } : {}),
  });
  if (takeOver && run.origin) beginTakenOver(turn, takeOver, run.origin.runId);
  if (run.startAtMs === undefined) startReady(turn, plan.steps.keys());
  return changed(turn, true);
}

/** Written field by field: copying what was given, with what it may have or not, cost more than all else of an acceptance (measured). */
function newRun(plan: ChainPlan, acceptance: Acceptance, context: Context): RunState {
  const { nowMs } = context;
  const {
    id,
    namespaceId,
    namespace,
    labels,
    priority,
    input,
    timeoutMs,
    startAtMs,
    deadlineAtMs = Infinity,
  } = acceptance;
  const times = acceptedTimes(plan, nowMs, { timeoutMs, startAtMs, deadlineAtMs });
  const run: { -readonly [K in keyof RunState]: RunState[K] } = {
    id,
    namespaceId,
    namespace,
    acceptedAtMs: nowMs,
    deadlineAtMs: times.deadlineAtMs,
    priority,
    labels,
    status: RunStatus.RUN_STATUS_RUNNING,
    version: 0,
    lastSeq: 0,
    nowMs,
    wakeupAtMs: 0,
    endedAtMs: 0,
    steps: plan.steps.map(pendingStep),
    evaluatingOutput: false,
    input,
    outputs: plan.steps.map(() => undefined),
  };
  const { parent, trace, starter, customId, origin, operation } = acceptance;
  if (times.startAtMs !== undefined) run.startAtMs = times.startAtMs;
  if (times.timed) run.timed = times.timed;
  if (trace) run.trace = trace;
  if (starter !== undefined) run.starter = starter;
  if (customId !== undefined) run.customId = customId;
  if (parent) run.parent = parent;
  if (origin) run.origin = origin;
  if (operation !== undefined) run.operation = operation;
  // 192 bits: whoever has a token must not be able to make another.
  if (plan.steps.some(({ wait }) => wait?.kind === "callback")) run.secret = context.lease() + context.lease();
  return run;
}

/** The run after `event`, with what must be stored and done; `unchanged` with the reason where the run's state refuses the event. */
export function advance(run: RunState, plan: ChainPlan, event: RunEvent, context: Context): Advance {
  if (isFinal(run.status)) return unchanged(run, "run-ended"); // E4
  switch (event.kind) {
    case "complete":
      return failedTooLate(run, plan, event, context) ?? onReport(run, plan, event, context);
    case "bind":
    case "lose":
    case "claim":
      return onReport(run, plan, event, context);
    case "redispatch":
      return redispatch(beginTurn(run, plan, context), event);
    case "admit":
      return admit(beginTurn(run, plan, context), event.step, event.item);
    case "evaluated":
      return evaluated(beginTurn(run, plan, context), event.stepId, event.evaluation);
    case "cancel":
      return cancel(run, plan, event, context);
    case "assignment":
      return assignment(run, plan, event, context);
    case "message":
      return receive(run, plan, event, context);
    case "wake":
      return wake(beginTurn(run, plan, context));
    case "child-ended":
      return onChildEnded(run, plan, event, context);
    case "operate":
      return operate(run, plan, event, context);
  }
}

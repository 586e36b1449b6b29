/** A draft of one run while one event is applied to it. The run that came in is never written to. */
import type { EventKind, Failure } from "@taskmesh/proto";
import { nextWakeupAtMs } from "./deadlines.js";
import { seenBy } from "./joins.js";
import type { ChainPlan, Scope, StepPlan } from "./plan.js";
import type { Advance, Context, Effect, ItemChange, Move, RunRecord, Unchanged } from "./run-event.js";
import type { RunState, StepState, StepStatus } from "./run-state.js";
import { noteFirstStart } from "./run-time.js";

export interface Turn {
  readonly run: RunState;
  readonly plan: ChainPlan;
  readonly context: Context;
  readonly nowMs: number;
  readonly records: RunRecord[];
  readonly effects: Effect[];
  /** An item stands in its step's place (items.ts). */
  at?: ItemTurn;
  /** Items that changed. */
  items?: Map<string, ItemChange>;
  /** How the last item that failed in this turn did. */
  itemFailure?: Failure;
  /** While steps are being started: those to look at next. */
  starting: number[] | undefined;
  /** The next undo is being looked for. */
  undoing?: boolean;
}

/** The item that a turn is about, and how it ended. */
export interface ItemTurn {
  item: number;
  failure?: Failure;
  outputBytes: number;
}

/** Begins to apply an event: copies what may change. */
export function beginTurn(run: RunState, plan: ChainPlan, context: Context): Turn {
  const nowMs = Math.max(context.nowMs, run.nowMs);
  // A copy that is written to, rather than a literal that overrides: half the time (measured).
  const draft = { ...run };
  draft.nowMs = nowMs;
  draft.steps = run.steps.slice();
  draft.outputs = run.outputs.slice();
  return { run: draft, plan, context, nowMs, records: [], effects: [], starting: undefined };
}

/** The step's draft, to be written to. */
export function editStep(turn: Turn, index: number): StepState {
  const copy = { ...turn.run.steps[index]! };
  turn.run.steps[index] = copy;
  return copy;
}

/** Adds a history row; moves that follow belong to it. */
export function record(
  turn: Turn,
  kind: EventKind,
  about: { step?: number; attempt?: number } & Partial<
    Omit<RunRecord, "seq" | "kind" | "step" | "attempt" | "moves">
  > = {},
): void {
  turn.run.lastSeq += 1;
  const row: RunRecord = { seq: turn.run.lastSeq, kind, step: -1, attempt: 0, moves: [] };
  Object.assign(row, about);
  if (turn.at) row.item = turn.at.item;
  turn.records.push(row);
}

/** Says that the newest record changed a step. */
export function move(turn: Turn, step: number, status: StepStatus, attempt: number, retryAtMs?: number): void {
  // Items have records of their own; their moves would make those of steps long.
  if (turn.at) return;
  const moves: Move[] | undefined = turn.records.at(-1)?.moves;
  if (!moves) throw new Error("a step may only move within a recorded event");
  moves.push({ step, status, attempt, ...(retryAtMs === undefined ? {} : { retryAtMs }) });
}

/** What the expressions of the run, or of one of its steps, read now; `error`: those that answer a failure. */
export function scopeOf(turn: Turn, index = -1, error?: Failure): Scope {
  const { run, plan } = turn;
  const step = plan.steps[index];
  return {
    run: aboutRun(run, plan.method),
    input: run.input,
    outputs: step ? seenBy(step, run.steps[index]!, run.outputs) : run.outputs,
    ...errorOf(step, run, error),
  };
}

/** What went wrong, for the expressions that may read it: those of rules, and of undos. */
export function errorOf(
  step: StepPlan | undefined,
  { undo, failure }: Pick<RunState, "undo" | "failure">,
  error = step?.undoes === undefined ? undefined : (undo?.failure ?? failure),
): Pick<Scope, "error"> {
  return error ? { error } : {};
}

/** What expressions read of the run itself. */
export const aboutRun = (run: RunState, method: string): Scope["run"] => ({
  id: run.id,
  namespace: run.namespace,
  method,
  acceptedAtMs: run.acceptedAtMs,
  ...(run.secret ? { secret: run.secret } : {}),
});

/**
 * Ends the turn with a changed run. The stored wake-up is left alone unless something is due earlier, since moving it later with every
 * fast step would rewrite its index; `exact` (the sweeper looked at it) sets it to what is due next.
 */
export function changed(turn: Turn, exact = false): Advance {
  if (turn.at) return { verdict: "changed", why: "none", run: turn.run, records: [], effects: [] };
  if (turn.run.timed) noteFirstStart(turn.run);
  // What did not change was looked at when the wake-up was set.
  const changes = exact || turn.run.wakeupAtMs === 0 ? undefined : (turn.items ?? none);
  const next = nextWakeupAtMs(turn.run, turn.plan, changes);
  if (exact || next === 0 || next < turn.run.wakeupAtMs || turn.run.wakeupAtMs === 0) turn.run.wakeupAtMs = next;
  const items = turn.items ? { items: [...turn.items.values()] } : {};
  return { verdict: "changed", why: "none", run: turn.run, records: turn.records, effects: turn.effects, ...items };
}

const none: ReadonlyMap<string, ItemChange> = new Map();

/** Ends the turn with the run as it was. */
export function unchanged(run: RunState, why: Unchanged): Advance {
  return { verdict: "unchanged", why, run, records: [], effects: [] };
}

/** A failure that the mesh itself states. */
export function meshFailure(reason: string, message: string, retryable: boolean, cause?: Failure): Failure {
  return { reason, message, retryable, details: [], cause };
}

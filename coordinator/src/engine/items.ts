/**
 * Fan-out: a step whose call runs once for each item of a list or map.
 *
 *   evaluate ─► items (≤ openMax a commit) ─► open: PENDING ─► started, at most parallelMax ─► … ─► over: its row goes, a count grows
 *       ▲                                        │
 *       └──── fewer than refillBelow wait ◄──────┘
 *
 * An item lives like a step: while an event is applied to it, it stands in its step's place (`onItem`), and everything that moves steps
 * moves it. What would follow for the run (the next steps, its end) is left out then and decided here, for the step as a whole.
 *
 * F1. An item is over exactly if it was opened (`item < next`) and has no state: so the header needs no bitmap, and its size is constant.
 * F2. Items start in order; at most parallelMax of them are started and not over.
 * F3. The step ends once: when every item is over, or when more have failed than it tolerates, or with its run.
 */
import { EventKind, type Failure } from "@taskmesh/proto";
import { resumeChild } from "./children.js";
import { noteDone } from "./compensation.js";
import { dueOf } from "./deadlines.js";
import { ItemMap } from "./item-map.js";
import type { ChainPlan, Value } from "./plan.js";
import { askChild, failStep, finishIfOver, forgetLease, stopStep } from "./run-end.js";
import type { Advance, Context, Effect, Evaluation, RunEvent } from "./run-event.js";
import {
  type EachState,
  inFlight,
  isFinal,
  isHeld,
  isOver,
  pendingStep,
  type RunState,
  type StepState,
  StepStatus,
} from "./run-state.js";
import { offerStep, startReady } from "./step-start.js";
import { beginTurn, changed, editStep, meshFailure, record, type Turn, unchanged } from "./turn.js";

/** Items that one commit opens. */
export const openMax = 500;
/** Further items are opened when fewer than this wait to be started. */
const refillBelow = 250;

const openItems = (run: RunState, index: number): ItemMap => run.items?.get(index) ?? ItemMap.none;

/** The item's state is to be this, undefined: it is over. */
function put(turn: Turn, index: number, item: number, state: StepState | undefined): void {
  const before = openItems(turn.run, index);
  const opened = !before.has(item);
  turn.run.items = new Map(turn.run.items).set(index, before.with(item, state));
  turn.items ??= new Map();
  const key = `${index}/${item}`;
  const change = turn.items.get(key);
  turn.items.set(key, { step: index, item, opened: change?.opened ?? opened });
}

/** Applies `act` to an item that stands in its step's place, and then what its end means for the step. */
export function onItem(turn: Turn, index: number, item: number, act: () => Advance): Advance {
  const verdict = withItem(turn, index, item, act);
  if (verdict === undefined) return unchanged(turn.run, "unknown-step");
  if (verdict.verdict === "unchanged") return verdict;
  settle(turn, index);
  return changed(turn);
}

/** Applies a worker's report to an item. The run stays as it was where the report is refused. */
export function reportItem(
  run: RunState,
  plan: ChainPlan,
  at: { index: number; item: number; context: Context },
  act: (turn: Turn) => Advance,
): Advance {
  const { index, item } = at;
  if (!openItems(run, index).has(item)) {
    return unchanged(run, item < (run.steps[index]!.each?.next ?? 0) ? "duplicate" : "unknown-step");
  }
  const turn = beginTurn(run, plan, at.context);
  const result = onItem(turn, index, item, () => act(turn));
  return result.verdict === "unchanged" ? unchanged(run, result.why) : result;
}

function withItem<T>(turn: Turn, index: number, item: number, act: () => T): T | undefined {
  const state = openItems(turn.run, index).get(item);
  const whole = turn.run.steps[index]!;
  if (!state || !whole.each || turn.at) return undefined;
  const before = turn.effects.length;
  const at = { item, outputBytes: 0, failure: undefined as Failure | undefined };
  turn.run.steps[index] = state;
  turn.at = at as NonNullable<Turn["at"]>;
  const result = act();
  delete turn.at;
  const after = turn.run.steps[index]!;
  turn.run.steps[index] = whole;
  for (let n = before; n < turn.effects.length; n++) stamp(turn.effects[n]!, item);
  if (after === state) return result;
  put(turn, index, item, isOver(after.status) ? undefined : after);
  if (after.lease !== state.lease && after.lease !== "") editEach(turn, index).mark = after.lease;
  if (isOver(after.status)) count(turn, index, after.status, at);
  return result;
}

function stamp(effect: Effect, item: number): void {
  switch (effect.kind) {
    case "dispatch":
    case "enqueue":
    case "dequeue":
    case "bind":
    case "unbind":
    case "start-child":
      effect.item = item;
  }
}

function count(
  turn: Turn,
  index: number,
  status: StepStatus,
  at: { outputBytes: number; failure?: Failure | undefined },
): void {
  const each = editEach(turn, index);
  if (status === StepStatus.STEP_STATUS_SUCCEEDED) {
    each.succeeded += 1;
    each.bytes += at.outputBytes;
  } else if (status !== StepStatus.STEP_STATUS_CANCELLED) {
    each.failed += 1;
    if (at.failure) turn.itemFailure = at.failure;
  }
}

function editEach(turn: Turn, index: number): EachState {
  const step = editStep(turn, index);
  step.each = { ...step.each! };
  return step.each;
}

/** Inputs of items are bound: opens them. Undefined: it is decided like any other step (skipped, or failed before the first item). */
export function itemsEvaluated(turn: Turn, index: number, evaluation: Evaluation): Advance | undefined {
  const step = turn.run.steps[index]!;
  const first = step.status === StepStatus.STEP_STATUS_WAITING;
  // What was asked for may come when an item has ended the step.
  if (turn.run.cancel || isOver(step.status) || (!first && !step.each?.opening))
    return unchanged(turn.run, "not-ready");
  if (first && evaluation.kind !== "items") return undefined;
  if (evaluation.kind === "failed") {
    failStep(turn, index, evaluation.failure);
    return changed(turn);
  }
  const from = step.each?.next ?? 0;
  if (evaluation.kind !== "items" || evaluation.from !== from) return unchanged(turn.run, "not-ready");
  const { total, items } = evaluation;
  const draft = editStep(turn, index);
  draft.status = StepStatus.STEP_STATUS_RUNNING;
  draft.startedAtMs ||= turn.nowMs;
  draft.each ??= { total, next: 0, started: 0, succeeded: 0, failed: 0, bytes: 0, opening: false, mark: "" };
  const note = `${from} to ${from + items.length - 1} of ${total}`;
  record(turn, EventKind.EVENT_KIND_ITEMS_OPENED, { step: index, note: items.length === 0 ? "none" : note });
  const each = editEach(turn, index);
  each.opening = false;
  each.next = from + items.length;
  for (const [n, { key, input }] of items.entries()) {
    const state: StepState = { ...pendingStep(), ...(key === undefined ? {} : { key }) };
    if (isValue(input)) state.input = input;
    put(turn, index, from + n, state);
    if (!isValue(input)) withItem(turn, index, from + n, () => failStep(turn, index, input));
  }
  settle(turn, index);
  return changed(turn);
}

const isValue = (input: Value | Failure): input is Value => "contract" in input;

/** Decides what the state of the items means for the step: its end, or more items. */
function settle(turn: Turn, index: number): void {
  const { run, plan } = turn;
  const step = run.steps[index]!;
  const { each } = step;
  if (!each || isFinal(run.status) || isOver(step.status)) return;
  if (each.failed > toleratedOf(plan, index, each.total)) return failStep(turn, index, tooMany(turn, index, each));
  if (run.cancel) return settleCancelled(turn, index);
  if (each.succeeded + each.failed === each.total) return endStep(turn, index, each);
  if (run.closing) return settleCancelled(turn, index);
  if (isHeld(run.status)) return; // E7
  start(turn, index);
  // Some may have failed at once: then what is left may be over, or too many have.
  if (turn.run.steps[index]!.each!.failed > each.failed) return settle(turn, index);
  refill(turn, index);
}

function toleratedOf(plan: ChainPlan, index: number, total: number): number {
  const { toleratedCount, toleratedShare } = plan.steps[index]!.each!;
  return Math.max(toleratedCount, Math.floor(toleratedShare * total + 1e-9));
}

function tooMany(turn: Turn, index: number, each: EachState): Failure {
  const allowed = toleratedOf(turn.plan, index, each.total);
  const cause = turn.itemFailure;
  if (allowed === 0 && cause) return { ...cause, retryable: false };
  const message = `${each.failed} of ${each.total} items failed; at most ${allowed} may`;
  return meshFailure("ITEMS_FAILED", message, false, cause);
}

/** Nothing of it is open any more. Of undos, those that failed stop none of the others and are reported then. */
function endStep(turn: Turn, index: number, each: EachState): void {
  const isUndo = turn.plan.steps[index]!.undoes !== undefined;
  if (!isUndo || each.failed === 0) return succeed(turn, index, each);
  const message = `${each.failed} of ${each.total} items could not be undone`;
  failStep(turn, index, meshFailure("ITEMS_FAILED", message, false, turn.itemFailure));
}

function succeed(turn: Turn, index: number, each: EachState): void {
  const step = editStep(turn, index);
  step.status = StepStatus.STEP_STATUS_SUCCEEDED;
  step.endedAtMs = turn.nowMs;
  turn.run.outputs[index] = itemsValue(index, each);
  const note = `${each.succeeded} of ${each.total} items succeeded`;
  record(turn, EventKind.EVENT_KIND_STEP_SUCCEEDED, { step: index, note });
  forgetItems(turn, index);
  noteDone(turn, index);
  startReady(turn, turn.plan.steps[index]!.neededBy);
}

/** The outputs of a fan-out's items are read together when an expression needs them: this only says where they are. */
export function itemsValue(index: number, each: EachState): Value {
  return { contract: "", sizeBytes: each.bytes, sha256: new Uint8Array(0), reference: `${itemsReference}${index}` };
}

/** Begins the reference of a fan-out's output; its step's index follows. */
export const itemsReference = "items/";

function start(turn: Turn, index: number): void {
  const plan = turn.plan.steps[index]!;
  const { parallelMax } = plan.each!;
  const { started, next } = turn.run.steps[index]!.each!;
  const open = openItems(turn.run, index);
  // Those that were opened and not started are all still there: only a mistake in their input ends them before.
  let active = open.size;
  for (let item = started; item < next; item++) if (open.has(item)) active -= 1;
  let item = started;
  for (; item < next && active < parallelMax; item++) {
    const begun = withItem(turn, index, item, () => {
      const state = editStep(turn, index);
      state.readyAtMs = turn.nowMs;
      state.attemptAtMs = turn.nowMs;
      offerStep(turn, plan);
      return true;
    });
    if (begun) active += 1;
  }
  if (item > started) editEach(turn, index).started = item;
}

function refill(turn: Turn, index: number): void {
  const { each } = turn.run.steps[index]!;
  if (!each || each.opening || each.next >= each.total) return;
  if (each.next - each.started >= refillBelow) return;
  editEach(turn, index).opening = true;
  turn.effects.push({ kind: "evaluate", stepId: turn.plan.steps[index]!.id });
}

/** Does something with each open item, which then stands in its step's place. */
export function forItems(turn: Turn, index: number, act: () => void): void {
  for (const item of [...openItems(turn.run, index).entries()].map(([at]) => at)) withItem(turn, index, item, act);
}

/** The hold of the run is over: `act` with what is open, and then with the rest as before. */
export function goOnWithItems(turn: Turn, index: number, act: () => void): void {
  forItems(turn, index, act);
  settle(turn, index);
}

/** Ends every item that is not over; the step's own end is recorded by the caller. */
export function dropItems(turn: Turn, index: number): void {
  forItems(turn, index, () => stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED));
  forgetItems(turn, index);
}

function dropItem(turn: Turn, index: number, item: number): void {
  withItem(turn, index, item, () => stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED));
}

/** Nothing of the fan-out is open any more. */
function forgetItems(turn: Turn, index: number): void {
  if (!turn.run.items?.has(index)) return;
  const items = new Map(turn.run.items);
  items.delete(index);
  if (items.size > 0) turn.run.items = items;
  else delete turn.run.items;
}

/** A cancel was asked for: only items that workers have go on, to clean up. */
export function cancelItems(turn: Turn, index: number): void {
  const { child } = turn.plan.steps[index]!;
  for (const [item, { status }] of openItems(turn.run, index).entries()) {
    if (!inFlight(status) || child?.onParentClose === "abandon") dropItem(turn, index, item);
    else if (child) withItem(turn, index, item, () => askChild(turn, index));
  }
  editEach(turn, index).opening = false;
  settleCancelled(turn, index);
}

/** The run waits for the step's children to end: nothing else of the step goes on. */
export function closeItems(turn: Turn, index: number): void {
  for (const [item, { status }] of openItems(turn.run, index).entries())
    if (!inFlight(status)) dropItem(turn, index, item);
  editEach(turn, index).opening = false;
}

function settleCancelled(turn: Turn, index: number): void {
  if (openItems(turn.run, index).size > 0) return;
  const step = stopStep(turn, index, StepStatus.STEP_STATUS_CANCELLED);
  record(turn, EventKind.EVENT_KIND_STEP_CANCELLED, { step: index, attempt: step.attempt });
  finishIfOver(turn);
}

/** Looks for what is due of items. */
export function wakeItems(turn: Turn, index: number, wake: () => void): void {
  const plan = turn.plan.steps[index]!;
  for (const [item, state] of openItems(turn.run, index).entries()) {
    if (dueOf(state, plan, turn.nowMs) === undefined) continue;
    withItem(turn, index, item, () => wake());
    if (turn.run.steps[index]!.each!.failed > toleratedOf(turn.plan, index, turn.run.steps[index]!.each!.total)) break;
  }
  // Of undos no deadline of the run bounds the next evaluation: should it be lost, it is asked for again.
  if (plan.undoes !== undefined && turn.run.steps[index]!.each?.opening && openItems(turn.run, index).size === 0)
    turn.effects.push({ kind: "evaluate", stepId: plan.id });
  settle(turn, index);
}

/** Starts of items that may never arrive are sent again; inputs that may never come are asked for again. Answers whether any was. */
export function redispatchItems(turn: Turn, index: number, event: Extract<RunEvent, { kind: "redispatch" }>): boolean {
  const { report, beforeMs = Number.POSITIVE_INFINITY, why } = event;
  const plan = turn.plan.steps[index]!;
  const whole = turn.run.steps[index]!;
  if (whole.each?.opening && (!report || report.lease === "")) {
    turn.effects.push({ kind: "evaluate", stepId: plan.id });
  }
  if (plan.child) {
    resumeChildren(turn, index, event);
    return false;
  }
  let touched = false;
  for (const [item, state] of openItems(turn.run, index).entries()) {
    if (state.status !== StepStatus.STEP_STATUS_DISPATCHED || turn.run.cancel) continue;
    if (report ? report.lease !== state.lease : state.attemptAtMs >= beforeMs) continue;
    touched = true;
    withItem(turn, index, item, () => {
      forgetLease(turn, index);
      record(turn, EventKind.EVENT_KIND_STEP_DISPATCHED, { step: index, attempt: state.attempt, note: why });
      offerStep(turn, plan);
    });
  }
  return touched;
}

/** Likewise for runs of items: those that may never have begun, and those of items that are over and may not have been asked to stop. */
function resumeChildren(turn: Turn, index: number, event: Extract<RunEvent, { kind: "redispatch" }>): void {
  const plan = turn.plan.steps[index]!;
  for (const [item] of openItems(turn.run, index).entries())
    withItem(turn, index, item, () => resumeChild(turn, plan, event));
  if (plan.child?.onParentClose === "cancel" && !event.report && !event.startsOnly)
    turn.effects.push({ kind: "settle-children", step: plan });
}

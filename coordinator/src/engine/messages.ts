/**
 * Messages that somebody outside sends to a run, and the steps that wait for them.
 *
 *   sent ─► a step WAITs on the mailbox ─► taken: the step SUCCEEDs with it
 *      └──► none does yet ─► kept ─► taken, when one begins to wait
 *
 * M1. A message is taken by one step, once; of several steps on one mailbox the first in the chain that waits takes it.
 * M2. Messages of one mailbox are taken in the order in which they came.
 * M3. A key that is remembered changes nothing a second time.
 * M4. A callback takes one message ever.
 * M5. What is kept is bounded, and only kept while a step of the run may still take it.
 */
import { EventKind } from "@taskmesh/proto";
import type { ChainPlan, StepPlan } from "./plan.js";
import { noteTaken } from "./responds.js";
import type { Advance, Context, RunEvent } from "./run-event.js";
import { isOver, keptMax, keysMax, type RunState } from "./run-state.js";
import { startReady } from "./step-start.js";
import { beginTurn, changed, record, type Turn, unchanged } from "./turn.js";
import { endWait, mailboxOf } from "./waits.js";

/** A message has come for the run. */
export function receive(
  run: RunState,
  plan: ChainPlan,
  event: Extract<RunEvent, { kind: "message" }>,
  context: Context,
): Advance {
  const { mailbox, name, key, value } = event;
  const { kept = [], keys = [] } = run.messages ?? {};
  if (key !== "" && keys.includes(key)) return unchanged(run, "duplicate");
  if (run.cancel) return unchanged(run, "cancelling");
  const takers = plan.steps.filter((step) => mailboxOf(step) === mailbox);
  if (takers.length === 0) return unchanged(run, "unknown-step");
  const once = takers[0]!.wait!.kind === "callback";
  if (once && kept.some((message) => message.mailbox === mailbox)) return unchanged(run, "duplicate");
  const open = takers.filter((step) => !isOver(run.steps[step.index]!.status));
  if (open.length === 0) return unchanged(run, "not-awaited");
  const waiting = open.find((step) => run.steps[step.index]!.wait !== undefined);
  if (waiting === undefined && kept.length >= keptMax) return unchanged(run, "mailbox-full");
  const turn = beginTurn(run, plan, context);
  const known = key === "" ? keys : [...keys, key].slice(-keysMax);
  // The value is in one history row: here while it is kept, else in that of the step's success.
  const kind = once ? EventKind.EVENT_KIND_CALLBACK_RECEIVED : EventKind.EVENT_KIND_SIGNAL_RECEIVED;
  record(turn, kind, { note: name, ...(waiting ? {} : { payload: value }) });
  const keeping = waiting ? kept : [...kept, { mailbox, key, seq: turn.run.lastSeq, value }];
  turn.run.messages = { ...run.messages, kept: keeping, keys: known };
  if (waiting) take(turn, waiting, event);
  return changed(turn);
}

function take(turn: Turn, plan: StepPlan, { key, value }: Extract<RunEvent, { kind: "message" }>): void {
  noteTaken(turn, plan, key);
  endWait(turn, plan, value);
  startReady(turn, plan.neededBy);
}

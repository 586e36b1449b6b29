/**
 * Steps that wait instead of calling.
 *
 *   PENDING ─► WAITING ─► SUCCEEDED            the instant has come, or the message that it waits for
 *                 ├─► EXPIRED                  schedule_to_close is over
 *                 └─► CANCELLED                the run ended or was cancelled
 *
 * W1. A waiting step has no lease and no place in a lane: the run's wake-up is all that it costs. An assignment has rows for people's inboxes.
 * W2. What a wait is about is decided once, when it begins; `wait.endsAtMs` is kept, so a change of the clock's answer moves nothing.
 * W3. A step's `wait` is there from its beginning to its end, and only then.
 */
import { EventKind } from "@taskmesh/proto";
import { openAssignment } from "./escalations.js";
import type { StepPlan, Value, WaitPlan } from "./plan.js";
import { noteTaken, respond } from "./responds.js";
import { type StepState, StepStatus } from "./run-state.js";
import { editStep, move, record, type Turn } from "./turn.js";

/** Where messages for the step go; undefined: it waits for none. */
export const mailboxOf = (plan: StepPlan): string | undefined =>
  plan.wait && "mailbox" in plan.wait ? plan.wait.mailbox : undefined;

/** Begins a wait whose input is known; answers whether it is over already. */
export function beginWait(turn: Turn, plan: StepPlan, wait: WaitPlan, input: Value): "begun" | "over" {
  const step = editStep(turn, plan.index);
  const endsAtMs = wait.kind === "timer" ? wait.endsAtMs(input.bytes ?? nothing, step.readyAtMs) : 0;
  step.status = StepStatus.STEP_STATUS_WAITING;
  step.wait = { endsAtMs };
  if (wait.kind === "choice" || wait.kind === "respond") {
    endWait(turn, plan, input);
    respond(turn, plan);
    return "over";
  }
  if (wait.kind === "human") openAssignment(turn, plan, wait.read(input.bytes ?? nothing, 0));
  const kept = takeKept(turn, plan);
  if (kept !== undefined || (wait.kind === "timer" && endsAtMs <= turn.nowMs)) {
    endWait(turn, plan, kept);
    return "over";
  }
  if (turn.records.length === 0) record(turn, EventKind.EVENT_KIND_STEP_READY, { step: plan.index });
  move(turn, plan.index, step.status, step.attempt);
  return "begun";
}

/** Whatever ends a wait takes its rows away; the state of the step is the caller's. */
export function closeWait(turn: Turn, plan: StepPlan, step: StepState): void {
  if (step.wait && plan.wait?.kind === "human") {
    turn.effects.push({ kind: "unassign", step: plan });
    if (step.wait.claimedBy !== undefined) turn.effects.push({ kind: "give-back", step: plan });
  }
  delete step.wait;
}

/** The oldest message that came for the step before it waited. */
function takeKept(turn: Turn, plan: StepPlan): Value | undefined {
  const { messages } = turn.run;
  const mailbox = mailboxOf(plan);
  const found = mailbox && messages?.kept.find((message) => message.mailbox === mailbox);
  if (!messages || !found) return undefined;
  turn.run.messages = { ...messages, kept: messages.kept.filter((message) => message !== found) };
  noteTaken(turn, plan, found.key);
  return found.value;
}

/** What the step waited for has come. The caller starts the steps that need it. */
export function endWait(turn: Turn, plan: StepPlan, output: Value = emptyOutput(plan)): void {
  const step = editStep(turn, plan.index);
  closeWait(turn, plan, step);
  step.status = StepStatus.STEP_STATUS_SUCCEEDED;
  step.endedAtMs = turn.nowMs;
  turn.run.outputs[plan.index] = output;
  record(turn, EventKind.EVENT_KIND_STEP_SUCCEEDED, { step: plan.index, payload: output });
}

const nothing = new Uint8Array(0);

const emptyOutput = (plan: StepPlan): Value => ({
  contract: plan.contract,
  sizeBytes: 0,
  sha256: nothing,
  bytes: nothing,
});

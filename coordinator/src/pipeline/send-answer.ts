/** What the sender of a message hears, and who does something with an assignment. */
import { type StatusError, statusError } from "@taskmesh/runtime";
import type { Unchanged } from "../engine/run-event.js";
import { keptMax, type StepState, StepStatus } from "../engine/run-state.js";
import { runEnded, runNotFound } from "./intake.js";
import type { Message } from "./ports.js";
import type { Settled } from "./work.js";

/** What became of a message; throws where nobody may take it. */
export function sendAnswer(
  settled: Settled,
  runId: string,
  message: Message,
): { delivered: boolean; existing: boolean } {
  if (settled.verdict === "unknown-run") throw runNotFound(runId);
  if (settled.verdict === "unchanged" && message.callback !== undefined) {
    throw callbackRefused(settled.why, settled.run.steps[message.callback]!, message.name);
  }
  const kept = settled.run.messages?.kept ?? [];
  if (settled.verdict === "changed") {
    return { delivered: !kept.some(({ value }) => value === message.value), existing: false };
  }
  if (settled.why === "duplicate") return { delivered: !kept.some(({ key }) => key === message.key), existing: true };
  if (settled.why === "run-ended") throw runEnded(settled.run);
  throw messageRefused(settled.why, message.name);
}

function callbackRefused(why: Unchanged, { status }: StepState, stepId: string): StatusError {
  if (why === "mailbox-full") return messageRefused(why, stepId);
  if (why === "duplicate" || status === StepStatus.STEP_STATUS_SUCCEEDED) {
    return statusError({ reason: "CALLBACK_USED", message: `the callback of step "${stepId}" was answered before` });
  }
  return statusError({
    reason: "CALLBACK_CLOSED",
    message: `step "${stepId}" does not wait for its callback any more`,
  });
}

/** Why a message changes nothing. */
export function messageRefused(why: Unchanged, name: string): StatusError {
  switch (why) {
    case "unknown-step":
      return statusError({ reason: "SIGNAL_UNKNOWN", message: `no step of the run waits for "${name}"` });
    case "mailbox-full":
      return statusError({
        reason: "SIGNALS_FULL",
        message: `${keptMax} messages are kept for steps that do not wait yet; send it again when some are taken`,
        retryAfterMs: 5_000,
      });
    case "cancelling":
      return statusError({ reason: "SIGNAL_NOT_AWAITED", message: "the run is being cancelled" });
    default:
      return statusError({
        reason: "SIGNAL_NOT_AWAITED",
        message: `every step that waits for "${name}" has ended`,
      });
  }
}

/** Throws where nothing could be done with the assignment. */
export function assignmentAnswer(settled: Settled, runId: string, stepId: string): void {
  if (settled.verdict === "unknown-run") throw runNotFound(runId);
  if (settled.verdict === "changed" || settled.why === "duplicate") return;
  if (settled.why !== "claimed") throw assignmentNotFound(stepId);
  const message = `another person has claimed the assignment of step "${stepId}"; they must release it first`;
  throw statusError({ reason: "ASSIGNMENT_CLAIMED", message });
}

/** NOT_FOUND for an assignment that is not open. */
export const assignmentNotFound = (stepId: string): StatusError =>
  statusError({
    reason: "ASSIGNMENT_NOT_FOUND",
    message: `step ${JSON.stringify(stepId.slice(0, 64))} of the run waits for nobody: it was completed, has expired, or does not exist`,
  });

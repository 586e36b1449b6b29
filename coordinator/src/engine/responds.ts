/**
 * Steps that answer somebody who waits, while the run goes on (`respond`).
 *
 *   a `respond` step SUCCEEDs ─► the run's caller has its answer, which is the run's output from then on
 *                            └─► whoever sent what a signal step took has theirs
 *
 * A1. The run's caller is answered once, by the first such step; what becomes of the run afterwards changes nothing about it.
 * A2. A message is answered once, by the first step for the one that took it; a sender that repeats its message hears the same.
 * A3. An answer is the output of its step, also where a rule or an operator gave that; stored besides is which step it was, and who took which
 *     message.
 */
import { EventKind } from "@taskmesh/proto";
import type { ChainPlan, StepPlan, Value } from "./plan.js";
import { isFinal, isOver, type RunState, StepStatus } from "./run-state.js";
import { record, type Turn } from "./turn.js";

/** The step has an output: if that is an answer, whoever sent what the step `to` took has it, or the run's caller. */
export function respond(turn: Turn, plan: StepPlan): void {
  if (plan.wait?.kind !== "respond") return;
  const { run } = turn;
  if (plan.wait.to !== undefined) return respondTo(turn, plan, plan.wait.to);
  if (run.answered !== undefined) return; // A1
  run.answered = plan.index;
  record(turn, EventKind.EVENT_KIND_RUN_RESPONDED, { step: plan.index });
  turn.effects.push({ kind: "answered" });
  if (run.parent) turn.effects.push({ kind: "tell-parent" });
}

/** Which answer was the first is stored: instants of steps may be equal (A2). */
function respondTo(turn: Turn, plan: StepPlan, to: number): void {
  const { messages } = turn.run;
  const at = messages?.taken?.findIndex(([step]) => step === to) ?? -1;
  const [step, key, by] = messages?.taken?.[at] ?? [];
  if (!messages || step === undefined || key === undefined || by !== undefined) return;
  turn.run.messages = { ...messages, taken: messages.taken!.with(at, [step, key, plan.index]) };
  record(turn, EventKind.EVENT_KIND_SIGNAL_ANSWERED, { step: plan.index });
}

/** What the run's caller was answered. */
export const answerOfCaller = ({ answered, outputs }: Pick<RunState, "answered" | "outputs">): Value | undefined =>
  answered === undefined ? undefined : outputs[answered];

/** The step takes a message, whose sender may wait for an answer. */
export function noteTaken(turn: Turn, plan: StepPlan, key: string): void {
  const { messages } = turn.run;
  if (key === "" || !messages || plan.wait?.kind !== "signal" || !plan.wait.answered) return;
  turn.run.messages = { ...messages, taken: [...(messages.taken ?? []), [plan.index, key]] };
}

/** How the answer to a message stands; `step`: the one whose output it is. */
export type SignalAnswer = { kind: "answered"; step: number } | { kind: "pending" } | { kind: "never" };

/** Looks for the answer to the message with this key. */
export function answerToSignal(
  run: Pick<RunState, "status" | "steps" | "messages">,
  plan: ChainPlan,
  key: string,
): SignalAnswer {
  const [taker, , by] = run.messages?.taken?.find(([, taken]) => taken === key) ?? [];
  if (by !== undefined) return { kind: "answered", step: by };
  const over = (at: number): boolean => isOver(run.steps[at]!.status);
  if (taker === undefined) {
    const kept = run.messages?.kept.some((message) => message.key === key) ?? false;
    return kept && !isFinal(run.status) ? { kind: "pending" } : { kind: "never" };
  }
  const responders = respondersTo(plan, taker);
  // Of runs that were stored when it was not noted who answers.
  const answered = responders
    .filter(({ index }) => run.steps[index]!.status === StepStatus.STEP_STATUS_SUCCEEDED)
    .sort((a, b) => run.steps[a.index]!.endedAtMs - run.steps[b.index]!.endedAtMs)[0];
  if (answered) return { kind: "answered", step: answered.index };
  const open = !isFinal(run.status) && responders.some(({ index }) => !over(index));
  return open ? { kind: "pending" } : { kind: "never" };
}

const respondersTo = ({ steps }: ChainPlan, to: number): StepPlan[] =>
  steps.filter(({ wait }) => wait?.kind === "respond" && wait.to === to);

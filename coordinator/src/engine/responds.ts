/**
 * Steps that answer somebody who waits, while the run goes on (`respond`).
 *
 *   a `respond` step SUCCEEDs ─► the run's caller has its answer, which is the run's output from then on
 *                            └─► whoever sent what a signal step took has theirs
 *
 * A1. The run's caller is answered once, by the first such step; what becomes of the run afterwards changes nothing about it.
 * A2. A message is answered once, by the first step for the one that took it; a sender that repeats its message hears the same.
 * A3. An answer is the output of its step: what is stored besides is which step it was, and who took which message.
 */
import { EventKind } from "@taskmesh/proto";
import type { ChainPlan, StepPlan, Value } from "./plan.js";
import { isFinal, isOver, type RunState, StepStatus } from "./run-state.js";
import { record, type Turn } from "./turn.js";

/** The step has put out an answer: to whoever sent what the step `to` took, or to the run's caller. */
export function respond(turn: Turn, plan: StepPlan, to: number | undefined): void {
  const { run } = turn;
  if (to !== undefined) {
    const first = respondersTo(turn.plan, to).every(
      ({ index }) => index === plan.index || run.steps[index]!.status !== StepStatus.STEP_STATUS_SUCCEEDED,
    );
    const key = run.messages?.taken?.find(([step]) => step === to);
    if (first && key) record(turn, EventKind.EVENT_KIND_SIGNAL_ANSWERED, { step: plan.index });
    return;
  }
  if (run.answered !== undefined) return; // A1
  run.answered = plan.index;
  record(turn, EventKind.EVENT_KIND_RUN_RESPONDED, { step: plan.index });
  turn.effects.push({ kind: "answered" });
  if (run.parent) turn.effects.push({ kind: "tell-parent" });
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
  const [taker] = run.messages?.taken?.find(([, taken]) => taken === key) ?? [];
  const over = (at: number): boolean => isOver(run.steps[at]!.status);
  if (taker === undefined) {
    const kept = run.messages?.kept.some((message) => message.key === key) ?? false;
    return kept && !isFinal(run.status) ? { kind: "pending" } : { kind: "never" };
  }
  const responders = respondersTo(plan, taker);
  const answered = responders
    .filter(({ index }) => run.steps[index]!.status === StepStatus.STEP_STATUS_SUCCEEDED)
    .sort((a, b) => run.steps[a.index]!.endedAtMs - run.steps[b.index]!.endedAtMs)[0];
  if (answered) return { kind: "answered", step: answered.index };
  const open = !isFinal(run.status) && responders.some(({ index }) => !over(index));
  return open ? { kind: "pending" } : { kind: "never" };
}

const respondersTo = ({ steps }: ChainPlan, to: number): StepPlan[] =>
  steps.filter(({ wait }) => wait?.kind === "respond" && wait.to === to);

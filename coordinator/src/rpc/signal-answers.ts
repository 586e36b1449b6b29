/** The answers that senders of signals wait for. */
import type { Payload, SignalRunRequest } from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import type { ChainPlan } from "../engine/plan.js";
import { answerToSignal } from "../engine/responds.js";
import { toPayload } from "../pipeline/effects.js";
import { runNotFound } from "../pipeline/intake.js";
import type { Notices } from "../pipeline/notices.js";
import type { Message, Plans } from "../pipeline/ports.js";
import type { Database } from "../store/db.js";
import { readRunState } from "../store/runs.js";
import type { CallContext } from "./calls.js";
import { findRun } from "./find-run.js";
import { invalid } from "./given-value.js";
import { writtenAs } from "./run-view.js";

/** Longest wait of one call; the next one with the same id waits on. */
const waitMsMax = 60_000;

export interface AnswerDeps {
  db: Database;
  plans: Plans;
  notices: Notices;
  draining(): AbortSignal;
}

/** A message whose answer is waited for. */
export interface Awaited {
  namespaceId: number;
  runId: string;
  plan: ChainPlan;
  message: Message;
}

/** How long the request waits, in milliseconds; 0: not at all. Throws ARGUMENT_INVALID where the chain answers no such signal. */
export function readWait(
  { wait }: Pick<SignalRunRequest, "wait">,
  plan: ChainPlan,
  { mailbox, name }: Message,
): number {
  const waitMs = wait ? Number(wait.seconds) * 1000 + wait.nanos / 1e6 : 0;
  if (waitMs <= 0) return 0;
  const answered = plan.steps.some(
    (step) => step.wait?.kind === "signal" && step.wait.mailbox === mailbox && step.wait.answered,
  );
  if (answered) return Math.min(waitMs, waitMsMax);
  const message = `nobody answers "${name}": its step declares no answer`;
  throw invalid("ARGUMENT_INVALID", [{ field: "wait", message }]);
}

/** The answer, if it is there now. Rejects: FAILED_PRECONDITION / SIGNAL_UNANSWERED where none will come. */
export async function lookForAnswer(deps: AnswerDeps, about: Awaited): Promise<Payload | undefined> {
  const { namespaceId, runId, plan, message } = about;
  const state = await readRunState(deps.db, runId);
  if (!state) throw runNotFound(runId);
  const found = answerToSignal(state, plan, message.key);
  if (found.kind === "never") {
    throw statusError({ reason: "SIGNAL_UNANSWERED", message: `no answer to "${message.name}" will come any more` });
  }
  if (found.kind === "pending") return undefined;
  const { run } = await findRun(deps, namespaceId, runId);
  const value = run.outputs[found.step];
  return value && toPayload(writtenAs(plan.steps[found.step]!.contract, value));
}

/** Waits for the answer; undefined: it has not come in time. Rejects like `lookForAnswer`. */
export async function awaitAnswer(
  deps: AnswerDeps,
  about: Awaited,
  waitMs: number,
  { signal }: Pick<CallContext, "signal">,
): Promise<Payload | undefined> {
  const endAt = performance.now() + waitMs;
  for (;;) {
    const stop = new AbortController();
    // Listened for before the look, so that an answer in between is not missed.
    const news = deps.notices.wait(about.runId, [signal, deps.draining(), stop.signal], endAt - performance.now());
    const answer = await lookForAnswer(deps, about).catch((error: unknown) => {
      stop.abort();
      throw error;
    });
    const over = performance.now() >= endAt || signal.aborted || deps.draining().aborted;
    if (answer || over) {
      stop.abort();
      return answer;
    }
    await news;
  }
}

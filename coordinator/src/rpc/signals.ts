/** Signals as callers send them: named, typed, known again by their id, and answered where the chain says so. */
import { createHash, randomUUID } from "node:crypto";
import { Signal, type SignalRunRequest, type SignalRunResponse } from "@taskmesh/proto";
import { isStatusError, nearestName, statusError } from "@taskmesh/runtime";
import { signalMailbox } from "../contracts/compile-wait.js";
import type { Contract } from "../contracts/contract.js";
import type { ChainPlan } from "../engine/plan.js";
import type { Intake, Message } from "../pipeline/ports.js";
import type { Database } from "../store/db.js";
import type { CallContext } from "./calls.js";
import { findPlanned } from "./find-run.js";
import { hasControl, invalid, readGiven } from "./given-value.js";
import { type AnswerDeps, awaitAnswer, lookForAnswer, readWait } from "./signal-answers.js";

const idCharsMax = 256;

export interface SignalDeps {
  db: Database;
  contractOf(namespaceId: number, fingerprint: string): Promise<Contract | undefined>;
}

export interface SignalRunDeps extends SignalDeps, AnswerDeps {
  intake: Pick<Intake, "send">;
  namespaces: { resolve(name: string): Promise<{ id: number; name: string }> };
}

/**
 * Sends a signal, and waits for its answer if asked to. A repetition with the same id waits on for the same answer, also when the run has ended
 * since: what was answered stays answered.
 */
export async function signalRun(
  deps: SignalRunDeps,
  request: SignalRunRequest,
  context: Pick<CallContext, "signal">,
): Promise<SignalRunResponse> {
  const { namespace, runId } = request;
  const { id: namespaceId } = await deps.namespaces.resolve(namespace);
  const { plan } = await findPlanned(deps, namespaceId, runId);
  const given = request.signal ?? Signal.create();
  const waits = request.wait !== undefined && given.id === "";
  // Without an id nobody could ask again, and nothing would tell whose answer it is.
  const signal = waits ? { ...given, id: randomUUID() } : given;
  const message = await readSignal(deps, namespaceId, plan, signal);
  const waitMs = readWait(request, plan, message);
  const about = { namespaceId, runId, plan, message };
  const answered = { id: signal.id, answer: undefined };
  if (waitMs === 0) return { ...answered, ...(await deps.intake.send(namespaceId, runId, message)) };
  try {
    const sent = await deps.intake.send(namespaceId, runId, message);
    return { ...answered, ...sent, answer: await awaitAnswer(deps, about, waitMs, context) };
  } catch (error) {
    // The run may have ended since the same signal came before.
    const late = isStatusError(error) && (error.reason === "RUN_ENDED" || error.reason === "SIGNAL_NOT_AWAITED");
    const answer = late && !waits ? await lookForAnswer(deps, about).catch(() => undefined) : undefined;
    if (!answer) throw error;
    return { ...answered, delivered: true, existing: true, answer };
  }
}

/** The message that a signal is for a run of the plan. Rejects: SIGNAL_UNKNOWN, INPUT_INVALID, ARGUMENT_INVALID. */
export async function readSignal(
  deps: SignalDeps,
  namespaceId: number,
  plan: ChainPlan,
  { name, id, value }: Signal,
): Promise<Message> {
  if (id.length > idCharsMax || hasControl(id)) {
    const message = `must have at most ${idCharsMax} printable characters`;
    throw invalid("ARGUMENT_INVALID", [{ field: "signal.id", message }]);
  }
  const mailbox = signalMailbox(name);
  const taker = plan.steps.find(({ wait }) => wait?.kind === "signal" && wait.mailbox === mailbox);
  if (!taker) throw unknownSignal(plan, name);
  const contract = await deps.contractOf(namespaceId, taker.contract);
  if (!contract) throw new Error(`contract ${taker.contract} of ${taker.method} is not stored`);
  const read = await readGiven(deps.db, namespaceId, { contract, side: "output" }, value);
  return { mailbox, name, key: id === "" ? "" : keyOf(`${name}\n${id}`), value: read };
}

/** Short, since the run's header keeps it: 72 bits tell 256 ids apart beyond doubt. */
const keyOf = (text: string): string => createHash("sha256").update(text).digest().toString("base64url", 0, 9);

function unknownSignal(plan: ChainPlan, name: string) {
  const prefix = signalMailbox("");
  const known = plan.steps.flatMap(({ wait }) => (wait?.kind === "signal" ? [wait.mailbox.slice(prefix.length)] : []));
  const near = nearestName(name, known);
  const hint =
    near === undefined ? (known.length > 0 ? `; it waits for ${known.join(", ")}` : "") : `; did you mean "${near}"?`;
  const message = `${plan.method} waits for no signal ${JSON.stringify(name.slice(0, 64))}${hint}`;
  return statusError({ reason: "SIGNAL_UNKNOWN", message });
}

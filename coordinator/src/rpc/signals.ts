/** Signals as callers send them: named, typed, and known again by their id. */
import { createHash } from "node:crypto";
import type { Signal } from "@taskmesh/proto";
import { nearestName, statusError } from "@taskmesh/runtime";
import { signalMailbox } from "../contracts/compile-wait.js";
import type { Contract } from "../contracts/contract.js";
import type { ChainPlan } from "../engine/plan.js";
import type { Message } from "../pipeline/ports.js";
import type { Database } from "../store/db.js";
import { hasControl, invalid, readGiven } from "./given-value.js";

const idCharsMax = 256;

export interface SignalDeps {
  db: Database;
  contractOf(namespaceId: number, fingerprint: string): Promise<Contract | undefined>;
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

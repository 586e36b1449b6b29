/**
 * Starts under an id that the caller chose. A unique index decides who has it (store/custom-ids.ts): a start is stored only if the id is had by
 * whom it was found to be had by, so however many ask at once, one gets it. A start without such an id comes nowhere near.
 */
import { createHash } from "node:crypto";
import { CustomIdTaken, RunStatus } from "@taskmesh/proto";
import { status, statusDetail, statusError, uuidv7 } from "@taskmesh/runtime";
import { isFinal } from "../engine/run-state.js";
import type { CustomIdHolder } from "../store/custom-ids.js";
import { hashRequest, type IntakeDeps } from "./intake.js";
import type { CustomId, StartCommand } from "./ports.js";
import type { StartWork } from "./work.js";

/** Others that may get the id first, time and again, before the caller is told to come back. */
const triesMax = 10;

type Submit = (asked: Pick<StartWork, "runId" | "command">) => Promise<string>;

/** Starts the run, or answers the one that the policies say. Rejects: ALREADY_EXISTS / CUSTOM_ID_TAKEN, CUSTOM_ID_USED. */
export async function startNamed(
  { store, clock }: Pick<IntakeDeps, "store" | "clock">,
  command: StartCommand,
  asked: CustomId,
  submit: Submit,
): Promise<{ runId: string; existing: boolean }> {
  const runId = command.runId ?? uuidv7(clock.now());
  const { idempotencyKey, ...bare } = command;
  const requestHash = idempotencyKey === undefined ? undefined : hashNamed(command, idempotencyKey);
  let next: StartCommand = { ...bare, customId: { ...asked, ...(requestHash ? { requestHash } : {}) } };
  for (let tries = 0; tries < triesMax; tries++) {
    const outcome = await submit({ runId, command: next });
    if (outcome !== "taken") return { runId: outcome, existing: outcome !== runId };
    const found = await store.findCustomId(command.namespaceId, asked.name);
    // An earlier try of this very start, whose outcome was unknown, has come about.
    if (found?.runId === runId) return { runId, existing: false };
    if (found && requestHash && Buffer.compare(found.requestHash, requestHash) === 0)
      return { runId: found.runId, existing: true };
    const decided = decide(asked, found);
    if (decided === "use") return { runId: found!.runId, existing: true };
    next = nextTry(next, runId, found, decided);
  }
  throw statusError({
    code: status.UNAVAILABLE,
    reason: "OVERLOADED",
    message: `the custom id ${JSON.stringify(asked.name.slice(0, 64))} changes hands all the time; try again`,
    retryAfterMs: 500,
  });
}

/** What the policies say of the run that has the id, or had it last. A run that is not kept any more had none. */
function decide({ name, conflict, reuse }: CustomId, found: CustomIdHolder | undefined): "use" | "take" | "end" {
  if (!found?.status) return "take";
  if (!isFinal(found.status)) {
    if (conflict === "fail") throw refusal("CUSTOM_ID_TAKEN", name, found.runId, found.status);
    return conflict === "use" ? "use" : "end";
  }
  const good = found.status === RunStatus.RUN_STATUS_SUCCEEDED;
  if (reuse === "reject" || (reuse === "if-failed" && good))
    throw refusal("CUSTOM_ID_USED", name, found.runId, found.status);
  return "take";
}

function nextTry(
  command: StartCommand,
  runId: string,
  found: CustomIdHolder | undefined,
  decided: "take" | "end",
): StartCommand {
  const next: StartCommand = { ...command, customId: { ...command.customId! } };
  delete next.from;
  delete next.customId!.holder;
  if (found) next.customId!.holder = found.runId;
  if (!found || decided === "take") return next;
  const reason = "another run was started under its custom id";
  const about = { stepId: "", terminate: true, hash: runId, by: command.starter ?? "", reason };
  return { ...next, from: { ...about, kind: "custom-id", runId: found.runId } };
}

/** The key is part of it: without one, equal requests are two. */
const hashNamed = (command: StartCommand, key: string): Uint8Array =>
  createHash("sha256").update(`${key}\n`).update(hashRequest(command)).digest();

function refusal(reason: "CUSTOM_ID_TAKEN" | "CUSTOM_ID_USED", customId: string, runId: string, held: RunStatus) {
  const name = RunStatus[held]?.replace("RUN_STATUS_", "") ?? String(held);
  const how = reason === "CUSTOM_ID_TAKEN" ? "has" : "had";
  return statusError({
    reason,
    message: `run ${runId} ${how} the custom id ${JSON.stringify(customId.slice(0, 64))}; it is ${name}`,
    details: [statusDetail("taskmesh.v1.CustomIdTaken", CustomIdTaken, { runId, customId, status: name })],
  });
}

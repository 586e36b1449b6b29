/** The worker under test for the TypeScript SDK: nothing here knows of the protocol. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { ActionFailure, defineAction, fail, startWorker } from "@taskmesh/action-sdk";
import { Position, ConformanceActionsService as service } from "../gen/conformance.js";

const lookEveryMs = 20;
const positionType = "conformance.v1.Position";

/** How often each text and gate was run by this process. */
const executions = new Map<string, number>();

function count(key: string): number {
  const times = (executions.get(key) ?? 0) + 1;
  executions.set(key, times);
  return times;
}

async function waitFor(gate: string, signal: AbortSignal): Promise<void> {
  while (!existsSync(gate)) await delay(lookEveryMs, undefined, { signal });
}

const echo = defineAction(service.echo, ({ text, data }) => ({ text, data, executions: count(`echo ${text}`) }));

const hold = defineAction(service.hold, async ({ gate }, { attempt, signal }) => {
  const times = count(`hold ${gate}`);
  await waitFor(gate, signal);
  return { attempt, executions: times };
});

const failing = defineAction(service.fail, ({ reason, message, retryable, untilAttempt }, { attempt }) => {
  if (untilAttempt === 0 || attempt < untilAttempt) throw new ActionFailure(reason, message, { retryable });
  return { attempt };
});

const resume = defineAction(service.resume, async ({ gate, position }, context) => {
  const before = context.loadCheckpoint(positionType, Position);
  if (before) return { position: before.position, attempt: context.attempt };
  context.saveCheckpoint(positionType, Position, { position });
  context.progress(50, "half way");
  await waitFor(gate, context.signal);
  throw fail.retryable("INTERRUPTED", "the next attempt goes on");
});

const measure = defineAction(service.measure, ({ data, size }) => ({
  length: BigInt(data.length),
  sha256: createHash("sha256").update(data).digest(),
  data: Buffer.alloc(size, 0x5a),
}));

const once = defineAction(service.once, ({ text }, { attempt }) => ({ text, attempt }));

const contract = process.env["CONFORMANCE_DESCRIPTORS"];
if (contract === undefined) throw new Error("CONFORMANCE_DESCRIPTORS names no file");
await startWorker({
  descriptors: readFileSync(contract),
  actions: [echo, hold, failing, resume, measure, once],
  transports: ["relay"],
});

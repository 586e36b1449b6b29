/**
 * Completions from the carrier: decoded, checked, and fed to the pipeline. A delivery is acked once each of its completions is committed or
 * known to mean nothing; bytes that are no CompletionBatch are terminated and counted.
 */
import { Any, type CompleteStep, CompletionBatch } from "@taskmesh/proto";
import type { CompletionDelivery, Logger } from "@taskmesh/runtime";
import type { Value } from "../engine/plan.js";
import type { Outcome } from "../engine/run-event.js";
import type { Pipeline } from "./pipeline.js";
import type { Reports } from "./reports.js";
import type { Settled } from "./work.js";

export interface CompletionsDeps {
  pipeline: Pipeline;
  log: Logger;
  /** What is wrong with an output that is stored elsewhere; undefined: nothing. Reads the payload. */
  checkStored(runId: string, stepId: string, value: Value): Promise<string | undefined>;
  /** Keeps the checkpoint of an attempt that did not succeed. */
  keep: Reports["addCheckpoint"];
  /** Each completion, when it is decided. */
  settled?(settled: Settled): void;
  garbage?(): void;
}

/** Longest texts that are taken from a worker; the SDK cuts them before. */
const messageCharsMax = 4_096;
const detailsBytesMax = 16 * 1024;
const logsBytesMax = 64 * 1024;

/** Takes one delivery of the carrier. */
export function takeCompletions(deps: CompletionsDeps, delivery: CompletionDelivery): void {
  let batch: CompletionBatch;
  try {
    batch = CompletionBatch.decode(delivery.bytes);
  } catch {
    deps.garbage?.();
    delivery.terminate();
    return;
  }
  let open = 1;
  let failed = false;
  const done = (error?: unknown): void => {
    if (error !== undefined) failed = true;
    open -= 1;
    // A delivery that could not be decided comes again.
    if (open === 0 && !failed) delivery.ack();
  };
  for (const completion of batch.completions) {
    if (!isPlausible(completion)) {
      deps.garbage?.();
      continue;
    }
    open += 1;
    takeCompletion(deps, delivery.namespaceId, completion, done);
  }
  done();
}

/** Ids go into array parameters of a batch, so nothing but what we could have sent gets that far. */
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const token = /^[A-Za-z0-9_-]{1,64}$/;

export const isRunId = (text: string): boolean => uuid.test(text);

function isPlausible(completion: CompleteStep): boolean {
  const { runId, lease, sessionId, stepId, outcome } = completion;
  return (
    uuid.test(runId) &&
    token.test(lease) &&
    (sessionId === "" || /^[\w-]{1,64}$/.test(sessionId)) &&
    stepId.length <= 64 &&
    outcome !== undefined
  );
}

/** Most completions bring all that is needed and cost no promise: an ack that is called with the commit leaves with the starts that follow from it. */
function takeCompletion(
  deps: CompletionsDeps,
  namespaceId: number,
  completion: CompleteStep,
  done: (error?: unknown) => void,
): void {
  const { runId, stepId, item, attempt, checkpoint } = completion;
  const outcome = outcomeOf(deps, completion);
  if (!(outcome instanceof Promise) && !(checkpoint && outcome.kind === "failure")) {
    submitCompletion(deps, namespaceId, completion, { outcome, checkpointed: false }, done);
    return;
  }
  const prepared = async (): Promise<void> => {
    const found = await outcome;
    const checkpointed = checkpoint !== undefined && found.kind === "failure";
    // Before the event: its retry may start at once.
    if (checkpointed) await deps.keep({ runId, stepId, item, attempt }, Any.encode(checkpoint).finish(), namespaceId);
    submitCompletion(deps, namespaceId, completion, { outcome: found, checkpointed }, done);
  };
  prepared().catch(done);
}

function submitCompletion(
  deps: CompletionsDeps,
  namespaceId: number,
  completion: CompleteStep,
  { outcome, checkpointed }: { outcome: Outcome; checkpointed: boolean },
  done: (error?: unknown) => void,
): void {
  const { runId, stepId, item, attempt, lease, executionMs, sessionId } = completion;
  deps.pipeline.submit({
    kind: "event",
    runId,
    namespaceId,
    event: {
      kind: "complete",
      report: { stepId, item, attempt, lease },
      outcome,
      executionMs,
      session: sessionId,
      ...(checkpointed ? { checkpointed } : {}),
    },
    fresh: false,
    tries: 0,
    bytes: 256 + (outcome.kind === "output" ? (outcome.value.bytes?.length ?? 0) : 0),
    settle(settled) {
      deps.settled?.(settled);
      done();
    },
    fail: done,
    ...logsOf(completion),
  });
}

function logsOf(completion: CompleteStep) {
  const { logs, stepId, item, attempt } = completion;
  if (logs.length === 0) return {};
  let bytes = 0;
  const lines = logs.filter((line) => {
    bytes += line.message.length + line.fieldsJson.length;
    return bytes <= logsBytesMax;
  });
  return { logs: { stepId, item, attempt, lines } };
}

function outcomeOf(deps: CompletionsDeps, completion: CompleteStep): Outcome | Promise<Outcome> {
  const { outcome } = completion;
  switch (outcome?.$case) {
    case "output": {
      const { sizeBytes, sha256, data } = outcome.value;
      // What a worker says about the revision counts for nothing: the output is checked against, and read with, the pinned one.
      const value: Value = { contract: "", sizeBytes: Number(sizeBytes), sha256 };
      if (data?.$case !== "reference") {
        value.bytes = data?.value ?? new Uint8Array(0);
        value.sizeBytes = value.bytes.length;
        return { kind: "output", value };
      }
      value.reference = data.value;
      return checkStored(deps, completion, value);
    }
    case "failure": {
      const { reason, message, retryable, details } = outcome.value;
      const small = details.reduce((sum, detail) => sum + detail.value.length, 0) <= detailsBytesMax;
      const failure = {
        reason: /^[A-Z][A-Z0-9_]{0,63}$/.test(reason) ? reason : "HANDLER_ERROR",
        message: message.slice(0, messageCharsMax),
        retryable,
        details: small ? details : [],
        cause: undefined,
      };
      return { kind: "failure", failure };
    }
    default:
      return { kind: "cancelled", message: outcome?.value.message.slice(0, messageCharsMax) ?? "" };
  }
}

async function checkStored(deps: CompletionsDeps, completion: CompleteStep, value: Value): Promise<Outcome> {
  const wrong = await deps.checkStored(completion.runId, completion.stepId, value);
  if (wrong === undefined) return { kind: "output", value };
  return {
    kind: "failure",
    failure: { reason: "OUTPUT_INVALID", message: wrong, retryable: false, details: [], cause: undefined },
  };
}

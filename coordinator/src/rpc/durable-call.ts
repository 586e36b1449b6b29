/**
 * Durable gRPC: every registered action and chain is served as the plain rpc that its contract declares. A stock stub in any
 * language, pointed at a coordinator, gets a durable, retried, traced run and waits for its result.
 *
 * D1. Bytes pass through: the input is checked by its contract as StartRun checks it, the output is what was recorded.
 * D2. The run outlives the call, unless its contract says otherwise (`cancel_with_call`). A caller that leaves loses the answer, not the
 *     run; the initial metadata `taskmesh-run-id` names it, and the metadata `taskmesh-idempotency-key` of a repeated call finds it
 *     again. A caller's deadline is the run's: what nobody waits for any more needs no work.
 * D3. A path appears within an epoch poll of its registration at any coordinator, and stays: an unserved method answers through its
 *     run, not by UNIMPLEMENTED. What it returns, one message or a stream, is looked up with each call.
 * D4. Of an rpc that returns a stream the caller gets what the handler emits as it does so (output-feed.ts), and last the output that was recorded,
 *     which is not sent twice.
 */
import type { Metadata } from "@grpc/grpc-js";
import { type Failure, RunFailed, RunStatus, StartRunRequest } from "@taskmesh/proto";
import { isStatusError, type Logger, statusDetail, statusError } from "@taskmesh/runtime";
import { checkMessage } from "../contracts/check.js";
import type { Contract } from "../contracts/contract.js";
import { getPayload } from "../store/payloads.js";
import { readServedMethods } from "../store/registry.js";
import { readCallSettings, text } from "./call-settings.js";
import { answers, type CallContext, type Send } from "./calls.js";
import type { Listener } from "./listener.js";
import { type OutputFeed, type OutputFeedDeps, openOutputFeed } from "./output-feed.js";
import { namespaceKey } from "./reflection.js";
import { getResult, type RunServiceDeps, startRun } from "./run-service.js";

/** Initial metadata of the answer: the run that the call started. */
export const runIdKey = "taskmesh-run-id";
/** Trailing metadata of a stream: how many outputs are known to be lost, where there are any. */
export const outputsMissedKey = "taskmesh-outputs-missed";

/** Longest wait that one look for the result takes; there is a next one. */
const waitSeconds = 60n;
/** Changes of the registry come in bursts; paths are read at most this often. With the poll of the epoch less than the 2 s in which all serve the same. */
export const refreshEveryMs = 500;

export interface DurableCallsDeps extends RunServiceDeps, OutputFeedDeps {
  /** Namespaces that this coordinator was given. */
  namespaceNames: readonly string[];
  /** Told the full names of the services that are served, whenever there are more. */
  onServices?: (services: readonly string[]) => void;
  log: Logger;
}

export interface DurableCalls {
  /** Serves what is registered, now and whenever `refresh` is called, on this listener. */
  serve(listener: Pick<Listener, "server" | "draining">): void;
  /** The registry has changed. */
  refresh(): void;
}

export function createDurableCalls(deps: DurableCallsDeps): DurableCalls {
  let listener: Pick<Listener, "server" | "draining"> | undefined;
  let served = new Set<string>();
  let planned = false;

  const read = async (): Promise<void> => {
    planned = false;
    const methods = await readServedMethods(deps.db);
    if (!listener || listener.draining.aborted) return;
    deps.onServices?.([...new Set(methods.map((method) => method.slice(0, method.indexOf("/"))))]);
    for (const method of methods) {
      if (served.has(method)) continue;
      served.add(method);
      const path = `/${method}`;
      listener.server.register(
        path,
        answers<Buffer, Uint8Array>((bytes, send, context) => call(deps, { method, input: bytes }, send, context)),
        asBuffer,
        same,
        "serverStream",
      );
    }
  };
  const refresh = (): void => {
    if (planned) return;
    planned = true;
    setTimeout(() => {
      read().catch((error: unknown) => {
        if (listener?.draining.aborted) return;
        deps.log.warn({ err: error }, "the paths of contracts could not be read; trying again");
        refresh();
      });
    }, refreshEveryMs).unref();
  };
  return {
    serve(started) {
      listener = started;
      served = new Set();
      refresh();
    },
    refresh,
  };
}

const same = (bytes: Buffer): Buffer => bytes;
/** What was read in chunks is no Buffer, which is all that the library takes. */
const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

async function call(
  deps: DurableCallsDeps,
  { method, input }: { method: string; input: Buffer },
  send: Send<Uint8Array>,
  context: CallContext,
): Promise<void> {
  const namespace = namespaceOf(deps, context.metadata);
  const { isAsync, ...settings } = readCallSettings(context.metadata, context.remainingMs());
  const request = StartRunRequest.fromPartial({
    namespace,
    method,
    ...settings,
    input: { $case: "payload", value: { data: { $case: "inline", value: input } } },
  });
  const { id } = await deps.namespaces.resolve(namespace);
  const plan = await deps.plans.current(id, method);
  const contract = plan && (await deps.contractOf(id, plan.contract));
  const streams = contract?.rpc.methodKind === "server_streaming";
  if (contract && streams && !isAsync) return stream(deps, { request, contract, namespaceId: id }, send, context);
  const { runId } = await startRun(deps, request, context);
  context.sendMetadata(runIdKey, runId);
  if (isAsync) {
    // A message without fields is no bytes.
    if (!streams) await send(Buffer.alloc(0));
    return;
  }
  const answered = cancelWhenLeft(deps, contract, { id, runId }, context);
  try {
    await send(await waitForOutput(deps, namespace, runId, context));
  } finally {
    answered();
  }
}

interface Streamed {
  request: StartRunRequest;
  contract: Contract;
  namespaceId: number;
}

/** Starts the run and sends its outputs, the recorded one last (D4). */
async function stream(
  deps: DurableCallsDeps,
  { request, contract, namespaceId }: Streamed,
  send: Send<Uint8Array>,
  context: CallContext,
): Promise<void> {
  const check = checkMessage(contract, "output");
  const isOutput = (bytes: Uint8Array): boolean => check(bytes).length === 0;
  const listen = (runId: string, fromStart: boolean): OutputFeed =>
    openOutputFeed(deps, { run: { namespaceId, runId }, isOutput, fromStart });
  // Listened for before the run begins: its first output may be there before the answer to its start.
  const newId = deps.intake.newRunId();
  let feed = listen(newId, true);
  let answered = (): void => {};
  try {
    const { runId } = await startRun(deps, request, context, newId);
    if (runId !== newId) {
      feed.close();
      feed = listen(runId, false);
    }
    context.sendMetadata(runIdKey, runId);
    answered = cancelWhenLeft(deps, contract, { id: namespaceId, runId }, context);
    await sendOutputs(feed, waitForOutput(deps, request.namespace, runId, context), send);
    if (feed.missed > 0) context.addTrailer(outputsMissedKey, String(feed.missed));
  } finally {
    feed.close();
    answered();
  }
}

async function sendOutputs(feed: OutputFeed, recorded: Promise<Uint8Array>, send: Send<Uint8Array>): Promise<void> {
  const over = new AbortController();
  recorded.then(
    () => over.abort(),
    () => over.abort(),
  );
  let last: Uint8Array | undefined;
  for (let output = await feed.next(over.signal); output; output = await feed.next(over.signal)) {
    await send(output);
    last = output;
  }
  const result = await recorded;
  if (last === undefined || Buffer.compare(last, result) !== 0) await send(result);
}

/** Cancels the run when its caller leaves, if its contract wants that. Returns what ends the watch. */
function cancelWhenLeft(
  deps: DurableCallsDeps,
  contract: Contract | undefined,
  { id, runId }: { id: number; runId: string },
  { signal }: CallContext,
): () => void {
  if (contract?.options?.cancelWithCall !== true) return () => {};
  const cancel = (): void => {
    deps.intake.cancelRun(id, runId, "the caller has left").catch((error: unknown) => {
      // A run that has ended meanwhile needs no cancel; the rest is worth a line.
      if (isStatusError(error) && error.reason === "RUN_ENDED") return;
      deps.log.warn({ err: error, run_id: runId }, "a run whose caller has left could not be cancelled");
    });
  };
  if (signal.aborted) cancel();
  else signal.addEventListener("abort", cancel, { once: true });
  return () => signal.removeEventListener("abort", cancel);
}

async function waitForOutput(
  deps: DurableCallsDeps,
  namespace: string,
  runId: string,
  context: CallContext,
): Promise<Buffer> {
  const wait = { seconds: waitSeconds, nanos: 0 };
  for (;;) {
    const result = await getResult(deps, { namespace, runId, wait }, context);
    if (result.status === RunStatus.RUN_STATUS_SUCCEEDED || result.output) {
      const { data } = result.output ?? {};
      if (data?.$case !== "reference") return asBuffer(data?.value ?? new Uint8Array(0));
      const { id } = await deps.namespaces.resolve(namespace);
      const stored = await getPayload(deps.db, id, data.value);
      if (stored) return Buffer.from(stored);
      throw statusError({ reason: "PAYLOAD_NOT_FOUND", message: `the output of run ${runId} is not stored any more` });
    }
    refuse(runId, result.status, result.failure);
    context.signal.throwIfAborted();
    if (deps.draining().aborted) {
      const message = `the coordinator is shutting down; run ${runId} goes on`;
      throw statusError({ reason: "DRAINING", message, metadata: { run_id: runId } });
    }
  }
}

/** Throws what a run without a result says to the caller; nothing while it runs. */
function refuse(runId: string, runStatus: RunStatus, failure: Failure | undefined): void {
  const reason = (
    {
      [RunStatus.RUN_STATUS_FAILED]: "RUN_FAILED",
      [RunStatus.RUN_STATUS_BROKEN]: "RUN_BROKEN",
      [RunStatus.RUN_STATUS_CANCELLED]: "RUN_CANCELLED",
      [RunStatus.RUN_STATUS_EXPIRED]: "RUN_EXPIRED",
    } as const
  )[runStatus as number];
  if (!reason) return;
  const why = failure ? `${failure.reason}: ${failure.message}` : "without a reason";
  throw statusError({
    reason,
    message: `run ${runId} ended ${RunStatus[runStatus].replace("RUN_STATUS_", "")}: ${why}`,
    metadata: { run_id: runId, ...(failure ? { failure: failure.reason } : {}) },
    // What the action itself said comes as details of their own too: a stub of its contract reads them without knowing the mesh.
    details: [statusDetail("taskmesh.v1.RunFailed", RunFailed, { runId, failure }), ...ownDetails(failure)],
  });
}

function namespaceOf({ namespaceNames }: DurableCallsDeps, metadata: Metadata): string {
  const named = text(metadata, namespaceKey);
  if (named !== "") return named;
  const [only, ...others] = namespaceNames;
  if (only !== undefined && others.length === 0) return only;
  const message = `this mesh has several namespaces; name one in the metadata ${namespaceKey}`;
  throw statusError({ reason: "NAMESPACE_REQUIRED", message });
}

/** The typed details of a failure; of a chain those of the step that broke it. */
function ownDetails(failure: Failure | undefined): Failure["details"] {
  if (failure === undefined) return [];
  return failure.details.length > 0 ? failure.details : ownDetails(failure.cause);
}

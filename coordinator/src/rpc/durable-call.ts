/**
 * Durable gRPC: every registered action and chain is served as the plain rpc that its contract declares. A stock stub in any
 * language, pointed at a coordinator, gets a durable, retried, traced run and waits for its result.
 *
 * D1. Bytes pass through: the input is checked by its contract as StartRun checks it, the output is what was recorded.
 * D2. The run outlives the call. A caller that leaves or runs out of time loses the answer, not the run; the initial metadata
 *     `taskmesh-run-id` names it, and the metadata `taskmesh-idempotency-key` of a repeated call finds it again.
 * D3. A path appears within an epoch poll of its registration at any coordinator, and stays: an unserved method answers through its
 *     run, not by UNIMPLEMENTED.
 */
import type { Metadata } from "@grpc/grpc-js";
import { type Failure, RunFailed, RunStatus, StartRunRequest } from "@taskmesh/proto";
import { type Logger, statusDetail, statusError } from "@taskmesh/runtime";
import { getPayload } from "../store/payloads.js";
import { readServedMethods } from "../store/registry.js";
import { type CallContext, unary } from "./calls.js";
import type { Listener } from "./listener.js";
import { namespaceKey } from "./reflection.js";
import { getResult, type RunServiceDeps, startRun } from "./run-service.js";

/** Metadata by which a repeated call finds the run of the first. */
export const idempotencyKey = "taskmesh-idempotency-key";
/** Initial metadata of the answer: the run that the call started. */
export const runIdKey = "taskmesh-run-id";

/** Longest wait that one look for the result takes; there is a next one. */
const waitSeconds = 60n;
/** Changes of the registry come in bursts; paths are read at most this often. */
const refreshEveryMs = 500;

export interface DurableCallsDeps extends RunServiceDeps {
  /** Namespaces that this coordinator was given. */
  namespaceNames: readonly string[];
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
    for (const method of methods) {
      if (served.has(method)) continue;
      served.add(method);
      const path = `/${method}`;
      listener.server.register(
        path,
        unary((bytes: Buffer, context) => call(deps, method, bytes, context)),
        same,
        same,
        "unary",
      );
    }
  };
  const refresh = (): void => {
    if (planned) return;
    planned = true;
    setTimeout(() => {
      read().catch((error: unknown) => deps.log.warn({ err: error }, "the paths of contracts could not be read"));
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

async function call(deps: DurableCallsDeps, method: string, input: Buffer, context: CallContext): Promise<Buffer> {
  const namespace = namespaceOf(deps, context.metadata);
  const key = text(context.metadata, idempotencyKey);
  const request = StartRunRequest.fromPartial({
    namespace,
    method,
    idempotencyKey: key,
    input: { $case: "payload", value: { data: { $case: "inline", value: input } } },
  });
  const { runId } = await startRun(deps, request, context);
  context.sendMetadata(runIdKey, runId);
  const wait = { seconds: waitSeconds, nanos: 0 };
  for (;;) {
    const result = await getResult(deps, { namespace, runId, wait }, context);
    if (result.status === RunStatus.RUN_STATUS_SUCCEEDED) {
      const { data } = result.output ?? {};
      if (data?.$case !== "reference") return data?.value ?? Buffer.alloc(0);
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
    details: [statusDetail("taskmesh.v1.RunFailed", RunFailed, { runId, failure })],
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

function text(metadata: Metadata, name: string): string {
  return metadata.get(name)[0]?.toString() ?? "";
}

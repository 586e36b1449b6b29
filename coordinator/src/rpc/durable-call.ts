/**
 * Durable gRPC: every registered action and chain is served as the plain rpc that its contract declares. A stock stub in any
 * language, pointed at a coordinator, gets a durable, retried, traced run and waits for its result.
 *
 * D1. Bytes pass through: the input is checked by its contract as StartRun checks it, the output is what was recorded.
 * D2. The run outlives the call, unless its contract says otherwise (`cancel_with_call`). A caller that leaves loses the answer, not the
 *     run; the initial metadata `taskmesh-run-id` names it, and the metadata `taskmesh-idempotency-key` of a repeated call finds it
 *     again. A caller's deadline is the run's: what nobody waits for any more needs no work.
 * D3. A path appears within an epoch poll of its registration at any coordinator, and stays: an unserved method answers through its
 *     run, not by UNIMPLEMENTED.
 */
import type { Metadata } from "@grpc/grpc-js";
import { type Failure, RunFailed, RunStatus, StartRunRequest } from "@taskmesh/proto";
import { isStatusError, type Logger, statusDetail, statusError } from "@taskmesh/runtime";
import { getPayload } from "../store/payloads.js";
import { readServedMethods } from "../store/registry.js";
import { readCallSettings, text } from "./call-settings.js";
import { type CallContext, unary } from "./calls.js";
import type { Listener } from "./listener.js";
import { namespaceKey } from "./reflection.js";
import { getResult, type RunServiceDeps, startRun } from "./run-service.js";

/** Initial metadata of the answer: the run that the call started. */
export const runIdKey = "taskmesh-run-id";

/** Longest wait that one look for the result takes; there is a next one. */
const waitSeconds = 60n;
/** Changes of the registry come in bursts; paths are read at most this often. */
const refreshEveryMs = 500;

export interface DurableCallsDeps extends RunServiceDeps {
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
  const { isAsync, ...settings } = readCallSettings(context.metadata, context.remainingMs());
  const request = StartRunRequest.fromPartial({
    namespace,
    method,
    ...settings,
    input: { $case: "payload", value: { data: { $case: "inline", value: input } } },
  });
  const { runId } = await startRun(deps, request, context);
  context.sendMetadata(runIdKey, runId);
  // A message without fields is no bytes.
  if (isAsync) return Buffer.alloc(0);
  const answered = await cancelWhenLeft(deps, namespace, method, runId, context);
  try {
    return await waitForOutput(deps, namespace, runId, context);
  } finally {
    answered();
  }
}

/** Cancels the run when its caller leaves, if its contract wants that. Returns what ends the watch. */
async function cancelWhenLeft(
  deps: DurableCallsDeps,
  namespace: string,
  method: string,
  runId: string,
  { signal }: CallContext,
): Promise<() => void> {
  const { id } = await deps.namespaces.resolve(namespace);
  const plan = await deps.plans.current(id, method);
  const contract = plan && (await deps.contractOf(id, plan.contract));
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

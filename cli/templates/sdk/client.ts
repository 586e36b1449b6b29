/**
 * Calls of the mesh from TypeScript, as promises.
 *
 *   await mesh.pageActions.score(input)              waits for the result
 *   await mesh.pageActions.score.start(input)        answers as soon as the run is on record; the result is asked for later
 *
 * Each call is a durable run: it goes on whatever happens to this program, is retried as its contract says, and is on record. Calls that meet a
 * coordinator that is going away are repeated under one idempotency key, so that they are one run.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import {
  Client,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { BadRequest, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { Failure } from "./gen/taskmesh/v1/message.js";
import { RunServiceService } from "./gen/taskmesh/v1/run.js";

/** How the mesh is reached. */
export interface MeshOptions {
  /** `host:port` of a coordinator. Default: TASKMESH_ADDRESS, else 127.0.0.1:7400. */
  address?: string;
  /** Default: TASKMESH_NAMESPACE, else the credential's. */
  namespace?: string;
  /** Bearer token. Default: TASKMESH_TOKEN, else none. */
  token?: string;
  /** PEM texts; present: TLS. */
  tls?: { ca?: string; cert?: string; key?: string };
}

/** What a caller can say about one call. */
export interface CallOptions {
  /** Calls with one key and one input are one run. At most 256 characters, kept for 7 days. Default: a new one for each call. */
  idempotencyKey?: string;
  labels?: Readonly<Record<string, string>>;
  /** Higher is sooner, -100 to 100. Default 0. */
  priority?: number;
  /** Milliseconds after which a waiting caller gives up, and its run expires with it. Default: as long as the run may take. */
  timeoutMs?: number;
  /** Gives the call up; the run goes on, unless its contract says otherwise. */
  signal?: AbortSignal;
}

/** A run that was started and is not waited for. */
export interface Started<Output> {
  readonly runId: string;
  readonly idempotencyKey: string;
  /** Waits for the output. Rejects with a MeshError if the run does not succeed. */
  result(options?: Pick<CallOptions, "timeoutMs" | "signal">): Promise<Output>;
  /** Asks the run to stop. */
  cancel(reason?: string): Promise<void>;
}

/** A method of the mesh. Rejects with a MeshError. */
export interface Method<Input, Output> {
  /** Runs it and waits for its output. */
  (input: Input, options?: CallOptions): Promise<Output>;
  /** Starts it and answers when the run is on record. */
  start(input: Input, options?: CallOptions): Promise<Started<Output>>;
}

/** A field that breaks the contract. */
export interface Violation {
  field: string;
  description: string;
}

/** Why a call did not succeed. Act on `reason`, never on the text. */
export class MeshError extends Error {
  override readonly name = "MeshError";
  /** gRPC status code. */
  readonly code: status;
  /** UPPER_SNAKE: RUN_FAILED, RUN_EXPIRED, RUN_CANCELLED, INPUT_INVALID, … (docs/errors.md of the mesh). */
  readonly reason: string;
  /** The run, where there is one. */
  readonly runId: string;
  /** What the action or chain said when its run failed; its own `reason` is the one of the action's author. */
  readonly failure: Failure | undefined;
  /** With INPUT_INVALID: the fields at fault. */
  readonly violations: readonly Violation[];
  /** When a repetition makes sense. */
  readonly retryAfterMs: number | undefined;
  readonly #details: readonly { typeUrl: string; value: Uint8Array }[];

  constructor(error: ServiceError, runId: string) {
    const known = readDetails(error);
    super(error.details || error.message, { cause: error });
    this.code = error.code;
    this.reason = known.reason || (status[error.code] ?? "UNKNOWN");
    this.runId = runId || known.runId;
    this.failure = known.failure;
    this.violations = known.violations;
    this.retryAfterMs = known.retryAfterMs;
    this.#details = known.details;
  }

  /** A typed detail that the action put into its failure: `error.detail("acme.pages.v1.BadPage", BadPage)`. */
  detail<T>(type: string, codec: { decode(bytes: Uint8Array): T }): T | undefined {
    const found = this.#details.find(({ typeUrl }) => typeUrl.slice(typeUrl.lastIndexOf("/") + 1) === type);
    return found && codec.decode(found.value);
  }
}

interface Details {
  reason: string;
  runId: string;
  failure: Failure | undefined;
  violations: Violation[];
  retryAfterMs: number | undefined;
  details: { typeUrl: string; value: Uint8Array }[];
}

/** Reads google.rpc.Status from the trailer. */
function readDetails(error: ServiceError): Details {
  const known: Details = { reason: "", runId: "", failure: undefined, violations: [], retryAfterMs: undefined, details: [] };
  const [encoded] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!(encoded instanceof Uint8Array)) return known;
  for (const detail of Status.decode(encoded).details) {
    known.details.push(detail);
    switch (detail.typeUrl.slice(detail.typeUrl.lastIndexOf("/") + 1)) {
      case "google.rpc.ErrorInfo": {
        const info = ErrorInfo.decode(detail.value);
        known.reason = info.reason;
        known.runId = info.metadata["run_id"] ?? "";
        break;
      }
      case "google.rpc.BadRequest":
        known.violations = BadRequest.decode(detail.value).fieldViolations;
        break;
      case "google.rpc.RetryInfo": {
        const after = RetryInfo.decode(detail.value).retryDelay;
        if (after) known.retryAfterMs = Number(after.seconds) * 1_000 + after.nanos / 1e6;
        break;
      }
      case "taskmesh.v1.RunFailed":
        Object.assign(known, readRunFailed(detail.value));
    }
  }
  return known;
}

/** taskmesh.v1.RunFailed: the run's id is field 1, its failure field 2. */
function readRunFailed(bytes: Uint8Array): { runId: string; failure: Failure | undefined } {
  const reader = new BinaryReader(bytes);
  let runId = "";
  let failure: Failure | undefined;
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1) runId = reader.string();
    else if (field === 2) failure = Failure.decode(reader.bytes());
    else reader.skip(wireType);
  }
  return { runId, failure };
}

/** An entry of a generated service constant. */
interface Entry<Input, Output> {
  path: string;
  requestSerialize: (value: Input) => Buffer;
  responseDeserialize: (bytes: Buffer) => Output;
}

/** A connection to the mesh. */
export interface Connection {
  client: Client;
  namespace: string;
  token: string;
}

/** Opens a connection; it is made when it is first used. */
export function connect(options: MeshOptions): Connection {
  const { tls } = options;
  const pem = (text: string | undefined): Buffer | null => (text ? Buffer.from(text) : null);
  const channel = tls
    ? credentials.createSsl(pem(tls.ca), pem(tls.key), pem(tls.cert))
    : credentials.createInsecure();
  const address = options.address ?? process.env["TASKMESH_ADDRESS"] ?? "127.0.0.1:7400";
  return {
    client: new Client(address, channel, { "grpc.max_receive_message_length": 64 << 20 }),
    namespace: options.namespace ?? process.env["TASKMESH_NAMESPACE"] ?? "",
    token: options.token ?? process.env["TASKMESH_TOKEN"] ?? "",
  };
}

/** Tries of a call that meets a coordinator that is away or going away. */
const triesMax = 6;
const pauseMsMax = 3_000;

/** A method of the mesh, made of an entry of a generated service constant. */
export function callable<Input, Output>(connection: Connection, entry: Entry<Input, Output>): Method<Input, Output> {
  const run = async (input: Input, options: CallOptions = {}): Promise<Output> => {
    const { output } = await persistently(connection, entry, input, options, options.idempotencyKey ?? randomUUID(), false);
    return output;
  };
  const start = async (input: Input, options: CallOptions = {}): Promise<Started<Output>> => {
    const idempotencyKey = options.idempotencyKey ?? randomUUID();
    const { runId } = await persistently(connection, entry, input, options, idempotencyKey, true);
    return {
      runId,
      idempotencyKey,
      // The same call under the same key is the same run, and waits for it.
      result: async (wait = {}) => (await persistently(connection, entry, input, wait, idempotencyKey, false)).output,
      cancel: async (reason = "") => {
        const request = { namespace: connection.namespace, runId, reason, actor: "" };
        await once(connection, RunServiceService.cancelRun, request, new Metadata(), {});
      },
    };
  };
  return Object.assign(run, { start });
}

async function persistently<Input, Output>(
  connection: Connection,
  entry: Entry<Input, Output>,
  input: Input,
  options: CallOptions,
  idempotencyKey: string,
  isAsync: boolean,
): Promise<{ output: Output; runId: string }> {
  const metadata = metadataOf(options, idempotencyKey, isAsync);
  for (let tries = 1; ; tries++) {
    try {
      return await once(connection, entry, input, metadata, options);
    } catch (error) {
      const again = error instanceof MeshError && error.code === status.UNAVAILABLE && tries < triesMax;
      if (!again || options.signal?.aborted) throw error;
      const pauseMs = error.retryAfterMs ?? Math.random() * Math.min(pauseMsMax, 200 * 2 ** tries);
      await delay(pauseMs, undefined, options.signal ? { signal: options.signal } : {});
    }
  }
}

function metadataOf(options: CallOptions, idempotencyKey: string, isAsync: boolean): Metadata {
  const metadata = new Metadata();
  metadata.set("taskmesh-idempotency-key", idempotencyKey);
  if (isAsync) metadata.set("taskmesh-async", "true");
  if (options.priority !== undefined) metadata.set("taskmesh-priority", String(options.priority));
  for (const [name, value] of Object.entries(options.labels ?? {})) metadata.add("taskmesh-label", `${name}=${value}`);
  return metadata;
}

function once<Input, Output>(
  { client, namespace, token }: Connection,
  entry: Entry<Input, Output>,
  input: Input,
  metadata: Metadata,
  { timeoutMs, signal }: CallOptions,
): Promise<{ output: Output; runId: string }> {
  if (namespace !== "") metadata.set("taskmesh-namespace", namespace);
  if (token !== "") metadata.set("authorization", `Bearer ${token}`);
  const deadline = timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
  return new Promise((resolve, reject) => {
    let runId = "";
    const { path, requestSerialize, responseDeserialize } = entry;
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      input,
      metadata,
      deadline,
      (error, output) => {
        signal?.removeEventListener("abort", giveUp);
        if (error) reject(new MeshError(error, runId));
        else resolve({ output: output!, runId });
      },
    );
    const giveUp = (): void => call.cancel();
    call.on("metadata", (initial) => {
      runId = initial.get("taskmesh-run-id")[0]?.toString() ?? "";
    });
    if (signal?.aborted) giveUp();
    else signal?.addEventListener("abort", giveUp, { once: true });
  });
}

/**
 * Calls to the coordinators: spread over all of them, and carried over to another one when one is away.
 *
 * U1. Coordinators are equal, so a call that finds one away is made again at another. Every call of the gateway can be
 *     repeated: reads change nothing, starts carry an idempotency key, chains and cancels are the same the second time.
 * U2. A call ends within its timeout; with no coordinator at all, or none any more, it ends `patienceMs` later as COORDINATOR_UNAVAILABLE.
 * U3. A coordinator that does not answer in time is away as well.
 * U4. One channel per address for the life of the gateway; grpc-js reconnects it.
 */
import {
  Client,
  type ClientReadableStream,
  type ClientUnaryCall,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import {
  type ClientConfig,
  createChannel,
  formatAddress,
  fromServiceError,
  fullJitter,
  type Logger,
  type StatusError,
  sleep,
  statusError,
} from "@taskmesh/runtime";

/** An rpc as ts-proto generates it. */
export interface RpcMethod<Req, Res> {
  readonly path: string;
  readonly requestSerialize: (value: Req) => Buffer;
  readonly responseDeserialize: (value: Buffer) => Res;
}

export interface CallOptions {
  /** Gives the call up; it then rejects with CALL_CANCELLED. */
  signal: AbortSignal;
  /** Longest time of the call over all tries, in milliseconds; default 30 s. */
  timeoutMs?: number;
  /** Longest time of the first try where there are other coordinators, in milliseconds; default 4 s. Must be above what the call itself waits for. */
  tryMs?: number;
  /** Added to the metadata: W3C trace context. */
  headers?: Readonly<Record<string, string>>;
}

export interface UpstreamConfig extends Omit<ClientConfig, "namespace"> {
  /** How long a call looks for a coordinator that answers, in milliseconds; default 5 s. */
  patienceMs?: number;
}

const callTimeoutMs = 30_000;
/**
 * A coordinator that is stopped or cut off says nothing: after this long another one is asked, after twice as long the next, so that
 * a mesh which is merely slow is not asked ever more.
 */
const tryTimeoutMs = 4_000;
const patienceMsDefault = 5_000;
/** A try that lasted this long was held by a coordinator: a connection that is refused ends within milliseconds. */
const heldMs = 500;
/** How long an address that just failed is tried last. */
const restMs = 1_000;
/** An absent coordinator is worth a line now and then, not one for each call. */
const warningIntervalMs = 10_000;
const retryAfterMs = 1_000;

interface Peer {
  name: string;
  client: Client;
  /** Monotonic time until which others are preferred. */
  restingUntilMs: number;
  /** Monotonic time until which its absence needs no other line in the log. */
  quietUntilMs: number;
}

export class Upstream {
  private readonly peers: Peer[];
  private readonly patienceMs: number;

  constructor(
    config: UpstreamConfig,
    private readonly log: Logger,
  ) {
    // One channel an address, so that U1 decides where a call goes. grpc-js's own retries would keep to one address.
    this.peers = config.addresses.map((address) => {
      const channel = createChannel({ ...config, addresses: [address] }, { streams: true });
      const client = new Client(channel.target, channel.credentials, channel.options);
      return { name: formatAddress(address), client, restingUntilMs: 0, quietUntilMs: 0 };
    });
    this.patienceMs = config.patienceMs ?? patienceMsDefault;
  }

  /** A unary call. Rejects with a StatusError. */
  async call<Req, Res>(method: RpcMethod<Req, Res>, request: Req, options: CallOptions): Promise<Res> {
    const { signal } = options;
    const startedMs = performance.now();
    const endMs = startedMs + (options.timeoutMs ?? callTimeoutMs);
    let tryMs = this.peers.length > 1 ? (options.tryMs ?? tryTimeoutMs) : Number.POSITIVE_INFINITY;
    let patientUntilMs = startedMs + this.patienceMs;
    for (let tries = 1; ; tries++) {
      const peer = this.pick();
      const triedMs = performance.now();
      try {
        return await this.unary(peer, method, request, options, Math.min(tryMs, endMs - triedMs));
      } catch (cause) {
        const error = fromServiceError(cause);
        const nowMs = performance.now();
        const isSilent = error.code === status.DEADLINE_EXCEEDED && nowMs < endMs;
        if (signal.aborted || !(isSilent || isAway(error))) throw error;
        this.rest(peer, method.path, error);
        if (isSilent) {
          patientUntilMs = endMs;
          tryMs *= 2;
        }
        // A coordinator that held the call was there, however long that was before: patience counts from its end.
        if (nowMs - triedMs > heldMs) patientUntilMs = Math.max(patientUntilMs, nowMs + this.patienceMs);
        if (nowMs >= Math.min(patientUntilMs, endMs)) throw noneAnswers(error);
      }
      // The other coordinators are tried at once, the whole round after a pause.
      if (tries % this.peers.length === 0) await pause(tries / this.peers.length, signal);
    }
  }

  /** Opens a server stream at one coordinator. Errors come from the stream; the caller reopens it. */
  stream<Req, Res>(
    method: RpcMethod<Req, Res>,
    request: Req,
    headers: Readonly<Record<string, string>> = {},
  ): { call: ClientReadableStream<Res>; failed(error: StatusError): void } {
    const peer = this.pick();
    const call = peer.client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      metadataOf(headers),
    );
    // An error after the reader has gone must not bring the process down.
    call.on("error", () => {});
    return { call, failed: (error) => this.rest(peer, method.path, error) };
  }

  /** Sends a client stream to one coordinator, once. Rejects with a StatusError. */
  upload<Req, Res>(method: RpcMethod<Req, Res>, requests: Iterable<Req>, options: CallOptions): Promise<Res> {
    const peer = this.pick();
    const deadline = Date.now() + (options.timeoutMs ?? callTimeoutMs);
    return new Promise<Res>((resolve, reject) => {
      const call = peer.client.makeClientStreamRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        metadataOf(options.headers),
        { deadline },
        (error: ServiceError | null, response?: Res) => {
          options.signal.removeEventListener("abort", cancel);
          if (error === null) resolve(response as Res);
          else {
            const known = fromServiceError(error);
            if (isAway(known)) this.rest(peer, method.path, known);
            reject(known);
          }
        },
      );
      const cancel = () => call.cancel();
      options.signal.addEventListener("abort", cancel, { once: true });
      call.on("error", () => {});
      writeAll(call, requests);
    });
  }

  /** Whether a coordinator says that it is SERVING. */
  async ready(signal: AbortSignal): Promise<boolean> {
    const checks = this.peers.map(async (peer) => {
      const answer = await this.unary(peer, healthCheck, undefined, { signal }, readyTimeoutMs);
      if (answer !== SERVING) throw new Error(`${peer.name} is not serving`);
    });
    return Promise.any(checks).then(
      () => true,
      () => false,
    );
  }

  close(): void {
    for (const { client } of this.peers) client.close();
  }

  private unary<Req, Res>(
    peer: Peer,
    method: RpcMethod<Req, Res>,
    request: Req,
    options: CallOptions,
    timeoutMs: number,
  ): Promise<Res> {
    const { signal } = options;
    return new Promise<Res>((resolve, reject) => {
      if (signal.aborted) {
        reject(statusError({ reason: "CALL_CANCELLED", message: "the caller has gone" }));
        return;
      }
      const call: ClientUnaryCall = peer.client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadataOf(options.headers),
        { deadline: Date.now() + Math.max(1, timeoutMs) },
        (error: ServiceError | null, response?: Res) => {
          signal.removeEventListener("abort", cancel);
          if (error === null) resolve(response as Res);
          else reject(error);
        },
      );
      const cancel = () => call.cancel();
      signal.addEventListener("abort", cancel, { once: true });
    });
  }

  /** Any address that is not resting; if all are, any. By chance rather than in turn: calls come in patterns. */
  private pick(): Peer {
    const nowMs = performance.now();
    const awake = this.peers.filter((peer) => peer.restingUntilMs <= nowMs);
    const choice = awake.length > 0 ? awake : this.peers;
    return choice[Math.floor(Math.random() * choice.length)]!;
  }

  private rest(peer: Peer, path: string, error: StatusError): void {
    const nowMs = performance.now();
    peer.restingUntilMs = nowMs + restMs;
    if (nowMs < peer.quietUntilMs) return;
    peer.quietUntilMs = nowMs + warningIntervalMs;
    const facts = { coordinator: peer.name, rpc: path, reason: error.reason, detail: error.message };
    this.log.warn(facts, "coordinator away");
  }
}

/**
 * Whether another coordinator may do better. A process that dies does not say so: its calls end as cancelled or, from the library, as
 * internal errors of the connection.
 */
export function isAway(error: StatusError): boolean {
  if (error.code === status.UNAVAILABLE || error.code === status.CANCELLED) return true;
  return error.code === status.INTERNAL && /RST_STREAM|ECONNRESET|GOAWAY/.test(error.message);
}

/** What the caller is told: the addresses and sockets behind it are in the log. */
function noneAnswers(error: StatusError): StatusError {
  if (error.code === status.UNAVAILABLE && error.reason !== "COORDINATOR_UNAVAILABLE") return error;
  const message = "no coordinator can be reached at the moment";
  return statusError({ reason: "COORDINATOR_UNAVAILABLE", message, retryAfterMs, cause: error });
}

function metadataOf(headers: Readonly<Record<string, string>> = {}): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return metadata;
}

function pause(round: number, signal: AbortSignal): Promise<void> {
  return sleep(fullJitter(round, { initialMs: 50, capMs: 1_000 }), signal);
}

/** Writes as fast as the peer takes it. */
function writeAll<Req>(
  call: { write(request: Req): boolean; end(): void; once(event: "drain", listener: () => void): unknown },
  requests: Iterable<Req>,
): void {
  const iterator = requests[Symbol.iterator]();
  const more = () => {
    for (;;) {
      const { done, value } = iterator.next();
      if (done === true) return call.end();
      if (!call.write(value)) return void call.once("drain", more);
    }
  };
  more();
}

const readyTimeoutMs = 2_000;
/** grpc.health.v1.HealthCheckResponse.ServingStatus. */
const SERVING = 1;

/** grpc.health.v1.Health/Check for the whole server: an empty request, and one enum field in the answer. */
const healthCheck: RpcMethod<undefined, number> = {
  path: "/grpc.health.v1.Health/Check",
  requestSerialize: () => Buffer.alloc(0),
  responseDeserialize: (bytes) => (bytes[0] === 0x08 ? (bytes[1] ?? 0) : 0),
};

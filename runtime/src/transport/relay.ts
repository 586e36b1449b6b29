/**
 * The worker's side of the relay: the work of a session over one gRPC stream, for workers that can't reach the broker.
 *
 *   dialling --stream open--> up --stream broke--> dialling ... --refused for good--> closed, the listener is told
 *
 * R1. Credits: one slot and the bytes of a start are allowed again when its slot is free. So what is in hand is bounded in both.
 * R2. A completion is kept and sent again on each new stream until it is confirmed, at most 10 s; then the caller is told.
 * R3. An ack belongs to the stream that brought the start. After a reconnect the start comes again, is swallowed while it is
 *     held (lane-hand.ts), and acked under its new number.
 * R4. `write` may say "enough": then nothing is written until the stream has drained.
 *
 * The stream has a connection of its own, so that payloads don't delay the beats of the session.
 */
import { type ClientDuplexStream, type ServiceError, status } from "@grpc/grpc-js";
import {
  type CompleteStep,
  type EmittedOutput,
  type LaneGrant,
  type RelayRequest,
  type RelayResponse,
  RelayServiceClient,
  type RelayStart,
  StartStep,
  TransportKind,
} from "@taskmesh/proto";
import { fullJitter } from "../backoff.js";
import { type ChannelConfig, createClient } from "../client.js";
import { fromServiceError } from "../status.js";
import { type CompletionPack, CompletionPacker } from "./completion-packer.js";
import { LaneHand } from "./lane-hand.js";
import { bytesFor } from "./relay-credit.js";
import { roomIn } from "./stream-room.js";
import { emitPatienceMs, type StoredCallback, type WorkListener, type WorkTransport } from "./transport.js";

const openTimeoutMs = 10_000;
const reconnect = { initialMs: 200, capMs: 3_000 };
/** A stream that lasted this long was a good one: the next break begins with short pauses again. */
const goodStreamMs = 5_000;
const tickMs = 250;
const completionTimeoutMs = 10_000;
/** Pause after the coordinator could not store a completion. */
const completionRetryMs = 500;
/** Packs that wait for confirmation; more are refused. */
const packsOpenMax = 10_000;
const packBytesOpenMax = 64 * 1024 * 1024;
const settleMs = 2_000;
/** Statuses after which the same call can't succeed. */
const hopeless = new Set([
  status.NOT_FOUND,
  status.INVALID_ARGUMENT,
  status.UNAUTHENTICATED,
  status.PERMISSION_DENIED,
  status.UNIMPLEMENTED,
]);

export interface RelayOptions {
  /** How coordinators are reached. */
  channel: ChannelConfig;
  namespace: string;
  sessionId: string;
}

/** A worker's transport over gRPC. */
export function openRelayWork(options: RelayOptions): WorkTransport {
  return new RelayWork(options);
}

interface OpenPack {
  pack: CompletionPack;
  createdAtMs: number;
  /** When it is to be sent; Infinity: it is sent, and its stream lives. */
  dueAtMs: number;
  why: string;
}

interface Queue {
  hand: LaneHand;
  /** Allowed again, not told yet. */
  slotsDue: number;
  bytesDue: number;
  /** Deliveries of this stream that freed them. */
  freed: bigint[];
}

class RelayWork implements WorkTransport {
  readonly kind = TransportKind.TRANSPORT_KIND_RELAY;
  readonly #options: RelayOptions;
  readonly #client: RelayServiceClient;
  readonly #packer: CompletionPacker;
  readonly #queues = new Map<string, Queue>();
  readonly #packs = new Map<bigint, OpenPack>();
  #packBytes = 0;
  #nextPack = 1n;
  #listener: WorkListener | undefined;
  #call: ClientDuplexStream<RelayRequest, RelayResponse> | undefined;
  #callSinceMs = 0;
  #blocked = false;
  #acks: bigint[] = [];
  #flushPlanned = false;
  #attempt = 0;
  #retry: NodeJS.Timeout | undefined;
  #timer: NodeJS.Timeout | undefined;
  #draining = false;
  #closed = false;

  constructor(options: RelayOptions) {
    this.#options = options;
    const stream = {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.keepalive_time_ms": 3_000,
      "grpc.keepalive_timeout_ms": 2_500,
      "grpc.max_receive_message_length": 4 * 1024 * 1024,
    };
    this.#client = createClient(RelayServiceClient, options.channel, { streams: true, options: stream });
    this.#packer = new CompletionPacker((pack) => this.#addPack(pack));
  }

  async open(lanes: LaneGrant[], listener: WorkListener): Promise<void> {
    if (this.#closed) throw new Error("the transport is closed");
    this.#listener = listener;
    // Opened before, the stream may be away just now: it comes back by itself.
    if (!this.#timer) {
      await this.#reachable();
      if (this.#closed) throw new Error("the transport is closed");
      this.#timer = setInterval(() => this.#onTick(), tickMs);
      this.#connect();
    }
    for (const { taskQueue, slots } of lanes) this.#addSlots(taskQueue, slots);
    this.#planFlush();
  }

  drain(): Promise<void> {
    if (!this.#draining) {
      this.#draining = true;
      this.#write({ $case: "drain", value: {} });
    }
    return Promise.resolve();
  }

  complete(reportTo: string, completion: CompleteStep, stored: StoredCallback): void {
    this.#packer.add(reportTo, completion, stored);
  }

  async emit(output: EmittedOutput): Promise<void> {
    const call = this.#call;
    this.#write({ $case: "emitted", value: output });
    if (call && this.#blocked) await roomIn(call, emitPatienceMs);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#packer.flush();
    this.#listener = undefined;
    this.#closed = true;
    const deadline = performance.now() + settleMs;
    while (this.#call && this.#packs.size > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    this.#flush();
    for (const number of [...this.#packs.keys()]) this.#endPack(number, new Error("the transport is closed"));
    await this.#endCall();
    this.#client.close();
  }

  #reachable(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#client.waitForReady(Date.now() + openTimeoutMs, (error) => {
        if (error) reject(new Error("the coordinator can't be reached for relay", { cause: error }));
        else resolve();
      });
    });
  }

  /** Half-closes, so that what was written arrives, and gives the coordinator a moment to end. */
  async #endCall(): Promise<void> {
    const call = this.#call;
    if (!call) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, settleMs);
      call.once("close", resolve);
      call.once("status", () => {
        clearTimeout(timer);
        resolve();
      });
      call.end();
    });
    call.cancel();
  }

  #connect(): void {
    if (this.#closed) return;
    const call = this.#client.relay();
    this.#call = call;
    this.#callSinceMs = performance.now();
    this.#blocked = false;
    this.#acks = [];
    call.on("data", (response: RelayResponse) => {
      if (this.#call === call) this.#onResponse(call, response);
    });
    call.on("drain", () => {
      if (this.#call !== call) return;
      this.#blocked = false;
      this.#planFlush();
    });
    call.on("error", (error: ServiceError) => this.#lost(call, error));
    call.on("end", () => this.#lost(call, undefined));
    const { namespace, sessionId } = this.#options;
    this.#write({ $case: "open", value: { namespace, sessionId } });
    for (const queue of this.#queues.values()) {
      queue.slotsDue = queue.hand.free;
      queue.bytesDue = bytesFor(queue.hand.slots);
      queue.freed = [];
    }
    if (this.#draining) this.#write({ $case: "drain", value: {} });
    const now = performance.now();
    for (const open of this.#packs.values()) open.dueAtMs = now;
    this.#planFlush();
  }

  #lost(call: ClientDuplexStream<RelayRequest, RelayResponse>, error: ServiceError | undefined): void {
    if (this.#call !== call) return;
    this.#call = undefined;
    if (this.#closed) return;
    if (error && hopeless.has(error.code)) {
      this.#listener?.onClosed(fromServiceError(error));
      void this.close();
      return;
    }
    this.#attempt = performance.now() - this.#callSinceMs > goodStreamMs ? 1 : this.#attempt + 1;
    this.#retry = setTimeout(() => this.#connect(), fullJitter(this.#attempt, reconnect));
  }

  #onResponse(call: ClientDuplexStream<RelayRequest, RelayResponse>, { message }: RelayResponse): void {
    switch (message?.$case) {
      case "starts":
        for (const start of message.value.starts) this.#onStart(call, start);
        return;
      case "stored":
        this.#onStored(message.value.number, message.value.error);
        return;
      case "probe":
        this.#listener?.onProbe(message.value.nonce);
        return;
      case undefined:
        return;
    }
  }

  #onStart(call: ClientDuplexStream<RelayRequest, RelayResponse>, relayed: RelayStart): void {
    const queue = this.#queues.get(relayed.taskQueue);
    const { start, delivery: number, redelivered } = relayed;
    if (!queue || !start) return;
    const bytes = StartStep.encode(start).finish().length;
    const giveBack = (): void => {
      // A stream that came since then was told of all that is free.
      if (this.#call !== call) return;
      queue.slotsDue += 1;
      queue.bytesDue += bytes;
      queue.freed.push(number);
      this.#planFlush();
    };
    if (start.runId === "" || start.lease === "") {
      // Of a coordinator that is newer, or broken: nobody could report it.
      giveBack();
      return;
    }
    const ack = (): void => {
      if (this.#call !== call) return;
      this.#acks.push(number);
      this.#planFlush();
    };
    const headers = Object.keys(relayed.headers).length > 0 ? relayed.headers : undefined;
    const delivery = queue.hand.admit({ start, redelivered, headers, ack });
    if (!delivery) {
      giveBack();
      return;
    }
    let released = false;
    this.#listener?.onStart({
      ...delivery,
      release: () => {
        if (released) return;
        released = true;
        delivery.release();
        if (this.#call === call) giveBack();
        else {
          // Taken under an earlier stream: the present one was told of fewer slots, and of all bytes.
          queue.slotsDue += 1;
          this.#planFlush();
        }
      },
    });
  }

  #onStored(number: bigint, error: string): void {
    const open = this.#packs.get(number);
    if (!open) return;
    if (error === "") {
      this.#endPack(number);
      return;
    }
    open.why = error;
    open.dueAtMs = performance.now() + completionRetryMs;
  }

  #addSlots(taskQueue: string, slots: number): void {
    const known = this.#queues.get(taskQueue);
    if (known) {
      const before = bytesFor(known.hand.slots);
      known.hand.addSlots(slots);
      known.slotsDue += slots;
      known.bytesDue += bytesFor(known.hand.slots) - before;
      return;
    }
    const hand = new LaneHand(taskQueue, slots, () => {});
    this.#queues.set(taskQueue, { hand, slotsDue: slots, bytesDue: bytesFor(slots), freed: [] });
  }

  #addPack(pack: CompletionPack): void {
    if (this.#closed || this.#packs.size >= packsOpenMax || this.#packBytes > packBytesOpenMax) {
      pack.stored(
        new Error(this.#closed ? "the transport is closed" : "too many completions wait for the coordinator"),
      );
      return;
    }
    const now = performance.now();
    this.#packs.set(this.#nextPack++, {
      pack,
      createdAtMs: now,
      dueAtMs: now,
      why: "the coordinator did not confirm it",
    });
    this.#packBytes += pack.bytes.length;
    this.#flush();
  }

  #endPack(number: bigint, error?: Error): void {
    const open = this.#packs.get(number);
    if (!open) return;
    this.#packs.delete(number);
    this.#packBytes -= open.pack.bytes.length;
    open.pack.stored(error);
  }

  #onTick(): void {
    const now = performance.now();
    let due = false;
    for (const [number, open] of this.#packs) {
      if (now - open.createdAtMs >= completionTimeoutMs) this.#endPack(number, new Error(open.why));
      else due ||= open.dueAtMs <= now;
    }
    if (due) this.#flush();
  }

  #planFlush(): void {
    if (this.#flushPlanned) return;
    this.#flushPlanned = true;
    setImmediate(() => {
      this.#flushPlanned = false;
      this.#flush();
    });
  }

  /** Completions first: they let runs go on. Then acks, then credits. */
  #flush(): void {
    const now = performance.now();
    for (const [number, open] of this.#packs) {
      if (this.#blocked || !this.#call) return;
      if (open.dueAtMs > now) continue;
      open.dueAtMs = Number.POSITIVE_INFINITY;
      const { reportTo, completions } = open.pack;
      this.#write({ $case: "completions", value: { number, reportTo, batch: { completions } } });
    }
    if (this.#blocked || !this.#call) return;
    if (this.#acks.length > 0) {
      const deliveries = this.#acks;
      this.#acks = [];
      this.#write({ $case: "ack", value: { deliveries } });
    }
    if (this.#draining) return;
    for (const [taskQueue, queue] of this.#queues) {
      if (this.#blocked) return;
      if (queue.slotsDue === 0 && queue.bytesDue === 0) continue;
      const { slotsDue: slots, bytesDue, freed: deliveries } = queue;
      queue.slotsDue = 0;
      queue.bytesDue = 0;
      queue.freed = [];
      this.#write({ $case: "credit", value: { taskQueue, slots, bytes: BigInt(bytesDue), deliveries } });
    }
  }

  #write(message: NonNullable<RelayRequest["message"]>): void {
    const call = this.#call;
    if (!call?.writable) return;
    if (!call.write({ message })) this.#blocked = true;
  }
}

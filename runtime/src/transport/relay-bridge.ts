/**
 * The coordinator's side of the relay: bridges one gRPC stream onto a work transport of the carrier.
 *
 *   worker ──credit──► bridge ──slots──► base transport (jetstream, memory)
 *          ◄─starts───        ◄─starts──
 *          ──completions────► ──complete──►   ──► stored
 *
 * B1. The base holds no more than the worker allowed: credits open slots of the base, or free those of starts that went out.
 * B2. Starts of one tick share frames of at most about 256 KiB; a start waits while its bytes are not allowed, or the stream is full.
 * B3. Confirmed means stored by the carrier: a completion is never confirmed by this process alone.
 * B4. When the stream ends, so does the base: what was not acked is delivered again after the ack wait, to this worker or another.
 */
import type { ServerDuplexStream } from "@grpc/grpc-js";
import {
  type EmittedOutput,
  type LaneGrant,
  type RelayCompletions,
  type RelayCredit,
  type RelayOpen,
  type RelayRequest,
  type RelayResponse,
  type RelayStart,
  StartStep,
} from "@taskmesh/proto";
import { StatusError, statusError, toServiceError } from "../status.js";
import type { StartDelivery, WorkTransport } from "./transport.js";

type RelayCall = ServerDuplexStream<RelayRequest, RelayResponse>;

const frameBytesMax = 256 * 1024;
/** Messages of completions under way for one worker; while there are more its stream is not read. */
const completionsOpenMax = 64;
/** How long completions that came before the worker's goodbye may take. */
const settleMs = 2_000;

/** A start that the base gave, from then until it is acked and its slot is free. */
interface Given {
  delivery: StartDelivery;
  acked: boolean;
  released: boolean;
}

interface Waiting {
  id: bigint;
  bytes: number;
  start: RelayStart;
}

interface Queue {
  lanes: { grant: LaneGrant; opened: number }[];
  /** Credits that no start has used. */
  slots: number;
  /** Credits without a free slot: each counts when a start that went out is acked. */
  owed: number;
  bytes: number;
  waiting: Waiting[];
  /** Went out, slot not free: in the order of their going. */
  out: Set<bigint>;
}

/** Reads the first message of a relay stream and pauses the stream behind it. Rejects with INVALID_ARGUMENT if it is not RelayOpen. */
export function readRelayOpen(call: RelayCall): Promise<RelayOpen> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void): void => {
      call.pause();
      call.off("data", onData);
      call.off("end", onEnd);
      act();
    };
    const onData = ({ message }: RelayRequest): void =>
      settle(() =>
        message?.$case === "open" ? resolve(message.value) : reject(malformed("the first message must be RelayOpen")),
      );
    const onEnd = (): void => settle(() => reject(malformed("the stream ended before RelayOpen")));
    call.on("data", onData);
    call.on("end", onEnd);
    call.on("error", () => {});
  });
}

/**
 * Serves a relay stream whose RelayOpen was read. Resolves when the stream is over, whoever ended it; never rejects. Closes `transport`.
 * `signal` ends the stream with UNAVAILABLE, so that the worker dials another coordinator.
 */
export function serveRelay(
  call: RelayCall,
  transport: WorkTransport,
  lanes: readonly LaneGrant[],
  signal?: AbortSignal,
): Promise<void> {
  return new RelayBridge(call, transport, lanes).serve(signal);
}

class RelayBridge {
  readonly #call: RelayCall;
  readonly #base: WorkTransport;
  readonly #queues = new Map<string, Queue>();
  readonly #given = new Map<bigint, Given>();
  #next = 1n;
  #completionsOpen = 0;
  #emitting = 0;
  #blocked = false;
  #flushPlanned = false;
  #ended = false;
  #resolve: () => void = () => {};

  constructor(call: RelayCall, base: WorkTransport, lanes: readonly LaneGrant[]) {
    this.#call = call;
    this.#base = base;
    for (const grant of lanes) {
      const known = this.#queues.get(grant.taskQueue);
      const lane = { grant, opened: 0 };
      if (known) known.lanes.push(lane);
      else
        this.#queues.set(grant.taskQueue, { lanes: [lane], slots: 0, owed: 0, bytes: 0, waiting: [], out: new Set() });
    }
  }

  serve(signal: AbortSignal | undefined): Promise<void> {
    const call = this.#call;
    const over = new Promise<void>((resolve) => {
      this.#resolve = resolve;
    });
    const onAbort = (): void => this.#goAway("the coordinator is draining; connect again");
    call.on("data", (request: RelayRequest) => this.#onRequest(request));
    call.on("drain", () => {
      this.#blocked = false;
      this.#planFlush();
    });
    call.on("end", () => void this.#onGoodbye());
    for (const event of ["cancelled", "close", "error"] as const) call.on(event, () => void this.#end());
    signal?.addEventListener("abort", onAbort, { once: true });
    void over.then(() => signal?.removeEventListener("abort", onAbort));
    // The caller may have looked the session up in the meantime: nobody tells again that the worker has gone.
    if (call.cancelled || call.destroyed) {
      void this.#end();
      return over;
    }
    // The base hears probes from now on; lanes are opened by credits.
    this.#openBase([]).catch((error: unknown) => this.#failWith(error));
    if (signal?.aborted) onAbort();
    else call.resume();
    return over;
  }

  #openBase(lanes: LaneGrant[]): Promise<void> {
    return this.#base.open(lanes, {
      onStart: (delivery) => this.#onStart(delivery),
      onProbe: (nonce) => {
        // A full stream is not a working path: the probe is lost, as it should be.
        if (!this.#blocked) this.#write({ $case: "probe", value: { nonce } });
      },
      onClosed: (error) => this.#goAway(error?.message ?? "the carrier is away; connect again"),
    });
  }

  #onRequest({ message }: RelayRequest): void {
    if (this.#ended) return;
    switch (message?.$case) {
      case "credit":
        this.#onCredit(message.value);
        return;
      case "ack":
        for (const id of message.value.deliveries) this.#onAck(id);
        return;
      case "completions":
        this.#onCompletions(message.value);
        return;
      case "drain":
        void this.#base.drain();
        return;
      case "emitted":
        this.#onEmitted(message.value);
        return;
      case "open":
      case undefined:
        this.#failWith(malformed(message ? "RelayOpen comes first, and once" : "a message is empty or unknown"));
    }
  }

  #onCredit({ taskQueue, slots, bytes, deliveries }: RelayCredit): void {
    const queue = this.#queues.get(taskQueue);
    if (!queue) {
      this.#failWith(malformed(`the registration has no task queue ${JSON.stringify(taskQueue.slice(0, 100))}`));
      return;
    }
    queue.bytes = Math.min(queue.bytes + Number(bytes), Number.MAX_SAFE_INTEGER);
    let left = slots;
    for (const id of deliveries) if (left > 0 && this.#free(queue, id)) left -= 1;
    for (const id of [...queue.out]) if (left > 0 && this.#given.get(id)?.acked && this.#free(queue, id)) left -= 1;
    for (const lane of queue.lanes) {
      const more = Math.min(left, lane.grant.slots - lane.opened);
      if (more <= 0) continue;
      left -= more;
      lane.opened += more;
      queue.slots += more;
      this.#openBase([{ ...lane.grant, slots: more }]).catch((error: unknown) => this.#failWith(error));
    }
    // The rest is for starts that will be acked: a worker may free the slot first.
    queue.owed = Math.min(queue.owed + left, queue.out.size);
    this.#planFlush();
  }

  /** A start's slot is free, so another may come; false if it held none. */
  #free(queue: Queue, id: bigint | undefined): boolean {
    if (id === undefined || !queue.out.delete(id)) return false;
    const given = this.#given.get(id)!;
    given.released = true;
    if (given.acked) this.#given.delete(id);
    queue.slots += 1;
    given.delivery.release();
    return true;
  }

  #onAck(id: bigint): void {
    const given = this.#given.get(id);
    if (!given || given.acked) return;
    given.acked = true;
    if (given.released) this.#given.delete(id);
    given.delivery.ack();
    const queue = this.#queues.get(given.delivery.taskQueue);
    if (!queue || queue.owed === 0 || !this.#free(queue, id)) return;
    queue.owed -= 1;
    this.#planFlush();
  }

  #onCompletions({ number, reportTo, batch }: RelayCompletions): void {
    const completions = batch?.completions ?? [];
    if (completions.length === 0) {
      this.#failWith(malformed("a completion message without completions"));
      return;
    }
    let left = completions.length;
    let failed = "";
    this.#completionsOpen += 1;
    if (this.#completionsOpen >= completionsOpenMax) this.#call.pause();
    for (const completion of completions) {
      this.#base.complete(reportTo, completion, (error) => {
        if (error) failed = error.message || "not stored";
        left -= 1;
        if (left > 0) return;
        this.#completionsOpen -= 1;
        this.#readOn();
        this.#write({ $case: "stored", value: { number, error: failed } });
      });
    }
  }

  /** The stream is read on when the base has room for more: so its own backpressure reaches the handler. */
  #onEmitted(output: EmittedOutput): void {
    this.#emitting += 1;
    this.#call.pause();
    void this.#base.emit(output).then(() => {
      this.#emitting -= 1;
      this.#readOn();
    });
  }

  #readOn(): void {
    if (this.#emitting === 0 && this.#completionsOpen < completionsOpenMax) this.#call.resume();
  }

  #onStart(delivery: StartDelivery): void {
    const queue = this.#queues.get(delivery.taskQueue);
    if (!queue || this.#ended) return;
    const id = this.#next++;
    const { taskQueue, start, redelivered, headers } = delivery;
    this.#given.set(id, { delivery, acked: false, released: false });
    queue.waiting.push({
      id,
      bytes: StartStep.encode(start).finish().length,
      start: { taskQueue, delivery: id, start, redelivered, headers: headers ?? {} },
    });
    this.#planFlush();
  }

  #planFlush(): void {
    if (this.#flushPlanned) return;
    this.#flushPlanned = true;
    setImmediate(() => {
      this.#flushPlanned = false;
      this.#flush();
    });
  }

  #flush(): void {
    let frame: RelayStart[] = [];
    let size = 0;
    const send = (): void => {
      if (frame.length > 0) this.#write({ $case: "starts", value: { starts: frame } });
      frame = [];
      size = 0;
    };
    for (const queue of this.#queues.values()) {
      while (!this.#blocked) {
        const next = queue.waiting[0];
        if (!next || queue.slots === 0 || next.bytes > queue.bytes) break;
        queue.waiting.shift();
        queue.slots -= 1;
        queue.bytes -= next.bytes;
        queue.out.add(next.id);
        frame.push(next.start);
        size += next.bytes;
        if (size >= frameBytesMax) send();
      }
    }
    send();
  }

  #write(message: NonNullable<RelayResponse["message"]>): void {
    if (this.#ended || !this.#call.writable) return;
    if (!this.#call.write({ message })) this.#blocked = true;
  }

  async #onGoodbye(): Promise<void> {
    const deadline = performance.now() + settleMs;
    while (this.#completionsOpen > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    if (!this.#ended) this.#call.end();
    await this.#end();
  }

  #failWith(error: unknown): void {
    if (error instanceof StatusError) this.#emit(error);
    else this.#goAway(error instanceof Error ? error.message : String(error));
  }

  /** UNAVAILABLE: the worker dials another coordinator, or this one again. */
  #goAway(message: string): void {
    this.#emit(statusError({ reason: "DRAINING", message }));
  }

  #emit(error: StatusError): void {
    if (this.#ended) return;
    // grpc-js ends a call with a status when its stream emits it as an error.
    this.#call.emit("error", toServiceError(error));
    void this.#end();
  }

  async #end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#given.clear();
    await this.#base.close();
    this.#resolve();
  }
}

function malformed(message: string): StatusError {
  return statusError({ reason: "ARGUMENT_INVALID", message });
}

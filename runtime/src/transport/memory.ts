/**
 * The transport inside one process: for the embedded mesh and for tests. Same promises as over a broker (C1 to C8), no network.
 *
 *   MemoryBus  the queues, shared by every carrier and worker of the process
 *     lanes      subject -> starts that wait, starts that wait for an ack
 *     inboxes    coordinator id -> completions that wait, completions that wait for an ack
 *
 * M1. Bytes are copied in by reference and never changed: callers give them away.
 * M2. Deliveries happen in a later tick than the call that caused them, so no caller is re-entered (C6).
 * M3. Acks name the very message object: an ack of what a wipe deleted can never hit a later message.
 */
import type { JetStreamAccess } from "@taskmesh/proto";
import { Queue, type Taker } from "./memory-queue.js";
import { Topics } from "./memory-topics.js";
import { MemoryWork } from "./memory-work.js";
import {
  ackWaitMs,
  type Carrier,
  type CarrierListener,
  type CompletionsRead,
  dedupeWindowMs,
  type Lane,
  laneSubject,
  messageBytesMax,
  type OutgoingStart,
  type PublishOutcome,
  type RunRef,
  type TraceHeaders,
  type WorkTransport,
} from "./transport.js";

/** Completions that wait for coordinators, in bytes: above it workers are told to report again later. */
const waitingBytesMax = 256 * 1024 * 1024;
/** Completions in one coordinator's hands; more wait in the bus. */
const completionsInHandMax = 256;

export interface MemoryBusOptions {
  /** Default: `ackWaitMs` of the seam. */
  ackWaitMs?: number;
  /** Default: `dedupeWindowMs` of the seam. */
  dedupeWindowMs?: number;
}

/** A start in the bus. */
export interface MemoryStart {
  readonly bytes: Uint8Array;
  readonly headers: TraceHeaders | undefined;
  deliveries: number;
}

/** A message of completions. */
export interface MemoryCompletions {
  readonly namespaceId: number;
  readonly bytes: Uint8Array;
}

/** One in the bus; they are counted, over all inboxes. */
interface StoredCompletions extends MemoryCompletions {
  readonly number: number;
}

/** The queues of one process; see the head of the file. */
export class MemoryBus {
  readonly #ackWaitMs: number;
  readonly #dedupeWindowMs: number;
  readonly #lanes = new Map<string, Queue<MemoryStart>>();
  readonly #inboxes = new Map<string, Queue<StoredCompletions>>();
  readonly #published = new Map<string, number>();
  readonly #carriers = new Set<MemoryCarrier>();
  readonly probes = new Topics<string>();
  readonly outputs = new Topics<Uint8Array>();
  #waitingBytes = 0;
  #completionsStored = 0;
  #pumping = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: MemoryBusOptions = {}) {
    this.#ackWaitMs = options.ackWaitMs ?? ackWaitMs;
    this.#dedupeWindowMs = options.dedupeWindowMs ?? dedupeWindowMs;
  }

  /** A coordinator's side. Several coordinators can share a bus. */
  carrier(coordinatorId: string): Carrier {
    return new MemoryCarrier(this, coordinatorId);
  }

  /** A worker's side. */
  work(session: { namespaceId: number; sessionId: string }): WorkTransport {
    return new MemoryWork(this, session);
  }

  /** Loses everything, as a broker may (C5). */
  wipe(): void {
    for (const queue of [...this.#lanes.values(), ...this.#inboxes.values()]) queue.clear();
    this.#published.clear();
    this.#waitingBytes = 0;
    this.#completionsStored = 0;
    for (const carrier of this.#carriers) setImmediate(() => carrier.tellWiped());
  }

  /** Starts that no worker acked yet, over all lanes. */
  get depth(): number {
    return [...this.#lanes.values()].reduce((sum, lane) => sum + lane.size, 0);
  }

  /** For the carrier. */
  publishStart(start: OutgoingStart): void {
    const now = performance.now();
    const before = this.#published.get(start.id);
    if (before !== undefined && now - before < this.#dedupeWindowMs) return;
    this.#forgetOldIds(now);
    this.#published.delete(start.id);
    this.#published.set(start.id, now);
    const message: MemoryStart = { bytes: start.bytes, headers: start.headers, deliveries: 0 };
    this.lane(laneSubject(start.lane)).add(message);
    this.pump();
  }

  /** For workers: takes completions for a coordinator; an error when the bus is full. */
  publishCompletions(reportTo: string, message: MemoryCompletions): Error | undefined {
    if (this.#waitingBytes + message.bytes.length > waitingBytesMax)
      return new Error("too many completions wait for their coordinators");
    this.#waitingBytes += message.bytes.length;
    this.#completionsStored += 1;
    this.#inbox(reportTo).add({ ...message, number: this.#completionsStored });
    this.pump();
    return undefined;
  }

  /** For workers and carriers. */
  lane(subject: string): Queue<MemoryStart> {
    const known = this.#lanes.get(subject);
    if (known) return known;
    const lane = new Queue<MemoryStart>();
    this.#lanes.set(subject, lane);
    return lane;
  }

  /** For carriers. */
  join(carrier: MemoryCarrier): void {
    this.#carriers.add(carrier);
  }

  leave(carrier: MemoryCarrier): void {
    this.#carriers.delete(carrier);
  }

  takeCompletions(coordinatorId: string, taker: Taker<MemoryCompletions>): void {
    this.#inbox(coordinatorId).takers.push(taker);
    this.pump();
  }

  leaveCompletions(coordinatorId: string, taker: Taker<MemoryCompletions>): void {
    this.#inbox(coordinatorId).leave(taker, true);
    this.pump();
  }

  completionsLeft(coordinatorId: string): number {
    return this.#inbox(coordinatorId).size;
  }

  /** For carriers: C8. */
  completionsRead(coordinatorIds: readonly string[]): CompletionsRead {
    const stored = this.#completionsStored;
    const unread = coordinatorIds.flatMap((id) => [...this.#inbox(id).all()].map(({ number }) => number));
    return { stored, read: unread.reduce((least, number) => Math.min(least, number - 1), stored) };
  }

  /** Delivers in the next tick (M2). */
  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    setImmediate(() => {
      this.#pumping = false;
      for (const lane of this.#lanes.values()) lane.deliver(this.#ackWaitMs, () => {});
      for (const inbox of this.#inboxes.values()) {
        inbox.deliver(this.#ackWaitMs, (message) => {
          this.#waitingBytes -= message.bytes.length;
        });
      }
      this.#watchExpiry();
    });
  }

  #inbox(coordinatorId: string): Queue<StoredCompletions> {
    const known = this.#inboxes.get(coordinatorId);
    if (known) return known;
    const inbox = new Queue<StoredCompletions>();
    this.#inboxes.set(coordinatorId, inbox);
    return inbox;
  }

  /** One timer while anything is out, none when idle. */
  #watchExpiry(): void {
    const queues = [...this.#lanes.values(), ...this.#inboxes.values()];
    if (this.#timer || !queues.some((queue) => queue.out.size > 0)) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        const now = performance.now();
        for (const queue of queues) queue.expire(now);
        this.pump();
      },
      Math.max(10, this.#ackWaitMs / 10),
    );
    // What is out is kept by its holder; the bus alone must not keep a process alive.
    this.#timer.unref();
  }

  /** Ids are in order of their time: only the oldest are looked at. */
  #forgetOldIds(now: number): void {
    for (const [id, atMs] of this.#published) {
      if (now - atMs < this.#dedupeWindowMs) return;
      this.#published.delete(id);
    }
  }
}

/** A coordinator on a bus. */
class MemoryCarrier implements Carrier {
  readonly kind = "memory";
  readonly #bus: MemoryBus;
  readonly #coordinatorId: string;
  readonly #takers = new Map<string, Taker<MemoryCompletions>>();
  #listener: CarrierListener | undefined;
  #inHand = 0;

  constructor(bus: MemoryBus, coordinatorId: string) {
    this.#bus = bus;
    this.#coordinatorId = coordinatorId;
  }

  start(listener: CarrierListener): Promise<void> {
    this.#listener = listener;
    this.#bus.join(this);
    this.#take(this.#coordinatorId);
    return Promise.resolve();
  }

  stop(): Promise<void> {
    this.#listener = undefined;
    for (const [id, taker] of this.#takers) this.#bus.leaveCompletions(id, taker);
    this.#takers.clear();
    this.#bus.leave(this);
    return Promise.resolve();
  }

  healthy(): boolean {
    return this.#listener !== undefined;
  }

  ensureLane(lane: Lane): Promise<void> {
    this.#bus.lane(laneSubject(lane));
    return Promise.resolve();
  }

  /** An empty queue costs nothing. */
  keepLanes(): void {}

  publishStart(start: OutgoingStart, done: (outcome: PublishOutcome) => void): void {
    if (start.bytes.length > messageBytesMax) {
      const message = `the start has ${start.bytes.length} bytes, a message holds ${messageBytesMax}`;
      setImmediate(done, { kind: "refused", message } satisfies PublishOutcome);
      return;
    }
    this.#bus.publishStart(start);
    setImmediate(done, { kind: "stored" } satisfies PublishOutcome);
  }

  adopt(coordinatorId: string): Promise<void> {
    if (!this.#takers.has(coordinatorId)) this.#take(coordinatorId);
    return Promise.resolve();
  }

  completionsRead(coordinatorIds: readonly string[]): Promise<CompletionsRead> {
    return Promise.resolve(this.#bus.completionsRead(coordinatorIds));
  }

  release(coordinatorId: string): Promise<boolean> {
    if (this.#bus.completionsLeft(coordinatorId) > 0) return Promise.resolve(false);
    const taker = this.#takers.get(coordinatorId);
    if (taker) this.#bus.leaveCompletions(coordinatorId, taker);
    this.#takers.delete(coordinatorId);
    return Promise.resolve(true);
  }

  onEmitted({ namespaceId, runId }: RunRef, listener: (encoded: Uint8Array) => void): () => void {
    return this.#bus.outputs.on(`${namespaceId}.${runId}`, listener);
  }

  probe(namespaceId: number, sessionId: string, nonce: string): void {
    this.#bus.probes.tell(`${namespaceId}.${sessionId}`, nonce);
  }

  access(): Promise<JetStreamAccess | undefined> {
    return Promise.resolve(undefined);
  }

  workTransport(session: { namespaceId: number; sessionId: string }): WorkTransport {
    return this.#bus.work(session);
  }

  /** For the bus. */
  tellWiped(): void {
    this.#listener?.onWiped();
  }

  #take(coordinatorId: string): void {
    const taker: Taker<MemoryCompletions> = {
      ready: () => this.#inHand < completionsInHandMax,
      take: (message, ack) => {
        this.#inHand += 1;
        let open = true;
        const end = (): void => {
          if (!open) return;
          open = false;
          this.#inHand -= 1;
          ack();
          this.#bus.pump();
        };
        this.#listener?.onCompletions({ ...message, ack: end, terminate: end });
      },
    };
    this.#takers.set(coordinatorId, taker);
    this.#bus.takeCompletions(coordinatorId, taker);
  }
}

/**
 * A worker's side of the memory bus: pulls lanes into free slots, and puts packed completions into coordinators' inboxes.
 */
import { type CompleteStep, EmittedOutput, type LaneGrant, TransportKind } from "@taskmesh/proto";
import { CompletionPacker } from "./completion-packer.js";
import { decodeStart, LaneHand } from "./lane-hand.js";
import type { MemoryBus, MemoryStart } from "./memory.js";
import type { Taker } from "./memory-queue.js";
import type { StoredCallback, WorkListener, WorkTransport } from "./transport.js";

interface OpenLane {
  subject: string;
  hand: LaneHand;
  taker: Taker<MemoryStart>;
}

export class MemoryWork implements WorkTransport {
  readonly kind = TransportKind.TRANSPORT_KIND_MEMORY;
  readonly #bus: MemoryBus;
  readonly #session: { namespaceId: number; sessionId: string };
  readonly #packer: CompletionPacker;
  readonly #lanes = new Map<string, OpenLane>();
  #listener: WorkListener | undefined;
  #stopProbes: (() => void) | undefined;
  #draining = false;
  #closed = false;

  constructor(bus: MemoryBus, session: { namespaceId: number; sessionId: string }) {
    this.#bus = bus;
    this.#session = session;
    this.#packer = new CompletionPacker(({ reportTo, bytes, stored }) => {
      const message = { namespaceId: session.namespaceId, bytes };
      const error = this.#closed ? new Error("the transport is closed") : bus.publishCompletions(reportTo, message);
      setImmediate(stored, error);
    });
  }

  open(lanes: LaneGrant[], listener: WorkListener): Promise<void> {
    if (this.#closed) return Promise.reject(new Error("the transport is closed"));
    this.#listener = listener;
    const { namespaceId, sessionId } = this.#session;
    this.#stopProbes ??= this.#bus.probes.on(`${namespaceId}.${sessionId}`, (nonce) => this.#listener?.onProbe(nonce));
    for (const lane of lanes) {
      const open = this.#lanes.get(lane.subject);
      if (open) open.hand.addSlots(lane.slots);
      else this.#openLane(lane);
    }
    this.#bus.pump();
    return Promise.resolve();
  }

  drain(): Promise<void> {
    if (!this.#draining)
      for (const { subject, taker } of this.#lanes.values()) this.#bus.lane(subject).leave(taker, false);
    this.#draining = true;
    return Promise.resolve();
  }

  complete(reportTo: string, completion: CompleteStep, stored: StoredCallback): void {
    this.#packer.add(reportTo, completion, stored);
  }

  emit(output: EmittedOutput): Promise<void> {
    const key = `${this.#session.namespaceId}.${output.runId}`;
    if (!this.#closed) this.#bus.outputs.tell(key, EmittedOutput.encode(output).finish());
    // A turn of the process: a handler that never waits must not keep everything else in it waiting.
    return new Promise((resolve) => setImmediate(resolve));
  }

  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    void this.drain();
    this.#packer.flush();
    this.#closed = true;
    this.#stopProbes?.();
    this.#listener = undefined;
    return Promise.resolve();
  }

  #openLane(lane: LaneGrant): void {
    const hand = new LaneHand(lane.taskQueue, lane.slots, () => this.#bus.pump());
    const taker: Taker<MemoryStart> = {
      ready: () => hand.free > 0,
      take: (message, ack) => this.#take(hand, message, ack),
    };
    this.#lanes.set(lane.subject, { subject: lane.subject, hand, taker });
    if (!this.#draining) this.#bus.lane(lane.subject).takers.push(taker);
  }

  #take(hand: LaneHand, message: MemoryStart, ack: () => void): void {
    message.deliveries += 1;
    const start = decodeStart(message.bytes);
    // Undecodable: nobody can ever run it, so it ends here.
    if (!start) {
      ack();
      return;
    }
    const redelivered = message.deliveries > 1;
    const delivery = hand.admit({ start, redelivered, headers: message.headers, ack });
    if (delivery) this.#listener?.onStart(delivery);
  }
}

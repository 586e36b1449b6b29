/**
 * What a worker holds of one lane: the count behind its credits, and one entry for each start in its hands.
 *
 * H1. At most `slots` starts are held at once (C3): `free` is what may be asked for.
 * H2. A start that is delivered again while its earlier delivery is still held is not given twice. The new delivery takes the old
 *     one's place for the ack, since a carrier that lost its state no longer knows the old one.
 * H3. A message whose starts last in hand without an ack can be told so (`lasting`): nobody else is to be given them while this worker has them.
 *
 * Without H2 a coordinator that is away for longer than `ackWaitMs` would make a worker claim, and thereby supersede, its own attempts.
 */
import { StartBatch, StartStep } from "@taskmesh/proto";
import type { StartDelivery, TraceHeaders } from "./transport.js";

interface Held {
  acked: boolean;
  ack: () => void;
  message: HeldMessage | undefined;
  /** Was in hand at the last look. */
  lasts: boolean;
}

/** What brought a start. */
export interface HeldMessage {
  /** Begins its ack wait anew. */
  working(): void;
}

/** A start as it came from a carrier. */
export interface ArrivedStart {
  start: StartStep;
  redelivered: boolean;
  headers?: TraceHeaders | undefined;
  /** Tells the carrier not to deliver it again. */
  ack: () => void;
  /** Where the carrier can be told that it is being worked on. */
  message?: HeldMessage;
}

export class LaneHand {
  readonly taskQueue: string;
  #slots: number;
  #taken = 0;
  readonly #byLease = new Map<string, Held>();
  readonly #onFree: () => void;

  /** `onFree` is called after a slot became free. */
  constructor(taskQueue: string, slots: number, onFree: () => void) {
    this.taskQueue = taskQueue;
    this.#slots = slots;
    this.#onFree = onFree;
  }

  get slots(): number {
    return this.#slots;
  }

  /** Slots without a start. */
  get free(): number {
    return this.#slots - this.#taken;
  }

  /** Whether a start of this lease is in hand. */
  holds(lease: string): boolean {
    return this.#byLease.has(lease);
  }

  /** What brought the starts that are in hand without an ack, and were so at the last call; each once. */
  lasting(): ReadonlySet<HeldMessage> {
    const found = new Set<HeldMessage>();
    for (const held of this.#byLease.values()) {
      if (held.lasts && !held.acked && held.message) found.add(held.message);
      held.lasts = true;
    }
    return found;
  }

  addSlots(count: number): void {
    this.#slots += count;
  }

  /** Takes a start in; undefined if it is held already (H2). */
  admit(arrived: ArrivedStart): StartDelivery | undefined {
    const { lease } = arrived.start;
    const known = this.#byLease.get(lease);
    if (known) {
      known.ack = arrived.ack;
      known.message = arrived.message;
      if (known.acked) arrived.ack();
      return undefined;
    }
    const held: Held = { acked: false, ack: arrived.ack, message: arrived.message, lasts: false };
    let released = false;
    this.#taken += 1;
    this.#byLease.set(lease, held);
    return {
      taskQueue: this.taskQueue,
      start: arrived.start,
      redelivered: arrived.redelivered,
      ack: () => {
        if (held.acked) return;
        held.acked = true;
        held.ack();
      },
      release: () => {
        if (released) return;
        released = true;
        this.#taken -= 1;
        this.#byLease.delete(lease);
        this.#onFree();
      },
      ...(arrived.headers ? { headers: arrived.headers } : {}),
    };
  }
}

/** The start in `bytes`, undefined if they are none. */
export const decodeStart = (bytes: Uint8Array): StartStep | undefined =>
  wholeStarts(() => [StartStep.decode(bytes)])?.[0];

/** The starts of an encoded StartBatch, undefined if the bytes are none. */
export const decodeStarts = (bytes: Uint8Array): StartStep[] | undefined =>
  wholeStarts(() => StartBatch.decode(bytes).starts);

function wholeStarts(decode: () => StartStep[]): StartStep[] | undefined {
  try {
    const starts = decode();
    return starts.length > 0 && starts.every(({ runId, lease }) => runId !== "" && lease !== "") ? starts : undefined;
  } catch {
    return undefined;
  }
}

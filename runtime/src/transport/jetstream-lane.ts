/**
 * One lane of a JetStream worker: pulls packs of starts, and gives each start to the worker when it has a slot for it.
 *
 * N1. A message is asked for only with room for a full pack, so that its starts find free slots.
 * N2. A pack that is larger all the same (it was made when the lane's workers were larger) waits at the door for slots. Its starts may
 *     have been delivered to others meanwhile, so they count as redelivered.
 * N3. A message is acked when each of its starts is.
 * N4. While a worker of its own connection holds a start without an ack, the ack wait begins anew every `workingEveryMs`: an attempt that can't be
 *     bound, since no coordinator or no database is there to do it, is not taken from the worker that runs it. Not so for a relay: the
 *     coordinator that holds its starts does not know what the worker still has.
 */
import type { LaneGrant } from "@taskmesh/proto";
import { type ArrivedStart, decodeStarts, LaneHand } from "./lane-hand.js";
import type { NatsLink } from "./nats-link.js";
import { checkedToken } from "./nats-names.js";
import { traceFrom } from "./nats-publisher.js";
import { ConsumerPull, type PulledMessage } from "./nats-pull.js";
import { ackWaitMs, type StartDelivery, type TraceHeaders } from "./transport.js";

/** A start that is delivered right after a look has waited twice this long when the server hears of it: well below the ack wait. */
const workingEveryMs = ackWaitMs / 3;

export interface JetStreamLaneOptions {
  link: NatsLink;
  stream: string;
  grant: LaneGrant;
  /** The worker rides on a connection of its own (N4). */
  ownLink: boolean;
  onStart: (delivery: StartDelivery) => void;
  /** A message could not be read, and was terminated. */
  onUnreadable: () => void;
}

export class JetStreamLane {
  readonly #options: JetStreamLaneOptions;
  readonly #hand: LaneHand;
  readonly #pull: ConsumerPull;
  #packMax: number;
  /** Starts without a slot (N2). */
  readonly #door: ArrivedStart[] = [];
  readonly #stopListening: () => void;
  #lookAtMs = 0;
  #draining = false;

  constructor(options: JetStreamLaneOptions) {
    const { link, stream, grant, ownLink } = options;
    checkedToken(grant.consumer, "consumer name");
    this.#options = options;
    this.#packMax = Math.max(1, grant.packMax);
    this.#hand = new LaneHand(grant.taskQueue, grant.slots, () => this.#onFree());
    this.#pull = new ConsumerPull(link, {
      stream,
      consumer: grant.consumer,
      room: () => (this.#door.length > 0 ? 0 : Math.floor(this.#hand.free / this.#packMax)),
      onMessage: (message) => this.#onMessage(message),
    });
    this.#stopListening = ownLink ? link.listen({ onTick: (nowMs) => this.#look(nowMs) }) : () => {};
  }

  /** The same lane was granted again, with more slots. */
  add(grant: LaneGrant): void {
    this.#packMax = Math.max(this.#packMax, grant.packMax);
    this.#hand.addSlots(grant.slots);
    this.#onFree();
  }

  /** Asks for no more. What waits at the door goes to other workers. Resolves when nothing more can come. */
  drain(): Promise<void> {
    this.#draining = true;
    this.#door.length = 0;
    return this.#pull.drain();
  }

  /** Looks whether the consumer is still there. */
  recheck(): void {
    this.#pull.recheck();
  }

  stop(): void {
    this.#draining = true;
    this.#stopListening();
    this.#pull.stop();
  }

  /** N4 */
  #look(nowMs: number): void {
    if (nowMs < this.#lookAtMs) return;
    this.#lookAtMs = nowMs + workingEveryMs;
    for (const message of this.#hand.lasting()) message.working();
  }

  #onFree(): void {
    while (this.#door.length > 0 && this.#hand.free > 0) this.#give({ ...this.#door.shift()!, redelivered: true });
    if (!this.#draining) this.#pull.poke();
  }

  #onMessage(message: PulledMessage): void {
    const starts = decodeStarts(message.data);
    if (!starts) {
      this.#options.onUnreadable();
      message.terminate();
      return;
    }
    const headers = traceOf(message, this.#options.grant);
    const ack = ackOfAll(starts.length, () => message.ack());
    for (const start of starts) {
      const arrived = { start, redelivered: message.redelivered, headers, ack: ack(), message };
      if (this.#hand.free > 0 || this.#hand.holds(start.lease)) this.#give(arrived);
      else if (!this.#draining) this.#door.push(arrived);
    }
  }

  #give(arrived: ArrivedStart): void {
    const delivery = this.#hand.admit(arrived);
    if (delivery) this.#options.onStart(delivery);
  }
}

/** N3: makes the acks of a message's parts; the last one that is called acks the message. Each counts once. */
function ackOfAll(count: number, ack: () => void): () => () => void {
  if (count === 1) return () => ack;
  let open = count;
  return () => {
    let acked = false;
    return () => {
      if (acked) return;
      acked = true;
      open -= 1;
      if (open === 0) ack();
    };
  };
}

const traceMark = Buffer.from("trace");

/** Every start has headers (its id), few have a trace: a look at the bytes is much cheaper than parsing them. */
function traceOf({ message, data }: PulledMessage, lane: LaneGrant): TraceHeaders | undefined {
  // In the class, not in the interface; without it the block is parsed.
  const size = (message as { size?(): number }).size?.() ?? 0;
  if (size === 0) return traceFrom(message.headers);
  const headerBytes = size - lane.subject.length - (message.reply?.length ?? 0) - data.length;
  if (headerBytes <= 0 || headerBytes > data.byteOffset) return undefined;
  const block = Buffer.from(data.buffer, data.byteOffset - headerBytes, headerBytes);
  return block.includes(traceMark) ? traceFrom(message.headers) : undefined;
}

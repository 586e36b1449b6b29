/**
 * Packs the starts of one tick and lane into messages.
 *
 * A commit sends its starts in one go, so they meet here without waiting. Packing costs nothing in meaning: each start carries its own
 * identity and lease, and the outcome of the message is the outcome of each. A start with trace headers travels alone, since headers
 * belong to a message.
 */
import { encodePack, framingBytesMax } from "./pack-bytes.js";
import {
  type Lane,
  laneSubject,
  messageBytesMax,
  type OutgoingStart,
  type PublishOutcome,
  type TraceHeaders,
} from "./transport.js";

/** Bytes of a pack: large starts gain nothing from company. */
const packBytesMax = 64 * 1024;

/** Starts that travel in one message. */
export interface StartPack {
  subject: string;
  /** Id of the first start: unique per publication, so unique per message. */
  id: string;
  /** The encoded StartBatch. */
  bytes: Uint8Array;
  headers: TraceHeaders | undefined;
  /** Tells the outcome to every start of the pack. */
  done: (outcome: PublishOutcome) => void;
}

interface Waiting {
  subject: string;
  id: string;
  packMax: number;
  bytes: number;
  parts: Uint8Array[];
  done: ((outcome: PublishOutcome) => void)[];
}

export class StartPacker {
  readonly #send: (pack: StartPack) => void;
  readonly #waiting = new Map<number, Waiting>();
  #scheduled = false;

  constructor(send: (pack: StartPack) => void) {
    this.#send = send;
  }

  /** Sends the start, at the end of the tick if others may join it. */
  add(start: OutgoingStart, done: (outcome: PublishOutcome) => void): void {
    const { lane, id, bytes, headers, packMax = 1 } = start;
    if (bytes.length > messageBytesMax) {
      const message = `the start has ${bytes.length} bytes, the carrier takes ${messageBytesMax}`;
      setImmediate(done, { kind: "refused", message } satisfies PublishOutcome);
      return;
    }
    if (packMax <= 1 || headers || bytes.length > packBytesMax) {
      this.#send({ subject: laneSubject(lane), id, bytes: encodePack([bytes]), headers, done });
      return;
    }
    const waiting = this.#packFor(lane, start.id, packMax, bytes.length + framingBytesMax);
    waiting.parts.push(bytes);
    waiting.done.push(done);
    waiting.bytes += bytes.length + framingBytesMax;
    if (waiting.parts.length >= Math.min(packMax, waiting.packMax)) this.#close(lane.laneId, waiting);
    else if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => this.#flush());
    }
  }

  /** The lane's open pack, or a new one if that has no room. */
  #packFor(lane: Lane, id: string, packMax: number, bytes: number): Waiting {
    const open = this.#waiting.get(lane.laneId);
    if (open && open.bytes + bytes <= packBytesMax) return open;
    if (open) this.#close(lane.laneId, open);
    const made: Waiting = { subject: laneSubject(lane), id, packMax, bytes: 0, parts: [], done: [] };
    this.#waiting.set(lane.laneId, made);
    return made;
  }

  #flush(): void {
    this.#scheduled = false;
    for (const [laneId, waiting] of this.#waiting) this.#close(laneId, waiting);
  }

  #close(laneId: number, { subject, id, parts, done }: Waiting): void {
    this.#waiting.delete(laneId);
    this.#send({
      subject,
      id,
      bytes: encodePack(parts),
      headers: undefined,
      done: (outcome) => {
        for (const each of done) each(outcome);
      },
    });
  }
}

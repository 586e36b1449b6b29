/**
 * Packs the completions of one tick and one addressee into messages of at most `messageBytesMax`.
 *
 * A tick ends with `setImmediate`: what handlers finish until then shares a message, and a lone completion waits for nothing.
 * Packing costs nothing in meaning: each completion carries its own identity and lease.
 */
import type { CompleteStep } from "@taskmesh/proto";
import { encodeCompleteStep } from "../step-messages.js";
import { encodePack, framingBytesMax } from "./pack-bytes.js";
import { messageBytesMax, type StoredCallback } from "./transport.js";

/** Completions that travel in one message. */
export interface CompletionPack {
  reportTo: string;
  completions: CompleteStep[];
  /** The encoded CompletionBatch. */
  bytes: Uint8Array;
  /** Settles every completion of the pack. */
  stored: StoredCallback;
}

interface Waiting {
  completion: CompleteStep;
  encoded: Uint8Array;
  stored: StoredCallback;
}

export class CompletionPacker {
  readonly #send: (pack: CompletionPack) => void;
  readonly #waiting = new Map<string, Waiting[]>();
  #scheduled = false;

  constructor(send: (pack: CompletionPack) => void) {
    this.#send = send;
  }

  /** Takes a completion for the pack of this tick. One that no message can hold is refused in the next tick. */
  add(reportTo: string, completion: CompleteStep, stored: StoredCallback): void {
    const encoded = encodeCompleteStep(completion);
    if (encoded.length + framingBytesMax > messageBytesMax) {
      const error = new Error(
        `the completion has ${encoded.length} bytes, a message holds ${messageBytesMax - framingBytesMax}`,
      );
      setImmediate(stored, error);
      return;
    }
    const waiting = this.#waiting.get(reportTo);
    if (waiting) waiting.push({ completion, encoded, stored });
    else this.#waiting.set(reportTo, [{ completion, encoded, stored }]);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.flush());
  }

  /** Sends what waits, without the end of the tick. */
  flush(): void {
    this.#scheduled = false;
    for (const [reportTo, waiting] of this.#waiting) {
      this.#waiting.delete(reportTo);
      let first = 0;
      let size = 0;
      waiting.forEach(({ encoded }, index) => {
        const more = encoded.length + framingBytesMax;
        if (size + more > messageBytesMax) {
          this.#sendPack(reportTo, waiting.slice(first, index));
          first = index;
          size = 0;
        }
        size += more;
      });
      this.#sendPack(reportTo, first === 0 ? waiting : waiting.slice(first));
    }
  }

  #sendPack(reportTo: string, pack: Waiting[]): void {
    this.#send({
      reportTo,
      completions: pack.map(({ completion }) => completion),
      bytes: encodePack(pack.map(({ encoded }) => encoded)),
      stored: (error) => {
        for (const { stored, encoded } of pack) stored(error, encoded);
      },
    });
  }
}

/**
 * Completions that a carrier has confirmed, kept a while as bytes.
 *
 * A worker of short steps confirms thousands a second and keeps them for minutes. As messages, a dozen objects each, they were the larger
 * part of what its garbage collector moved; as bytes in large chunks they are one small object each.
 */
import { CompleteStep } from "@taskmesh/proto";

/** How long a confirmed completion is kept. */
export const keptMsMax = 5 * 60_000;
/** Most bytes of confirmed completions that are kept; the oldest go first. */
export const keptBytesMax = 64 * 1024 * 1024;
/** What an entry takes beside its bytes, roughly. */
const entryBytes = 256;
const chunkBytes = 256 * 1024;
/** Forgotten entries at the head of the order that are cut off at once. */
const compactEvery = 4_096;

interface Entry {
  lease: string;
  reportTo: string;
  chunk: Buffer;
  from: number;
  to: number;
  storedAtMs: number;
}

export interface Confirmed {
  reportTo: string;
  completion: CompleteStep;
}

export class ConfirmedLog {
  readonly #byLease = new Map<string, Entry>();
  /** In order, from `#oldest` on. A map's own order would be searched past all that was deleted before. */
  #order: (Entry | undefined)[] = [];
  #oldest = 0;
  #bytes = 0;
  #chunk = Buffer.alloc(0);
  #used = 0;

  has(lease: string): boolean {
    return this.#byLease.has(lease);
  }

  /** Keeps an encoded CompleteStep; the bytes are copied. */
  add(lease: string, reportTo: string, encoded: Uint8Array): void {
    if (this.#used + encoded.length > this.#chunk.length) {
      this.#chunk = Buffer.allocUnsafeSlow(Math.max(chunkBytes, encoded.length));
      this.#used = 0;
    }
    const from = this.#used;
    this.#chunk.set(encoded, from);
    this.#used = from + encoded.length;
    const entry = { lease, reportTo, chunk: this.#chunk, from, to: this.#used, storedAtMs: performance.now() };
    this.#byLease.set(lease, entry);
    this.#order.push(entry);
    this.#bytes += encoded.length + entryBytes;
    this.#forget();
  }

  get(lease: string): Confirmed | undefined {
    const entry = this.#byLease.get(lease);
    return entry && decoded(entry);
  }

  /** Gives out all that is kept, in order, and keeps nothing. */
  takeAll(): Confirmed[] {
    this.#forget();
    const all = this.#order.slice(this.#oldest).flatMap((entry) => (entry ? [decoded(entry)] : []));
    this.#byLease.clear();
    this.#order = [];
    this.#oldest = 0;
    this.#bytes = 0;
    return all;
  }

  #forget(): void {
    const tooOldMs = performance.now() - keptMsMax;
    for (let entry = this.#order[this.#oldest]; entry; entry = this.#order[this.#oldest]) {
      if (entry.storedAtMs > tooOldMs && this.#bytes <= keptBytesMax) break;
      // Not kept from the collector until the next compaction.
      this.#order[this.#oldest++] = undefined;
      this.#byLease.delete(entry.lease);
      this.#bytes -= entry.to - entry.from + entryBytes;
    }
    if (this.#oldest < compactEvery) return;
    this.#order.splice(0, this.#oldest);
    this.#oldest = 0;
  }
}

function decoded({ reportTo, chunk, from, to }: Entry): Confirmed {
  // A copy: what was decoded points into its bytes, and the chunk may be gone from the log long before it.
  return { reportTo, completion: CompleteStep.decode(Buffer.from(chunk.subarray(from, to))) };
}

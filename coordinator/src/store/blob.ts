/**
 * All bytes of a batch as one parameter: rows name their part by offset and length. One bytea costs a fraction of an array of them,
 * whose every element would be quoted by the driver and parsed by the server.
 */
import { WireWriter } from "@taskmesh/runtime";
import type { Value } from "../engine/plan.js";

/** A buffer that grew larger than this is not kept. */
const keptBytesMax = 1024 * 1024;
/** The writer of earlier blobs: a buffer for each would make the runtime collect garbage for a tenth of the time (measured). */
let kept: WireWriter | undefined;

export class Blob {
  readonly #writer: WireWriter;

  constructor() {
    this.#writer = kept ?? new WireWriter();
    kept = undefined;
  }

  /** Appends text as UTF-8 and answers where it begins. Unpaired surrogates become U+FFFD. */
  text(value: string): number {
    return this.#writer.rawText(value);
  }

  bytes(value: Uint8Array): number {
    return this.#writer.raw(value);
  }

  /** Appends an encoded taskmesh.v1.Payload. */
  payload(value: Value): number {
    const at = this.#writer.length;
    this.#writer.string(1, value.contract);
    this.#writer.uint(3, value.sizeBytes);
    this.#writer.bytes(4, value.sha256);
    if (value.bytes !== undefined) this.#writer.bytes(5, value.bytes, true);
    else if (value.reference !== undefined) this.#writer.string(6, value.reference);
    return at;
  }

  get length(): number {
    return this.#writer.length;
  }

  /** What was appended, as base64. The blob must not be used afterwards. */
  base64(): string {
    const text = this.#writer.base64();
    this.#writer.reset();
    if (this.#writer.capacity <= keptBytesMax) kept = this.#writer;
    return text;
  }
}

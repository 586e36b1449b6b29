/**
 * All bytes of a batch as one parameter: rows name their part by offset and length. One bytea costs a fraction of an array of them,
 * whose every element would be quoted by the driver and parsed by the server.
 */
import type { Value } from "../engine/plan.js";

const growBytes = 64 * 1024;

export class Blob {
  #buffer = Buffer.allocUnsafe(growBytes);
  #length = 0;

  /** Appends text as UTF-8 and answers where it begins. Unpaired surrogates become U+FFFD. */
  text(value: string): number {
    this.#reserve(value.length * 3);
    const at = this.#length;
    this.#length += this.#buffer.write(value, at, "utf8");
    return at;
  }

  bytes(value: Uint8Array): number {
    this.#reserve(value.length);
    const at = this.#length;
    this.#buffer.set(value, at);
    this.#length += value.length;
    return at;
  }

  /** Appends an encoded taskmesh.v1.Payload: the hot path writes one a step, so it is written here field by field. */
  payload(value: Value): number {
    const at = this.#length;
    this.#string(0x0a, value.contract);
    this.#varintField(0x18, value.sizeBytes);
    this.#bytesField(0x22, value.sha256);
    if (value.bytes !== undefined) this.#bytesField(0x2a, value.bytes);
    else if (value.reference !== undefined) this.#string(0x32, value.reference);
    return at;
  }

  get length(): number {
    return this.#length;
  }

  /** What was appended. The blob must not be written to afterwards. */
  done(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  #string(tag: number, value: string): void {
    if (value === "") return;
    this.#bytesField(tag, Buffer.from(value, "utf8"));
  }

  #bytesField(tag: number, value: Uint8Array): void {
    this.#varintField(tag, value.length, true);
    this.bytes(value);
  }

  #varintField(tag: number, value: number, always = false): void {
    if (value === 0 && !always) return;
    this.#reserve(12);
    this.#buffer[this.#length++] = tag;
    let rest = value;
    while (rest > 127) {
      this.#buffer[this.#length++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.#buffer[this.#length++] = rest;
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + more));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}

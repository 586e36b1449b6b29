/**
 * Writes protobuf fields into one growing buffer. For the few messages of which every step needs one: a generated encoder costs
 * several times as much (it collects chunks and joins them at the end).
 *
 * Fields are written in the order of the calls; absent values (0, "", no bytes) are left out, as proto3 does.
 */
export class WireWriter {
  #buffer: Buffer;
  #length = 0;

  constructor(bytes = 64 * 1024) {
    this.#buffer = Buffer.allocUnsafe(bytes);
  }

  get length(): number {
    return this.#length;
  }

  /** What was written since `from`, copied: the writer may go on. */
  copy(from = 0): Buffer {
    return Buffer.from(this.#buffer.subarray(from, this.#length));
  }

  /** All that was written, as base64. */
  base64(): string {
    return this.#buffer.toString("base64", 0, this.#length);
  }

  /** Bytes that fit before the buffer grows. */
  get capacity(): number {
    return this.#buffer.length;
  }

  /** Forgets what was written, so that the buffer is used again. */
  reset(): void {
    this.#length = 0;
  }

  /** Bare bytes, without tag and length. Answers where they begin. */
  raw(value: Uint8Array): number {
    this.#reserve(value.length);
    const at = this.#length;
    this.#buffer.set(value, at);
    this.#length += value.length;
    return at;
  }

  /** Bare text as UTF-8, without tag and length. Answers where it begins. Unpaired surrogates become U+FFFD. */
  rawText(value: string): number {
    this.#reserve(value.length * 3);
    const at = this.#length;
    this.#length += this.#buffer.write(value, at, "utf8");
    return at;
  }

  /** A string field. */
  string(field: number, value: string): void {
    if (value === "") return;
    this.#reserve(value.length * 3 + 12);
    this.#varint((field << 3) | 2);
    // The length of short texts takes one byte, whatever it turns out to be.
    if (value.length * 3 > 127) {
      const bytes = Buffer.byteLength(value, "utf8");
      this.#varint(bytes);
      this.#length += this.#buffer.write(value, this.#length, "utf8");
      return;
    }
    const written = this.#buffer.write(value, this.#length + 1, "utf8");
    this.#buffer[this.#length] = written;
    this.#length += written + 1;
  }

  /** A bytes field, or a message that is encoded already. */
  bytes(field: number, value: Uint8Array, always = false): void {
    if (value.length === 0 && !always) return;
    this.#reserve(value.length + 12);
    this.#varint((field << 3) | 2);
    this.#varint(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
  }

  /** An unsigned integer or bool field, up to 2^53. */
  uint(field: number, value: number): void {
    if (value === 0) return;
    this.#reserve(24);
    this.#varint(field << 3);
    this.#varint(value);
  }

  /** A message field: `write` writes its fields. Short messages only cost one more copy of themselves. */
  message(field: number, write: () => void): void {
    this.#reserve(24);
    this.#varint((field << 3) | 2);
    const lengthAt = this.#length;
    this.#length += 1;
    write();
    const size = this.#length - lengthAt - 1;
    if (size <= 127) {
      this.#buffer[lengthAt] = size;
      return;
    }
    const more = size < 1 << 14 ? 1 : size < 1 << 21 ? 2 : 3;
    this.#reserve(more);
    this.#buffer.copyWithin(lengthAt + 1 + more, lengthAt + 1, this.#length);
    this.#length = lengthAt;
    this.#varint(size);
    this.#length += size;
  }

  #varint(value: number): void {
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

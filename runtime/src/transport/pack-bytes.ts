/** The encoding of a message whose only field is `repeated M m = 1`, from encoded Ms: CompletionBatch and StartBatch. */

/** Field 1, length-delimited. */
const tag = 0x0a;
/** Tag and the longest length of anything that fits into a message. */
export const framingBytesMax = 5;

export function encodePack(parts: readonly Uint8Array[]): Uint8Array {
  const size = parts.reduce((sum, part) => sum + part.length + framingBytesMax, 0);
  const bytes = Buffer.allocUnsafe(size);
  let at = 0;
  for (const part of parts) {
    bytes[at++] = tag;
    let length = part.length;
    while (length > 0x7f) {
      bytes[at++] = (length & 0x7f) | 0x80;
      length >>>= 7;
    }
    bytes[at++] = length;
    bytes.set(part, at);
    at += part.length;
  }
  return bytes.subarray(0, at);
}

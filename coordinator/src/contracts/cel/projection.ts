/**
 * Copies a field from one encoded message into another without decoding either: the hot path of chains, whose inputs are mostly
 * bare paths such as `steps.fetch.output.text`.
 *
 * The source is scanned for the records of the field, and their values are written under the target's field number. It gives exactly
 * what decoding, reading and encoding would give:
 *
 * J1. Of a single value the last record counts, wherever earlier ones stand; records of a repeated, map or message field all count
 *     (a parser merges them).
 * J2. A member of a oneof is unset by a later record of another member.
 * J3. What is unset in the source is left unset in the target. A default written out by a field without presence is unset, too.
 * J4. Bytes that are no message give a fault, never an exception. (What is stored was checked; a projection does not rely on it.)
 */
import type { DescField } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { isGroup } from "@taskmesh/runtime";

const { IMPLICIT } = FeatureSet_FieldPresence;

interface Hop {
  number: number;
  /** Numbers of the other members of its oneof. */
  rivals: readonly number[];
}

export interface Projection {
  /** Messages to descend into, then the field itself; empty: the source as a whole becomes a message field. */
  hops: readonly Hop[];
  /** Every record counts, not just the last one. */
  every: boolean;
  /** A default value counts as unset: the source has no presence, and the target does. */
  dropDefault: boolean;
  /** The target's encoded tag by wire type. */
  tags: readonly Uint8Array[];
}

/** The projection of a path onto a target field; undefined if the two fields are not written alike. */
export function compileProjection(
  path: readonly DescField[],
  whole: string,
  target: DescField,
): Projection | undefined {
  // Groups have a tag at both ends, and are too rare to be worth a copy of their own.
  if (isGroup(target) || path.some(isGroup)) return undefined;
  const tags = [0, 1, 2, 3, 4, 5].map((wireType) => tagOf(target.number, wireType));
  const last = path.at(-1);
  if (last === undefined) {
    const alike = target.fieldKind === "message" && target.message.typeName === whole;
    return alike ? { hops: [], every: true, dropDefault: false, tags } : undefined;
  }
  if (!isWrittenAlike(last, target)) return undefined;
  return {
    hops: path.map((field) => ({ number: field.number, rivals: rivalsOf(field) })),
    every: last.fieldKind === "list" || last.fieldKind === "map" || last.fieldKind === "message",
    dropDefault: last.presence === IMPLICIT && target.presence !== IMPLICIT,
    tags,
  };
}

function rivalsOf(field: DescField): readonly number[] {
  return field.oneof === undefined ? [] : field.oneof.fields.filter((f) => f !== field).map((f) => f.number);
}

function isWrittenAlike(a: DescField, b: DescField): boolean {
  if (a.fieldKind !== b.fieldKind || a.scalar !== b.scalar) return false;
  if (a.enum?.typeName !== b.enum?.typeName || a.message?.typeName !== b.message?.typeName) return false;
  // A closed enum keeps unknown numbers apart; copied blindly they would come back.
  if (a.enum !== undefined && a.enum.open !== b.enum?.open) return false;
  return a.fieldKind !== "map" || b.fieldKind !== "map" || a.mapKey === b.mapKey;
}

export function tagOf(number: number, wireType: number): Uint8Array {
  const bytes: number[] = [];
  let rest = ((number << 3) | wireType) >>> 0;
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

/**
 * Collects the pieces of one message and hands it out in one copy. There is one for all: binding is synchronous and never nested, and a
 * buffer of its own for each message would cost more than filling it.
 */
export class MessageWriter {
  private buffer = Buffer.allocUnsafeSlow(64 * 1024);
  private length = 0;

  start(): void {
    this.length = 0;
  }

  write(bytes: Uint8Array, start = 0, end = bytes.length): void {
    const size = end - start;
    const at = this.length;
    if (at + size > this.buffer.length) this.grow(at + size);
    this.length = at + size;
    if (size < shortCopy) {
      const buffer = this.buffer;
      for (let i = 0; i < size; i++) buffer[at + i] = bytes[start + i]!;
    } else this.buffer.set(start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end), at);
  }

  writeVarint(value: number): void {
    if (this.length + 5 > this.buffer.length) this.grow(this.length + 5);
    let rest = value;
    for (; rest > 0x7f; rest >>>= 7) this.buffer[this.length++] = (rest & 0x7f) | 0x80;
    this.buffer[this.length++] = rest;
  }

  finish(): Uint8Array {
    const result = new Uint8Array(this.length);
    result.set(this.buffer.subarray(0, this.length));
    // One huge message must not hold its memory for ever.
    if (this.buffer.length > keptBytes) this.buffer = Buffer.allocUnsafeSlow(64 * 1024);
    return result;
  }

  private grow(size: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.max(size, this.buffer.length * 2));
    grown.set(this.buffer.subarray(0, this.length));
    this.buffer = grown;
  }
}

/** Below this a loop beats a call of `set`. */
const shortCopy = 24;
const keptBytes = 1024 * 1024;

/** Values found, as [start, end, wire type] in a row. One list for all, for the same reason as the writer's buffer. */
const found: number[] = [];
let count = 0;
/** Where the last varint ended. */
let at = 0;

/** Writes what the projection finds in `source`. False: the bytes are no message (J4). */
export function project(projection: Projection, source: Uint8Array, writer: MessageWriter): boolean {
  if (projection.hops.length === 0) {
    writer.write(projection.tags[2]!);
    writer.writeVarint(source.length);
    writer.write(source);
    return true;
  }
  count = 0;
  if (!collect(projection, 0, source, 0, source.length)) return false;
  if (projection.dropDefault && count > 0 && isDefault(source, found[0]!, found[1]!, found[2]!)) return true;
  for (let i = 0; i < count; i += 3) {
    writer.write(projection.tags[found[i + 2]!]!);
    writer.write(source, found[i]!, found[i + 1]!);
  }
  return true;
}

function collect(projection: Projection, hopIndex: number, bytes: Uint8Array, start: number, end: number): boolean {
  const hop = projection.hops[hopIndex]!;
  const last = hopIndex === projection.hops.length - 1;
  at = start;
  while (at < end) {
    let tag = bytes[at]!;
    if (tag < 0x80) at++;
    else {
      tag = readVarint32(bytes, end);
      if (tag < 0) return false;
    }
    const wire = tag & 7;
    const valueStart = at;
    const bodyStart = wire === 3 ? skipGroup(bytes, end, tag >>> 3) : skip(bytes, end, wire);
    if (bodyStart < 0) return false;
    const valueEnd = at;
    const number = tag >>> 3;
    if (number === hop.number) {
      if (!last) {
        if (wire !== 2 || !collect(projection, hopIndex + 1, bytes, bodyStart, valueEnd)) return false;
        at = valueEnd;
      } else {
        if (!projection.every) count = 0;
        found[count++] = valueStart;
        found[count++] = valueEnd;
        found[count++] = wire;
      }
    } else if (hop.rivals.length > 0 && hop.rivals.includes(number)) count = 0;
  }
  return at === end;
}

/** Moves behind a value; returns where its contents start, -1: no value. */
function skip(bytes: Uint8Array, end: number, wire: number): number {
  const start = at;
  switch (wire) {
    case 0: {
      const limit = Math.min(end, start + 10);
      while (at < limit) if (bytes[at++]! < 0x80) return start;
      return -1;
    }
    case 1:
      at += 8;
      break;
    case 2: {
      const length = readVarint32(bytes, end);
      if (length < 0) return -1;
      const body = at;
      at += length;
      return at > end ? -1 : body;
    }
    case 5:
      at += 4;
      break;
    default:
      return -1;
  }
  return at > end ? -1 : start;
}

/** Moves behind a group of any depth: what is in it is of no interest, and the source was checked. */
function skipGroup(bytes: Uint8Array, end: number, outermost: number): number {
  const start = at;
  const open = [outermost];
  while (open.length > 0) {
    const tag = readVarint32(bytes, end);
    if (tag < 0) return -1;
    if ((tag & 7) === 3) open.push(tag >>> 3);
    else if ((tag & 7) === 4) {
      if (open.pop() !== tag >>> 3) return -1;
    } else if (skip(bytes, end, tag & 7) < 0) return -1;
  }
  return start;
}

function readVarint32(bytes: Uint8Array, end: number): number {
  let value = 0;
  for (let shift = 0; shift <= 28 && at < end; shift += 7) {
    const byte = bytes[at++]!;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value >>> 0;
  }
  return -1;
}

function isDefault(bytes: Uint8Array, start: number, end: number, wire: number): boolean {
  for (let i = start; i < end; i++) {
    if (wire === 0 || wire === 2 ? (bytes[i]! & 0x7f) !== 0 : bytes[i] !== 0) return false;
    // A length of zero: what follows it is not part of the value.
    if (wire === 2 && bytes[i]! < 0x80) return true;
  }
  return true;
}

/**
 * Whether bytes are a valid message of a type, without building the message.
 *
 * Every payload passes here before it is stored, so this is written for speed: one pass over the bytes, no allocation while they
 * are right, one jump per field. It is stricter than protobuf parsers where they differ from each other, so that what passes
 * reads the same in every language and has a canonical JSON form:
 *
 * W1. A known field comes with its own wire type (a repeated number packed or not), strings are UTF-8, lengths stay inside their parent.
 * W2. Groups end where they began; messages and groups nest at most 100 deep; a varint has at most 10 bytes, a tag at most 5.
 * W3. Required fields (proto2) are there; Timestamp, Duration, Value and FieldMask hold what JSON can express.
 * W4. Unknown fields are allowed: a newer writer is no error. Unknown enum numbers are too.
 */
import { isUtf8 } from "node:buffer";
import type { DescMessage } from "@bufbuild/protobuf";
import {
  compileShape,
  denseMax,
  type FieldShape,
  type MessageShape,
  type Ranges,
  wireBytes,
  wireFixed32,
  wireFixed64,
  wireGroup,
  wireGroupEnd,
  wireVarint,
} from "./wire-shape.js";

/** Deepest nesting of messages, the outermost counted; what protobuf parsers of most languages take by default. */
export const nestingMax = 100;

/** What is wrong with an encoded message. `field`: path of the field, "" for the message as a whole. */
export interface WireFault {
  field: string;
  message: string;
}

/**
 * Makes the check of a message type: called with bytes, it says what is wrong with them ("lines.sku: not valid UTF-8") or returns
 * undefined if they are an encoded message of that type. It never throws. Compile once per type and keep it.
 */
export function compileWireCheck(desc: DescMessage): (bytes: Uint8Array) => string | undefined {
  const find = compileWireFault(desc);
  return (bytes) => {
    const fault = find(bytes);
    if (fault === undefined) return undefined;
    return fault.field === "" ? fault.message : `${fault.field}: ${fault.message}`;
  };
}

/** The same as compileWireCheck, with the field apart from the message. */
export function compileWireFault(desc: DescMessage): (bytes: Uint8Array) => WireFault | undefined {
  const shape = compileShape(desc, ranges);
  return (bytes) => {
    const fault = walk(shape, bytes, 0, bytes.length, 1);
    return fault === undefined ? undefined : { field: fault.path.reverse().join("."), message: fault.text };
  };
}

/** The innermost part of `path` comes first: it grows while the walk returns. */
interface Fault {
  path: string[];
  text: string;
}

/** Where the last varint or field ended. Module state instead of a returned pair: the checks are synchronous, and pairs cost. */
let at = 0;

const fail = (text: string): Fault => ({ path: [], text });
const truncated = "the message is cut off";
const strayEnd = "the end of a group that did not begin";

/** `group`: number of the group whose contents these are, which end before `end`; 0: a message that ends there. */
function walk(
  shape: MessageShape,
  bytes: Uint8Array,
  start: number,
  end: number,
  depth: number,
  group = 0,
): Fault | undefined {
  if (depth > nestingMax) return fail(`messages nest deeper than ${nestingMax}`);
  let seen = 0;
  let isOpen = group !== 0;
  let stop = end;
  at = start;
  while (at < end) {
    let tag = bytes[at]!;
    if (tag < 0x80) at++;
    else {
      tag = readTag(bytes, end);
      if (tag < 0) return fail(truncated);
    }
    const number = tag >>> 3;
    const wire = tag & 7;
    if (number === 0) return fail("field number 0");
    if (wire === wireGroupEnd) {
      if (number !== group) return fail(strayEnd);
      isOpen = false;
      stop = at;
      break;
    }
    const field = number < denseMax ? shape.dense[number] : shape.sparse?.get(number);
    if (field === undefined) {
      const text = skipField(bytes, end, tag, depth);
      if (text !== undefined) return fail(text);
      continue;
    }
    const fault = wire === wireBytes ? checkBytes(field, bytes, end, depth) : checkPlain(field, bytes, end, tag, depth);
    if (fault !== undefined) {
      fault.path.push(field.name);
      return fault;
    }
    seen |= field.required;
  }
  if (isOpen || at !== stop) return fail(truncated);
  for (const field of shape.required) {
    if ((seen & field.required) === 0) return { path: [field.name], text: "required, and missing" };
  }
  const text = shape.range?.(bytes, start, stop);
  at = stop;
  return text === undefined ? undefined : fail(text);
}

/** A value of wire type 2: a string, bytes, a message, or packed numbers. */
function checkBytes(field: FieldShape, bytes: Uint8Array, end: number, depth: number): Fault | undefined {
  let length = at < end ? bytes[at]! : 0x80;
  if (length < 0x80) at++;
  else {
    length = readLength(bytes, end);
    if (length < 0) return fail(truncated);
  }
  const start = at;
  const stop = start + length;
  if (stop > end) return fail(truncated);
  if (field.wire !== wireBytes) return field.packable ? checkPacked(field, bytes, stop) : fail(wrongWire(field, 2));
  if (field.message !== undefined) return walk(field.message, bytes, start, stop, depth + 1);
  at = stop;
  if (field.text && !isText(bytes, start, stop)) return fail("not valid UTF-8");
  return undefined;
}

/** A value of any other wire type: a number, or a message that is written as a group. */
function checkPlain(field: FieldShape, bytes: Uint8Array, end: number, tag: number, depth: number): Fault | undefined {
  const wire = tag & 7;
  if (wire !== field.wire) return fail(wrongWire(field, wire));
  if (wire === wireGroup) return walk(field.message!, bytes, at, end, depth + 1, tag >>> 3);
  const text = skipValue(bytes, end, wire);
  return text === undefined ? undefined : fail(text);
}

function checkPacked(field: FieldShape, bytes: Uint8Array, stop: number): Fault | undefined {
  if (field.wire !== wireVarint) {
    const size = field.wire === wireFixed64 ? 8 : 4;
    if ((stop - at) % size !== 0) return fail("packed numbers of a wrong length");
    at = stop;
    return undefined;
  }
  while (at < stop) {
    const text = skipValue(bytes, stop, wireVarint);
    if (text !== undefined) return fail(text);
  }
  return undefined;
}

const wireNames = ["varint", "64-bit", "length-delimited", "group", "group", "32-bit"];
const wrongWire = (field: FieldShape, wire: number): string =>
  `wire type ${wireNames[wire] ?? wire} where ${wireNames[field.wire]} is expected`;

/** Reads a tag of more than one byte; -1: cut off or over 32 bits. */
function readTag(bytes: Uint8Array, end: number): number {
  let value = 0;
  for (let shift = 0; shift <= 28 && at < end; shift += 7) {
    const byte = bytes[at++]!;
    if (shift === 28 && byte > 0x0f) return -1;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value >>> 0;
  }
  return -1;
}

/** Reads a length; -1: cut off, or longer than any message. */
function readLength(bytes: Uint8Array, end: number): number {
  let value = 0;
  for (let shift = 0; shift <= 28 && at < end; shift += 7) {
    const byte = bytes[at++]!;
    if (shift === 28 && byte > 0x07) return -1;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  return -1;
}

/** Moves behind the value of a field that nobody knows; says why it can't. */
function skipField(bytes: Uint8Array, end: number, tag: number, depth: number): string | undefined {
  const wire = tag & 7;
  return wire === wireGroup ? skipGroup(bytes, end, tag >>> 3, depth + 1) : skipValue(bytes, end, wire);
}

function skipGroup(bytes: Uint8Array, end: number, group: number, depth: number): string | undefined {
  if (depth > nestingMax) return `messages nest deeper than ${nestingMax}`;
  while (at < end) {
    const tag = readTag(bytes, end);
    if (tag < 0) return truncated;
    if (tag >>> 3 === 0) return "field number 0";
    if ((tag & 7) === wireGroupEnd) return tag >>> 3 === group ? undefined : strayEnd;
    const text = skipField(bytes, end, tag, depth);
    if (text !== undefined) return text;
  }
  return truncated;
}

/** Moves behind one value of the wire type; says why it can't. */
function skipValue(bytes: Uint8Array, end: number, wire: number): string | undefined {
  switch (wire) {
    case wireVarint: {
      const last = Math.min(end, at + 10);
      while (at < last) if (bytes[at++]! < 0x80) return undefined;
      return at === end ? truncated : "a varint of more than 10 bytes";
    }
    case wireFixed64:
      at += 8;
      return at > end ? truncated : undefined;
    case wireFixed32:
      at += 4;
      return at > end ? truncated : undefined;
    case wireBytes: {
      const length = readLength(bytes, end);
      if (length < 0 || at + length > end) return truncated;
      at += length;
      return undefined;
    }
    default:
      return `wire type ${wire} does not exist`;
  }
}

/** Below this, looking at the bytes one by one beats the call out of JavaScript. */
const shortText = 48;

function isText(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start <= shortText) {
    let i = start;
    while (i < end && bytes[i]! < 0x80) i++;
    if (i === end) return true;
  }
  return isUtf8(bytes.subarray(start, end));
}

/** Types whose JSON form can't express all that their fields can hold. */
const ranges: Ranges = new Map([
  [
    "google.protobuf.Timestamp",
    (bytes, start, end) => {
      const { seconds, nanos } = secondsAndNanos(bytes, start, end);
      if (seconds < -62_135_596_800n || seconds > 253_402_300_799n) return "not between the years 1 and 9999";
      return nanos < 0 || nanos > 999_999_999 ? "nanos are not between 0 and 999,999,999" : undefined;
    },
  ],
  [
    "google.protobuf.Duration",
    (bytes, start, end) => {
      const { seconds, nanos } = secondsAndNanos(bytes, start, end);
      if (seconds < -315_576_000_000n || seconds > 315_576_000_000n) return "longer than 10,000 years";
      if (nanos < -999_999_999 || nanos > 999_999_999) return "nanos are not below one second";
      const mixed = (seconds > 0n && nanos < 0) || (seconds < 0n && nanos > 0);
      return mixed ? "seconds and nanos have different signs" : undefined;
    },
  ],
  ["google.protobuf.Value", valueFault],
  ["google.protobuf.FieldMask", maskFault],
]);

/** Fields 1 and 2 of a Timestamp or Duration whose wire form was found right. */
function secondsAndNanos(bytes: Uint8Array, start: number, end: number): { seconds: bigint; nanos: number } {
  let seconds = 0n;
  let nanos = 0;
  at = start;
  while (at < end) {
    const tag = readTag(bytes, end);
    if (tag >>> 3 === 1) seconds = BigInt.asIntN(64, readVarint(bytes, end));
    else if (tag >>> 3 === 2) nanos = Number(BigInt.asIntN(32, readVarint(bytes, end)));
    else skipField(bytes, end, tag, 0);
  }
  return { seconds, nanos };
}

function readVarint(bytes: Uint8Array, end: number): bigint {
  let value = 0n;
  for (let shift = 0n; at < end; shift += 7n) {
    const byte = bytes[at++]!;
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

/** A Value has one of its kinds, and JSON has no word for numbers that are not finite. */
function valueFault(bytes: Uint8Array, start: number, end: number): string | undefined {
  let kind = 0;
  let number = 0;
  at = start;
  while (at < end) {
    const tag = readTag(bytes, end);
    const field = tag >>> 3;
    if (field >= 1 && field <= 6) kind = field;
    if (field === 2 && at + 8 <= end) number = new DataView(bytes.buffer, bytes.byteOffset + at, 8).getFloat64(0, true);
    skipField(bytes, end, tag, 0);
  }
  if (kind === 0) return "a Value without any kind";
  return kind === 2 && !Number.isFinite(number) ? "a Value can't hold NaN or Infinity" : undefined;
}

/** JSON writes the paths of a mask in lowerCamelCase, from which not every path can be told again. */
function maskFault(bytes: Uint8Array, start: number, end: number): string | undefined {
  at = start;
  while (at < end) {
    const tag = readTag(bytes, end);
    if (tag >>> 3 !== 1) {
      skipField(bytes, end, tag, 0);
      continue;
    }
    const length = readLength(bytes, end);
    const path = Buffer.from(bytes.buffer, bytes.byteOffset + at, length).toString("utf8");
    at += length;
    if (!/^(?:[^A-Z_,]|_[a-z])*$/.test(path)) {
      return `the path ${JSON.stringify(path.slice(0, 60))} has no JSON form: names are in lower_snake_case`;
    }
  }
  return undefined;
}

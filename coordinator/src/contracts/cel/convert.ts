/**
 * From a CEL value to a protobuf field, at run time. What assignable.ts let through either fits, or is out of a range that only
 * the value shows; then a ConversionFault says so.
 */
import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonValue,
  type MessageShape,
  ScalarType,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import {
  isReflectMessage,
  type ReflectList,
  type ReflectMap,
  type ReflectMessage,
  reflect,
} from "@bufbuild/protobuf/reflect";
import { wrappedScalar } from "./assignable.js";
import { type CelValue, isCelList, isCelMap, isCelUint } from "./engine-values.js";

/** The value does not fit into the field; final, since the same expression gives the same value again. */
export class ConversionFault extends Error {}

/** More work than the budget allows. */
export class OverBudget extends Error {}

/** Bounds the work of one conversion: expressions can make results that are far larger than what they read. */
export class Budget {
  constructor(private left: number) {}

  spend(amount: number): void {
    this.left -= amount;
    if (this.left < 0) throw new OverBudget("the result is too large");
  }
}

/** Sets a field of `message`. A null leaves it unset. */
export function setField(message: ReflectMessage, field: DescField, value: CelValue, budget: Budget): void {
  budget.spend(1);
  switch (field.fieldKind) {
    case "list": {
      if (!isCelList(value)) throw mismatch(value, "a list");
      const list = message.get(field) as ReflectList;
      for (const item of value) list.add(itemOf(field, item, budget));
      return;
    }
    case "map": {
      if (!isCelMap(value)) throw mismatch(value, "a map");
      const map = message.get(field) as ReflectMap;
      for (const [key, item] of value.entries()) {
        map.set(scalarOf(field.mapKey, key as CelValue, budget), itemOf(field, item, budget));
      }
      return;
    }
    default:
      if (value === null && field.message?.typeName !== "google.protobuf.Value") {
        if (field.message !== undefined) return;
        throw mismatch(value, "a value");
      }
      message.set(field, itemOf(field, value, budget) as never);
  }
}

function itemOf(field: DescField, value: CelValue, budget: Budget): unknown {
  budget.spend(1);
  if (field.message !== undefined) return messageOf(field.message, value, budget);
  return field.enum !== undefined ? enumOf(field.enum, value) : scalarOf(field.scalar!, value, budget);
}

function messageOf(desc: DescMessage, value: CelValue, budget: Budget): ReflectMessage {
  switch (desc.typeName) {
    case "google.protobuf.Value":
    case "google.protobuf.Struct":
    case "google.protobuf.ListValue":
      return reflect(desc, fromJson(desc, jsonOf(value, budget)));
  }
  const wrapped = wrappedScalar(desc);
  if (wrapped !== undefined && !isReflectMessage(value)) {
    const init = { value: scalarOf(wrapped, value, budget) } as never;
    return reflect(desc, create(desc, init) as MessageShape<DescMessage>);
  }
  if (!isReflectMessage(value) || value.desc.typeName !== desc.typeName) throw mismatch(value, desc.typeName);
  if (value.desc === desc) return value;
  // Another revision of the type: the wire form is what both have in common.
  const bytes = toBinary(value.desc, value.message);
  budget.spend(bytes.length / 16);
  return reflect(desc, fromBinary(desc, bytes));
}

function enumOf(desc: DescEnum, value: CelValue): number {
  if (typeof value === "string") {
    const found = desc.values.find((candidate) => candidate.name === value);
    if (found === undefined)
      throw new ConversionFault(`${JSON.stringify(clip(value))} is no value of ${desc.typeName}`);
    return found.number;
  }
  if (typeof value !== "bigint") throw mismatch(value, desc.typeName);
  const number = Number(BigInt.asIntN(32, value));
  if (BigInt(number) !== value || (!desc.open && desc.value[number] === undefined)) {
    throw new ConversionFault(`${value} is no value of ${desc.typeName}`);
  }
  return number;
}

function scalarOf(
  scalar: ScalarType,
  value: CelValue,
  budget: Budget,
): string | number | bigint | boolean | Uint8Array {
  switch (scalar) {
    case ScalarType.STRING:
      if (typeof value !== "string") throw mismatch(value, "string");
      budget.spend(value.length / 16);
      if (loneSurrogate.test(value)) throw new ConversionFault("the text has a lone surrogate and no UTF-8 form");
      return value;
    case ScalarType.BOOL:
      if (typeof value !== "boolean") throw mismatch(value, "bool");
      return value;
    case ScalarType.BYTES:
      if (!(value instanceof Uint8Array)) throw mismatch(value, "bytes");
      budget.spend(value.length / 16);
      return value;
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT: {
      const number = typeof value === "bigint" ? Number(value) : value;
      if (typeof number !== "number") throw mismatch(value, "double");
      if (scalar === ScalarType.FLOAT && Number.isFinite(number) && !Number.isFinite(Math.fround(number))) {
        throw new ConversionFault(`${number} is too large for a float`);
      }
      return number;
    }
    default:
      return integerOf(scalar, value);
  }
}

/** Half of a pair of UTF-16 units, which no UTF-8 can express. */
export const loneSurrogate = /\p{Surrogate}/u;

interface IntegerRange {
  low: bigint;
  high: bigint;
  wide: boolean;
}

const rangeOf = (bits: bigint, signed: boolean): IntegerRange => {
  const high = signed ? 2n ** (bits - 1n) - 1n : 2n ** bits - 1n;
  return { low: signed ? -(2n ** (bits - 1n)) : 0n, high, wide: bits > 32n };
};

/** What integers of each kind may be; `wide`: more than a number can hold. */
export const integerRanges: ReadonlyMap<ScalarType, IntegerRange> = new Map([
  ...[ScalarType.INT32, ScalarType.SINT32, ScalarType.SFIXED32].map((kind) => [kind, rangeOf(32n, true)] as const),
  ...[ScalarType.UINT32, ScalarType.FIXED32].map((kind) => [kind, rangeOf(32n, false)] as const),
  ...[ScalarType.INT64, ScalarType.SINT64, ScalarType.SFIXED64].map((kind) => [kind, rangeOf(64n, true)] as const),
  ...[ScalarType.UINT64, ScalarType.FIXED64].map((kind) => [kind, rangeOf(64n, false)] as const),
]);

function integerOf(scalar: ScalarType, value: CelValue): number | bigint {
  const integer = isCelUint(value) ? value.value : value;
  if (typeof integer !== "bigint") throw mismatch(value, "an integer");
  const { low, high, wide } = integerRanges.get(scalar)!;
  if (integer < low || integer > high) {
    throw new ConversionFault(`${integer} does not fit into ${ScalarType[scalar].toLowerCase()}`);
  }
  return wide ? integer : Number(integer);
}

/** The JSON form of a value, for fields that hold JSON. */
function jsonOf(value: CelValue, budget: Budget): JsonValue {
  budget.spend(1);
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "string") return scalarOf(ScalarType.STRING, value, budget) as string;
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new ConversionFault(`${value} has no JSON form`);
    return value;
  }
  if (typeof value === "bigint" || isCelUint(value)) {
    const integer = typeof value === "bigint" ? value : value.value;
    if (!Number.isSafeInteger(Number(integer))) {
      throw new ConversionFault(`${integer} is too large for a JSON number; use string()`);
    }
    return Number(integer);
  }
  if (value instanceof Uint8Array) {
    budget.spend(value.length / 16);
    return Buffer.from(value).toString("base64");
  }
  if (isCelList(value)) return Array.from(value, (item) => jsonOf(item, budget));
  if (isCelMap(value)) {
    return Object.fromEntries(Array.from(value.entries(), ([key, item]) => [keyText(key), jsonOf(item, budget)]));
  }
  if (isReflectMessage(value)) {
    budget.spend(toBinary(value.desc, value.message).length / 8);
    return toJson(value.desc, value.message);
  }
  throw mismatch(value, "a value with a JSON form");
}

const keyText = (key: unknown): string => (isCelUint(key) ? String(key.value) : String(key));

function mismatch(value: CelValue, wanted: string): ConversionFault {
  const found =
    value === null
      ? "null"
      : isReflectMessage(value)
        ? value.desc.typeName
        : isCelList(value)
          ? "a list"
          : isCelMap(value)
            ? "a map"
            : value instanceof Uint8Array
              ? "bytes"
              : typeof value === "bigint"
                ? "an int"
                : typeof value === "object"
                  ? "a value of another type"
                  : typeof value === "number"
                    ? "a double"
                    : typeof value;
  return new ConversionFault(`${wanted} is expected, and the expression gave ${found}`);
}

const clip = (text: string): string => (text.length > 60 ? `${text.slice(0, 60)}…` : text);

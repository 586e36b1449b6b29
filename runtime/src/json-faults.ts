import {
  type DescEnum,
  type DescField,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Registry,
  ScalarType,
} from "@bufbuild/protobuf";
import { nearestName } from "./nearest-name.js";
import { formatPath, type JsonPath, shorten } from "./strict-json.js";

/** One fault of an input. `field` is a path such as `items[2].price`, empty for the whole message. */
export interface JsonViolation {
  field: string;
  message: string;
}

/** Violations reported for one input. */
export const JSON_VIOLATIONS_MAX = 20;

/** Well-known types whose JSON is not an object of their fields. */
export function hasOwnJsonForm(desc: DescMessage): boolean {
  return desc.typeName.startsWith("google.protobuf.") && ownJsonForms.has(desc.name);
}

const ownJsonForms = new Set([
  ...["Any", "Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue", "DoubleValue", "FloatValue"],
  ...["Int64Value", "UInt64Value", "Int32Value", "UInt32Value", "BoolValue", "StringValue", "BytesValue"],
]);

/** Collects what is wrong with a JSON value as a message, each fault with the path of its field. */
export class JsonFaults {
  readonly violations: JsonViolation[] = [];

  constructor(private readonly registry: Registry | undefined) {}

  add(path: JsonPath, message: string): void {
    if (this.violations.length < JSON_VIOLATIONS_MAX) this.violations.push({ field: formatPath(path), message });
  }

  message(desc: DescMessage, json: JsonValue, path: JsonPath): void {
    if (hasOwnJsonForm(desc)) {
      this.wellKnown(desc, json, path);
      return;
    }
    if (!isJsonObject(json)) {
      this.add(path, `expected an object (${desc.typeName}), found ${describe(json)}`);
      return;
    }
    const seen = new Map<DescField, string>();
    for (const [key, value] of Object.entries(json)) {
      const field = desc.fields.find((candidate) => candidate.jsonName === key || candidate.name === key);
      const here = [...path, key];
      if (field === undefined) {
        if (!this.isExtension(desc, key)) this.add(here, unknownField(desc, key));
        continue;
      }
      const other = seen.get(field);
      if (other !== undefined) this.add(here, `the same field is set as ${JSON.stringify(other)}`);
      seen.set(field, key);
      this.field(field, value, here);
    }
    this.oneofs(desc, json, seen, path);
  }

  private oneofs(desc: DescMessage, json: JsonObject, seen: ReadonlyMap<DescField, string>, path: JsonPath): void {
    for (const oneof of desc.oneofs) {
      const keys = oneof.fields.map((field) => seen.get(field)).filter((key) => key !== undefined);
      const set = keys.filter((key) => json[key] !== null);
      const tooMuch = set[1];
      if (tooMuch !== undefined)
        this.add([...path, tooMuch], `only one of ${set.map((key) => JSON.stringify(key)).join(", ")} may be set`);
    }
  }

  private isExtension(desc: DescMessage, key: string): boolean {
    if (!key.startsWith("[") || !key.endsWith("]")) return false;
    return this.registry?.getExtension(key.slice(1, -1))?.extendee.typeName === desc.typeName;
  }

  private field(field: DescField, json: JsonValue, path: JsonPath): void {
    if (field.fieldKind === "list") {
      if (json === null) return;
      if (!Array.isArray(json)) {
        this.add(path, `expected a list, found ${describe(json)}`);
        return;
      }
      json.forEach((item, index) => {
        this.single(field, item, [...path, index], false);
      });
    } else if (field.fieldKind === "map") {
      if (json === null) return;
      if (!isJsonObject(json)) {
        this.add(path, `expected an object (a map), found ${describe(json)}`);
        return;
      }
      for (const [key, item] of Object.entries(json)) {
        const expected = scalarMismatch(field.mapKey, field.mapKey === ScalarType.BOOL ? mapBool(key) : key);
        if (expected !== undefined) this.add([...path, key], `expected ${expected} as the key`);
        this.single(field, item, [...path, key], false);
      }
    } else this.single(field, json, path, true);
  }

  /** One value of a field: the field itself, an item of a list, or a value of a map. */
  private single(field: DescField, json: JsonValue, path: JsonPath, mayBeNull: boolean): void {
    const takesNull =
      field.message?.typeName === "google.protobuf.Value" || field.enum?.typeName === "google.protobuf.NullValue";
    if (json === null && !takesNull) {
      if (!mayBeNull) this.add(path, "null is not allowed here");
    } else if (field.message !== undefined) this.message(field.message, json, path);
    else if (field.enum !== undefined) this.enumValue(field.enum, json, path);
    else if (field.scalar !== undefined) {
      const expected = scalarMismatch(field.scalar, json);
      if (expected !== undefined) this.add(path, `expected ${expected}, found ${describe(json)}`);
    }
  }

  private enumValue(desc: DescEnum, json: JsonValue, path: JsonPath): void {
    if (json === null) return;
    if (typeof json === "number") {
      const known = desc.open ? isIntegerIn(json, -2147483648n, 2147483647n) : desc.value[json] !== undefined;
      if (!known) this.add(path, `${desc.typeName} has no value ${json}`);
    } else if (typeof json !== "string") {
      this.add(path, `expected a name of ${desc.typeName}, found ${describe(json)}`);
    } else if (!desc.values.some((value) => value.name === json || value.jsonName === json)) {
      const names = desc.values.map((value) => value.name);
      this.add(path, `${desc.typeName} has no value ${JSON.stringify(shorten(json))}${suggest(json, names)}`);
    }
  }

  private wellKnown(desc: DescMessage, json: JsonValue, path: JsonPath): void {
    try {
      fromJson(desc, json, { registry: this.registry });
    } catch (cause) {
      const hint = wellKnownHints[desc.name];
      if (desc.name === "Any" && isJsonObject(json)) {
        this.add(path, describeCause(cause));
        return;
      }
      this.add(path, hint === undefined ? describeCause(cause) : `expected ${hint}, found ${describe(json)}`);
    }
  }
}

const wellKnownHints: Readonly<Record<string, string>> = {
  Any: 'an object with "@type"',
  Timestamp: 'an RFC 3339 time such as "2026-01-31T12:00:00Z"',
  Duration: 'a duration in seconds such as "1.5s"',
  FieldMask: 'field names joined by commas, such as "name,createdAt"',
  Struct: "an object",
  ListValue: "a list",
  DoubleValue: "a number",
  FloatValue: "a number",
  Int64Value: "a 64-bit integer, best as a string",
  UInt64Value: "an unsigned 64-bit integer, best as a string",
  Int32Value: "a 32-bit integer",
  UInt32Value: "an unsigned 32-bit integer",
  BoolValue: "true or false",
  StringValue: "a string",
  BytesValue: "a base64 string",
};

function unknownField(desc: DescMessage, key: string): string {
  const names = desc.fields.map((field) => field.jsonName);
  return `${desc.name} has no field ${JSON.stringify(shorten(key))}${suggest(key, names)}`;
}

function suggest(name: string, candidates: readonly string[]): string {
  const nearest = nearestName(name, candidates);
  return nearest === undefined ? "" : `; did you mean ${JSON.stringify(nearest)}?`;
}

/** What the scalar type expects, or undefined when `json` is such a value. */
function scalarMismatch(type: ScalarType, json: JsonValue): string | undefined {
  switch (type) {
    case ScalarType.STRING:
      return typeof json === "string" ? undefined : "a string";
    case ScalarType.BOOL:
      return typeof json === "boolean" ? undefined : "true or false";
    case ScalarType.BYTES:
      return typeof json === "string" && /^[A-Za-z0-9+/_-]*={0,2}$/.test(json) ? undefined : "a base64 string";
    case ScalarType.DOUBLE:
      return isFloat(json, Number.MAX_VALUE) ? undefined : "a number";
    case ScalarType.FLOAT:
      return isFloat(json, FLOAT_MAX) ? undefined : "a number that fits into a float";
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return integerMismatch(json, -2147483648n, 2147483647n);
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return integerMismatch(json, 0n, 4294967295n);
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return integerMismatch(json, -(2n ** 63n), 2n ** 63n - 1n);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return integerMismatch(json, 0n, 2n ** 64n - 1n);
  }
}

const FLOAT_MAX = 3.4028234663852886e38;

function isFloat(json: JsonValue, max: number): boolean {
  if (json === "NaN" || json === "Infinity" || json === "-Infinity") return true;
  const value = typeof json === "string" && /^-?[0-9.eE+-]+$/.test(json) ? Number(json) : json;
  return typeof value === "number" && Math.abs(value) <= max;
}

function integerMismatch(json: JsonValue, min: bigint, max: bigint): string | undefined {
  return isIntegerIn(json, min, max) ? undefined : `an integer from ${min} to ${max}`;
}

function isIntegerIn(json: JsonValue, min: bigint, max: bigint): boolean {
  let value: bigint;
  if (typeof json === "string" && /^-?\d{1,20}$/.test(json)) value = BigInt(json);
  else {
    const number = typeof json === "string" && /^-?[0-9.eE+-]{1,40}$/.test(json) ? Number(json) : json;
    if (typeof number !== "number" || !Number.isInteger(number)) return false;
    value = BigInt(number);
  }
  return value >= min && value <= max;
}

function mapBool(key: string): JsonValue {
  return key === "true" || key === "false" ? key === "true" : key;
}

/** Whether the value is a JSON object. */
export function isJsonObject(json: JsonValue | undefined): json is JsonObject {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}

function describe(json: JsonValue): string {
  if (json === null) return "null";
  if (Array.isArray(json)) return "a list";
  if (typeof json === "object") return "an object";
  return typeof json === "string" ? JSON.stringify(shorten(json)) : String(json);
}

/** What protobuf-es says about a value, without the name of the type. */
export function describeCause(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  return shorten(message.replace(/^cannot decode (message|field|enum)? ?\S+ from JSON: /, ""), 200);
}

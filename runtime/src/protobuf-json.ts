/**
 * Messages of registered contracts to and from canonical protobuf JSON: the one JSON edge of the mesh.
 *
 * protobuf-es decides what is valid. It stops at the first fault and names the message only, so when it refuses, the value
 * is walked again beside its descriptor to report every fault with the path of its field and the nearest known name.
 */
import {
  type DescField,
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Message,
  type Registry,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import type { DescriptorProto, FileDescriptorSet } from "@bufbuild/protobuf/wkt";
import { describeCause, hasOwnJsonForm, isJsonObject, JsonFaults, type JsonViolation } from "./json-faults.js";
import { LARGE_BYTES_MIN, putLargeBytes, takeLargeBytes } from "./large-bytes.js";
import { type JsonPath, parseStrictJson } from "./strict-json.js";

/** JSON_MALFORMED: not even (strict) JSON. INPUT_INVALID: JSON that breaks the contract. */
export type ProtobufJsonResult =
  | { ok: true; message: Message }
  | { ok: false; reason: "JSON_MALFORMED" | "INPUT_INVALID"; violations: JsonViolation[] };

export interface FromJsonOptions {
  /** Resolves google.protobuf.Any and extensions. */
  registry?: Registry;
  /** Paths of integers that JSON.parse rounded, as parseStrictJson reports them. */
  lossyIntegers?: readonly JsonPath[];
}

/** Reads a message of type `desc` from JSON text or its UTF-8 bytes. */
export function parseProtobufJson(
  desc: DescMessage,
  input: string | Uint8Array,
  registry?: Registry,
): ProtobufJsonResult {
  const json = parseStrictJson(input);
  if (!json.ok) {
    return { ok: false, reason: "JSON_MALFORMED", violations: [{ field: json.field, message: json.message }] };
  }
  const options = { lossyIntegers: json.lossyIntegers, ...(registry === undefined ? {} : { registry }) };
  return messageFromJson(desc, json.value, options);
}

/** Reads a message of type `desc` from a parsed JSON value. */
export function messageFromJson(desc: DescMessage, json: JsonValue, options: FromJsonOptions = {}): ProtobufJsonResult {
  const faults = new JsonFaults(options.registry);
  for (const path of options.lossyIntegers ?? []) {
    if (is64BitField(desc, path)) faults.add(path, "the integer is too large for a JSON number: write it as a string");
  }
  try {
    const message = fromJson(desc, json, { registry: options.registry });
    if (faults.violations.length === 0) return { ok: true, message };
  } catch (cause) {
    faults.message(desc, json, []);
    if (faults.violations.length === 0) faults.add([], describeCause(cause));
  }
  return { ok: false, reason: "INPUT_INVALID", violations: faults.violations };
}

export interface ToJsonOptions {
  /** Resolves google.protobuf.Any and extensions. */
  registry?: Registry;
  /** Shows MASKED_VALUE in place of every field marked `(taskmesh.v1.sensitive) = true`. */
  maskSensitive?: boolean;
}

/** What stands for the value of a sensitive field. */
export const MASKED_VALUE = "***";

/**
 * Renders a message as canonical protobuf JSON; fields without presence are written even at their default, so that a reader
 * sees the whole shape. Throws when an Any holds a type that the registry does not know.
 */
export function messageToJson(desc: DescMessage, message: Message, options: ToJsonOptions = {}): JsonValue {
  const json = toJson(desc, message, { alwaysEmitImplicit: true, registry: options.registry });
  return options.maskSensitive === true ? maskSensitiveFields(desc, json, options.registry) : json;
}

/** Renders an encoded message; throws when `bytes` are not a message of type `desc`. */
export function bytesToJson(desc: DescMessage, bytes: Uint8Array, options: ToJsonOptions = {}): JsonValue {
  const message = fromBinary(desc, bytes);
  const taken = bytes.length >= LARGE_BYTES_MIN ? takeLargeBytes(desc, message) : [];
  const json = toJson(desc, message, { alwaysEmitImplicit: true, registry: options.registry });
  putLargeBytes(json, taken);
  return options.maskSensitive === true ? maskSensitiveFields(desc, json, options.registry) : json;
}

/**
 * Sets the JSON names that a descriptor set lacks. protoc and buf write them, but the descriptors embedded in generated
 * Python and C++ code leave default names out, and protobuf-es then knows the fields under no name.
 */
export function fillJsonNames(set: FileDescriptorSet): void {
  const visit = (message: DescriptorProto) => {
    for (const field of message.field) if (field.jsonName === "") field.jsonName = jsonNameOf(field.name);
    message.nestedType.forEach(visit);
  };
  for (const file of set.file) file.messageType.forEach(visit);
}

/** protoc's rule: underscores go, and the character after each becomes upper case. */
function jsonNameOf(name: string): string {
  return name.replace(/_+(.?)/g, (_, next: string) => next.toUpperCase());
}

/** Whether the author marked the field `(taskmesh.v1.sensitive) = true`. */
export function isSensitiveField(field: DescField): boolean {
  // The option is read from the bytes that the descriptor kept: contracts may leave options.proto out of their set.
  const unknown = field.proto.options?.$unknown ?? [];
  const last = unknown.filter((entry) => entry.no === SENSITIVE_FIELD_NUMBER).at(-1);
  return last?.data.some((byte) => (byte & 0x7f) !== 0) ?? false;
}

/** Number of taskmesh.v1.sensitive, an extension of google.protobuf.FieldOptions. */
const SENSITIVE_FIELD_NUMBER = 51802;

/** A copy of `json`, the canonical form of a message of type `desc`, with sensitive fields masked. */
export function maskSensitiveFields(desc: DescMessage, json: JsonValue, registry?: Registry): JsonValue {
  if (!isJsonObject(json)) return json;
  if (desc.typeName === "google.protobuf.Any") return maskAny(json, registry);
  if (hasOwnJsonForm(desc)) return json;
  const masked: JsonObject = { ...json };
  for (const field of desc.fields) {
    const value = masked[field.jsonName];
    if (value === undefined || !Object.hasOwn(masked, field.jsonName)) continue;
    if (isSensitiveField(field)) masked[field.jsonName] = MASKED_VALUE;
    else if (field.message !== undefined) masked[field.jsonName] = maskField(field, field.message, value, registry);
  }
  return masked;
}

function maskField(field: DescField, message: DescMessage, value: JsonValue, registry?: Registry): JsonValue {
  const mask = (item: JsonValue) => maskSensitiveFields(message, item, registry);
  if (field.fieldKind === "list") return Array.isArray(value) ? value.map(mask) : value;
  if (field.fieldKind !== "map" || !isJsonObject(value)) return mask(value);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mask(item)]));
}

function maskAny(json: JsonObject, registry?: Registry): JsonValue {
  const type = json["@type"];
  const desc = typeof type === "string" ? registry?.getMessage(type.slice(type.lastIndexOf("/") + 1)) : undefined;
  return desc === undefined || hasOwnJsonForm(desc) ? json : maskSensitiveFields(desc, json, registry);
}

/** Whether `path` leads to an integer field of 64 bits, where a rounded number would be a wrong value. */
function is64BitField(desc: DescMessage, path: JsonPath): boolean {
  let message: DescMessage | undefined = desc;
  let field: DescField | undefined;
  let inContainer = false;
  for (const part of path) {
    if (inContainer) {
      // `part` is the index or the key of an item.
      inContainer = false;
      continue;
    }
    if (message === undefined || hasOwnJsonForm(message)) return false;
    field = message.fields.find((candidate) => candidate.jsonName === part || candidate.name === part);
    if (field === undefined) return false;
    message = field.message;
    inContainer = field.fieldKind === "list" || field.fieldKind === "map";
  }
  if (message !== undefined) return message.name === "Int64Value" || message.name === "UInt64Value";
  return field?.scalar !== undefined && longTypes.has(field.scalar);
}

const longTypes = new Set([
  ...[ScalarType.INT64, ScalarType.UINT64, ScalarType.SINT64],
  ...[ScalarType.FIXED64, ScalarType.SFIXED64],
]);

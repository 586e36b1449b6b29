/**
 * The rules of the buf CLI's category WIRE_JSON, on what one contract reaches: what was written with the older revision must be readable
 * with the newer one and the other way round, on the wire and as JSON.
 *
 * Types are compared by full name, fields and enum values by number. Each rule is independent of the others, as it is there: a renumbered
 * field is a removed number and a removed name. (FILE_SAME_PACKAGE has no counterpart: a type in another package is another type.)
 */
import { type DescEnum, type DescField, type DescFile, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { Edition, FeatureSet_FieldPresence, FeatureSet_JsonFormat } from "@bufbuild/protobuf/wkt";
import { isGroup } from "@taskmesh/runtime";
import { describeTarget, type Target, targetOf } from "../cel/assignable.js";
import type { Contract } from "../contract.js";
import type { Declared } from "./places.js";
import type { EvolutionRule } from "./violation.js";

/** Where violations go: the rule, what it is about in the newer contract (or the older one), and the sentence. */
export type Tell = (
  rule: EvolutionRule,
  about: { declared: Declared; subject: string; field?: DescField },
  message: string,
) => void;

/** Compares the rpcs themselves. */
export function compareRpcs(older: Contract, newer: Contract, tell: Tell): void {
  const about = { declared: newer.rpc, subject: newer.method };
  const [before, after] = [older.rpc, newer.rpc];
  if (before.input.typeName !== after.input.typeName)
    tell("RPC_SAME_REQUEST_TYPE", about, `took ${before.input.typeName}, and takes ${after.input.typeName}`);
  if (before.output.typeName !== after.output.typeName)
    tell("RPC_SAME_RESPONSE_TYPE", about, `returned ${before.output.typeName}, and returns ${after.output.typeName}`);
  const streams = (rpc: Contract["rpc"]) => ({
    client: rpc.methodKind === "client_streaming" || rpc.methodKind === "bidi_streaming",
    server: rpc.methodKind === "server_streaming" || rpc.methodKind === "bidi_streaming",
  });
  const says = (streaming: boolean, verb: string) => `${verb} ${streaming ? "a stream" : "one message"}`;
  const [was, is] = [streams(before), streams(after)];
  if (was.client !== is.client)
    tell("RPC_SAME_CLIENT_STREAMING", about, `${says(was.client, "took")}, and ${says(is.client, "takes")}`);
  if (was.server !== is.server)
    tell("RPC_SAME_SERVER_STREAMING", about, `${says(was.server, "returned")}, and ${says(is.server, "returns")}`);
  if (before.idempotency !== after.idempotency)
    tell("RPC_SAME_IDEMPOTENCY_LEVEL", about, "has another idempotency_level than before");
}

/** Compares two revisions of one message, without the types of its fields. */
export function compareMessages(before: DescMessage, after: DescMessage, tell: Tell): void {
  const about = { declared: after, subject: after.typeName };
  const fields = new Map(after.fields.map((field) => [field.number, field]));
  for (const field of before.fields) {
    const same = fields.get(field.number);
    if (same !== undefined) compareFields(field, same, tell);
    else tellRemoved(field, after, tell);
  }
  const required = (desc: DescMessage) =>
    new Map(
      desc.fields
        .filter((field) => field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED)
        .map((field) => [field.number, field]),
    );
  const [was, is] = [required(before), required(after)];
  for (const [number, field] of is) {
    if (!was.has(number))
      tell("MESSAGE_SAME_REQUIRED_FIELDS", aboutField(field), "is required now: earlier messages lack it");
  }
  for (const [number, field] of was) {
    if (!is.has(number))
      tell(
        "MESSAGE_SAME_REQUIRED_FIELDS",
        aboutField(fields.get(number) ?? field, after),
        "was required: earlier readers refuse messages without it",
      );
  }
  const lost = lostReservations(before.proto, after.proto, 0);
  if (lost !== "") tell("RESERVED_MESSAGE_NO_DELETE", about, `no longer reserves ${lost}`);
  if (jsonFormatOf(before) === allowed && jsonFormatOf(after) !== allowed)
    tell("MESSAGE_SAME_JSON_FORMAT", about, "had a JSON form, and may have none");
}

const aboutField = (field: DescField, declaredIn?: DescMessage) => ({
  declared: declaredIn?.fields.includes(field) === false ? declaredIn : field,
  subject: `${field.parent.typeName}.${field.name}`,
  field,
});

function tellRemoved(field: DescField, after: DescMessage, tell: Tell): void {
  const about = { declared: after, subject: `${after.typeName}.${field.name}`, field };
  const moved = after.fields.find((candidate) => candidate.name === field.name);
  const what =
    moved === undefined ? "was removed" : `had number ${field.number}, and a field of its name has ${moved.number}`;
  if (!isReserved(after.proto.reservedRange, field.number))
    tell("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", about, `${what}, and number ${field.number} is not reserved`);
  if (!after.proto.reservedName.includes(field.name))
    tell("FIELD_NO_DELETE_UNLESS_NAME_RESERVED", about, `${what}, and its name is not reserved`);
}

function compareFields(before: DescField, after: DescField, tell: Tell): void {
  const about = aboutField(after);
  if (before.name !== after.name)
    tell("FIELD_SAME_NAME", about, `has number ${before.number}, which was "${before.name}"`);
  if (before.jsonName !== after.jsonName)
    tell("FIELD_SAME_JSON_NAME", about, `had the JSON name "${before.jsonName}", and has "${after.jsonName}"`);
  const [from, to] = [before.oneof?.name, after.oneof?.name];
  if (from !== to) {
    const where = (name: string | undefined) => (name === undefined ? "no oneof" : `the oneof "${name}"`);
    tell("FIELD_SAME_ONEOF", about, `was in ${where(from)}, and is in ${where(to)}`);
  }
  const [old, now] = [cardinalityOf(before), cardinalityOf(after)];
  if (old !== now) tell("FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY", about, `was ${old}, and is ${now}`);
  if (!sameOnWire(targetOf(before), targetOf(after))) {
    const types = `was ${describeTarget(targetOf(before))}, and is ${describeTarget(targetOf(after))}`;
    tell("FIELD_WIRE_JSON_COMPATIBLE_TYPE", about, types);
  } else if (isGroup(before) !== isGroup(after)) {
    tell("FIELD_WIRE_JSON_COMPATIBLE_TYPE", about, `is ${isGroup(after) ? "" : "no longer "}written as a group`);
  }
  if (defaultOf(before) !== defaultOf(after)) {
    const shown = (value: string) => (value === "" ? "none" : JSON.stringify(value));
    tell(
      "FIELD_SAME_DEFAULT",
      about,
      `had the default ${shown(defaultOf(before))}, and has ${shown(defaultOf(after))}`,
    );
  }
}

type Cardinality = "a list" | "a map" | "required" | "single";

function cardinalityOf(field: DescField): Cardinality {
  if (field.fieldKind === "list") return "a list";
  if (field.fieldKind === "map") return "a map";
  return field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED ? "required" : "single";
}

/** The default that a field declares; "" is what a field without one reads as. */
const defaultOf = (field: DescField): string => {
  const value = field.proto.defaultValue;
  return value === "0" || value === "false" ? "" : value;
};

/** Scalars that wire and JSON can't tell apart, except for the sign. */
const alike: Partial<Record<ScalarType, ScalarType>> = {
  [ScalarType.UINT32]: ScalarType.INT32,
  [ScalarType.UINT64]: ScalarType.INT64,
  [ScalarType.SFIXED32]: ScalarType.FIXED32,
  [ScalarType.SFIXED64]: ScalarType.FIXED64,
};

/** Whether values of one type are those of the other on the wire and as JSON, signs apart. Lists count as what they hold. */
export function sameOnWire(before: Target, after: Target): boolean {
  if (before.kind === "list") return sameOnWire(before.item, after);
  if (after.kind === "list") return sameOnWire(before, after.item);
  if (before.kind === "scalar" && after.kind === "scalar")
    return (alike[before.scalar] ?? before.scalar) === (alike[after.scalar] ?? after.scalar);
  if (before.kind === "enum" && after.kind === "enum") return takesOver(before.enum, after.enum);
  if (before.kind === "message" && after.kind === "message") return before.message.typeName === after.message.typeName;
  if (before.kind !== "map" || after.kind !== "map") return false;
  const key = { kind: "scalar", scalar: before.key } as const;
  return sameOnWire(key, { kind: "scalar", scalar: after.key }) && sameOnWire(before.item, after.item);
}

/** An enum may be replaced by one of the same short name that has all its values. */
function takesOver(before: DescEnum, after: DescEnum): boolean {
  if (before.typeName === after.typeName) return true;
  const known = new Set(after.values.map(({ name, number }) => `${number} ${name}`));
  return before.name === after.name && before.values.every(({ name, number }) => known.has(`${number} ${name}`));
}

/** Compares two revisions of one enum. */
export function compareEnums(before: DescEnum, after: DescEnum, tell: Tell): void {
  const about = (name: string) => ({ declared: after, subject: `${after.typeName}.${name}` });
  for (const [number, names] of namesByNumber(before)) {
    const now = namesByNumber(after).get(number);
    const shown = names.map((name) => `"${name}"`).join(", ");
    if (now === undefined) {
      const first = about(names[0]!);
      if (!isReserved(after.proto.reservedRange, number, 1))
        tell("ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED", first, `was removed, and number ${number} is not reserved`);
      if (!names.every((name) => after.proto.reservedName.includes(name)))
        tell("ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED", first, "was removed, and its name is not reserved");
    } else if (!names.every((name) => now.includes(name))) {
      tell("ENUM_VALUE_SAME_NAME", about(now[0]!), `has number ${number}, which was ${shown}`);
    }
  }
  const whole = { declared: after, subject: after.typeName };
  const lost = lostReservations(before.proto, after.proto, 1);
  if (lost !== "") tell("RESERVED_ENUM_NO_DELETE", whole, `no longer reserves ${lost}`);
  if (jsonFormatOf(before) === allowed && jsonFormatOf(after) !== allowed)
    tell("ENUM_SAME_JSON_FORMAT", whole, "had a JSON form, and may have none");
}

function namesByNumber(desc: DescEnum): Map<number, string[]> {
  const names = new Map<number, string[]>();
  for (const { number, name } of desc.values) names.set(number, [...(names.get(number) ?? []), name]);
  return names;
}

interface Range {
  start: number;
  end: number;
}

/** Ranges of messages exclude their end, those of enums include it (`inclusive` 1). */
const isReserved = (ranges: readonly Range[], number: number, inclusive = 0): boolean =>
  ranges.some(({ start, end }) => number >= start && number < end + inclusive);

interface Reservations {
  reservedRange: readonly Range[];
  reservedName: readonly string[];
}

/** Numbers and names that were reserved and are not, "" if there are none. */
function lostReservations(before: Reservations, after: Reservations, inclusive: number): string {
  const lost: string[] = [];
  for (const { start, end } of before.reservedRange) {
    const free = firstFree(start, end + inclusive, after.reservedRange, inclusive);
    if (free !== undefined) lost.push(`number ${free}`);
  }
  for (const name of before.reservedName) if (!after.reservedName.includes(name)) lost.push(`the name "${name}"`);
  return lost.slice(0, lostShownMax).join(", ");
}

const lostShownMax = 10;

/** The first number from `start` below `end` that no range covers. */
function firstFree(start: number, end: number, ranges: readonly Range[], inclusive: number): number | undefined {
  let at = start;
  for (const range of [...ranges].sort((a, b) => a.start - b.start)) {
    if (range.start > at) break;
    at = Math.max(at, range.end + inclusive);
  }
  return at < end ? at : undefined;
}

const allowed = FeatureSet_JsonFormat.ALLOW;

/** Whether the JSON form of a type is promised: by its own options, its parents', its file's, or what its edition says. */
function jsonFormatOf(desc: DescMessage | DescEnum): FeatureSet_JsonFormat {
  for (let at: DescMessage | DescEnum | undefined = desc; at !== undefined; at = at.parent) {
    const own = at.proto.options?.features?.jsonFormat ?? 0;
    if (own !== 0) return own;
  }
  const file: DescFile = desc.file;
  const own = file.proto.options?.features?.jsonFormat ?? 0;
  if (own !== 0) return own;
  return file.edition === Edition.EDITION_PROTO2 ? FeatureSet_JsonFormat.LEGACY_BEST_EFFORT : allowed;
}

/**
 * Whether a contract may follow another under the same name: what was written with one must be readable with the other, both on the wire and
 * as JSON, by callers and workers that have only one of them. Within a major version (the package) contracts evolve like this:
 *
 *   allowed     new fields, new enum values, new types; removing a field or value whose number and name are reserved; new comments and options
 *   a break     another type, number or name; single for repeated; another oneof; a removed field that may come back as something else; another
 *               input or output type; a field that becomes required
 *
 * The rules are those that buf calls WIRE_JSON, on what a contract reaches rather than on files.
 */
import type { DescEnum, DescField, DescMessage } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { describeTarget, targetOf } from "./cel/assignable.js";
import type { Contract } from "./contract.js";

/** One way in which a contract breaks its predecessor. */
export interface Incompatibility {
  /** UPPER_SNAKE name of the rule. */
  rule: string;
  /** Full name of the field, value or type; the method for the contract itself. */
  subject: string;
  message: string;
}

/** Everything of `newer` that breaks messages or stubs of `older`; empty: it may follow. */
export function incompatibilities(older: Contract, newer: Contract): Incompatibility[] {
  const found: Incompatibility[] = [];
  const report = (rule: string, subject: string, message: string) => found.push({ rule, subject, message });
  for (const side of ["input", "output"] as const) {
    const [before, after] = [older[side].typeName, newer[side].typeName];
    if (before !== after) report("TYPE_CHANGED", older.method, `its ${side} was ${before}, and is ${after}`);
  }
  const open: [DescMessage, DescMessage][] = [
    [older.input, newer.input],
    [older.output, newer.output],
  ];
  const done = new Set<string>();
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const [before, after] = pair;
    if (before.typeName !== after.typeName || done.has(before.typeName)) continue;
    done.add(before.typeName);
    compareMessages(before, after, report);
    for (const field of before.fields) {
      const same = after.fields.find((candidate) => candidate.number === field.number);
      if (field.message !== undefined && same?.message !== undefined) open.push([field.message, same.message]);
      if (field.enum === undefined || same?.enum === undefined || done.has(field.enum.typeName)) continue;
      done.add(field.enum.typeName);
      compareEnums(field.enum, same.enum, report);
    }
  }
  return found;
}

type ReportBreak = (rule: string, subject: string, message: string) => void;

function compareMessages(before: DescMessage, after: DescMessage, report: ReportBreak): void {
  for (const field of before.fields) {
    const subject = `${before.typeName}.${field.name}`;
    const same = after.fields.find((candidate) => candidate.number === field.number);
    if (same !== undefined) compareFields(field, same, subject, report);
    else if (!isReserved(after.proto.reservedRange, field.number) || !after.proto.reservedName.includes(field.name)) {
      const moved = after.fields.find((candidate) => candidate.name === field.name);
      const message =
        moved === undefined
          ? `was removed: reserve number ${field.number} and the name, so that neither comes back as something else`
          : `had number ${field.number}, and has ${moved.number}`;
      report(moved === undefined ? "FIELD_REMOVED" : "FIELD_NUMBER_CHANGED", subject, message);
    }
  }
  for (const field of after.fields) {
    if (field.presence !== FeatureSet_FieldPresence.LEGACY_REQUIRED) continue;
    const old = before.fields.find((candidate) => candidate.number === field.number);
    if (old?.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED) continue;
    report("FIELD_REQUIRED", `${after.typeName}.${field.name}`, "became required: earlier messages lack it");
  }
}

function compareFields(before: DescField, after: DescField, subject: string, report: ReportBreak): void {
  if (before.name !== after.name)
    report("FIELD_NAME_CHANGED", subject, `number ${before.number} was "${before.name}", and is "${after.name}"`);
  else if (before.jsonName !== after.jsonName) {
    report("FIELD_JSON_NAME_CHANGED", subject, `its JSON name was "${before.jsonName}", and is "${after.jsonName}"`);
  }
  const [old, now] = [describeTarget(targetOf(before)), describeTarget(targetOf(after))];
  if (old !== now) report("FIELD_TYPE_CHANGED", subject, `was ${old}, and is ${now}`);
  const [from, to] = [before.oneof?.name, after.oneof?.name];
  if (from !== to) {
    const where = (name: string | undefined) => (name === undefined ? "no oneof" : `the oneof "${name}"`);
    report("FIELD_ONEOF_CHANGED", subject, `was in ${where(from)}, and is in ${where(to)}`);
  }
}

function compareEnums(before: DescEnum, after: DescEnum, report: ReportBreak): void {
  for (const value of before.values) {
    const subject = `${before.typeName}.${value.name}`;
    const same = after.values.filter((candidate) => candidate.number === value.number);
    if (same.some((candidate) => candidate.name === value.name)) continue;
    if (same.length > 0) {
      report(
        "ENUM_VALUE_NAME_CHANGED",
        subject,
        `number ${value.number} was "${value.name}", and is "${same[0]!.name}"`,
      );
    } else if (
      !isReserved(after.proto.reservedRange, value.number, 1) ||
      !after.proto.reservedName.includes(value.name)
    ) {
      report("ENUM_VALUE_REMOVED", subject, `was removed: reserve number ${value.number} and the name`);
    }
  }
  if (before.open && !after.open) report("ENUM_CLOSED", before.typeName, "was open to unknown values, and is closed");
}

/** Ranges of messages exclude their end, those of enums include it (`inclusive` 1). */
function isReserved(ranges: readonly { start: number; end: number }[], number: number, inclusive = 0): boolean {
  return ranges.some(({ start, end }) => number >= start && number < end + inclusive);
}

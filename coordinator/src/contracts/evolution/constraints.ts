/**
 * Whether validation rules (buf.validate) became stricter or laxer between two revisions.
 *
 * Rules are read as facts by path, "string.min_len" or "repeated.items.int32.in", and each kind of fact has an order: a larger minimum
 * is stricter, a larger set of allowed values is laxer. Of facts without an order (patterns, constants, CEL) one that is new is stricter, one
 * that is gone is laxer, and one that changed is both: nobody can tell.
 */
import {
  type DescField,
  type DescMessage,
  type DescOneof,
  getExtension,
  hasExtension,
  type Message,
  toBinary,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { meshFiles } from "../descriptors.js";

/** What became of the rules of a field, message or oneof: the names of the rules that say so. */
export interface RuleChange {
  tightened: string[];
  loosened: string[];
}

/** Compares the rules of two revisions of a field, a message or a oneof. */
export function compareRules<T extends DescField | DescMessage | DescOneof>(before: T, after: T): RuleChange {
  const change: RuleChange = { tightened: [], loosened: [] };
  const [old, now] = [factsOf(before), factsOf(after)];
  for (const path of new Set([...old.keys(), ...now.keys()])) {
    const verdict = compareFacts(path, old.get(path), now.get(path));
    if (verdict === "tightened" || verdict === "both") change.tightened.push(path);
    if (verdict === "loosened" || verdict === "both") change.loosened.push(path);
  }
  return change;
}

/** Whether there are any rules. */
export const hasOwnRules = (desc: DescField | DescMessage | DescOneof): boolean => factsOf(desc).size > 0;

type Fact =
  | { kind: "low" | "high"; value: bigint | number; inclusive: boolean }
  | { kind: "only" | "except"; values: ReadonlySet<string> }
  | { kind: "skips"; value: number }
  | { kind: "flag" }
  | { kind: "opaque"; text: string };

type Verdict = "same" | "tightened" | "loosened" | "both";

function compareFacts(path: string, before: Fact | undefined, after: Fact | undefined): Verdict {
  if (before === undefined && after === undefined) return "same";
  // "skips" is the one fact whose presence makes rules laxer.
  const laxer = before?.kind === "skips" || after?.kind === "skips";
  if (before === undefined) return laxer ? "loosened" : "tightened";
  if (after === undefined) return laxer ? "tightened" : "loosened";
  if (before.kind === "skips" && after.kind === "skips")
    return before.value === after.value ? "same" : after.value > before.value ? "loosened" : "tightened";
  if ((before.kind === "low" || before.kind === "high") && after.kind === before.kind) {
    if (path.endsWith(invertedMark)) return sameBound(before, after) ? "same" : "both";
    return compareBounds(before, after);
  }
  if ((before.kind === "only" || before.kind === "except") && after.kind === before.kind)
    return compareSets(before.kind === "only", before.values, after.values);
  if (before.kind === "flag" && after.kind === "flag") return "same";
  return before.kind === "opaque" && after.kind === "opaque" && before.text === after.text ? "same" : "both";
}

type Bound = Extract<Fact, { kind: "low" | "high" }>;

const sameBound = (before: Bound, after: Bound): boolean =>
  before.value === after.value && before.inclusive === after.inclusive;

function compareBounds(before: Bound, after: Bound): Verdict {
  if (sameBound(before, after)) return "same";
  if (before.value === after.value) return after.inclusive ? "loosened" : "tightened";
  const grows = after.value > before.value;
  return grows === (before.kind === "low") ? "tightened" : "loosened";
}

function compareSets(only: boolean, before: ReadonlySet<string>, after: ReadonlySet<string>): Verdict {
  const gone = [...before].some((value) => !after.has(value));
  const added = [...after].some((value) => !before.has(value));
  if (gone && added) return "both";
  if (!gone && !added) return "same";
  return gone === only ? "tightened" : "loosened";
}

const lows = new Set(["gt", "gte", "min_len", "min_bytes", "min_items", "min_pairs"]);
const highs = new Set(["lt", "lte", "max_len", "max_bytes", "max_items", "max_pairs", "within"]);

function factsOf(desc: DescField | DescMessage | DescOneof): Map<string, Fact> {
  const facts = new Map<string, Fact>();
  const rules = rulesOf(desc);
  if (rules !== undefined) collect(rules, "", facts);
  markInverted(facts);
  return facts;
}

/** Name of the extension that carries rules, by what it extends. */
const extensionNames = { field: "field", message: "message", oneof: "oneof" } as const;

function rulesOf(desc: DescField | DescMessage | DescOneof): ReflectMessage | undefined {
  const { options } = desc.proto;
  const name = extensionNames[desc.kind];
  const extensions = meshFiles().get("buf/validate/validate.proto")?.extensions;
  const extension = extensions?.find((candidate) => candidate.name === name);
  if (options === undefined || extension?.message === undefined || !hasExtension(options, extension)) return undefined;
  return reflect(extension.message, getExtension(options, extension) as Message);
}

function collect(rules: ReflectMessage, prefix: string, facts: Map<string, Fact>): void {
  for (const field of rules.fields) {
    if (!rules.isSet(field) || field.name === "example") continue;
    const path = `${prefix}${field.name}`;
    if (field.name === "cel" || field.name === "cel_expression" || (field.name === "oneof" && prefix === "")) {
      for (const fact of opaqueItems(rules, field)) facts.set(`${path}[${fact}]`, { kind: "opaque", text: fact });
    } else if (field.fieldKind === "message" && field.message.typeName.startsWith("buf.validate.")) {
      collect(rules.get(field) as ReflectMessage, `${path}.`, facts);
    } else {
      const fact = factOf(rules, field);
      if (fact)
        facts.set(fact.kind === "low" || fact.kind === "high" ? `${prefix}${boundName(field.name)}` : path, fact);
    }
  }
  // Rules that authors predefined are extensions of these messages; what they mean is not known here.
  for (const { no, data } of rules.getUnknown() ?? [])
    facts.set(`${prefix}(extension ${no})`, { kind: "opaque", text: Buffer.from(data).toString("base64") });
}

/** `gt` and `gte` are one bound. */
const boundName = (name: string): string => (name === "gte" ? "gt" : name === "lte" ? "lt" : name);

function factOf(rules: ReflectMessage, field: DescField): Fact | undefined {
  const { name } = field;
  if (name === "ignore") return { kind: "skips", value: Number(rules.get(field)) };
  if (name === "in" || name === "not_in")
    return { kind: name === "in" ? "only" : "except", values: new Set(opaqueItems(rules, field)) };
  const kind = lows.has(name) ? "low" : highs.has(name) ? "high" : undefined;
  if (kind !== undefined) {
    const value = boundValue(rules, field);
    if (value === 0n && name.startsWith("min_")) return undefined;
    if (value !== undefined) return { kind, value, inclusive: name !== "gt" && name !== "lt" };
  }
  if (field.fieldKind === "scalar" && typeof rules.get(field) === "boolean" && name !== "const")
    return rules.get(field) === true || name === "strict" ? { kind: "flag" } : undefined;
  return { kind: "opaque", text: textOf(field, rules.get(field)) };
}

/** A bound as a number; of an instant or a length of time its nanoseconds. */
function boundValue(rules: ReflectMessage, field: DescField): bigint | number | undefined {
  const value = rules.get(field);
  if (typeof value === "bigint" || typeof value === "number") return value;
  if (field.fieldKind !== "message") return undefined;
  const { seconds, nanos } = (value as ReflectMessage).message as unknown as { seconds?: bigint; nanos?: number };
  return seconds === undefined || nanos === undefined ? undefined : seconds * 1_000_000_000n + BigInt(nanos);
}

function opaqueItems(rules: ReflectMessage, field: DescField): string[] {
  if (field.fieldKind !== "list") return [textOf(field, rules.get(field))];
  return [...rules.get(field)].map((item) => textOf(field, item));
}

function textOf(field: DescField, value: unknown): string {
  if (field.message !== undefined && field.fieldKind !== "map") {
    const { message } = value as ReflectMessage;
    return Buffer.from(toBinary(field.message, message)).toString("base64");
  }
  return value instanceof Uint8Array ? Buffer.from(value).toString("base64") : String(value);
}

const invertedMark = " (outside)";

/** A lower bound above the upper one means the values outside of both: their order is another one. */
function markInverted(facts: Map<string, Fact>): void {
  for (const [path, low] of [...facts]) {
    if (low.kind !== "low" || !path.endsWith("gt")) continue;
    const other = `${path.slice(0, -2)}lt`;
    const high = facts.get(other);
    if (high?.kind !== "high" || high.value > low.value) continue;
    if (high.value === low.value && high.inclusive && low.inclusive) continue;
    facts.delete(path);
    facts.delete(other);
    facts.set(path + invertedMark, low);
    facts.set(other + invertedMark, high);
  }
}

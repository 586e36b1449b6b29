/**
 * Rules of buf.validate as JSON Schema. What JSON Schema has no word for is told in the description, so that nothing is silently left out.
 *
 * The rules are read from the bytes of the options by the mesh's own copy of buf/validate: contracts may leave that file out.
 */
import {
  type DescField,
  type DescMessage,
  fromBinary,
  type JsonObject,
  type JsonValue,
  type Message,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { meshRegistry } from "../render.js";
import type { Schema } from "./schema.js";

/** What the rules of a field say, by where it belongs. */
export interface Constraints {
  required: boolean;
  /** Of the field as a whole: bounds of a list or map. */
  outer: Schema;
  /** Of the value; of each item or value where there are several. */
  item: Schema;
  /** Of the keys of a map. */
  keys: Schema;
  /** Rules in words. */
  words: string[];
}

/** Number of buf.validate.field, .message and .oneof, extensions of the respective options. */
const RULES_EXTENSION = 1159;

const none: Constraints = { required: false, outer: {}, item: {}, keys: {}, words: [] };
const known = new WeakMap<DescField, Constraints>();

/** The rules of a field; empty without any. */
export function constraintsOf(field: DescField): Constraints {
  const seen = known.get(field);
  if (seen !== undefined) return seen;
  const rules = readRules("FieldRules", field.proto.options);
  const found = rules === undefined ? none : translate(field, rules);
  known.set(field, found);
  return found;
}

/** Rules of a message as a whole, in words. */
export function messageRules(desc: DescMessage): string[] {
  return celWords(readRules("MessageRules", desc.proto.options));
}

function readRules(name: string, options: Message | undefined): JsonObject | undefined {
  const records = options?.$unknown?.filter(({ no }) => no === RULES_EXTENSION) ?? [];
  const type = meshRegistry.getMessage(`buf.validate.${name}`);
  if (records.length === 0 || type === undefined) return undefined;
  try {
    const bytes = Buffer.concat(records.map(({ data }) => new BinaryReader(data).bytes()));
    return toJson(type, fromBinary(type, bytes), { registry: meshRegistry }) as JsonObject;
  } catch {
    return undefined;
  }
}

function celWords(rules: JsonObject | undefined): string[] {
  const cel = [rules?.["cel"], rules?.["celExpression"]].flatMap((list) => (Array.isArray(list) ? list : []));
  return cel.map((rule) => {
    const { message, expression } = (typeof rule === "object" ? rule : { expression: rule }) as JsonObject;
    return `Rule: ${message || `\`${String(expression)}\``}`;
  });
}

function translate(field: DescField, rules: JsonObject): Constraints {
  const words = celWords(rules);
  const outer: Schema = {};
  let item: Schema = {};
  let keys: Schema = {};
  const value = objectOf(rules[typeOfRules(field)]);
  if (field.fieldKind === "list") {
    copy(value, outer, { minItems: "minItems", maxItems: "maxItems" });
    if (value["unique"] === true) outer["uniqueItems"] = true;
    item = single(field, objectOf(value["items"]), words);
  } else if (field.fieldKind === "map") {
    copy(value, outer, { minPairs: "minProperties", maxPairs: "maxProperties" });
    item = single(field, objectOf(value["values"]), words);
    keys = textRules(objectOf(objectOf(value["keys"])["string"]), words);
  } else item = single(field, rules, words);
  const ignore = String(rules["ignore"] ?? "");
  const isLoose = ignore === "IGNORE_IF_ZERO_VALUE" || ignore === "IGNORE_ALWAYS";
  // What holds only for values that are set would refuse the default that answers show.
  if (isLoose && field.presence !== 1) return { ...none, words: [...words, ...looseWords(outer, item)] };
  return { required: rules["required"] === true && ignore !== "IGNORE_ALWAYS", outer, item, keys, words };
}

function looseWords(outer: Schema, item: Schema): string[] {
  const all = { ...outer, ...item };
  return Object.keys(all).length === 0 ? [] : [`Where it is set: \`${JSON.stringify(all)}\`.`];
}

const typeOfRules = (field: DescField): string =>
  field.fieldKind === "list" ? "repeated" : field.fieldKind === "map" ? "map" : "";

/** The rules of one value. */
function single(field: DescField, rules: JsonObject, words: string[]): Schema {
  if (field.enum !== undefined) return enumRules(field, objectOf(rules["enum"]));
  const scalar = field.scalar ?? wrappedScalar(field);
  if (scalar === ScalarType.STRING) return textRules(objectOf(rules["string"]), words);
  if (scalar === undefined) return {};
  const name = ScalarType[scalar].toLowerCase();
  const given = objectOf(rules[name]);
  if (scalar === ScalarType.BOOL) return "const" in given ? { const: given["const"] ?? null } : {};
  if (scalar === ScalarType.BYTES || longs.has(scalar)) return inWords(given, words);
  return numberRules(given);
}

const longs = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);

function wrappedScalar(field: DescField): ScalarType | undefined {
  const { message } = field;
  const isWrapper = message?.typeName.startsWith("google.protobuf.") && message.name.endsWith("Value");
  return isWrapper === true && message?.fields.length === 1 ? message.fields[0]?.scalar : undefined;
}

/** 64-bit integers and bytes are strings in JSON, where bounds have no keyword. */
function inWords(rules: JsonObject, words: string[]): Schema {
  if (Object.keys(rules).length > 0) words.push(`Bounds: \`${JSON.stringify(rules)}\`.`);
  return {};
}

function numberRules(rules: JsonObject): Schema {
  const schema: Schema = {};
  copy(rules, schema, {
    gte: "minimum",
    gt: "exclusiveMinimum",
    lte: "maximum",
    lt: "exclusiveMaximum",
    const: "const",
  });
  if (Array.isArray(rules["in"])) schema["enum"] = rules["in"];
  if (Array.isArray(rules["notIn"])) schema["not"] = { enum: rules["notIn"] };
  return schema;
}

function enumRules(field: DescField, rules: JsonObject): Schema {
  const name = (number: JsonValue): JsonValue => field.enum?.value[Number(number)]?.name ?? number;
  if ("const" in rules) return { const: name(rules["const"] ?? 0) };
  if (Array.isArray(rules["in"])) return { enum: rules["in"].map(name) };
  return Array.isArray(rules["notIn"]) ? { not: { enum: rules["notIn"].map(name) } } : {};
}

/** Formats that JSON Schema knows by the same meaning. */
const formats: Readonly<Record<string, string>> = {
  email: "email",
  hostname: "hostname",
  ipv4: "ipv4",
  ipv6: "ipv6",
  uri: "uri",
  uriRef: "uri-reference",
  uuid: "uuid",
};

function textRules(rules: JsonObject, words: string[]): Schema {
  const schema: Schema = {};
  copy(rules, schema, { minLen: "minLength", maxLen: "maxLength", const: "const" });
  if (rules["len"] !== undefined)
    Object.assign(schema, { minLength: Number(rules["len"]), maxLength: Number(rules["len"]) });
  if (Array.isArray(rules["in"])) schema["enum"] = rules["in"];
  if (Array.isArray(rules["notIn"])) schema["not"] = { enum: rules["notIn"] };
  const { pattern, prefix, suffix, contains } = rules;
  const patterns = [
    typeof pattern === "string" && isPortable(pattern) ? pattern : undefined,
    typeof prefix === "string" ? `^${escaped(prefix)}` : undefined,
    typeof suffix === "string" ? `${escaped(suffix)}$` : undefined,
    typeof contains === "string" ? escaped(contains) : undefined,
  ].filter((one) => one !== undefined);
  if (patterns.length === 1) schema["pattern"] = patterns[0]!;
  else if (patterns.length > 1) schema["allOf"] = patterns.map((one) => ({ pattern: one }));
  if (typeof pattern === "string" && !isPortable(pattern)) words.push(`Matches \`${pattern}\` (RE2).`);
  for (const [rule, format] of Object.entries(formats)) if (rules[rule] === true) schema["format"] = format;
  return schema;
}

const escaped = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

/** Whether a pattern of RE2 means the same to the readers of a JSON Schema. */
function isPortable(pattern: string): boolean {
  if (/\(\?[a-zA-Z]|\\[pPzAQEC]|\[\[:/.test(pattern)) return false;
  try {
    return new RegExp(pattern, "u").source !== "";
  } catch {
    return false;
  }
}

const objectOf = (value: JsonValue | undefined): JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};

function copy(from: JsonObject, to: Schema, names: Readonly<Record<string, string>>): void {
  for (const [name, keyword] of Object.entries(names)) {
    const value = from[name];
    if (value === undefined) continue;
    // Lengths are 64-bit integers, which are strings in canonical JSON.
    to[keyword] = keyword === "const" ? value : Number(value);
  }
}

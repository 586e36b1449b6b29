/**
 * Messages and enums as JSON Schema (2020-12, as OpenAPI 3.1 uses it): the form in which answers are written and requests are best sent.
 *
 * What else is read (names of the proto, numbers for 64-bit integers, numbers of enum values) is left out: clients made of the document
 * should send what they receive.
 */
import { type DescEnum, type DescField, type DescMessage, type JsonObject, ScalarType } from "@bufbuild/protobuf";
import { hasOwnJsonForm, isSensitiveField } from "@taskmesh/runtime";
import { commentOf } from "../comments.js";
import { type Constraints, constraintsOf, messageRules } from "./constraints.js";

/** A JSON Schema. */
export type Schema = JsonObject;

/** Where schemas of a contract go and how their types are told apart. */
export interface SchemaScope {
  /** Reference to the schema of a message or enum. */
  ref(desc: DescMessage | DescEnum): Schema;
  /** The comment of a declaration; default: what the descriptors carry. */
  comment?(desc: Parameters<typeof commentOf>[0]): string;
}

/** Types below these are described in place: every reader knows them. */
export function isDescribedInPlace(desc: DescMessage | DescEnum): boolean {
  return desc.kind === "message" ? hasOwnJsonForm(desc) : desc.typeName === "google.protobuf.NullValue";
}

/** Schema of a message: an object of its fields. */
export function messageSchema(desc: DescMessage, scope: SchemaScope): Schema {
  const properties: JsonObject = {};
  const required: string[] = [];
  for (const field of desc.fields) {
    properties[field.jsonName] = fieldSchema(field, scope);
    if (constraintsOf(field).required) required.push(field.jsonName);
  }
  const exclusive = desc.oneofs.flatMap(({ fields }) => pairs(fields.map(({ jsonName }) => jsonName)));
  const comment = (scope.comment ?? commentOf)(desc);
  return {
    type: "object",
    ...describe([comment, ...messageRules(desc)]),
    ...(desc.fields.length === 0 ? {} : { properties }),
    ...(required.length === 0 ? {} : { required }),
    // One field of a oneof at most. Written so that makers of clients, who know no "not", pass over it.
    ...(exclusive.length === 0 ? {} : { not: { anyOf: exclusive.map((pair) => ({ required: pair })) } }),
    additionalProperties: false,
  };
}

/** More members than this are told in words only: pairs grow with the square. */
const ONEOF_MEMBERS_MAX = 16;

function pairs(names: readonly string[]): string[][] {
  if (names.length > ONEOF_MEMBERS_MAX) return [];
  return names.flatMap((name, index) => names.slice(index + 1).map((other) => [name, other]));
}

/** Schema of an enum: the names of its values. */
export function enumSchema(desc: DescEnum, scope: SchemaScope): Schema {
  const comment = scope.comment ?? commentOf;
  const values = desc.values
    .map((value) => ({ name: value.name, comment: comment(value) }))
    .filter((value) => value.comment !== "")
    .map((value) => `- ${value.name}: ${value.comment.replaceAll("\n", " ")}`);
  return {
    type: "string",
    ...describe([comment(desc), values.join("\n")]),
    enum: desc.values.map((value) => value.name),
  };
}

/** Schema of a field with its comment and rules. */
export function fieldSchema(field: DescField, scope: SchemaScope): Schema {
  const constraints = constraintsOf(field);
  const comment = (scope.comment ?? commentOf)(field);
  const oneof = field.oneof === undefined ? "" : `One of ${field.oneof.fields.map((one) => one.jsonName).join(", ")}.`;
  const words = describe([comment, oneof, ...constraints.words]);
  const base = containerSchema(field, constraints, scope);
  const marks = isSensitiveField(field) ? { format: "password" } : {};
  // Beside a reference only 3.1 takes other keywords, and not every reader does; a wrapper is understood by all.
  if ("$ref" in base && Object.keys({ ...words, ...constraints.outer }).length > 0) {
    return { allOf: [base], ...words, ...constraints.outer };
  }
  return { ...base, ...words, ...constraints.outer, ...("type" in base && base["type"] === "string" ? marks : {}) };
}

function containerSchema(field: DescField, constraints: Constraints, scope: SchemaScope): Schema {
  if (field.fieldKind === "map") {
    const keys = Object.keys(constraints.keys).length === 0 ? {} : { propertyNames: constraints.keys };
    return { type: "object", ...keys, additionalProperties: valueSchema(field, constraints.item, scope) };
  }
  if (field.fieldKind === "list") return { type: "array", items: valueSchema(field, constraints.item, scope) };
  return valueSchema(field, constraints.item, scope);
}

/** Schema of one value: of the field, of an item of its list, of a value of its map. */
export function valueSchema(field: DescField, rules: Schema, scope: SchemaScope): Schema {
  if (field.message !== undefined) return typeSchema(field.message, rules, scope);
  if (field.enum !== undefined) return typeSchema(field.enum, rules, scope);
  return scalarSchema(field.scalar, rules);
}

function typeSchema(desc: DescMessage | DescEnum, rules: Schema, scope: SchemaScope): Schema {
  if (!isDescribedInPlace(desc)) {
    const base = scope.ref(desc);
    return Object.keys(rules).length === 0 ? base : { allOf: [base], ...rules };
  }
  const known = wellKnown[desc.name];
  if (known !== undefined) return { ...known, ...rules };
  const wrapped = desc.kind === "message" ? desc.fields[0]?.scalar : undefined;
  return wrapped === undefined ? {} : scalarSchema(wrapped, rules);
}

/** Well-known types whose JSON is not that of a scalar. */
const wellKnown: Readonly<Record<string, Schema>> = {
  Any: {
    type: "object",
    description: "A message of any type, which `@type` names.",
    properties: { "@type": { type: "string" } },
    required: ["@type"],
  },
  Timestamp: { type: "string", format: "date-time" },
  Duration: { type: "string", format: "duration-seconds", pattern: "^-?[0-9]{1,12}(\\.[0-9]{1,9})?s$" },
  FieldMask: { type: "string", description: "Names of fields, joined by commas." },
  Struct: { type: "object", additionalProperties: true },
  ListValue: { type: "array", items: {} },
  Value: { description: "Any JSON value." },
  NullValue: { type: "null" },
};

function scalarSchema(scalar: ScalarType | undefined, rules: Schema): Schema {
  switch (scalar) {
    case ScalarType.BOOL:
      return { type: "boolean", ...rules };
    case ScalarType.BYTES:
      return { type: "string", format: "byte", contentEncoding: "base64", ...rules };
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return { type: "integer", format: "int32", minimum: -2147483648, maximum: 2147483647, ...rules };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { type: "integer", format: "uint32", minimum: 0, maximum: 4294967295, ...rules };
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return { type: "string", format: "int64", pattern: "^-?[0-9]{1,19}$", ...rules };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return { type: "string", format: "uint64", pattern: "^[0-9]{1,20}$", ...rules };
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT: {
      const format = scalar === ScalarType.FLOAT ? "float" : "double";
      const special = { type: "string", enum: ["NaN", "Infinity", "-Infinity"] };
      // Rules such as a maximum leave no room for what is no number.
      if (Object.keys(rules).length > 0) return { type: "number", format, ...rules };
      return { anyOf: [{ type: "number", format }, special] };
    }
    case ScalarType.STRING:
    case undefined:
      return { type: "string", ...rules };
  }
}

function describe(parts: readonly string[]): Schema {
  const description = parts.filter((part) => part !== "").join("\n\n");
  return description === "" ? {} : { description };
}

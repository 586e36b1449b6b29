/** Examples that keep their schema: what a reader can send as it is, for types whose rules leave no doubt. */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { Schema } from "./schema.js";

/** Levels of messages that an example shows; deeper ones hide what matters. */
const DEPTH_MAX = 4;

const texts: Readonly<Record<string, string>> = {
  "date-time": "2026-01-31T12:00:00Z",
  "duration-seconds": "1.500s",
  byte: "aGVsbG8=",
  int64: "42",
  uint64: "42",
  email: "someone@example.com",
  hostname: "example.com",
  ipv4: "192.0.2.1",
  ipv6: "2001:db8::1",
  uri: "https://example.com/",
  "uri-reference": "/path",
  uuid: "0199c0de-0000-7000-8000-000000000000",
};

/** Finds schemas by the names of their references. */
export type Resolve = (ref: string) => Schema | undefined;

/** An example of the schema, or undefined where none can be made up, such as for a pattern. */
export function exampleOf(schema: Schema, resolve: Resolve, depth = 0): JsonValue | undefined {
  const { $ref, allOf, anyOf, enum: values, const: only } = schema;
  if (only !== undefined) return only;
  if (Array.isArray(values)) return values[values.length > 1 && isUnspecified(values[0]) ? 1 : 0];
  if (typeof $ref === "string") {
    const target = resolve($ref);
    return target === undefined ? undefined : exampleOf(target, resolve, depth);
  }
  if (schema["not"] !== undefined && schema["type"] !== "object") return undefined;
  const [first] = (Array.isArray(allOf) ? allOf : Array.isArray(anyOf) ? anyOf : []) as Schema[];
  if (first !== undefined) {
    // Rules beside a reference may refuse what suits the reference.
    const { description: _, allOf: __, anyOf: ___, ...rules } = schema;
    return Object.keys(rules).length === 0 ? exampleOf(first, resolve, depth) : undefined;
  }
  switch (schema["type"]) {
    case "object":
      return objectExample(schema, resolve, depth);
    case "array":
      return listExample(schema, resolve, depth);
    case "string":
      return textExample(schema);
    case "integer":
    case "number":
      return numberExample(schema);
    case "boolean":
      return true;
    case "null":
      return null;
    default:
      return {};
  }
}

const isUnspecified = (value: JsonValue | undefined): boolean =>
  typeof value === "string" && /UNSPECIFIED|UNKNOWN/.test(value);

function objectExample(schema: Schema, resolve: Resolve, depth: number): JsonValue | undefined {
  const { properties, required, additionalProperties } = schema as {
    properties?: Record<string, Schema>;
    required?: string[];
    additionalProperties?: Schema | boolean;
  };
  const wanted = new Set(required);
  if (depth >= DEPTH_MAX && wanted.size > 0) return undefined;
  const example: JsonObject = {};
  if (depth < DEPTH_MAX) {
    const taken = exclusiveOf(schema);
    for (const [name, property] of Object.entries(properties ?? {})) {
      if (Object.keys(example).some((other) => taken.has(`${other} ${name}`))) continue;
      const value = exampleOf(property, resolve, depth + 1);
      if (value !== undefined) example[name] = value;
      else if (wanted.has(name)) return undefined;
    }
  }
  if (typeof schema["minProperties"] === "number" && schema["minProperties"] > 0) return undefined;
  if (typeof additionalProperties === "object" && schema["propertyNames"] === undefined && depth < DEPTH_MAX) {
    const value = exampleOf(additionalProperties, resolve, depth + 1);
    const key = "1";
    if (value !== undefined) example[key] = value;
  }
  return example;
}

/** Pairs of fields that exclude each other. */
function exclusiveOf({ not }: Schema): Set<string> {
  const pairs = ((not as { anyOf?: { required: [string, string] }[] } | undefined)?.anyOf ?? []).map(
    (one) => one.required,
  );
  return new Set(pairs.flatMap(([a, b]) => [`${a} ${b}`, `${b} ${a}`]));
}

function listExample(schema: Schema, resolve: Resolve, depth: number): JsonValue | undefined {
  const { items, minItems, uniqueItems } = schema as { items?: Schema; minItems?: number; uniqueItems?: boolean };
  const least = minItems ?? 0;
  const item = items === undefined || depth >= DEPTH_MAX ? undefined : exampleOf(items, resolve, depth + 1);
  if (item === undefined) return least > 0 ? undefined : [];
  if (least > 1 && uniqueItems === true) return undefined;
  return Array.from({ length: Math.min(Math.max(1, least), 10) }, () => item);
}

function textExample(schema: Schema): string | undefined {
  const { format, pattern, minLength, maxLength } = schema as Record<string, never>;
  const known = typeof format === "string" ? texts[format] : undefined;
  if (known === undefined && pattern !== undefined) return undefined;
  const text = known ?? "text".padEnd(Math.min(Number(minLength ?? 0), 100), "x");
  const length = [...text].length;
  const fits = length >= Number(minLength ?? 0) && length <= Number(maxLength ?? Number.POSITIVE_INFINITY);
  if (fits) return text;
  return known === undefined && Number(minLength ?? 0) <= Number(maxLength)
    ? text.slice(0, Number(maxLength))
    : undefined;
}

function numberExample(schema: Schema): number | undefined {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema as Record<string, number | undefined>;
  const least = Math.max(
    minimum ?? -Infinity,
    exclusiveMinimum === undefined ? -Infinity : Math.floor(exclusiveMinimum) + 1,
  );
  const most = Math.min(
    maximum ?? Infinity,
    exclusiveMaximum === undefined ? Infinity : Math.ceil(exclusiveMaximum) - 1,
  );
  const value = Math.ceil(Math.max(least, Math.min(42, Math.floor(most))));
  return value >= least && value <= most ? value : undefined;
}

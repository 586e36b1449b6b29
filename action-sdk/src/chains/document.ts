/** What the builder's values are in the JSON of a ChainSpec. */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { parseDuration } from "@taskmesh/runtime";
import { celText, holdsExpression, knownOf } from "./expression.js";

/** A length of time: "500ms", "20s", "1h30m". */
export type Time = string;

/** When a failed attempt is followed by another. Give one of `fixed`, `linear` and `exponential`. */
export interface Retry {
  fixed?: { delay: Time };
  linear?: { initial: Time; increment: Time; cap?: Time };
  exponential?: { initial: Time; factor?: number; cap?: Time };
  /** Share of the delay that is random, 0 to 1. */
  jitter?: number;
  maxAttempts?: number;
  /** Longest time over all attempts. */
  budget?: Time;
  /** Reasons of failures that are final. */
  nonRetryable?: readonly string[];
}

/** A place and what is wrong with it. */
export const refuse = (place: string, message: string): TypeError => new TypeError(`${place}: ${message}`);

/** "1m30s" as protobuf JSON. */
export function timeJson(place: string, time: Time): string {
  const json = parseDuration(time);
  if (json === undefined) throw refuse(place, `${JSON.stringify(time)} is no time such as 500ms, 1s, 2m or 1h30m`);
  return json;
}

/** The fields that have a value. */
export function present(fields: Readonly<Record<string, JsonValue | undefined>>): JsonObject {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as JsonObject;
}

export function retryJson(place: string, retry: Retry): JsonObject {
  const time = (name: string, value: Time | undefined) =>
    value === undefined ? undefined : timeJson(`${place}.${name}`, value);
  const { fixed, linear, exponential, jitter, maxAttempts, nonRetryable } = retry;
  if ([fixed, linear, exponential].filter((kind) => kind !== undefined).length > 1)
    throw refuse(place, "give one of fixed, linear and exponential");
  return present({
    fixed: fixed && present({ delay: time("fixed.delay", fixed.delay) }),
    linear:
      linear &&
      present({
        initial: time("linear.initial", linear.initial),
        increment: time("linear.increment", linear.increment),
        cap: time("linear.cap", linear.cap),
      }),
    exponential:
      exponential &&
      present({
        initial: time("exponential.initial", exponential.initial),
        factor: exponential.factor,
        cap: time("exponential.cap", exponential.cap),
      }),
    jitter,
    maxAttempts,
    budget: time("budget", retry.budget),
    nonRetryable: nonRetryable && [...nonRetryable],
  });
}

/** Values of fields as Expressions. */
export function expressionsJson(
  place: string,
  fields: Readonly<Record<string, unknown>>,
  nameOf: (property: string) => string,
): JsonObject {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given.map(([name, value]) => [nameOf(name), expressionJson(`${place}.${name}`, value)]));
}

function expressionJson(place: string, value: unknown): JsonObject {
  const known = knownOf(value);
  if (known) return { cel: known.text };
  if (holdsExpression(value)) return { cel: celText(value) };
  return { literal: literalJson(place, value) };
}

/** A literal as protobuf JSON. */
function literalJson(place: string, value: unknown): JsonValue {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) ? value : String(value);
    case "bigint":
      return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
    case "object":
      if (value === null) break;
      if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
      if (value instanceof Date) return value.toISOString();
      if (Array.isArray(value)) return value.map((item, index) => literalJson(`${place}[${index}]`, item));
      return Object.fromEntries(
        Object.entries(value)
          .filter(([, item]) => item !== undefined)
          .map(([key, item]) => [key, literalJson(`${place}.${key}`, item)]),
      );
  }
  throw refuse(place, `${String(value)} is no value`);
}

/** Any JSON, with expressions in it as `{cel: …}`. */
export function documentJson(place: string, value: unknown): JsonValue {
  const known = knownOf(value);
  if (known) return { cel: known.text };
  if (Array.isArray(value)) return value.map((item, index) => documentJson(`${place}[${index}]`, item));
  if (typeof value !== "object" || value === null || value instanceof Uint8Array || value instanceof Date)
    return literalJson(place, value);
  const given = Object.entries(value).filter(([, item]) => item !== undefined);
  return Object.fromEntries(given.map(([key, item]) => [key, documentJson(`${place}.${key}`, item)]));
}

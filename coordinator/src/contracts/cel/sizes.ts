/** What is known of the sizes of decoded sources, and whether an expression over them may run on the event loop. */
import { isReflectList, isReflectMap, isReflectMessage, type ReflectMessage } from "@bufbuild/protobuf/reflect";
import type { Variables } from "./bind.js";
import type { CheckedExpression } from "./check.js";
import { type Extent, noSizes, type Sizes } from "./cost.js";
import type { ScopeTypes } from "./scope-types.js";

/** Parts of expressions that may be visited on the event loop, a few microseconds each at worst; above it the loop would stall. */
export const inlineCostMax = 20_000;
/** With fewer parts times bytes than this, no expression that is not steep costs more. */
const certainlyCheap = 2 * inlineCostMax;
/** What a failure may hold (`error`). */
const errorBytes = 24 * 1_024;

/** Whether the expression may take longer over these sources than the event loop can wait. */
export function isTooCostly({ cost, reading }: CheckedExpression, variables: Variables, types: ScopeTypes): boolean {
  if (cost === undefined) return false;
  const bytes = variables.bytes + (reading.error ? errorBytes : 0);
  if (!cost.steep && reading.nodes * bytes < certainlyCheap) return false;
  return cost.estimate(sizesOf(variables, bytes, types)) > inlineCostMax;
}

/** Whether an expression that reads nothing is too much work for whoever saves the chain. */
export const isCostlyConstant = ({ cost }: CheckedExpression): boolean =>
  cost !== undefined && cost.estimate(noSizes) > inlineCostMax;

function sizesOf(variables: Variables, bytes: number, types: ScopeTypes): Sizes {
  const longest = (): number => {
    variables.longest ??= Math.max(
      variables.items,
      ...[...variables.messages.values()].map((source) => longestIn(source.message)),
    );
    return variables.longest;
  };
  return { bytes, longest, measure: (path) => measure(path, variables, types) };
}

/** Follows a path through messages; undefined where it leads to anything else than a field of one. */
function measure(path: readonly string[], variables: Variables, types: ScopeTypes): Extent | undefined {
  const step = path[0] === "steps" ? types.steps.get(path[1] ?? "") : undefined;
  if (step?.each !== undefined) return { count: variables.items, bytes: variables.bytes };
  if (path[0] !== "input" && step === undefined) return undefined;
  let value: unknown = variables.messages.get(step?.index ?? -1);
  for (const name of path.slice(step === undefined ? 1 : 3)) {
    const message: ReflectMessage | undefined = isReflectMessage(value) ? value : undefined;
    const field = message?.desc.fields.find((candidate) => candidate.name === name);
    if (message === undefined || field === undefined) return undefined;
    value = message.get(field);
  }
  return extentOf(value, variables.bytes);
}

function extentOf(value: unknown, bytes: number): Extent | undefined {
  if (typeof value === "string" || value instanceof Uint8Array) return { count: 0, bytes: value.length };
  if (isReflectList(value) || isReflectMap(value)) return { count: value.size, bytes };
  return typeof value === "object" ? undefined : { count: 0, bytes: 8 };
}

/** Length of the longest list or map in a decoded message. Messages count with their fields: that is never much. */
function longestIn(value: unknown): number {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return 0;
  const items: unknown[] = Array.isArray(value) ? value : Object.values(value);
  let longest = items.length;
  for (const item of items) if (typeof item === "object") longest = Math.max(longest, longestIn(item));
  return longest;
}

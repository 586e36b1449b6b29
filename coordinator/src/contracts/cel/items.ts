/**
 * A fan-out's side of expressions: what it goes over, the inputs of its items, and its outputs together.
 *
 * The outputs travel to expressions as one value: each item's message behind a protobuf tag, as a repeated field would be; of a map,
 * entries of key and value, as a map field would be.
 */
import { type DescMessage, fromBinary } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { Evaluated, OpenedItems, Scope } from "../../engine/plan.js";
import { type BindOptions, compileVariables, failed } from "./bind.js";
import type { CheckedExpression } from "./check.js";
import { type CelInput, isCelError, isCelList, isCelMap, runPlan } from "./engine-values.js";
import type { ScopeTypes } from "./scope-types.js";
import { isTooCostly } from "./sizes.js";

/** Items of one fan-out at most. */
export const itemsMax = 100_000;
/** Items whose inputs are bound at once, and about how many bytes they may have together: what one commit takes. */
const openedMax = 500;
const openedBytesMax = 1024 * 1024;

export interface EachSource {
  expression: CheckedExpression;
  kind: "list" | "map";
  /** Of the whole scope, without `each`. */
  types: ScopeTypes;
  bindInput: (scope: Scope) => Evaluated<Uint8Array>;
  /** Expressions of the input whose work grows with what they read. */
  heavy: boolean;
}

/** Compiles what opens the items of a fan-out. */
export function compileItems(
  source: EachSource,
  options: BindOptions,
): (scope: Scope, from: number) => Evaluated<OpenedItems> {
  const { expression, kind, bindInput } = source;
  const variables = compileVariables([expression], source.types);
  const light = expression.cost?.steep !== true && !source.heavy;
  return (given, from) => {
    if (!options.force && !light) return { kind: "deferred" };
    const scope: Scope = { ...given, memo: new Map() };
    const read = variables(scope);
    if (read.kind !== "value") return read;
    if (!options.force && isTooCostly(expression, read.value, source.types)) return { kind: "deferred" };
    const result = runPlan(expression.run, read.value.bindings);
    const wrong = (reason: string) => failed(`${options.label}, each`, expression.source, reason);
    if (isCelError(result)) return wrong(result.message);
    const list = kind === "list" ? listOf(result) : entriesOf(result);
    if (list === undefined) return wrong(`the value is no ${kind}`);
    if (list.length > itemsMax) return wrong(`there are ${list.length} items; at most ${itemsMax} are allowed`);
    const items: OpenedItems["items"] = [];
    let bytes = 0;
    for (let n = from; n < list.length && items.length < openedMax && bytes < openedBytesMax; n++) {
      const { key, value } = list[n]!;
      const input = bindInput({ ...scope, each: { value, index: n, ...(key === undefined ? {} : { key }) } });
      if (input.kind === "deferred") return input;
      if (input.kind === "value") bytes += input.value.length;
      items.push({ input, ...(key === undefined ? {} : { key }) });
    }
    return { kind: "value", value: { total: list.length, items } };
  };
}

interface Entry {
  key?: string;
  value: unknown;
}

function listOf(value: unknown): Entry[] | undefined {
  return isCelList(value) ? [...value].map((item) => ({ value: item })) : undefined;
}

/** In the order of their keys: a map has no other that everybody agrees on. */
function entriesOf(value: unknown): Entry[] | undefined {
  if (!isCelMap(value)) return undefined;
  const entries = [...value].map(([key, item]) => ({ key: String(key), value: item }));
  return entries.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
}

/** The outputs of a fan-out as one value; `key` where it goes over a map. */
export function encodeItems(outputs: readonly { key: string; bytes: Uint8Array }[], kind: "list" | "map"): Uint8Array {
  const writer = new BinaryWriter();
  for (const { key, bytes } of outputs) {
    writer.tag(1, WireType.LengthDelimited);
    if (kind === "list") writer.bytes(bytes);
    else {
      writer.fork().tag(1, WireType.LengthDelimited).string(key);
      writer.tag(2, WireType.LengthDelimited).bytes(bytes).join();
    }
  }
  return writer.finish();
}

/** What expressions see of it, and how many items there are. */
export function decodeItems(
  bytes: Uint8Array,
  desc: DescMessage,
  kind: "list" | "map",
): { value: CelInput; count: number } {
  const message = (part: Uint8Array) => reflect(desc, fromBinary(desc, part));
  const reader = new BinaryReader(bytes);
  const list: ReturnType<typeof message>[] = [];
  const map = new Map<string, ReturnType<typeof message>>();
  while (reader.pos < reader.len) {
    reader.tag();
    if (kind === "list") list.push(message(reader.bytes()));
    else {
      const end = reader.uint32() + reader.pos;
      reader.tag();
      const key = reader.string();
      if (reader.pos < end) reader.tag();
      map.set(key, message(reader.bytes()));
    }
  }
  return kind === "list" ? { value: list, count: list.length } : { value: map, count: map.size };
}

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

/** One fan-out: what it goes over. Of several within one another, each reads the items of those around it. */
export interface EachLevel {
  expression: CheckedExpression;
  kind: "list" | "map";
  /** What the expression sees: of a fan-out within another one, `each` is the item around it. */
  types: ScopeTypes;
}

/** What a fan-out goes over now, and the item around it. */
export interface Entries {
  entries: Entry[];
  around: EachItem | undefined;
}

type EachItem = NonNullable<Scope["each"]>;

/** Compiles what the last of these fan-outs goes over; `scope.above` says which item of each of the others it is within. */
export function compileEntries(
  levels: readonly EachLevel[],
  options: BindOptions,
): (scope: Scope) => Evaluated<Entries> {
  const reads = levels.map((level) => compileLevel(level, options));
  return (scope) => {
    let around: EachItem | undefined;
    for (const [at, read] of reads.entries()) {
      const found = read(around ? { ...scope, each: around } : scope);
      if (found.kind !== "value") return found;
      if (at === reads.length - 1) return { kind: "value", value: { entries: found.value, around } };
      const index = scope.above?.[at] ?? -1;
      const entry = found.value[index];
      if (entry === undefined) return failed(`${options.label}, each`, "", `there is no item ${index}`);
      around = itemOf(entry, index, around);
    }
    return failed(`${options.label}, each`, "", "it goes over nothing");
  };
}

/** An entry as expressions read it. */
export const itemOf = ({ key, value }: Entry, index: number, outer?: EachItem): EachItem => {
  return { value, index, ...(key === undefined ? {} : { key }), ...(outer ? { outer } : {}) };
};

function compileLevel(
  { expression, kind, types }: EachLevel,
  options: BindOptions,
): (scope: Scope) => Evaluated<Entry[]> {
  const variables = compileVariables([expression], types);
  const light = expression.cost?.steep !== true;
  return (scope) => {
    if (!options.force && !light) return { kind: "deferred" };
    const read = variables(scope);
    if (read.kind !== "value") return read;
    if (!options.force && isTooCostly(expression, read.value, types)) return { kind: "deferred" };
    const result = runPlan(expression.run, read.value.bindings);
    const wrong = (reason: string) => failed(`${options.label}, each`, expression.source, reason);
    if (isCelError(result)) return wrong(result.message);
    const list = kind === "list" ? listOf(result) : entriesOf(result);
    if (list === undefined) return wrong(`the value is no ${kind}`);
    if (list.length > itemsMax) return wrong(`there are ${list.length} items; at most ${itemsMax} are allowed`);
    return { kind: "value", value: list };
  };
}

export interface ItemSource {
  /** The fan-out, and before it those that it is within. */
  levels: readonly EachLevel[];
  bindInput: (scope: Scope) => Evaluated<Uint8Array>;
  /** The input has expressions whose work grows with what they read. */
  heavy: boolean;
}

/** Compiles what opens the items of a fan-out. */
export function compileItems(
  { levels, bindInput, heavy }: ItemSource,
  options: BindOptions,
): (scope: Scope, from: number) => Evaluated<OpenedItems> {
  const entriesIn = compileEntries(levels, options);
  return (given, from) => {
    if (!options.force && heavy) return { kind: "deferred" };
    const scope: Scope = { ...given, memo: new Map() };
    const found = entriesIn(scope);
    if (found.kind !== "value") return found;
    const { entries, around } = found.value;
    const items: OpenedItems["items"] = [];
    let bytes = 0;
    for (let n = from; n < entries.length && items.length < openedMax && bytes < openedBytesMax; n++) {
      const { key } = entries[n]!;
      const input = bindInput({ ...scope, each: itemOf(entries[n]!, n, around) });
      if (input.kind === "deferred") return input;
      if (input.kind === "value") bytes += input.value.length;
      items.push({ input, ...(key === undefined ? {} : { key }) });
    }
    return { kind: "value", value: { total: entries.length, items } };
  };
}

/** A value that a fan-out goes over. */
export interface Entry {
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

/** What expressions see of it, and how many items there are; `kinds`: of the fan-out, and of those within it. */
export function decodeItems(
  bytes: Uint8Array,
  desc: DescMessage,
  kinds: readonly ("list" | "map")[],
): { value: CelInput; count: number } {
  const [kind = "list", ...inner] = kinds;
  let count = 0;
  const part = (found: Uint8Array): CelInput => {
    if (inner.length === 0) {
      count += 1;
      return reflect(desc, fromBinary(desc, found));
    }
    const nested = decodeItems(found, desc, inner);
    count += nested.count + 1;
    return nested.value;
  };
  const reader = new BinaryReader(bytes);
  const list: CelInput[] = [];
  const map = new Map<string, CelInput>();
  while (reader.pos < reader.len) {
    reader.tag();
    if (kind === "list") list.push(part(reader.bytes()));
    else {
      const end = reader.uint32() + reader.pos;
      reader.tag();
      const key = reader.string();
      if (reader.pos < end) reader.tag();
      map.set(key, part(reader.bytes()));
    }
  }
  return { value: kind === "list" ? list : map, count };
}

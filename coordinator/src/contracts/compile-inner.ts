/**
 * What a fan-out does for each of its items where that is no call: another fan-out, or a wait.
 *
 *   step of the chain: each ─► an item is a run of the inner plan ─► its one step: each, or wait, or human
 *                                        └── input: which item        └── expressions read what the step in the run above reads
 *
 * N1. An inner plan is a part of its chain's version and has no name that anybody could call: a run of it is "<chain>.<step>", pinned to that version.
 * N2. Its input says where it stands and nothing else; all that its expressions read is read from the runs above it, which live as long as it does
 *     and whose outputs do not change any more.
 */
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { ChainPlan, ChildPlan, EachPlan, Evaluated, Scope, StepPlan } from "../engine/plan.js";
import { internalContract } from "../engine/plan.js";
import type { BindOptions } from "./cel/bind.js";
import { compileEntries, itemOf } from "./cel/items.js";
import { type CheckedLevel, eachPlan } from "./compile-each.js";
import { durationMsMax, retryDefault, type StepSettings } from "./step-settings.js";

/** What a fan-out step does for one of its innermost items: with its settings, and without a place in a graph. */
export type ItemStep = Omit<StepPlan, "needs" | "neededBy" | "bindInput" | "condition">;

/** The chain that the plan is a part of. */
export interface AroundPlan {
  chain: Pick<ChainPlan, "method" | "version" | "contract" | "source">;
  /** Its plan, once it is there. */
  whole: () => ChainPlan;
}

interface InnerSource extends AroundPlan {
  levels: readonly CheckedLevel[];
  step: ItemStep;
  heavy: boolean;
  bindInput: (scope: Scope) => Evaluated<Uint8Array>;
}

/** The plan of a fan-out step, but for its place in the graph. */
export function planFanOut(
  step: ItemStep,
  item: Pick<InnerSource, "levels" | "heavy" | "bindInput">,
  around: AroundPlan,
  options: BindOptions,
): ItemStep & Pick<StepPlan, "bindInput"> {
  const { levels, bindInput } = item;
  if (levels.length === 1 && !step.wait) return { ...step, bindInput, each: eachPlan(levels, item, options) };
  const { index, id, method, contract, checkOutput } = step;
  const parts = outerParts({ ...item, ...around, step }, 1, { step: index, above: around.whole }, options);
  return { index, id, method, contract, checkOutput, bindInput: placeInput, ...parts };
}

/** A fan-out's side towards its items, each of which is a run. */
function outerParts(
  source: InnerSource,
  depth: number,
  within: NonNullable<ChainPlan["within"]>,
  options: BindOptions,
): ReturnType<typeof groupSettings> & { each: EachPlan; child: ChildPlan; checkOutput?: StepPlan["checkOutput"] } {
  const levels = source.levels.slice(0, depth);
  const inner = innerPlan(source, depth, within, options);
  const isList = depth < source.levels.length;
  return {
    ...groupSettings(source.step),
    each: eachPlan(levels, { bindInput: placeInput, heavy: false }, options),
    child: { onParentClose: "cancel", inner },
    // What the items of an item put out was checked when each of them ended.
    ...(isList ? { checkOutput: () => undefined } : {}),
  };
}

/** Attempts, and the limits of one, are those of the innermost items. */
function groupSettings({ taskQueue, priority }: StepSettings) {
  return {
    retry: { ...retryDefault, attemptsMax: 1 },
    startToCloseMs: durationMsMax,
    taskQueue,
    exclusive: false,
    ...(priority === undefined ? {} : { priority }),
  };
}

function innerPlan(
  source: InnerSource,
  depth: number,
  within: NonNullable<ChainPlan["within"]>,
  options: BindOptions,
): ChainPlan {
  const { levels, step, chain, bindInput, heavy } = source;
  const { id, method, contract } = step;
  const place = { index: 0, id, method, contract, needs: [], neededBy: [], checkOutput: step.checkOutput };
  const isWait = depth === levels.length;
  const path = Array.from({ length: depth }, () => id);
  const own = (): StepPlan => {
    if (isWait) return { ...step, ...place, bindInput: bindAbove(levels, bindInput, options) };
    if (depth === levels.length - 1 && !step.wait)
      return { ...step, ...place, bindInput, each: eachPlan(levels, { bindInput, heavy }, options) };
    const next = outerParts(source, depth + 1, { step: 0, above: () => plan }, options);
    return { ...place, bindInput: placeInput, ...next };
  };
  const plan: ChainPlan = {
    method: [chain.method, ...path].join("."),
    version: chain.version,
    contract: chain.contract,
    outputContract: isWait ? contract : internalContract,
    runTimeoutMs: durationMsMax,
    ...(chain.source ? { source: { ...chain.source, inner: path } } : {}),
    steps: [own()],
    bindOutput: wholeOutput,
    within,
  };
  return plan;
}

/** The input of a step that waits, for the item that its run stands for. In the engine's tick nothing of the runs above is there. */
function bindAbove(
  levels: readonly CheckedLevel[],
  bindInput: (scope: Scope) => Evaluated<Uint8Array>,
  options: BindOptions,
): (scope: Scope) => Evaluated<Uint8Array> {
  const entriesIn = compileEntries(levels, options);
  return (scope) => {
    const index = scope.above?.at(-1);
    if (index === undefined) return { kind: "deferred" };
    const found = entriesIn(scope);
    if (found.kind !== "value") return found;
    const { entries, around } = found.value;
    return bindInput({ ...scope, each: itemOf(entries[index]!, index, around) });
  };
}

/** The output of the one step, as it is. */
export function wholeOutput({ outputs: [output] }: Scope): Evaluated<Uint8Array> {
  if (output === undefined) return { kind: "value", value: new Uint8Array(0) };
  return output.bytes === undefined ? { kind: "deferred" } : { kind: "value", value: output.bytes };
}

const indexField = 1;

/** The input of a run that stands for an item: its index. */
export function placeInput({ each }: Scope): Evaluated<Uint8Array> {
  const writer = new BinaryWriter();
  return {
    kind: "value",
    value: writer
      .tag(indexField, WireType.Varint)
      .uint32(each?.index ?? 0)
      .finish(),
  };
}

/** The index that `placeInput` wrote. */
export function placeOf(bytes: Uint8Array | undefined): number {
  const reader = new BinaryReader(bytes ?? new Uint8Array(0));
  if (reader.len === 0) throw new Error("a run that stands for an item does not say for which");
  reader.tag();
  return reader.uint32();
}

/** A run's method in parts: the chain's, and the steps that lead to the plan within it. */
export function innerPath(method: string): { chain: string; path: string[] } {
  const rpc = method.lastIndexOf("/") + 1;
  const [name = "", ...path] = method.slice(rpc).split(".");
  return { chain: method.slice(0, rpc) + name, path };
}

/** The plan at the end of the path. */
export function innerOf(plan: ChainPlan, path: readonly string[]): ChainPlan {
  return path.reduce((within, id) => {
    const found = within.steps.find((step) => step.id === id)?.child?.inner;
    if (found === undefined) throw new Error(`step ${id} of ${within.method} has no plan of its own`);
    return found;
  }, plan);
}

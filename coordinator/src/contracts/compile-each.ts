/** Checks and compiles the `each` of a step: what it goes over, and within which bounds. */
import type { Each, StepSpec } from "@taskmesh/proto";
import type { EachPlan } from "../engine/plan.js";
import { listItem, mapItems } from "./cel/assignable.js";
import type { BindOptions, FieldSource } from "./cel/bind.js";
import { compileItems, type EachLevel, type ItemSource } from "./cel/items.js";
import { type ScopeTypes, type StepOutput, withEach } from "./cel/scope-types.js";
import { checkCel, type Report } from "./compile-message.js";
import { launchesOf } from "./launch.js";

/** Items under way at once: by default, and at most. */
const parallelDefault = 500;
const parallelMaxBound = 1_000;

/** Fan-outs within one another at most. */
const levelsMax = 3;

/** One fan-out that was found right. */
export interface CheckedLevel extends EachLevel {
  settings: Pick<EachPlan, "parallelMax" | "toleratedCount" | "toleratedShare">;
}

export interface CheckedEach {
  /** The outermost first; mostly one. */
  levels: CheckedLevel[];
  /** What the input's expressions see: `each` too. */
  types: ScopeTypes;
}

/** Kinds of a step's fan-outs, the outermost first. */
function kindsOf({ each }: StepSpec): ("list" | "map")[] {
  const kinds: ("list" | "map")[] = [];
  for (let level = each; level !== undefined; level = level.each) kinds.push(level.entries === "" ? "list" : "map");
  return kinds;
}

/** What makes the output of a fan-out a list or a map; nothing for any other step. */
export const eachOutput = (spec: StepSpec): Pick<StepOutput, "each"> => (spec.each ? { each: kindsOf(spec) } : {});

/** A step as far as its fan-out needs it. */
interface EachStep {
  spec: StepSpec;
  path: string;
  waiting?: { setting: string } | undefined;
  needs: Set<number>;
}

/** Undefined if the step is no fan-out, or if there are problems, which are reported. */
export function checkEach(
  step: EachStep,
  types: ScopeTypes,
  guarded: ReadonlySet<string>,
  report: Report,
): CheckedEach | undefined {
  const { spec } = step;
  if (spec.each === undefined) return undefined;
  const refused = conflictOf(step);
  if (refused !== undefined) {
    report({ path: `${step.path}.each`, stepId: spec.id, field: "each", reason: "CONFLICT", ...refused });
    return undefined;
  }
  const levels: CheckedLevel[] = [];
  let inside = types;
  let path = `${step.path}.each`;
  for (let each: Each | undefined = spec.each; each !== undefined; each = each.each, path = `${path}.each`) {
    const at = { path, stepId: spec.id, field: "each" };
    if (levels.length === levelsMax) {
      const message = `there are more than ${levelsMax} fan-outs within one another`;
      report({ ...at, reason: "TOO_LARGE", message, expected: "a chain of its own for the inner ones" });
      return undefined;
    }
    const level = checkLevel(each, { step, at, types: inside, guarded }, report);
    if (level === undefined) return undefined;
    levels.push(level.checked);
    inside = level.inside;
  }
  return { levels, types: inside };
}

/** What can't be done for each item. */
function conflictOf({ spec, waiting }: EachStep): { message: string; expected?: string } | undefined {
  if (spec.repeat !== undefined)
    return { message: "a fan-out can't repeat: give the action a retry, or repeat in a step behind it" };
  if (launchesOf(spec.call))
    return {
      message: "a fan-out can't launch: let its items call a chain with such a step",
      expected: "an action or a chain",
    };
  if (spec.human !== undefined && spec.human.escalations.length > 0)
    return {
      message: "the form of a fan-out can't have escalations: let its items call a chain with such a step",
      expected: "human without escalations",
    };
  if (waiting === undefined || waiting.setting === "wait" || waiting.setting === "human") return undefined;
  const why = {
    signal: "nobody could tell which item a signal is for",
    callback: "nobody could hand out the URL of each item",
  }[waiting.setting];
  const message = `a fan-out can't have "${waiting.setting}"${why === undefined ? "" : `: ${why}`}; let its items call a chain with such a step`;
  return { message, expected: "call, wait or human" };
}

interface LevelPlace {
  step: EachStep;
  at: { path: string; stepId: string; field: string };
  types: ScopeTypes;
  guarded: ReadonlySet<string>;
}

function checkLevel(
  each: Each,
  { step, at, types, guarded }: LevelPlace,
  report: Report,
): { checked: CheckedLevel; inside: ScopeTypes } | undefined {
  const settings = readSettings(each, at, report);
  if ((each.items === "") === (each.entries === "")) {
    const message =
      each.items === "" ? "the fan-out goes over nothing" : "a fan-out goes over items or over entries, not both";
    report({ ...at, reason: "MISSING_VALUE", message, expected: "items: a list, or entries: a map" });
    return undefined;
  }
  const kind = each.entries === "" ? "list" : "map";
  const [name, source] = kind === "list" ? ["items", each.items] : ["entries", each.entries];
  const place = { ...at, path: `${at.path}.${name}` };
  const expression = checkCel({ types, guarded, self: step.spec.id }, source!, place, report, false);
  if (expression === undefined) return undefined;
  for (const read of expression.reading.steps) step.needs.add(read);
  const value = kind === "list" ? listItem(expression.type) : mapValue(expression.type);
  if (value !== undefined) {
    if (!settings) return undefined;
    return {
      checked: { expression, kind, types, settings },
      inside: withEach(types, { value, keyed: kind === "map" }),
    };
  }
  const found = types.display(expression.type);
  const other = kind === "list" ? mapValue(expression.type) !== undefined : listItem(expression.type) !== undefined;
  const hint = other ? `; write ${kind === "list" ? "entries" : "items"}` : "";
  const expected = kind === "list" ? "a list" : "a map with string keys";
  const message = `each.${name} is ${expected}, and the expression gives ${found}${hint}`;
  const where = { expression: source!, start: 0, end: source!.length };
  report({ ...place, reason: "WRONG_TYPE", ...where, message, expected, found });
  return undefined;
}

function mapValue(type: string): string | undefined {
  const [key, value] = mapItems(type) ?? [];
  return key === "string" || key === "dyn" ? value : undefined;
}

function readSettings(
  { maxParallel, toleratedFailures, toleratedShare }: Each,
  at: { path: string; stepId: string; field: string },
  report: Report,
): CheckedLevel["settings"] | undefined {
  const refuse = (name: string, found: number, expected: string): undefined => {
    const message = `${name} ${found} is out of range`;
    report({ ...at, path: `${at.path}.${name}`, reason: "OUT_OF_RANGE", message, expected, found: String(found) });
  };
  if (maxParallel > parallelMaxBound) return refuse("max_parallel", maxParallel, `1 to ${parallelMaxBound}`);
  if (!(toleratedShare >= 0 && toleratedShare <= 1))
    return refuse("tolerated_share", toleratedShare, "a share from 0 to 1");
  return { parallelMax: maxParallel || parallelDefault, toleratedCount: toleratedFailures, toleratedShare };
}

/** Whether the input has expressions whose work grows steeply with what they read. */
export const isHeavy = (sources: readonly FieldSource[]): boolean =>
  sources.some((source) => source.kind === "expression" && source.expression.cost?.steep === true);

/** The plan of the last of these fan-outs. */
export function eachPlan(
  levels: readonly CheckedLevel[],
  item: Pick<ItemSource, "bindInput" | "heavy">,
  options: BindOptions,
): EachPlan {
  const { kind, settings } = levels.at(-1)!;
  return { kind, ...settings, open: compileItems({ levels, ...item }, options) };
}

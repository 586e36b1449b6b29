/** Checks and compiles the `each` of a step: what it goes over, and within which bounds. */
import type { Each, StepSpec } from "@taskmesh/proto";
import type { EachPlan, Evaluated, Scope } from "../engine/plan.js";
import { listItem, mapItems } from "./cel/assignable.js";
import type { BindOptions, FieldSource } from "./cel/bind.js";
import type { CheckedExpression } from "./cel/check.js";
import { compileItems } from "./cel/items.js";
import { type ScopeTypes, type StepOutput, withEach } from "./cel/scope-types.js";
import { checkCel, type Report } from "./compile-message.js";

/** Items under way at once: by default, and at most. */
const parallelDefault = 500;
const parallelMaxBound = 1_000;

export interface CheckedEach {
  expression: CheckedExpression;
  kind: "list" | "map";
  /** What the input's expressions see: `each` too. */
  types: ScopeTypes;
  settings: Pick<EachPlan, "parallelMax" | "toleratedCount" | "toleratedShare">;
}

/** What makes the output of a fan-out a list or a map; nothing for any other step. */
export const eachOutput = ({ each }: StepSpec): Pick<StepOutput, "each"> =>
  each ? { each: each.entries === "" ? "list" : "map" } : {};

/** Undefined if the step is no fan-out, or if there are problems, which are reported. */
export function checkEach(
  step: { spec: StepSpec; path: string; isChild: boolean; waiting?: unknown; needs: Set<number> },
  types: ScopeTypes,
  guarded: ReadonlySet<string>,
  report: Report,
): CheckedEach | undefined {
  const { each } = step.spec;
  if (each === undefined) return undefined;
  const at = { path: `${step.path}.each`, stepId: step.spec.id, field: "each" };
  if (step.spec.repeat !== undefined) {
    report({
      ...at,
      reason: "CONFLICT",
      message: "a fan-out can't repeat: give the action a retry, or repeat in a step behind it",
    });
    return undefined;
  }
  if (step.isChild || step.waiting !== undefined || step.spec.switch !== undefined) {
    const found = step.isChild ? "a chain" : "nothing";
    const message = `a fan-out calls an action, and this step calls ${found}`;
    report({ ...at, reason: "CONFLICT", message, expected: "an action", found });
    return undefined;
  }
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
    return { expression, kind, types: withEach(types, { value, keyed: kind === "map" }), settings };
  }
  const found = types.display(expression.type);
  const other = kind === "list" ? mapValue(expression.type) !== undefined : listItem(expression.type) !== undefined;
  const hint = other ? `; write ${kind === "list" ? "entries" : "items"}` : "";
  const expected = kind === "list" ? "a list" : "a map with string keys";
  const message = `each.${name} is ${expected}, and the expression gives ${found}${hint}`;
  report({
    ...place,
    reason: "WRONG_TYPE",
    expression: source!,
    start: 0,
    end: source!.length,
    message,
    expected,
    found,
  });
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
): CheckedEach["settings"] | undefined {
  const refuse = (name: string, found: number, expected: string): undefined => {
    const message = `${name} ${found} is out of range`;
    report({ ...at, path: `${at.path}.${name}`, reason: "OUT_OF_RANGE", message, expected, found: String(found) });
  };
  if (maxParallel > parallelMaxBound) return refuse("max_parallel", maxParallel, `1 to ${parallelMaxBound}`);
  if (!(toleratedShare >= 0 && toleratedShare <= 1))
    return refuse("tolerated_share", toleratedShare, "a share from 0 to 1");
  return { parallelMax: maxParallel || parallelDefault, toleratedCount: toleratedFailures, toleratedShare };
}

/** What a checked fan-out adds to the plan of its step. */
export function planEach(
  each: CheckedEach | undefined,
  sources: readonly FieldSource[],
  { types, bindInput }: { types: ScopeTypes; bindInput: (scope: Scope) => Evaluated<Uint8Array> },
  options: BindOptions,
): { each?: EachPlan } {
  if (each === undefined) return {};
  const { expression, kind, settings } = each;
  const heavy = sources.some((source) => source.kind === "expression" && source.expression.cost?.steep === true);
  return { each: { kind, ...settings, open: compileItems({ expression, kind, types, bindInput, heavy }, options) } };
}

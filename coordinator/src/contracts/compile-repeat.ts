/** Steps that call again until a condition holds, checked. */
import type { StepSpec } from "@taskmesh/proto";
import type { RepeatPlan } from "../engine/plan.js";
import { compileCondition } from "./cel/bind.js";
import type { CheckedExpression } from "./cel/check.js";
import type { ScopeTypes } from "./cel/scope-types.js";
import type { Report } from "./compile-message.js";
import { checkBool } from "./compile-switch.js";
import { durationMs, type SettingFault } from "./step-settings.js";

/** Each round leaves rows in the history. */
const roundsMaxBound = 1_000;
const roundsMaxDefault = 100;
const delayMsDefault = 1_000;

/** A checked `repeat`, before it is compiled. */
export interface Repeat {
  until: CheckedExpression;
  delayMs: number;
  roundsMax: number;
}

/** Checks `repeat`; its condition sees the step's own output too. */
export function checkRepeat(
  { spec, path }: { spec: StepSpec; path: string },
  types: ScopeTypes,
  guarded: ReadonlySet<string>,
  report: Report,
): Repeat | undefined {
  const { repeat, id } = spec;
  if (repeat === undefined) return undefined;
  const place = (field: string) => ({ path: `${path}.repeat.${field}`, stepId: id, field: `repeat.${field}` });
  if (spec.call === "") {
    const message = '"repeat" is for steps that call';
    report({ reason: "CONFLICT", path: `${path}.repeat`, stepId: id, field: "repeat", message });
    return undefined;
  }
  const faults: SettingFault[] = [];
  const delayMs = durationMs(repeat.delay, "delay", 0, faults) ?? delayMsDefault;
  for (const { path: field, ...fault } of faults) report({ ...place(field), reason: "OUT_OF_RANGE", ...fault });
  if (repeat.maxRounds > roundsMaxBound) {
    const expected = `1 to ${roundsMaxBound}`;
    const message = `${repeat.maxRounds} rounds are too many`;
    report({ ...place("max_rounds"), reason: "OUT_OF_RANGE", message, expected, found: `${repeat.maxRounds}` });
  }
  if (repeat.until === "") {
    report({
      ...place("until"),
      reason: "MISSING_VALUE",
      message: "nothing says when the rounds end",
      expected: "bool",
    });
    return undefined;
  }
  const until = checkBool({ types, guarded: new Set([...guarded, id]) }, repeat.until, place("until"), report);
  return until && { until, delayMs, roundsMax: repeat.maxRounds || roundsMaxDefault };
}

/** The plan of a checked `repeat`. */
export function repeatPlan({ until, ...rest }: Repeat, types: ScopeTypes, label: string, force: boolean): RepeatPlan {
  return { ...rest, until: compileCondition(until, types, { force, label: `${label}, until` }) };
}

/** `on_failure` of a step: checked when the chain is saved, compiled into what the engine asks when the step has failed. */
import type { Registry } from "@bufbuild/protobuf";
import { type ChainSpec, type FailureRule, OnUnhandled, type StepSpec } from "@taskmesh/proto";
import type { CatchPlan, StepPlan } from "../engine/plan.js";
import { compileBinding } from "./cel/bind.js";
import type { CheckedExpression } from "./cel/check.js";
import type { ScopeTypes } from "./cel/scope-types.js";
import { type CheckedMessage, checkMapping, type Report } from "./compile-message.js";
import type { Contract } from "./contract.js";
import { checkedBinding } from "./plan-parts.js";
import { durationMs, type SettingFault } from "./step-settings.js";

/** Rules of one step, and reasons of one rule, at most. */
const rulesMax = 20;
const reasonsMax = 100;
const reasonPattern = /^[A-Z][A-Z0-9_]{0,63}$/;

/** A rule that was found right. */
export interface CheckedRule {
  reasons: readonly string[];
  /** Absent: the step stays without an output. */
  output?: CheckedMessage;
}

/** The step that rules belong to. */
export interface RuledStep {
  spec: StepSpec;
  path: string;
  contract: Contract | undefined;
  needs: Set<number>;
  /** Set by `checkRules`. */
  rules?: CheckedRule[];
}

/** Whether the step can end without an output, so that whoever reads it must ask. */
export const mayEndWithout = (spec: StepSpec): boolean =>
  spec.when !== "" || spec.onFailure.some((rule) => rule.continue);

/** What expressions read. */
interface Reads {
  condition?: CheckedExpression;
  input?: CheckedMessage;
  rules?: CheckedRule[];
  /** Its own output is there whenever it runs. */
  undo?: { input: CheckedMessage };
  index: number;
  /** The switch that it hangs on reads too. */
  branch?: { of: number };
  each?: { levels: readonly { expression: CheckedExpression }[] };
  repeat?: { until: CheckedExpression } | undefined;
}

/** Indexes of the steps whose outputs some expression reads. */
export function reliedOn(steps: readonly Reads[], output: CheckedMessage): ReadonlySet<number> {
  const relied = new Set(output.reads);
  for (const { condition, input, branch, each, repeat, undo, index, rules = [] } of steps) {
    if (branch) relied.add(branch.of);
    for (const read of undo?.input.reads ?? []) if (read !== index) relied.add(read);
    const levels = each?.levels.map(({ expression }) => expression) ?? [];
    for (const expression of [condition, ...levels, repeat?.until])
      for (const read of expression?.reading.steps ?? []) relied.add(read);
    for (const message of [input, ...rules.map((rule) => rule.output)])
      for (const read of message?.reads ?? []) relied.add(read);
  }
  return relied;
}

/** How long a run of the chain waits for an operator when a failure breaks it. */
const brokenTtlMsDefault = 7 * 24 * 3_600_000;

/** The time that a BROKEN run waits, undefined: failures end the run. */
export function brokenTtl(spec: ChainSpec, report: Report): number | undefined {
  const faults: SettingFault[] = [];
  const ms = durationMs(spec.brokenTtl, "broken_ttl", 1, faults);
  for (const fault of faults) report({ reason: "OUT_OF_RANGE", ...fault });
  if (spec.onUnhandled === OnUnhandled.ON_UNHANDLED_BREAK) return ms ?? brokenTtlMsDefault;
  if (spec.brokenTtl !== undefined) {
    const message = "runs of this chain never break: broken_ttl says something only with on_unhandled: BREAK";
    report({ reason: "CONFLICT", path: "broken_ttl", message, expected: "on_unhandled: BREAK" });
  }
  return undefined;
}

/** Who knows the types of failure details in a chain with these steps; undefined: no step has rules or an undo. */
export function errorRegistries(steps: readonly Pick<RuledStep, "spec" | "contract">[]): Registry[] | undefined {
  if (!steps.some(({ spec }) => spec.onFailure.length > 0 || spec.compensate !== undefined)) return undefined;
  return [...new Set(steps.flatMap(({ contract }) => (contract === undefined ? [] : [contract.registry])))];
}

/** Checks the rules of a step; it waits for the steps that they read. `types` know `error`. */
export function checkRules(step: RuledStep, types: ScopeTypes, report: Report): void {
  if (step.spec.onFailure.length === 0) return;
  step.rules = checkedRules(step, types, report);
  for (const { output } of step.rules) for (const read of output?.reads ?? []) step.needs.add(read);
}

function checkedRules({ spec, path, contract }: RuledStep, types: ScopeTypes, report: Report): CheckedRule[] {
  const own = { stepId: spec.id, field: "on_failure" };
  if (spec.onFailure.length > rulesMax) {
    const message = `${spec.onFailure.length} rules; at most ${rulesMax} are allowed`;
    report({ ...own, reason: "TOO_LARGE", path: `${path}.on_failure`, message });
    return [];
  }
  const checked: CheckedRule[] = [];
  let any = -1;
  for (const [n, rule] of spec.onFailure.entries()) {
    const place = { ...own, path: `${path}.on_failure[${n}]` };
    if (any >= 0) {
      const message = `the rule never counts: on_failure[${any}] is for any reason; put it last`;
      report({ ...place, reason: "CONFLICT", message });
    }
    if (rule.reasons.length === 0 && any < 0) any = n;
    checkReasons(rule, place, report);
    const hasOutput = Object.keys(rule.output).length > 0;
    if (rule.continue === hasOutput) {
      const message = hasOutput
        ? "the rule has both: `continue` leaves the step without an output"
        : "the rule says neither `continue: true` nor which `output` the step has instead";
      report({ ...place, reason: hasOutput ? "CONFLICT" : "MISSING_VALUE", message, expected: "continue or output" });
      continue;
    }
    if (spec.each !== undefined && hasOutput) {
      const message =
        "the output of a fan-out is that of its items: let it continue without, or tolerate failures of items";
      report({ ...place, reason: "CONFLICT", message, expected: "continue: true" });
      continue;
    }
    if (contract === undefined) continue;
    // What a condition guards is no help: the failure may be that of the condition itself.
    const mapping = { target: contract.output, fields: rule.output, guarded: new Set<string>(), self: spec.id };
    const output = hasOutput
      ? { output: checkMapping({ ...mapping, path: `${place.path}.output`, stepId: spec.id, types }, report) }
      : {};
    checked.push({ reasons: rule.reasons, ...output });
  }
  return checked;
}

function checkReasons(rule: FailureRule, place: { path: string; stepId: string; field: string }, report: Report): void {
  if (rule.reasons.length > reasonsMax) {
    const message = `${rule.reasons.length} reasons; at most ${reasonsMax} are allowed`;
    report({ ...place, reason: "TOO_LARGE", path: `${place.path}.reasons`, message });
  }
  for (const [n, name] of rule.reasons.slice(0, reasonsMax).entries()) {
    if (reasonPattern.test(name)) continue;
    const found = JSON.stringify(name.slice(0, 80));
    const upper = name.toUpperCase().replace(/[^A-Z0-9]+/g, "_");
    const suggestion = reasonPattern.test(upper) ? upper : "";
    const message = `${found} can't be the reason of a failure`;
    const expected = "UPPER_SNAKE, at most 64 characters, such as RATE_LIMITED";
    report({
      ...place,
      reason: "INVALID_NAME",
      path: `${place.path}.reasons[${n}]`,
      message,
      expected,
      found,
      suggestion,
    });
  }
}

/** What the plan of a step says of its failure. */
export function failureParts(
  step: RuledStep & { index: number },
  relied: ReadonlySet<number>,
  types: ScopeTypes | undefined,
  options: { force: boolean },
): Pick<StepPlan, "mayBeUnset" | "catches"> {
  const { spec, rules, contract } = step;
  const label = `step "${spec.id}"`;
  return {
    ...(mayEndWithout(spec) || !relied.has(step.index) ? { mayBeUnset: true } : {}),
    ...(rules && types && contract ? { catches: catchPlans(rules, contract, types, { ...options, label }) } : {}),
  };
}

/** The rules as the engine asks them. */
function catchPlans(
  rules: readonly CheckedRule[],
  contract: Contract,
  types: ScopeTypes,
  options: { force: boolean; label: string },
): CatchPlan[] {
  return rules.map(({ reasons, output }, n) => {
    if (output === undefined) return { reasons };
    const label = `${options.label}, on_failure[${n}]`;
    const bind = compileBinding(contract.output, output.sources, types, { ...options, label });
    return { reasons, bindOutput: checkedBinding(bind, contract, "output") };
  });
}

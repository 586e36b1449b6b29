/**
 * Steps that choose: a switch, and the branches whose steps run only if it takes their case.
 *
 * A switch is evaluated like a step that waits: its input is the number of the first case that holds, and is its output
 * too. A step of a branch has the case as its condition, before its own.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { StepSpec } from "@taskmesh/proto";
import { nearestName } from "@taskmesh/runtime";
import type { Evaluated, Scope } from "../engine/plan.js";
import { type BindOptions, compileChoice } from "./cel/bind.js";
import type { CheckedExpression } from "./cel/check.js";
import type { ScopeTypes } from "./cel/scope-types.js";
import { checkCel, type Report } from "./compile-message.js";
import type { Contract } from "./contract.js";

/** Cases of one switch at most. */
const casesMax = 100;

/** The branch that a step is on. */
export interface Branch {
  /** Index of the switch. */
  of: number;
  /** From 1; 0: no case holds. */
  taken: number;
}

/** What is looked at of a step. */
interface Step {
  spec: StepSpec;
  index: number;
  path: string;
  contract: Contract | undefined;
  needs: Set<number>;
  branch?: Branch;
}

/** Checks each condition by itself, so that a problem is told where it stands; undefined if one is not right. */
export function checkCases(
  step: Step,
  types: ScopeTypes,
  guarded: ReadonlySet<string>,
  report: Report,
): CheckedExpression[] | undefined {
  const { spec, path } = step;
  const cases = spec.switch?.cases ?? [];
  const place = { stepId: spec.id, path: `${path}.switch.cases`, field: "switch" };
  const expected = `1 to ${casesMax} cases`;
  if (cases.length === 0) report({ ...place, reason: "MISSING_VALUE", message: "the switch has no cases", expected });
  if (cases.length > casesMax) {
    const message = `the switch has ${cases.length} cases; at most ${casesMax} are allowed`;
    report({ ...place, reason: "TOO_LARGE", message, expected, found: `${cases.length}` });
  }
  const right = cases.map(({ when }, at) => {
    const own = { ...place, path: `${place.path}[${at}].when` };
    return checkBool({ types, guarded, self: spec.id }, when, own, report);
  });
  const whole = cases.length > 0 && cases.length <= casesMax && right.every((one) => one !== undefined);
  return whole ? right : undefined;
}

/** Compiles what makes the input of a switch: the number of the case that it takes. */
export function bindChoice(
  cases: readonly CheckedExpression[],
  contract: Contract,
  types: ScopeTypes,
  options: BindOptions,
): (scope: Scope) => Evaluated<Uint8Array> {
  const choose = compileChoice(cases, types, { ...options, label: `${options.label}, switch` });
  const { number } = contract.input.field["case"]!;
  return (scope) => {
    const chosen = choose(scope);
    if (chosen.kind !== "value") return chosen;
    const writer = new BinaryWriter();
    if (chosen.value > 0) writer.tag(number, WireType.Varint).int32(chosen.value);
    return { kind: "value", value: writer.finish() };
  };
}

/** Checks a condition, which must be true or false. */
export function checkBool(
  scope: Parameters<typeof checkCel>[0],
  when: string,
  place: { path: string; stepId: string; field: string },
  report: Report,
): ReturnType<typeof checkCel> {
  const condition = checkCel(scope, when, place, report, false);
  if (condition === undefined || condition.type === "bool") return condition;
  const found = scope.types.display(condition.type);
  const message = `the condition is ${found}, and must be true or false`;
  const whole = { expression: when, start: 0, end: when.length };
  report({ ...place, ...whole, reason: "WRONG_TYPE", message, expected: "bool", found });
  return undefined;
}

/** Puts steps on the branches that name them. */
export function linkBranches(steps: readonly Step[], report: Report): void {
  const byId = new Map(steps.map((step) => [step.spec.id, step]));
  for (const { spec, index, path } of steps) {
    if (spec.switch === undefined) continue;
    const lists = [...spec.switch.cases.map(({ steps: ids }, at) => ({ ids, setting: `switch.cases[${at}].steps` }))];
    lists.push({ ids: spec.switch.otherwise, setting: "switch.otherwise" });
    lists.forEach(({ ids, setting }, at) => {
      const taken = at === lists.length - 1 ? 0 : at + 1;
      for (const [n, id] of ids.entries()) {
        const place = { stepId: spec.id, path: `${path}.${setting}[${n}]`, field: setting };
        const step = byId.get(id);
        if (step === undefined) {
          const message = `there is no step "${id.slice(0, 80)}"`;
          const suggestion = nearestName(id, byId.keys()) ?? "";
          report({ ...place, reason: "UNKNOWN_STEP", message, found: id, suggestion });
        } else if (step.branch !== undefined) {
          const other = steps[step.branch.of]!.spec.id;
          const message = `step "${id}" is on a branch of "${other}" already; a step is on one branch`;
          report({ ...place, reason: "CONFLICT", message, found: id });
        } else {
          step.branch = { of: index, taken };
          step.needs.add(index);
        }
      }
    });
  }
}

/** Steps whose outputs are there if this one runs: those of its branch, and of the branches that lead to its switch. */
export function fellowsOf(step: Step, steps: readonly Step[], isOptional: (step: Step) => boolean): Set<string> {
  const fellows = new Set<string>();
  const seen = new Set<number>();
  for (let at: Step | undefined = step; at?.branch !== undefined && !seen.has(at.index); ) {
    seen.add(at.index);
    const { of, taken }: Branch = at.branch;
    for (const other of steps) {
      const same = other !== step && other.branch?.of === of && other.branch.taken === taken;
      if (same && !isOptional(other)) fellows.add(other.spec.id);
    }
    at = steps[of];
    if (at !== undefined && !isOptional(at)) fellows.add(at.spec.id);
  }
  return fellows;
}

type Condition = (scope: Scope) => Evaluated<boolean>;

/** The condition of a step of a branch: the switch has taken it, and its own holds. */
export function branchCondition({ of, taken }: Branch, chosen: Contract, own: Condition | undefined): Condition {
  const field = chosen.output.field["case"];
  return (scope) => {
    const output = scope.outputs[of];
    if (output !== undefined && output.bytes === undefined) return { kind: "deferred" };
    const message = output?.bytes && reflect(chosen.output, fromBinary(chosen.output, output.bytes));
    const takes = message !== undefined && field !== undefined && message.get(field) === taken;
    if (!takes) return { kind: "value", value: false };
    return own === undefined ? { kind: "value", value: true } : own(scope);
  };
}

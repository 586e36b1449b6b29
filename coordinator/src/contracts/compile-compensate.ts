/** `compensate` of a step: checked when the chain is saved, compiled into a step behind the chain's own that undoes it. */
import { type ChainSpec, type CompensateSpec, Join, StepSpec } from "@taskmesh/proto";
import type { StepPlan } from "../engine/plan.js";
import { describeTarget, targetOf } from "./cel/assignable.js";
import { compileBinding } from "./cel/bind.js";
import { compileProjection } from "./cel/projection.js";
import type { ScopeTypes } from "./cel/scope-types.js";
import { nearestMethod } from "./chain-callee.js";
import type { ChainEnvironment } from "./compile-chain.js";
import { typesWithout } from "./compile-join.js";
import { type CheckedMessage, checkMapping, type Report } from "./compile-message.js";
import type { Contract } from "./contract.js";
import { launchesOf } from "./launch.js";
import { checkedBinding, stepBase } from "./plan-parts.js";
import { type SettingFault, type StepSettings, stepSettings } from "./step-settings.js";

/** How long an undo may take in all, where the chain does not say: it waits for its workers, and must end. */
const undoMsDefault = 24 * 3_600_000;

/** An undo that was found right. */
export interface CheckedUndo {
  contract: Contract;
  settings: StepSettings;
  input: CheckedMessage;
}

/** The step that it is of. */
export interface UndoneStep {
  spec: StepSpec;
  index: number;
  path: string;
  contract: Contract | undefined;
  waiting?: unknown;
  needs: ReadonlySet<number>;
  /** Set by `checkUndos`. */
  undo?: CheckedUndo;
}

/** Whether a step of the chain can be undone. */
export const hasUndos = (steps: readonly Pick<UndoneStep, "spec">[]): boolean =>
  steps.some(({ spec }) => spec.compensate !== undefined);

/** Every callable that steps of the chain name. */
export const calledBy = ({ steps }: Pick<ChainSpec, "steps">): string[] =>
  steps.flatMap(({ call, compensate }) => (compensate ? [call, compensate.call] : [call]));

/** Checks them. `types` know `error`. */
export function checkUndos(
  steps: readonly UndoneStep[],
  types: ScopeTypes,
  environment: ChainEnvironment,
  report: Report,
): void {
  for (const step of steps) {
    if (step.spec.compensate === undefined) continue;
    const undo = checkUndo(step, step.spec.compensate, { steps, types, environment }, report);
    if (undo) step.undo = undo;
  }
}

interface Around {
  steps: readonly UndoneStep[];
  types: ScopeTypes;
  environment: ChainEnvironment;
}

function checkUndo(
  step: UndoneStep,
  compensate: CompensateSpec,
  { steps, types, environment }: Around,
  report: Report,
): CheckedUndo | undefined {
  const { spec } = step;
  const at = { path: `${step.path}.compensate`, stepId: spec.id, field: "compensate" };
  const conflict = conflictOf(step);
  if (conflict !== undefined) {
    report({ ...at, reason: "CONFLICT", message: conflict, expected: "a step with a call" });
    return undefined;
  }
  const contract = calleeOf(compensate.call, at, environment, report);
  if (contract === undefined || step.contract === undefined) return undefined;
  const faults: SettingFault[] = [];
  const { retry, startToClose, scheduleToClose, taskQueue } = compensate;
  const given = StepSpec.fromPartial({ retry, startToClose, scheduleToClose, taskQueue, priority: spec.priority });
  const settings = stepSettings(given, contract.options, contract.service, faults);
  for (const fault of faults) report({ reason: "OUT_OF_RANGE", ...at, ...fault, path: `${at.path}.${fault.path}` });
  const mapping = { target: contract.input, fields: compensate.input, path: `${at.path}.input`, stepId: spec.id };
  const known = whereDone(step, steps, types);
  const input = checkMapping({ ...mapping, types: known, guarded: new Set<string>() }, report);
  warnOfUnfed(step, compensate, contract, report);
  return { contract, settings: { ...settings, scheduleToCloseMs: settings.scheduleToCloseMs ?? undoMsDefault }, input };
}

/** Fields of the undo that nobody sets, although the step's own output or input has their value: most likely they were forgotten. */
function warnOfUnfed(
  { spec, path, contract }: UndoneStep,
  compensate: CompensateSpec,
  undo: Contract,
  report: Report,
): void {
  const oneofs = new Set(undo.input.fields.filter((one) => compensate.input[one.name]).map((one) => one.oneof));
  for (const field of undo.input.fields) {
    if (compensate.input[field.name] !== undefined || (field.oneof !== undefined && oneofs.has(field.oneof))) continue;
    const own = contract?.output.fields.find((one) => one.name === field.name);
    const fits = own !== undefined && compileProjection([own], "", field) !== undefined;
    const given = spec.input[field.name]?.kind;
    const source = fits ? `steps.${spec.id}.output.${field.name}` : given?.$case === "cel" ? given.value : undefined;
    const sent = contract?.input.fields.find((one) => one.name === field.name);
    if (source === undefined || (!fits && (!sent || compileProjection([sent], "", field) === undefined))) continue;
    const message = `${undo.input.name}.${field.name} is not set, and ${fits ? "the step's output" : "its input"} has a field of that name and type`;
    const place = { path: `${path}.compensate.input.${field.name}`, stepId: spec.id, field: field.name };
    report.warn?.({
      ...place,
      reason: "NOT_FED",
      message,
      expected: describeTarget(targetOf(field)),
      suggestion: source,
    });
  }
}

function conflictOf({ spec, waiting }: UndoneStep): string | undefined {
  if (waiting !== undefined || spec.switch !== undefined) return "a step that calls nothing has nothing to undo";
  if (spec.each === undefined) return undefined;
  return "a fan-out can't be undone as a whole: let its items call a chain that compensates, or undo them in a step of an own chain";
}

function calleeOf(
  call: string,
  at: { path: string; stepId: string; field: string },
  environment: ChainEnvironment,
  report: Report,
): Contract | undefined {
  const place = { ...at, path: `${at.path}.call` };
  const contract = call === "" ? undefined : environment.contractFor(call);
  if (contract === undefined) {
    const message = call === "" ? "the undo calls nothing" : `no action ${call.slice(0, 120)} is registered`;
    const suggestion = nearestMethod(call, environment) ?? "";
    report({ ...place, reason: "UNKNOWN_ACTION", message, found: call, suggestion });
  } else if (environment.isChain?.(call) || launchesOf(call)) {
    const found = launchesOf(call) ? "a launch" : "a chain";
    const message = `an undo calls an action that a worker runs, and ${call} is ${found}`;
    report({ ...place, reason: "CONFLICT", message, found });
    return undefined;
  }
  return contract;
}

/** What is there when the step has succeeded: its own output, and what it had waited for. All else may be missing. */
function whereDone(step: UndoneStep, steps: readonly UndoneStep[], types: ScopeTypes): ScopeTypes {
  const there = new Set<number>();
  const open = [step];
  for (let one = open.pop(); one !== undefined; one = open.pop()) {
    const { join } = one.spec;
    if (join !== Join.JOIN_UNSPECIFIED && join !== Join.JOIN_ALL) continue;
    for (const need of one.needs) {
      if (there.has(need)) continue;
      there.add(need);
      open.push(steps[need]!);
    }
  }
  const others = steps.filter(({ index }) => !there.has(index)).map(({ index }) => index);
  const known = typesWithout(types, new Set(others));
  const own = known.steps.get(step.spec.id);
  if (own === undefined) return known;
  return { ...known, steps: new Map(known.steps).set(step.spec.id, { ...own, skippable: false }) };
}

/** Steps behind the chain's own, one for each that can be undone. */
export function planUndos(
  steps: readonly UndoneStep[],
  types: ScopeTypes | undefined,
  options: { force: boolean },
): StepPlan[] {
  if (types === undefined) return [];
  return steps
    .filter(({ undo }) => undo !== undefined)
    .map((step, n) => {
      const { contract, settings, input } = step.undo!;
      const label = `step "${step.spec.id}", compensate`;
      const needs = [...new Set([...input.reads, step.index])].sort((a, b) => a - b);
      const place = { index: steps.length + n, id: `${step.spec.id}.undo`, needs, neededBy: [] };
      const bind = compileBinding(contract.input, input.sources, types, { ...options, label });
      return {
        ...stepBase(contract, settings, place),
        undoes: step.index,
        bindInput: checkedBinding(bind, contract, "input"),
      };
    });
}

/** The steps of a chain, each of which knows its undo, and behind them the undos. */
export function withUndos(steps: readonly StepPlan[], undos: readonly StepPlan[]): StepPlan[] {
  const undoOf = new Map(undos.map(({ index, undoes }) => [undoes, index]));
  const known = steps.map((step) => {
    const undo = undoOf.get(step.index);
    return undo === undefined ? step : { ...step, undo };
  });
  return [...known, ...undos];
}

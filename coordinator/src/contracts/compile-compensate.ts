/** `compensate` of a step: checked when the chain is saved, compiled into a step behind the chain's own that undoes it. */
import { type ChainSpec, type CompensateSpec, Join, StepSpec } from "@taskmesh/proto";
import type { EachPlan, OpenedItems, Scope, StepPlan } from "../engine/plan.js";
import { describeTarget, targetOf } from "./cel/assignable.js";
import { type BindOptions, compileBinding } from "./cel/bind.js";
import { compileEntries, type EachLevel, itemOf } from "./cel/items.js";
import { compileProjection } from "./cel/projection.js";
import { type ScopeTypes, withEach } from "./cel/scope-types.js";
import { childSettings, nearestMethod } from "./chain-callee.js";
import type { ChainEnvironment } from "./compile-chain.js";
import type { CheckedEach } from "./compile-each.js";
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
  /** It calls a chain. */
  isChild: boolean;
  /** What its input's expressions see. */
  types: ScopeTypes;
}

/** The step that it is of. */
export interface UndoneStep {
  spec: StepSpec;
  index: number;
  path: string;
  contract: Contract | undefined;
  waiting?: unknown;
  needs: ReadonlySet<number>;
  each?: CheckedEach;
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
  const isChild = environment.isChain?.(compensate.call) === true;
  const own = stepSettings(given, contract.options, contract.service, faults);
  const settings = isChild ? childSettings(given, own) : own;
  if (isChild && taskQueue !== "") {
    const message = `task_queue is about workers, and ${compensate.call} is a chain: set it on the chain's own steps`;
    report({ ...at, path: `${at.path}.task_queue`, reason: "CONFLICT", message, expected: "an action" });
  }
  for (const fault of faults) report({ reason: "OUT_OF_RANGE", ...at, ...fault, path: `${at.path}.${fault.path}` });
  const mapping = { target: contract.input, fields: compensate.input, path: `${at.path}.input`, stepId: spec.id };
  const known = withItem(step, whereDone(step, steps, types));
  if (known === undefined) return undefined;
  const input = checkMapping({ ...mapping, types: known, guarded: new Set<string>() }, report);
  warnOfUnfed(step, compensate, contract, report);
  const scheduleToCloseMs = settings.scheduleToCloseMs ?? undoMsDefault;
  return { contract, settings: { ...settings, scheduleToCloseMs }, input, isChild, types: known };
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
    const source = fits
      ? `${spec.each ? "each" : `steps.${spec.id}`}.output.${field.name}`
      : given?.$case === "cel"
        ? given.value
        : undefined;
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
  if (spec.each?.each === undefined) return undefined;
  return "a fan-out within a fan-out can't be undone: make the inner one a chain of its own, and undo what that has done";
}

/** Of a fan-out each item is undone by itself, and `each` is the item. Undefined: the fan-out has problems of its own. */
function withItem({ spec, contract, each }: UndoneStep, types: ScopeTypes): ScopeTypes | undefined {
  if (spec.each === undefined) return types;
  const item = each?.types.each;
  const type = types.outputOf(spec.id);
  if (item === undefined || type === undefined || contract === undefined) return undefined;
  return withEach(types, { value: item.value, keyed: item.keyed, output: { type, desc: contract.output } });
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
    const message = call === "" ? "the undo calls nothing" : `no action or chain ${call.slice(0, 120)} is registered`;
    const suggestion = nearestMethod(call, environment) ?? "";
    report({ ...place, reason: "UNKNOWN_ACTION", message, found: call, suggestion });
  } else if (launchesOf(call)) {
    const message = `an undo calls an action or a chain, and ${call} is a launch`;
    report({ ...place, reason: "CONFLICT", message, found: "a launch" });
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
  // A fan-out that failed as a whole has items that succeeded, and no output.
  if (own === undefined || step.spec.each) return known;
  return { ...known, steps: new Map(known.steps).set(step.spec.id, { ...own, skippable: false }) };
}

/** Steps behind the chain's own, one for each that can be undone. */
export function planUndos(steps: readonly UndoneStep[], options: { force: boolean }): StepPlan[] {
  return steps
    .filter(({ undo }) => undo !== undefined)
    .map((step, n) => {
      const { contract, settings, input, isChild, types } = step.undo!;
      const label = `step "${step.spec.id}", compensate`;
      const place = { index: steps.length + n, id: `${step.spec.id}.undo`, needs: readBy(step), neededBy: [] };
      const bind = compileBinding(contract.input, input.sources, types, { ...options, label });
      const bindInput = checkedBinding(bind, contract, "input");
      return {
        ...stepBase(contract, settings, place),
        ...(isChild ? { child: { onParentClose: "cancel" as const } } : {}),
        undoes: step.index,
        bindInput,
        ...(step.each ? { each: undoItems(step.each.levels, bindInput, { ...options, label }) } : {}),
      };
    });
}

/** Steps whose outputs the undo reads. The outputs of a fan-out's items together are only needed where they are asked for. */
function readBy({ index, each, undo }: UndoneStep): number[] {
  const reads = new Set(undo!.input.reads);
  if (each === undefined) reads.add(index);
  for (const { expression } of each?.levels ?? []) for (const read of expression.reading.steps) reads.add(read);
  return [...reads].sort((a, b) => a - b);
}

/** The undo of a fan-out is a fan-out over its items that succeeded, the newest first and one at a time; one that fails stops none of the others. */
function undoItems(levels: readonly EachLevel[], bindInput: StepPlan["bindInput"], options: BindOptions): EachPlan {
  const entriesIn = compileEntries(levels, options);
  return {
    ...{ kind: "list", parallelMax: 1, toleratedCount: 0, toleratedShare: 1 },
    open(given) {
      const scope: Scope = { ...given, memo: new Map() };
      const found = entriesIn(scope);
      if (found.kind !== "value") return found;
      const { total, items } = given.undone ?? { total: 0, items: [] };
      const opened: OpenedItems["items"] = [];
      for (const { index, output } of items) {
        const item = itemOf(found.value.entries[index]!, index);
        const input = bindInput({ ...scope, each: { ...item, output } });
        if (input.kind === "deferred") return input;
        opened.push({ key: item.key ?? String(index), input });
      }
      return { kind: "value", value: { total, items: opened } };
    },
  };
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

/**
 * From a ChainSpec to a ChainPlan, with everything checked on the way: a chain that was saved has no mistake left that its text shows.
 *
 *   contract ──► steps (ids, callees, settings) ──► types that expressions see ──► conditions, inputs, output ──► graph ──► plan
 *
 * All problems are reported, not just the first; what follows from another problem (the output of an unknown action) is not reported
 * again. The same spec against the same contracts always gives the same plan, so a plan is never stored: coordinators compile
 * the spec with the contracts that were pinned when it was saved.
 */
import { createRegistry, type DescEnum, type DescMessage, type Registry } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import { type ChainEdge, type ChainProblem, ChainSpec, RunTimeoutFrom, type StepSpec } from "@taskmesh/proto";
import { nearestName } from "@taskmesh/runtime";
import type { ChainPlan, PlanSource, RacePlan, StepPlan } from "../engine/plan.js";
import { compileBinding, compileCondition } from "./cel/bind.js";
import type { CheckedExpression } from "./cel/check.js";
import { guardsOf } from "./cel/paths.js";
import { createScopeTypes, type ScopeTypes, type StepOutput } from "./cel/scope-types.js";
import { calleesOf, checkCallee, childPlan, childSettings, nearestMethod } from "./chain-callee.js";
import { chainContract } from "./chain-contract.js";
import { edgesOf, refuseDuplicateIds, reportCycle } from "./chain-edges.js";
import { neededBy } from "./chain-graph.js";
import { type CheckedUndo, checkUndos, planUndos, withUndos } from "./compile-compensate.js";
import { type CheckedEach, checkEach, eachOutput, isHeavy } from "./compile-each.js";
import { linkEscalations } from "./compile-escalation.js";
import { type AroundPlan, planFanOut } from "./compile-inner.js";
import { checkJoin, inOrderOfJoins, joinPlan, missedBy, racesOf, typesWithout } from "./compile-join.js";
import { type CheckedMessage, checkMapping, problemOf, type Report, type UseListener } from "./compile-message.js";
import { checkRepeat, type Repeat, repeatPlan } from "./compile-repeat.js";
import { answeredSignals, checkOutput, linkResponds } from "./compile-respond.js";
import {
  type Branch,
  bindChoice,
  branchCondition,
  checkBool,
  checkCases,
  fellowsOf,
  linkBranches,
} from "./compile-switch.js";
import { isWaiting, readWait, refuseDifferentSignals, type WaitEnvironment, type WaitingStep } from "./compile-wait.js";
import { type Contract, splitMethod } from "./contract.js";
import {
  brokenTtl,
  type CheckedRule,
  checkRules,
  errorRegistries,
  failureParts,
  mayEndWithout,
  reliedOn,
} from "./failure-rules.js";
import { launchesOf } from "./launch.js";
import { checkedBinding, stepBase } from "./plan-parts.js";
import {
  durationMs,
  runTimeoutMsDefault,
  type SettingFault,
  type StepSettings,
  stepSettings,
} from "./step-settings.js";

/** Steps of one chain at most. */
export const stepsMax = 1_000;
/** Problems reported at once at most: they travel in the details of a status. */
const problemsMax = 50;

export interface ChainEnvironment {
  /** The registered contract of a callable: the newest revision, or the pinned one. */
  contractFor: (method: string) => Contract | undefined;
  /** Whether a callable is a chain; absent: nobody knows, and runs are not what the plan is for. */
  isChain?: (method: string) => boolean;
  /** The contract of the chain's newest version (so that field numbers stay), or the one that it is pinned to. */
  chainContract?: Contract | undefined;
  /** A registered message or enum that an inline contract names. */
  resolveType?: ((name: string) => DescMessage | DescEnum | undefined) | undefined;
  /** Names of all callables, to suggest the nearest. */
  methods?: () => Iterable<string>;
  /** Of the plan; default 0. */
  version?: number;
  /** Evaluate whatever it costs: for the thread that evaluates what was deferred. */
  force?: boolean;
  /** The contracts are those of a stored version: what steps declare is there already. */
  pinned?: boolean;
  /** The chain may have a name of a reserved package: it is the mesh's own, or was given as data. */
  allowReserved?: boolean;
  /** Where the gateways are reached from outside, for the URLs of callbacks. */
  publicUrl?: string;
  /** Hears what the chain reads and writes. */
  uses?: UseListener;
}

export interface CompiledChain {
  /** Absent if there are problems. */
  plan?: ChainPlan;
  /** The chain's own contract, if that much is right. */
  contract?: Contract;
  problems: ChainProblem[];
  warnings: ChainProblem[];
  /** Every edge, those that expressions make included. */
  edges: ChainEdge[];
  /** Fingerprint of the contract by callee. */
  pins: Record<string, string>;
  /** Contracts that steps declare: to be stored with the chain. */
  declared: Contract[];
}

export function compileChain(spec: ChainSpec, environment: ChainEnvironment): CompiledChain {
  const result: CompiledChain = { problems: [], warnings: [], edges: [], pins: {}, declared: [] };
  const tell = (problem: Parameters<Report>[0]): void => {
    if (result.problems.length < problemsMax) result.problems.push(problemOf(problem));
  };
  const warn: Report["warn"] = (problem) => void result.warnings.push(problemOf(problem));
  const report: Report = Object.assign(tell, { uses: environment.uses, warn });
  const contract = chainContract(spec, environment, report);
  if (contract !== undefined) result.contract = contract;
  const runTimeoutMs = runTimeout(spec, report);
  const brokenTtlMs = brokenTtl(spec, report);
  if (spec.steps.length === 0)
    report({ reason: "MISSING_VALUE", path: "steps", message: "a chain has at least one step" });
  if (spec.steps.length > stepsMax) {
    const message = `the chain has ${spec.steps.length} steps; at most ${stepsMax} are allowed`;
    report({ reason: "TOO_LARGE", path: "steps", message });
    return result;
  }
  const callees = calleesOf(environment, contract);
  const answered = answeredSignals(spec.steps);
  const around = { ...callees, answered };
  const steps = spec.steps.map((step, index) => readStep(step, index, spec.contract?.name ?? "", around, report));
  refuseDuplicateIds(steps, report);
  refuseDifferentSignals(steps, report);
  result.declared = steps.flatMap(({ waiting }) => waiting?.declared ?? []);
  linkBranches(steps, report);
  linkResponds(steps, answered, report);
  linkEscalations(steps, report);
  for (const step of steps) {
    if (step.contract !== undefined) result.pins[step.contract.method] = step.contract.fingerprint;
  }
  const types = scopeTypes(steps, contract, environment);
  for (const step of inOrderOfJoins(steps)) checkStep(step, steps, types, report);
  const errors = errorRegistries(steps);
  const errorTypes = errors && scopeTypes(steps, contract, environment, errors);
  if (errorTypes !== undefined) {
    for (const step of steps) checkRules(step, typesWithout(errorTypes, missedBy(step, steps)), report);
    checkUndos(steps, errorTypes, callees, report);
    for (const { undo } of steps) if (undo) result.pins[undo.contract.method] = undo.contract.fingerprint;
  }
  const races = racesOf(steps);
  const ended = typesWithout(types, new Set(races.keys()));
  const output = contract === undefined ? undefined : checkOutput(spec, contract, ended, report);
  const needs = steps.map((step) => step.needs);
  result.edges = edgesOf(steps);
  reportCycle(steps, needs, report);
  if (result.problems.length > 0 || contract === undefined || output === undefined) return result;
  const options = { force: environment.force ?? false };
  const chain = {
    method: contract.method,
    version: environment.version ?? 0,
    contract: contract.fingerprint,
    source: { ...sourceOf(spec, contract, steps), publicUrl: environment.publicUrl ?? "" },
  };
  const plan = (): ChainPlan => result.plan!;
  const shape = { steps, users: neededBy(needs), races, around: { chain, whole: plan } };
  const relied = reliedOn(steps, output);
  result.plan = {
    ...chain,
    outputContract: contract.fingerprint,
    runTimeoutMs,
    ...(spec.runTimeoutFrom === RunTimeoutFrom.RUN_TIMEOUT_FROM_FIRST_START ? { timedFromStart: true as const } : {}),
    ...(brokenTtlMs === undefined ? {} : { brokenTtlMs }),
    steps: withUndos(
      steps.map((step) => ({
        ...planStep(step, shape, types, options),
        ...failureParts(step, relied, errorTypes, options),
      })),
      planUndos(steps, options),
    ),
    bindOutput: checkedBinding(
      compileBinding(contract.output, output.sources, types, { ...options, label: "output" }),
      contract,
      "output",
    ),
  };
  return result;
}

function sourceOf(spec: ChainSpec, contract: Contract, steps: readonly StepDraft[]): PlanSource {
  const contracts = new Map<string, Contract>();
  for (const { contract: callee, undo } of steps)
    for (const one of undo ? [callee!, undo.contract] : [callee!]) contracts.set(one.method, one);
  // Last: a chain that calls itself is compiled against its own contract first of all.
  contracts.set(contract.method, contract);
  return { spec: ChainSpec.encode(spec).finish(), contracts };
}

/** A step while its chain is compiled. */
interface StepDraft {
  spec: StepSpec;
  index: number;
  path: string;
  contract: Contract | undefined;
  settings: StepSettings;
  waiting?: WaitingStep | undefined;
  /** The callee is a chain. */
  isChild: boolean;
  needs: Set<number>;
  branch?: Branch;
  escalation?: { of: number; level: number };
  cases?: CheckedExpression[] | undefined;
  repeat?: Repeat | undefined;
  condition?: CheckedExpression;
  input?: CheckedMessage;
  each?: CheckedEach;
  rules?: CheckedRule[];
  undo?: CheckedUndo;
}

function runTimeout(spec: ChainSpec, report: Report): number {
  const faults: SettingFault[] = [];
  const ms = durationMs(spec.runTimeout, "run_timeout", 1, faults);
  for (const fault of faults) report({ reason: "OUT_OF_RANGE", ...fault });
  return ms ?? runTimeoutMsDefault;
}

const stepIds = /^[A-Za-z][A-Za-z0-9_]{0,63}$/;

function readStep(
  spec: StepSpec,
  index: number,
  chain: string,
  environment: ChainEnvironment & WaitEnvironment,
  report: Report,
): StepDraft {
  const path = `steps[${index}]`;
  const place = { stepId: spec.id };
  if (!stepIds.test(spec.id)) {
    const expected = "letters, digits and underscores, starting with a letter, at most 64 characters";
    const found = JSON.stringify(spec.id.slice(0, 80));
    const message = spec.id === "" ? "the step has no id" : `${found} can't be the id of a step`;
    report({ ...place, reason: "INVALID_NAME", path: `${path}.id`, field: "id", message, expected, found });
  }
  const waiting = isWaiting(spec) ? readWait(spec, path, chain, environment, report) : undefined;
  const contract = waiting?.contract ?? (spec.call === "" ? undefined : environment.contractFor(spec.call));
  if (contract === undefined && !isWaiting(spec)) {
    const known = splitMethod(spec.call) !== undefined;
    const message =
      spec.call === ""
        ? "the step calls nothing"
        : known
          ? `no action or chain ${spec.call} is registered`
          : `"${spec.call.slice(0, 120)}" is not a full method name such as acme.html.v1.HtmlActions/FetchPage`;
    const suggestion = nearestMethod(spec.call, environment) ?? "";
    const at = { path: `${path}.call`, field: "call", found: spec.call };
    report({ ...place, ...at, reason: "UNKNOWN_ACTION", message, suggestion });
  }
  const faults: SettingFault[] = [];
  const settings = stepSettings(spec, contract?.options, contract?.service ?? "", faults);
  for (const fault of faults) {
    report({ ...place, reason: "OUT_OF_RANGE", ...fault, path: `${path}.${fault.path}`, field: fault.path });
  }
  const known = contract !== undefined && waiting === undefined && environment.isChain !== undefined;
  const isChild = known && (launchesOf(spec.call) !== undefined || environment.isChain?.(spec.call) === true);
  checkCallee(spec, path, known ? (isChild ? "chain" : "action") : undefined, report);
  return { spec, index, path, contract, settings, waiting, isChild, needs: new Set() };
}

function scopeTypes(
  steps: readonly StepDraft[],
  contract: Contract | undefined,
  { publicUrl = "", pinned = false }: ChainEnvironment,
  errors?: readonly Registry[],
): ScopeTypes {
  const outputs = new Map<string, StepOutput>();
  const opaque = new Set<string>();
  for (const { spec, index, contract: callee, branch, escalation } of steps) {
    if (callee === undefined || !stepIds.test(spec.id)) opaque.add(`steps.${spec.id}`);
    else if (!outputs.has(spec.id)) {
      const { output, registry } = callee;
      outputs.set(spec.id, {
        id: spec.id,
        index,
        output,
        registry,
        skippable: mayEndWithout(spec) || branch !== undefined || escalation !== undefined,
        ...eachOutput(spec),
      });
    }
  }
  if (contract === undefined) opaque.add("input");
  // Any message will do in place of an input that is not known: nothing looks at it.
  const known = contract ?? steps.find((step) => step.contract !== undefined)?.contract;
  const input =
    known === undefined
      ? { desc: EmptySchema, registry: createRegistry() }
      : { desc: known.input, registry: known.registry };
  const callbacks = steps.filter(({ spec }) => spec.callback !== undefined && stepIds.test(spec.id));
  const ids = callbacks.map(({ spec }) => spec.id);
  const types = createScopeTypes(input, [...outputs.values()], opaque, { ids, publicUrl }, errors);
  return pinned ? { ...types, stored: true } : types;
}

function checkStep(step: StepDraft, steps: readonly StepDraft[], all: ScopeTypes, report: Report): void {
  const { spec, path } = step;
  const types = typesWithout(all, missedBy(step, steps));
  let guarded: ReadonlySet<string> = fellowsOf(step, steps, ({ spec: other }) => other.when !== "");
  if (spec.when !== "") {
    const place = { path: `${path}.when`, stepId: spec.id, field: "when" };
    const condition = checkBool({ types, guarded, self: spec.id }, spec.when, place, report);
    if (condition !== undefined) {
      step.condition = condition;
      guarded = new Set([...guarded, ...guardsOf(condition.ast, true)]);
      for (const read of condition.reading.steps) step.needs.add(read);
    }
  }
  for (const [n, id] of spec.needs.entries()) {
    const needed = steps.find((other) => other.spec.id === id);
    if (needed !== undefined) step.needs.add(needed.index);
    else {
      const ids = steps.map((other) => other.spec.id);
      const suggestion = nearestName(id, ids) ?? "";
      const message = `there is no step "${id.slice(0, 80)}"`;
      const at = { path: `${path}.needs[${n}]`, stepId: spec.id, field: "needs", found: id };
      report({ ...at, reason: "UNKNOWN_STEP", message, suggestion });
    }
  }
  checkJoin(step, report);
  const each = checkEach(step, types, guarded, report);
  if (each) step.each = each;
  // What is wrong with the items would be reported again for each use of them.
  if (step.contract === undefined || (spec.each && !each)) return;
  step.repeat = checkRepeat(step, types, guarded, report);
  for (const read of step.repeat?.until.reading.steps ?? []) if (read !== step.index) step.needs.add(read);
  if (spec.switch !== undefined) {
    step.cases = checkCases(step, types, guarded, report);
    step.input = { sources: [], reads: new Set(step.cases?.flatMap(({ reading }) => [...reading.steps])) };
    for (const read of step.input.reads) step.needs.add(read);
    return;
  }
  const mapping = {
    target: step.contract.input,
    fields: step.waiting?.fields ?? spec.input,
    path: step.waiting ? `${path}.${step.waiting.setting}` : `${path}.input`,
    stepId: spec.id,
    types: each?.types ?? types,
    guarded,
    self: spec.id,
    pathOf: step.waiting?.pathOf,
  };
  step.input = checkMapping(mapping, report);
  for (const read of step.input.reads) step.needs.add(read);
}

/** How the steps hang together. */
interface Shape {
  steps: readonly StepDraft[];
  users: readonly (readonly number[])[];
  races: ReadonlyMap<number, RacePlan>;
  around: AroundPlan;
}

function planStep(step: StepDraft, shape: Shape, types: ScopeTypes, options: { force: boolean }): StepPlan {
  const contract = step.contract!;
  const label = `step "${step.spec.id}"`;
  const { id } = step.spec;
  const place = {
    index: step.index,
    id,
    needs: [...step.needs].sort((a, b) => a - b),
    neededBy: shape.users[step.index]!,
  };
  const { cases, input } = step;
  const sources = input!.sources;
  const bind = cases
    ? bindChoice(cases, contract, types, { ...options, label })
    : compileBinding(contract.input, sources, step.each?.types ?? types, { ...options, label });
  const bindInput = checkedBinding(bind, contract, "input");
  const when = step.condition && compileCondition(step.condition, types, { ...options, label: `${label}, when` });
  const condition = step.branch ? branchCondition(step.branch, shape.steps[step.branch.of]!.contract!, when) : when;
  const join = joinPlan(step, shape.steps);
  const race = shape.races.get(step.index);
  const base = {
    ...stepBase(contract, step.isChild ? childSettings(step.spec, step.settings) : step.settings, place),
    ...(step.isChild ? { child: childPlan(step.spec) } : {}),
    ...(step.waiting ? { wait: step.waiting.plan } : {}),
  };
  const item = step.each && { levels: step.each.levels, heavy: isHeavy(sources), bindInput };
  return {
    ...(item ? { ...planFanOut(base, item, shape.around, { ...options, label }), ...place } : { ...base, bindInput }),
    ...(condition ? { condition } : {}),
    ...(join ? { join } : {}),
    ...(race ? { race } : {}),
    ...(step.escalation ? { escalation: step.escalation } : {}),
    ...(step.repeat ? { repeat: repeatPlan(step.repeat, types, label, options.force) } : {}),
  };
}

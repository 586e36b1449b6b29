/**
 * Steps that wait instead of calling: what they wait for, checked, and a contract of their own.
 *
 * Such a step has no rpc that somebody registered, so it gets one: its input holds what its expressions make (so a run shows it like any
 * other step's), its output what ends the wait brings. The contract is stored with the chain's version and pinned by it, as a callee's is.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type { Expression, StepSpec } from "@taskmesh/proto";
import type { AssignmentTerms, EscalationPlan, WaitPlan } from "../engine/plan.js";
import type { ChainEnvironment } from "./compile-chain.js";
import { escalationPath, namesAt, readEscalations } from "./compile-escalation.js";
import type { Report } from "./compile-message.js";
import { type AnsweredSignal, responseContract, responseOf } from "./compile-respond.js";
import type { Contract } from "./contract.js";
import { declareContract } from "./declare.js";

/** A step that waits, as far as it does not depend on the types of others. */
export interface WaitingStep {
  /** Its setting in the step, "wait". */
  setting: string;
  contract: Contract;
  /** Field of the contract's input to its value. */
  fields: Readonly<Record<string, Expression>>;
  plan: WaitPlan;
  /** Where a field of the contract's input is written in the setting. */
  pathOf?: ((field: string) => string) | undefined;
  /** What is to be stored with the chain; absent: the contract is the chain's own. */
  declared?: Contract;
}

/** What else of the chain steps that wait are about. */
export interface WaitEnvironment {
  answered: ReadonlyMap<string, AnsweredSignal>;
}

/** The one thing that a step does instead of calling, by the name of its setting. */
interface Kind {
  setting: string;
  /** Name under which several steps may have one contract. */
  shared?: string;
  /** Settings that mean nothing beside it. */
  refused: readonly (keyof typeof settingNames)[];
  /** Types of the contract's two sides. */
  input: Readonly<Record<string, string>>;
  output: Readonly<Record<string, string>>;
  fields: Readonly<Record<string, Expression>>;
  plan: (contract: Contract) => WaitPlan;
  pathOf?: (field: string) => string;
  /** It puts out the chain's own output. */
  answersCaller?: true;
}

/** Settings of a step that are about calls and attempts. */
const settingNames = {
  retry: "retry",
  scheduleToStart: "schedule_to_start",
  startToClose: "start_to_close",
  heartbeat: "heartbeat",
  scheduleToClose: "schedule_to_close",
} as const;

const attemptSettings = ["retry", "scheduleToStart", "startToClose", "heartbeat"] as const;

/** Whether the step does something else than to call. */
export const isWaiting = (spec: StepSpec): boolean =>
  spec.wait !== undefined ||
  spec.signal !== undefined ||
  spec.callback !== undefined ||
  spec.switch !== undefined ||
  spec.respond !== undefined ||
  spec.human !== undefined;

/** The package of the contracts that steps of a chain declare: that of the chain's own service, which nobody else may declare. */
const packageOf = (chain: string): string => `${chain.replace("/", ".")}.`;

/** Whether a step of the chain declares the contract, rather than a worker. */
export const isDeclaredBy = (chain: string, method: string): boolean =>
  method.startsWith(`${packageOf(chain)}Steps/`) || method.startsWith(`${packageOf(chain)}Signals/`);

/** Checks a step that waits; undefined, and problems, if something about it is wrong. */
export function readWait(
  spec: StepSpec,
  path: string,
  chain: string,
  environment: ChainEnvironment & WaitEnvironment,
  report: Report,
): WaitingStep | undefined {
  const kind = kindOf(spec, path, environment, report);
  if (kind === undefined) return undefined;
  if (kind.answersCaller) {
    const own = environment.contractFor(chain);
    const { setting, fields, pathOf } = kind;
    return own && { setting, fields, contract: responseContract(own), plan: kind.plan(own), pathOf };
  }
  const method = `${packageOf(chain)}${kind.shared === undefined ? `Steps/${spec.id}` : `Signals/${kind.shared}`}`;
  const previous = environment.contractFor(method);
  if (environment.pinned && previous !== undefined) return waitingStep(kind, previous);
  const { input, output } = kind;
  const { contract, problems } = declareContract(
    { name: method, input, output },
    { previous, resolveType: environment.resolveType, allowReserved: environment.allowReserved ?? false },
  );
  for (const problem of problems) {
    const field = `${kind.setting}.${problem.path}`;
    report({ ...problem, path: `${path}.${field}`, stepId: spec.id, field });
  }
  return contract && waitingStep(kind, contract);
}

/** The step by its own contract. An answer is what goes in and what comes out. */
function waitingStep({ setting, fields, plan, pathOf }: Kind, declared: Contract): WaitingStep {
  const contract = setting === "respond" ? responseContract(declared) : declared;
  return { setting, fields, contract, declared, plan: plan(contract), pathOf };
}

function kindOf(spec: StepSpec, path: string, { answered }: WaitEnvironment, report: Report): Kind | undefined {
  const timed = [timerOf(spec, path, report), signalOf(spec, path, report), callbackOf(spec)];
  const kinds = [...timed, switchOf(spec), humanOf(spec, path, report), respondOf(spec, path, answered, report)];
  const kind = kinds.find((one) => one !== undefined);
  if (kind === undefined) return undefined;
  const wrong = (field: string, message: string): void =>
    report({ reason: "CONFLICT", path: `${path}.${field}`, stepId: spec.id, field, message });
  const others = ["call", "wait", "signal", "callback", "switch", "human", "respond"] as const;
  for (const other of others.filter((name) => name !== kind.setting && spec[name]))
    wrong(other, `the step has "${kind.setting}" and "${other}"; it does one thing only`);
  const set: string[] = kind.refused.filter((name) => spec[name] !== undefined).map((name) => settingNames[name]);
  if (Object.keys(spec.input).length > 0) set.push("input");
  if (spec.taskQueue !== "") set.push("task_queue");
  if (spec.priority !== 0) set.push("priority");
  for (const name of set) wrong(name, `"${name}" means nothing beside "${kind.setting}": no worker runs the step`);
  return kind;
}

function timerOf({ id, wait }: StepSpec, path: string, report: Report): Kind | undefined {
  if (wait === undefined) return undefined;
  const { duration, until } = wait;
  if ((duration === undefined) === (until === undefined)) {
    const message = duration
      ? '"duration" and "until" can\'t both be set'
      : 'the wait has no end: give it a "duration" or "until"';
    const expected = "either duration or until";
    report({ reason: "MISSING_VALUE", path: `${path}.wait`, stepId: id, field: "wait", message, expected });
    return undefined;
  }
  return {
    setting: "wait",
    refused: [...attemptSettings, "scheduleToClose"],
    input: { duration: "google.protobuf.Duration", until: "google.protobuf.Timestamp" },
    output: {},
    fields: { ...(duration ? { duration } : {}), ...(until ? { until } : {}) },
    plan: (contract) => ({ kind: "timer", endsAtMs: (input, readyAtMs) => timerEndsAtMs(contract, input, readyAtMs) }),
  };
}

function switchOf(spec: StepSpec): Kind | undefined {
  if (spec.switch === undefined) return undefined;
  return {
    setting: "switch",
    refused: [...attemptSettings, "scheduleToClose"],
    input: { case: "int32" },
    output: { case: "int32" },
    // Made of its cases, not of expressions of fields.
    fields: {},
    plan: () => ({ kind: "choice" }),
  };
}

const names = /^[A-Za-z][A-Za-z0-9_]{0,63}$/;

function signalOf({ id, signal }: StepSpec, path: string, report: Report): Kind | undefined {
  if (signal === undefined) return undefined;
  const name = signal.name || id;
  if (!names.test(name)) {
    const place = { path: `${path}.signal.name`, stepId: id, field: "signal.name" };
    const expected = "letters, digits and underscores, starting with a letter, at most 64 characters";
    const message = `${JSON.stringify(name.slice(0, 80))} can't be the name of a signal`;
    report({ ...place, reason: "INVALID_NAME", message, expected });
    return undefined;
  }
  return {
    setting: "signal",
    shared: name,
    refused: attemptSettings,
    input: {},
    output: inOrder(signal.output),
    fields: {},
    plan: () => ({
      kind: "signal",
      mailbox: signalMailbox(name),
      ...(Object.keys(signal.answer).length > 0 ? { answered: true } : {}),
    }),
  };
}

function callbackOf({ id, callback }: StepSpec): Kind | undefined {
  if (callback === undefined) return undefined;
  return {
    setting: "callback",
    refused: attemptSettings,
    input: {},
    output: inOrder(callback.output),
    fields: {},
    plan: () => ({ kind: "callback", mailbox: `callback:${id}` }),
  };
}

function respondOf(
  spec: StepSpec,
  path: string,
  answered: ReadonlyMap<string, AnsweredSignal>,
  report: Report,
): Kind | undefined {
  const response = responseOf(spec, path, answered, report);
  if (response === undefined) return undefined;
  const { to, fields } = response;
  return {
    setting: "respond",
    refused: [...attemptSettings, "scheduleToClose"],
    input: {},
    output: inOrder(to?.types ?? {}),
    fields,
    plan: () => ({ kind: "respond", ...(to ? { to: to.index } : {}) }),
    pathOf: (field) => `output.${field}`,
    ...(to ? {} : { answersCaller: true }),
  };
}

function humanOf(spec: StepSpec, path: string, report: Report): Kind | undefined {
  const { human } = spec;
  if (human === undefined) return undefined;
  const { title, instructions, assignees, groups } = human;
  const escalations = readEscalations(spec, path, report);
  const given = Object.entries({ title, instructions, assignees, groups, ...escalations.fields });
  const input = { title: "string", instructions: "string", assignees: "repeated string", groups: "repeated string" };
  return {
    setting: "human",
    refused: attemptSettings,
    input: { ...input, ...escalations.types },
    output: inOrder(human.output),
    fields: Object.fromEntries(given.filter((entry): entry is [string, Expression] => entry[1] !== undefined)),
    plan: (contract) => ({
      kind: "human",
      read: (bytes, level) => readTerms(contract, bytes, escalations.plans, level),
      ...(escalations.plans.length > 0 ? { escalations: escalations.plans } : {}),
    }),
    pathOf: escalationPath,
  };
}

/** Bounds of what an inbox shows; what is longer is cut, since a person still has to see it. */
const termsMax = { title: 500, instructions: 20_000, names: 200, nameChars: 128 };

function readTerms(
  contract: Contract,
  input: Uint8Array,
  escalations: readonly EscalationPlan[],
  level: number,
): AssignmentTerms {
  const message = fromBinary(contract.input, input) as unknown as Record<string, unknown>;
  const { assignees, groups } = namesAt(message, escalations, level);
  // NUL can't be stored.
  const text = (value: unknown, max: number): string =>
    Array.from(String(value).replaceAll("\u0000", "")).slice(0, max).join("");
  const names = (value: unknown): string[] =>
    (value as unknown[]).slice(0, termsMax.names).map((name) => text(name, termsMax.nameChars));
  return {
    title: text(message["title"], termsMax.title),
    instructions: text(message["instructions"], termsMax.instructions),
    assignees: names(assignees),
    groups: names(groups),
    ...(level > 0 ? { escalated: level } : {}),
  };
}

/** Maps of messages have no order: numbers are given by name, so that equal declarations are equal contracts. */
const inOrder = (fields: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(Object.entries(fields).sort(([a], [b]) => (a < b ? -1 : 1)));

/** Where signals of this name go. */
export const signalMailbox = (name: string): string => `signal:${name}`;

/** Steps that take messages of one name from one mailbox must agree on what a message is. */
export function refuseDifferentSignals(
  steps: readonly { spec: StepSpec; path: string; contract: Contract | undefined }[],
  report: Report,
): void {
  const first = new Map<string, { id: string; contract: Contract; answer: string }>();
  for (const { spec, path, contract } of steps) {
    if (spec.signal === undefined || contract === undefined) continue;
    const other = first.get(contract.method);
    if (other === undefined)
      first.set(contract.method, { id: spec.id, contract, answer: JSON.stringify(inOrder(spec.signal.answer)) });
    else if (other.contract.fingerprint !== contract.fingerprint) {
      const message = `step "${other.id}" waits for the same signal with another type; give both the same output, or different names`;
      const place = { path: `${path}.signal.output`, stepId: spec.id, field: "signal.output" };
      report({ ...place, reason: "CONFLICT", message });
    } else if (JSON.stringify(inOrder(spec.signal.answer)) !== other.answer) {
      const message = `step "${other.id}" answers the same signal with another type; give both the same answer, or different names`;
      const place = { path: `${path}.signal.answer`, stepId: spec.id, field: "signal.answer" };
      report({ ...place, reason: "CONFLICT", message });
    }
  }
}

/** Rounded up, so that no timer fires early; an input without a value (its source was skipped) waits for nothing. */
function timerEndsAtMs(contract: Contract, input: Uint8Array, readyAtMs: number): number {
  const message = reflect(contract.input, fromBinary(contract.input, input));
  const read = (name: string): Duration | Timestamp | undefined => {
    const field = contract.input.field[name];
    if (field === undefined || !message.isSet(field)) return undefined;
    return (message.get(field) as unknown as { message: Duration | Timestamp }).message;
  };
  const ms = ({ seconds, nanos }: Duration | Timestamp): number => Math.ceil(Number(seconds) * 1_000 + nanos / 1e6);
  const until = read("until");
  if (until !== undefined) return Math.max(readyAtMs, ms(until));
  const duration = read("duration");
  return duration === undefined ? readyAtMs : readyAtMs + Math.max(0, ms(duration));
}

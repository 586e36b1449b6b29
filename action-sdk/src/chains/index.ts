/**
 * Chains in TypeScript: the same ChainSpec that YAML gives, with the types of the contracts checked while it is written.
 *
 *   export const report = chain("acme.pages.v1.Pages/Report",
 *     { input: { url: "string" }, output: { words: "int32" } },
 *     ({ input, step }) => {
 *       const fetch = step("fetch", HttpActionsService.request, { method: "GET", url: input.url });
 *       const score = step("score", PageActionsService.score, { text: fetch.output.text });
 *       return { words: score.output.words };
 *     });
 *
 * The function runs once, when the module is loaded. References (`input.url`, `fetch.output.text`) are paths, not values: what is to be computed at run
 * time is written with `cel`.
 */
import type { JsonObject } from "@bufbuild/protobuf";
import type { ChainSpec } from "@taskmesh/proto";
import { chainSpecFromJson } from "@taskmesh/runtime";
import type { MethodEntry } from "../define.js";
import { expressionsJson, present, type Time, timeJson } from "./document.js";
import { type Expression, knownOf, reference } from "./expression.js";
import type { Case, EachGiven, EachLimits, SeenFailure, Undo, UndoOptions } from "./flow.js";
import {
  type CallbackStep,
  type CallOptions,
  type Escalation,
  type SignalStep,
  type Step,
  type StepOptions,
  Steps,
  type WaitOptions,
} from "./steps.js";
import type { FieldTypes, Given, GivenFields, MessageOf, Ref } from "./types.js";

export type { Retry, Time } from "./document.js";
export { cel, type Expression } from "./expression.js";
export type { Case, EachLimits, FailureRule, Join, Repeat, SeenFailure, Undo, UndoOptions } from "./flow.js";
export type {
  CallbackStep,
  CallOptions,
  Escalation,
  SignalStep,
  Step,
  StepOptions,
  WaitOptions,
} from "./steps.js";
export type { FieldTypes, Given, GivenFields, MessageOf, Ref, UntypedRef } from "./types.js";

/** What a step may call: a method of generated code, an action, or another chain. */
export type Callee<Input, Output> =
  | Pick<MethodEntry<Input, Output>, "path" | "requestSerialize" | "responseDeserialize">
  | { readonly entry: MethodEntry<Input, Output> }
  | Chain<Input, Output>;

/** What the function that builds a chain works with. */
export interface ChainScope<Input, Output = unknown> {
  /** The chain's input. */
  readonly input: Ref<Input>;
  /** What is known of the run itself. */
  readonly run: Ref<{ id: string; namespace: string; method: string; acceptedAt: Date }>;
  /** Adds a step that calls something. */
  step<In, Out>(
    id: string,
    callee: Callee<In, Out>,
    input: GivenFields<In>,
    options?: CallOptions<NoInfer<Out>>,
  ): Step<Out>;
  /** Adds a fan-out within a fan-out: for each item of a list, one call for each item of a list that is read from it. */
  each<In, Out, Outer, Item>(
    id: string,
    callee: Callee<In, Out>,
    over: EachLimits & {
      items: Expression<readonly Outer[]>;
      each: EachLimits & {
        items: (outer: { value: Ref<Outer>; index: Ref<number> }) => Expression<readonly Item[]>;
      };
    },
    input: (item: {
      value: Ref<Item>;
      index: Ref<number>;
      outer: { value: Ref<Outer>; index: Ref<number> };
    }) => GivenFields<In>,
    options?: Omit<ItemOptions, "compensate">,
  ): Step<Out[][]>;
  /** Adds a fan-out: one call for each item of a list, whose outputs are the step's, in the items' order. */
  each<In, Out, Item>(
    id: string,
    callee: Callee<In, Out>,
    over: EachLimits & { items: Expression<readonly Item[]> },
    input: (item: { value: Ref<Item>; index: Ref<number> }) => GivenFields<In>,
    options?: ItemOptions<NoInfer<Out>>,
  ): Step<Out[]>;
  /** Adds a fan-out over a map: one call for each of its entries, whose outputs are the step's, by key. */
  each<In, Out, Item>(
    id: string,
    callee: Callee<In, Out>,
    over: EachLimits & { entries: Expression<{ [key: string]: Item }> },
    input: (item: { value: Ref<Item>; key: Ref<string> }) => GivenFields<In>,
    options?: ItemOptions<NoInfer<Out>>,
  ): Step<{ [key: string]: Out }>;
  /** Adds a form for each item of a list: what people fill in is the step's output, in the items' order. */
  eachHuman<const F extends FieldTypes, Item>(
    id: string,
    over: EachLimits & { items: Expression<readonly Item[]> },
    form: (item: { value: Ref<Item>; index: Ref<number> }) => Form,
    fields: F,
    options?: WaitOptions<never>,
  ): Step<MessageOf<F>[]>;
  /** Adds a wait for each item of a list. */
  eachWait<Item>(
    id: string,
    over: EachLimits & { items: Expression<readonly Item[]> },
    until: (item: { value: Ref<Item>; index: Ref<number> }) => Until,
    options?: StepOptions<never>,
  ): Step<Record<never, never>[]>;
  /**
   * Adds a `switch`: the first case whose condition holds is taken, else `otherwise`. The steps that a branch's function adds are the branch: they
   * run only if it is taken.
   */
  choose(id: string, cases: readonly Case[], otherwise?: () => void, options?: StepOptions): Step<{ case: number }>;
  /** Adds a step that lets time pass: for a length (`{ duration: "90s" }`, or an expression that makes one) or until an instant. */
  wait(id: string, until: Until, options?: StepOptions): Step<Record<never, never>>;
  /** Adds a step that waits for a message from outside with these fields, which is what it puts out. */
  signal<const F extends FieldTypes, const A extends FieldTypes = Record<never, never>>(
    id: string,
    fields: F,
    options?: WaitOptions<MessageOf<F>> & {
      /** Of several steps with one name each takes one message; default: the step's id. */
      name?: string;
      /** What its sender may wait for; a step that `answer` adds gives it. */
      answer?: A;
    },
  ): SignalStep<MessageOf<F>, MessageOf<A>>;
  /** Adds a step that answers whoever sent what a signal step took, and lets the run go on. */
  answer<A>(
    id: string,
    to: Pick<SignalStep<unknown, A>, "id" | "answer">,
    output: GivenFields<NoInfer<A>>,
    options?: StepOptions,
  ): Step<A>;
  /** Adds a step that answers the run's caller with the chain's output, and lets the run go on. The function may then give no output. */
  respond(id: string, output: GivenFields<Output>, options?: StepOptions): Step<Output>;
  /** Adds a step that waits for a person to fill in a form with these fields, which is what it puts out. */
  human<const F extends FieldTypes>(
    id: string,
    form: Form,
    fields: F,
    options?: WaitOptions<MessageOf<F>>,
  ): Step<MessageOf<F>>;
  /** Adds a step that waits for what is posted to its URL, once. */
  callback<const F extends FieldTypes>(
    id: string,
    fields: F,
    options?: WaitOptions<MessageOf<F>>,
  ): CallbackStep<MessageOf<F>>;
  /**
   * Adds a step of any kind, as the JSON of a StepSpec: `add<Approval>({ id: "approve", human: { … } })`. Expressions may stand wherever it has
   * one; for a step whose setting is CEL text itself (`when`), they become that text.
   */
  add<Out = never>(step: { readonly id: string; readonly [setting: string]: unknown }): Step<Out>;
}

/** What is asked of a person. */
export interface Form {
  /** What is asked, in one line. */
  title: Given<string>;
  instructions?: Given<string>;
  /** Who may do it; without assignees and groups everybody. */
  assignees?: Given<readonly string[]>;
  groups?: Given<readonly string[]>;
  /** What happens while nobody completes it; not of a fan-out. */
  escalations?: readonly Escalation[];
}

/** When a wait ends: after a length, or at an instant. */
export type Until = { duration: Time | Expression<unknown> } | { until: Expression<unknown> };

/**
 * Settings of a fan-out: those of a call, where rules give no output, since the step's is that of its items. An undo is one of an item, and reads
 * what that item has put out.
 */
export type ItemOptions<Out = never> = Omit<CallOptions<never>, "repeat" | "compensate"> & { compensate?: Undo<Out> };

/** Settings of a chain. */
export interface ChainSettings {
  description?: string;
  /** Time from acceptance until a run expires; default 24 h. */
  runTimeout?: Time;
  /** From when `runTimeout` counts; default ACCEPTANCE. */
  runTimeoutFrom?: "ACCEPTANCE" | "FIRST_START";
  /** What happens when a step fails and nothing catches it; default FAIL. */
  onUnhandled?: "FAIL" | "BREAK";
  /** How long a BROKEN run waits for an operator; default 7 days. Only with BREAK. */
  brokenTtl?: Time;
  /** Names in the .proto file of properties whose name in generated code does not tell: `{ max2x: "max_2x" }`. */
  names?: Readonly<Record<string, string>>;
}

/** A chain that was built: a ChainSpec, as a message and as canonical JSON. */
export interface Chain<Input, Output> {
  /** Full method name. */
  readonly name: string;
  readonly spec: ChainSpec;
  /** What YAML and `taskmesh chains apply` give as well. */
  readonly json: JsonObject;
  /** Never there: carries the types of the contract. */
  readonly types?: { input: Input; output: Output };
}

/** Builds a chain that implements a registered rpc. Throws a TypeError that names what is wrong. */
export function chain<Input, Output>(
  contract: Callee<Input, Output>,
  settings: ChainSettings,
  build: (scope: ChainScope<Input, Output>) => GivenFields<Output>,
): Chain<Input, Output>;
/** Builds a chain and declares its contract: fields by their names in the .proto language, with their types. */
export function chain<const I extends FieldTypes, const O extends FieldTypes>(
  name: string,
  settings: ChainSettings & { input: I; output: O },
  build: (scope: ChainScope<MessageOf<I>, MessageOf<O>>) => GivenFields<MessageOf<O>>,
): Chain<MessageOf<I>, MessageOf<O>>;
export function chain(
  contract: string | Named,
  settings: ChainSettings & { input?: FieldTypes; output?: FieldTypes },
  // biome-ignore lint/suspicious/noExplicitAny: what the overloads say; here nothing is known of the messages.
  build: (scope: ChainScope<any, any>) => object,
  // biome-ignore lint/suspicious/noExplicitAny: likewise.
): Chain<any, any> {
  const {
    names = {},
    input = {},
    output = {},
    description,
    runTimeout,
    runTimeoutFrom,
    onUnhandled,
    brokenTtl,
  } = settings;
  const time = (setting: string, value: Time | undefined) =>
    value === undefined ? undefined : timeJson(setting, value);
  const nameOf = (property: string): string => names[property] ?? snake(property);
  const name = typeof contract === "string" ? contract : methodOf(contract);
  const steps = new Steps(nameOf);
  const result = build({
    input: reference("input", nameOf) as never,
    run: reference("run", nameOf) as never,
    step: (id, callee, given, options = {}) => steps.call(id, methodOf(callee), given, options) as never,
    // The overloads differ in what the items are read by.
    each: ((id: string, callee: Named, over: EachGiven, given: () => object, options: ItemOptions = {}) =>
      steps.each(id, methodOf(callee), over, given, options)) as never,
    eachHuman: (id, over, form, fields, options = {}) =>
      steps.eachWaiting(id, over, (item) => steps.human(id, form(item), fields, options as WaitOptions)) as never,
    eachWait: (id, over, until, options = {}) =>
      steps.eachWaiting(id, over, (item) => steps.wait(id, until(item), options as StepOptions)) as never,
    choose: (id, cases, otherwise, options = {}) => steps.choose(id, cases, otherwise, options) as never,
    human: (id, form, fields, options = {}) => steps.human(id, form, fields, options as WaitOptions) as never,
    wait: (id, until, options = {}) => steps.wait(id, until, options) as never,
    signal: (id, fields, options = {}) => steps.signal(id, fields, options) as never,
    answer: (id, to, output, options = {}) => steps.respond(id, to.id, output, options) as never,
    respond: (id, output, options = {}) => steps.respond(id, "", output, options) as never,
    callback: (id, fields, options = {}) => steps.callback(id, fields, options) as never,
    add: (step) => steps.add(step) as never,
  });
  const declared = typeof contract === "string" ? { input: { ...input }, output: { ...output } } : {};
  const json = present({
    contract: { name, ...declared },
    runTimeout: time("runTimeout", runTimeout),
    runTimeoutFrom: runTimeoutFrom && `RUN_TIMEOUT_FROM_${runTimeoutFrom}`,
    steps: steps.list,
    output: expressionsJson("output", { ...result }, nameOf),
    description,
    onUnhandled: onUnhandled && `ON_UNHANDLED_${onUnhandled}`,
    brokenTtl: time("brokenTtl", brokenTtl),
  });
  return Object.freeze({ name, spec: specOf(name, json), json });
}

/**
 * How a step is undone: `compensate: undo(TripActionsService.cancelHotel, (output, error) => ({ code: output.code, why: error.reason }))`.
 * The input is made of the step's output and of why the run ends, besides what the step itself may read.
 */
export function undo<In, Out>(
  callee: Callee<In, unknown>,
  input: (output: Ref<Out>, error: Ref<SeenFailure>) => GivenFields<In>,
  options: UndoOptions = {},
): Undo<Out> {
  return { method: methodOf(callee as Named), input, options };
}

/** Whether a value, such as an export of a module, is a chain that was built. */
export function isChain(value: unknown): value is Chain<unknown, unknown> {
  if (typeof value !== "object" || value === null || knownOf(value)) return false;
  const { name, spec, json } = value as Partial<Chain<unknown, unknown>>;
  return typeof name === "string" && Array.isArray(spec?.steps) && typeof json === "object";
}

function specOf(name: string, json: JsonObject): ChainSpec {
  try {
    return chainSpecFromJson(json);
  } catch (error) {
    throw new TypeError(`chain ${name}: ${(error as Error).message}`, { cause: error });
  }
}

/** A callee, as far as its name goes. */
type Named = { readonly path: string } | { readonly entry: { readonly path: string } } | { readonly name: string };

function methodOf(callee: Named): string {
  if ("name" in callee) return callee.name;
  const { path } = "entry" in callee ? callee.entry : callee;
  return path.replace(/^\//, "");
}

const snake = (property: string): string => property.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

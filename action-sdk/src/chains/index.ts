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
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { ChainSpec } from "@taskmesh/proto";
import { chainSpecFromJson } from "@taskmesh/runtime";
import type { MethodEntry } from "../define.js";
import {
  documentJson,
  expressionsJson,
  present,
  type Retry,
  refuse,
  retryJson,
  type Time,
  timeJson,
} from "./document.js";
import { type Expression, knownOf, reference } from "./expression.js";
import type { FieldTypes, GivenFields, MessageOf, Ref } from "./types.js";

export type { Retry, Time } from "./document.js";
export { cel, type Expression } from "./expression.js";
export type { FieldTypes, Given, GivenFields, MessageOf, Ref, UntypedRef } from "./types.js";

/** What a step may call: a method of generated code, an action, or another chain. */
export type Callee<Input, Output> =
  | Pick<MethodEntry<Input, Output>, "path" | "requestSerialize" | "responseDeserialize">
  | { readonly entry: MethodEntry<Input, Output> }
  | Chain<Input, Output>;

/** A step that was added; `output` refers to what it puts out. */
export interface Step<Output> {
  readonly id: string;
  readonly output: Ref<Output>;
}

/** Settings of a step; see the ChainSpec for what each means. */
export interface StepOptions {
  /** The step is skipped if this is false. */
  when?: Expression<boolean>;
  /** Steps to wait for besides those that the expressions read. */
  needs?: readonly Pick<Step<unknown>, "id">[];
  retry?: Retry;
  scheduleToStart?: Time;
  startToClose?: Time;
  heartbeat?: Time;
  scheduleToClose?: Time;
  taskQueue?: string;
  /** Higher is sooner, -100 to 100. */
  priority?: number;
}

/** What the function that builds a chain works with. */
export interface ChainScope<Input> {
  /** The chain's input. */
  readonly input: Ref<Input>;
  /** What is known of the run itself. */
  readonly run: Ref<{ id: string; namespace: string; method: string; acceptedAt: Date }>;
  /** Adds a step that calls something. */
  step<In, Out>(id: string, callee: Callee<In, Out>, input: GivenFields<In>, options?: StepOptions): Step<Out>;
  /**
   * Adds a step of any kind, as the JSON of a StepSpec: `add<Approval>({ id: "approve", human: { … } })`. Expressions may stand wherever it has
   * one; for a step whose setting is CEL text itself (`when`), they become that text.
   */
  add<Out = never>(step: { readonly id: string; readonly [setting: string]: unknown }): Step<Out>;
}

/** Settings of a chain. */
export interface ChainSettings {
  description?: string;
  /** Time from acceptance until a run expires; default 24 h. */
  runTimeout?: Time;
  onUnhandled?: "FAIL" | "BREAK";
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
  build: (scope: ChainScope<Input>) => GivenFields<Output>,
): Chain<Input, Output>;
/** Builds a chain and declares its contract: fields by their names in the .proto language, with their types. */
export function chain<const I extends FieldTypes, const O extends FieldTypes>(
  name: string,
  settings: ChainSettings & { input: I; output: O },
  build: (scope: ChainScope<MessageOf<I>>) => GivenFields<MessageOf<O>>,
): Chain<MessageOf<I>, MessageOf<O>>;
export function chain(
  contract: string | Named,
  settings: ChainSettings & { input?: FieldTypes; output?: FieldTypes },
  // biome-ignore lint/suspicious/noExplicitAny: what the overloads say; here nothing is known of the messages.
  build: (scope: ChainScope<any>) => object,
  // biome-ignore lint/suspicious/noExplicitAny: likewise.
): Chain<any, any> {
  const { names = {}, input = {}, output = {}, description, runTimeout, onUnhandled } = settings;
  const nameOf = (property: string): string => names[property] ?? snake(property);
  const name = typeof contract === "string" ? contract : methodOf(contract);
  const steps = new Steps(nameOf);
  const result = build({
    input: reference("input", nameOf) as never,
    run: reference("run", nameOf) as never,
    step: (id, callee, given, options = {}) => steps.call(id, methodOf(callee), given, options) as never,
    add: (step) => steps.add(step) as never,
  });
  const declared = typeof contract === "string" ? { input: { ...input }, output: { ...output } } : {};
  const json = present({
    contract: { name, ...declared },
    runTimeout: runTimeout === undefined ? undefined : timeJson("runTimeout", runTimeout),
    steps: steps.list,
    output: expressionsJson("output", { ...result }, nameOf),
    description,
    onUnhandled: onUnhandled && `ON_UNHANDLED_${onUnhandled}`,
  });
  return Object.freeze({ name, spec: specOf(name, json), json });
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

class Steps {
  readonly list: JsonObject[] = [];
  readonly #ids = new Set<string>();

  constructor(private readonly nameOf: (property: string) => string) {}

  call(id: string, method: string, input: object, options: StepOptions): Step<unknown> {
    const place = `step ${id}`;
    const time = (name: string, value: Time | undefined) =>
      value === undefined ? undefined : timeJson(`${place}.${name}`, value);
    const { when, needs, retry, taskQueue, priority } = options;
    const inputs = expressionsJson(`${place}.input`, { ...input }, this.nameOf);
    return this.#put(
      id,
      present({
        id,
        call: method,
        input: Object.keys(inputs).length > 0 ? inputs : undefined,
        when: when === undefined ? undefined : conditionText(place, when),
        needs: needs?.map((step) => step.id),
        retry: retry && retryJson(`${place}.retry`, retry),
        scheduleToStart: time("scheduleToStart", options.scheduleToStart),
        startToClose: time("startToClose", options.startToClose),
        heartbeat: time("heartbeat", options.heartbeat),
        scheduleToClose: time("scheduleToClose", options.scheduleToClose),
        taskQueue,
        priority,
      }),
    );
  }

  add(step: { readonly id: string; readonly [setting: string]: unknown }): Step<unknown> {
    const settings = Object.entries(step).map(([key, value]): [string, JsonValue] => {
      const condition = key === "when" ? knownOf(value) : undefined;
      return [key, condition ? condition.text : documentJson(`step ${step.id}.${key}`, value)];
    });
    return this.#put(step.id, Object.fromEntries(settings));
  }

  #put(id: string, json: JsonObject): Step<unknown> {
    if (!/^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(id))
      throw refuse(`step ${JSON.stringify(id)}`, "an id has letters, digits and underscores, and starts with a letter");
    if (this.#ids.has(id)) throw refuse(`step ${id}`, "there is a step of this id already");
    this.#ids.add(id);
    this.list.push(json);
    return { id, output: reference(`steps.${id}.output`, this.nameOf) as Ref<unknown> };
  }
}

function conditionText(place: string, when: Expression<boolean>): string {
  const known = knownOf(when);
  if (!known) throw refuse(`${place}.when`, "it is no expression; write it with cel`…`");
  return known.text;
}

/** A callee, as far as its name goes. */
type Named = { readonly path: string } | { readonly entry: { readonly path: string } } | { readonly name: string };

function methodOf(callee: Named): string {
  if ("name" in callee) return callee.name;
  const { path } = "entry" in callee ? callee.entry : callee;
  return path.replace(/^\//, "");
}

const snake = (property: string): string => property.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

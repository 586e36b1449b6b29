/** What a step does beyond calling: joins, rounds, fan-outs, rules for failures; each as its part of the JSON of a StepSpec. */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { expressionsJson, present, type Retry, refuse, retryJson, type Time, timeJson } from "./document.js";
import { type Expression, knownOf, reference } from "./expression.js";
import type { GivenFields, Ref } from "./types.js";

type NameOf = (property: string) => string;

/** What must have happened to the steps in `needs`: all are over (default); one succeeded; the same, and the others are cancelled. */
export type Join = "ALL" | "ANY" | "FIRST_SUCCESS";

/** Calls again until a condition over the output holds. */
export interface Repeat<Out> {
  until: (output: Ref<Out>) => Expression<boolean>;
  /** Time between two rounds; default 1 s. */
  delay?: Time;
  /** 1 to 1,000, default 100. */
  maxRounds?: number;
}

/** A failure, as rules read it. `details` are messages whose types only the mesh knows. */
export interface SeenFailure {
  reason: string;
  message: string;
  // biome-ignore lint/suspicious/noExplicitAny: see above.
  details: any;
}

/** What happens when the step has failed for good; the first rule that names the reason counts. */
export type FailureRule<Out> = {
  /** Reasons that it is for; default: any. */
  reasons?: readonly string[];
} & (
  | { /** The step stays without an output, as if it were skipped. */ continue: true; output?: never }
  | { /** The step succeeds with this. */ output: (error: Ref<SeenFailure>) => GivenFields<Out>; continue?: never }
);

/** How a step is undone, when its run does not succeed; made by `undo`. `Out` is what the step puts out. */
export interface Undo<Out> {
  readonly method: string;
  readonly input: (output: Ref<Out>, error: Ref<SeenFailure>) => object;
  readonly options: UndoOptions;
}

/** Settings of an undo. */
export interface UndoOptions {
  retry?: Retry;
  startToClose?: Time;
  /** Longest time over all attempts, however late the run is; default 24 h. */
  scheduleToClose?: Time;
  taskQueue?: string;
}

/** Limits of a fan-out. */
export interface EachLimits {
  /** Items under way at once, 1 to 1,000; default 500. */
  maxParallel?: number;
  /** Items that may fail without failing the step; with `toleratedShare` the larger of both counts. */
  toleratedFailures?: number;
  /** The same as a share of all items, 0 to 1. */
  toleratedShare?: number;
}

/** A case of a switch, and what adds the steps of its branch. */
export interface Case {
  when: Expression<boolean>;
  steps: () => void;
}

/** The text of a condition. */
export function conditionText(place: string, when: Expression<boolean>): string {
  const known = knownOf(when);
  if (!known) throw refuse(place, "it is no expression; write it with cel`…`");
  return known.text;
}

export function repeatJson<Out>(id: string, { until, delay, maxRounds }: Repeat<Out>, nameOf: NameOf): JsonObject {
  const place = `step ${id}.repeat`;
  const output = reference(`steps.${id}.output`, nameOf) as Ref<Out>;
  return present({
    until: conditionText(`${place}.until`, until(output)),
    delay: delay === undefined ? undefined : timeJson(`${place}.delay`, delay),
    maxRounds,
  });
}

export function rulesJson<Out>(id: string, rules: readonly FailureRule<Out>[], nameOf: NameOf): JsonValue[] {
  const error = reference("error", nameOf) as unknown as Ref<SeenFailure>;
  return rules.map(({ reasons, continue: goOn, output }, index) =>
    present({
      reasons: reasons && [...reasons],
      continue: goOn,
      output: output && expressionsJson(`step ${id}.onFailure[${index}].output`, { ...output(error) }, nameOf),
    }),
  );
}

/** `path`: of the output that is undone. */
export function undoJson<Out>(
  id: string,
  { method, input, options }: Undo<Out>,
  nameOf: NameOf,
  path = `steps.${id}.output`,
): JsonObject {
  const place = `step ${id}.compensate`;
  const output = reference(path, nameOf) as Ref<Out>;
  const error = reference("error", nameOf) as unknown as Ref<SeenFailure>;
  const time = (name: "startToClose" | "scheduleToClose") =>
    options[name] === undefined ? undefined : timeJson(`${place}.${name}`, options[name]);
  return present({
    call: method,
    input: expressionsJson(`${place}.input`, { ...input(output, error) }, nameOf),
    retry: options.retry && retryJson(`${place}.retry`, options.retry),
    startToClose: time("startToClose"),
    scheduleToClose: time("scheduleToClose"),
    taskQueue: options.taskQueue,
  });
}

/** What the items of a fan-out are read by. */
export const itemRefs = (nameOf: NameOf, path = "each") => {
  const at = (name: string) => reference(`${path}.${name}`, nameOf);
  return { value: at("value"), index: at("index"), key: at("key") };
};

/** What a fan-out goes over, as it is given. */
export type EachGiven = EachLimits & { items?: unknown; entries?: unknown; each?: EachGiven };

/** The fan-out within another one says what it goes over by a function of the item around it. */
export function eachJson(place: string, over: EachGiven, nameOf: NameOf): JsonObject {
  const text = (name: "items" | "entries"): string | undefined => {
    const given = over[name];
    if (given === undefined) return undefined;
    const known = knownOf(typeof given === "function" && !knownOf(given) ? given(itemRefs(nameOf)) : given);
    if (!known) throw refuse(`${place}.${name}`, "it is no expression; write it with cel`…`");
    return known.text;
  };
  const { maxParallel, toleratedFailures, toleratedShare, each } = over;
  const limits = { maxParallel, toleratedFailures, toleratedShare };
  const inner = each && eachJson(`${place}.each`, each, nameOf);
  return present({ items: text("items"), entries: text("entries"), ...limits, each: inner });
}

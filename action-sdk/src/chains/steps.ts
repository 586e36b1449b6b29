/** The steps of a chain while it is built, each as the JSON of a StepSpec. */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
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
import {
  type Case,
  conditionText,
  type EachGiven,
  eachJson,
  type FailureRule,
  itemRefs,
  type Join,
  type Repeat,
  repeatJson,
  rulesJson,
  type Undo,
  undoJson,
} from "./flow.js";
import type { FieldTypes, Given, Ref } from "./types.js";

/** A step that was added; `output` refers to what it puts out. */
export interface Step<Output> {
  readonly id: string;
  readonly output: Ref<Output>;
}

/** A step that waits for an answer; other steps hand out where it is to be posted. */
export interface CallbackStep<Output> extends Step<Output> {
  readonly url: Ref<string>;
  readonly token: Ref<string>;
}

/** A step that takes a signal; `Answer` is what its sender may wait for. */
export interface SignalStep<Output, Answer> extends Step<Output> {
  /** Never there: carries the type. */
  readonly answer?: Answer;
}

/** What happens while nobody completes an assignment. */
export interface Escalation {
  /** Since the step became ready. Each later than the one before. */
  after: Time;
  /** Who may do it from then on, in place of those before. */
  assignees?: Given<readonly string[]>;
  groups?: Given<readonly string[]>;
  /** Adds steps that begin then; they are skipped if the assignment is over before. */
  steps?: () => void;
}

/** Settings of every step; `Out` is what it puts out. */
export interface StepOptions<Out = unknown> {
  /** The step is skipped if this is false. */
  when?: Expression<boolean>;
  /** Steps to wait for besides those that the expressions read. */
  needs?: readonly Pick<Step<unknown>, "id">[];
  /** What must have happened to the steps in `needs`; default ALL. */
  join?: Join;
  /** What happens when the step has failed for good. */
  onFailure?: readonly FailureRule<Out>[];
}

/** Settings of a step that waits for somebody. */
export interface WaitOptions<Out = unknown> extends StepOptions<Out> {
  /** How long it waits; default: until the run's deadline. */
  scheduleToClose?: Time;
}

/** Settings of a step that calls; see the ChainSpec for what each means. */
export interface CallOptions<Out = unknown> extends StepOptions<Out> {
  /** Calls again until a condition over the output holds. */
  repeat?: Repeat<Out>;
  /** How the step is undone, when its run fails, expires or is cancelled after it. */
  compensate?: Undo<Out>;
  retry?: Retry;
  scheduleToStart?: Time;
  startToClose?: Time;
  heartbeat?: Time;
  scheduleToClose?: Time;
  taskQueue?: string;
  /** Higher is sooner, -100 to 100. */
  priority?: number;
  /** Of a call of a chain: what becomes of its run when the step lets go of it before its end; default CANCEL. */
  parentClose?: "CANCEL" | "ABANDON" | "WAIT";
}

export class Steps {
  readonly list: JsonObject[] = [];
  readonly #ids = new Set<string>();
  /** Steps that were added to the branch that is being written. */
  #branch: string[] | undefined;

  constructor(private readonly nameOf: (property: string) => string) {}

  call<Out>(
    id: string,
    method: string,
    input: object,
    options: CallOptions<Out>,
    more: JsonObject = {},
  ): Step<unknown> {
    const place = `step ${id}`;
    const time = (name: string, value: Time | undefined) =>
      value === undefined ? undefined : timeJson(`${place}.${name}`, value);
    const { retry, repeat, compensate, taskQueue, priority, parentClose } = options;
    const inputs = expressionsJson(`${place}.input`, { ...input }, this.nameOf);
    return this.#put(
      id,
      present({
        id,
        call: method,
        ...more,
        input: Object.keys(inputs).length > 0 ? inputs : undefined,
        ...this.#gateJson(id, options),
        repeat: repeat && repeatJson(id, repeat, this.nameOf),
        // Of a fan-out each item is undone by itself.
        compensate: compensate && undoJson(id, compensate, this.nameOf, more["each"] ? "each.output" : undefined),
        retry: retry && retryJson(`${place}.retry`, retry),
        scheduleToStart: time("scheduleToStart", options.scheduleToStart),
        startToClose: time("startToClose", options.startToClose),
        heartbeat: time("heartbeat", options.heartbeat),
        scheduleToClose: time("scheduleToClose", options.scheduleToClose),
        taskQueue,
        priority,
        parentClose: parentClose && `PARENT_CLOSE_${parentClose}`,
      }),
    );
  }

  each<Out>(
    id: string,
    method: string,
    over: EachGiven,
    input: (item: object) => object,
    options: CallOptions<Out>,
  ): Step<unknown> {
    return this.call(id, method, input(this.#item(over)), options, this.#each(id, over));
  }

  /** A form, or a wait, for each item. */
  eachWaiting(id: string, over: EachGiven, add: (item: never) => Step<unknown>): Step<unknown> {
    const step = add(this.#item(over) as never);
    Object.assign(this.list.at(-1)!, this.#each(id, over));
    return step;
  }

  #each(id: string, over: EachGiven): JsonObject {
    return { each: eachJson(`step ${id}.each`, over, this.nameOf) };
  }

  #item(over: EachGiven): object {
    const outer = over.each ? { outer: itemRefs(this.nameOf, "each.outer") } : {};
    return { ...itemRefs(this.nameOf), ...outer };
  }

  choose(id: string, cases: readonly Case[], otherwise: (() => void) | undefined, options: StepOptions): Step<unknown> {
    const place = `step ${id}.switch`;
    const json: JsonObject = {};
    const step = this.#put(id, Object.assign(json, { id }, this.#gateJson(id, options)));
    json["switch"] = present({
      cases: cases.map(({ when, steps }, index) => ({
        when: conditionText(`${place}.cases[${index}].when`, when),
        steps: this.#stepsOf(`${place}.cases[${index}]`, steps),
      })),
      otherwise: otherwise && this.#stepsOf(`${place}.otherwise`, otherwise),
    });
    return step;
  }

  human(
    id: string,
    { escalations, ...form }: { escalations?: readonly Escalation[] },
    fields: FieldTypes,
    options: WaitOptions,
  ): Step<unknown> {
    const place = `step ${id}.human`;
    const human: JsonObject = { ...expressionsJson(place, form, (name) => name), output: { ...fields } };
    const step = this.#put(id, present({ id, human, ...this.#waitJson(id, options) }));
    if (escalations) {
      human["escalations"] = escalations.map(({ after, steps, ...others }, index) => {
        const at = `${place}.escalations[${index}]`;
        const list = steps && this.#stepsOf(at, steps);
        return present({
          after: timeJson(`${at}.after`, after),
          ...expressionsJson(at, others, (name) => name),
          steps: list,
        });
      });
    }
    return step;
  }

  wait(id: string, until: { duration?: unknown; until?: unknown }, options: StepOptions): Step<unknown> {
    const place = `step ${id}.wait`;
    const { duration } = until;
    // A time is a literal of the mesh's own form; all else is an expression.
    const length = typeof duration === "string" ? { literal: timeJson(`${place}.duration`, duration) } : undefined;
    const given = length ? {} : expressionsJson(place, { ...until }, (name) => name);
    const wait = length ? { duration: length } : given;
    return this.#put(id, present({ id, wait, ...this.#gateJson(id, options) }));
  }

  signal(id: string, fields: FieldTypes, options: WaitOptions & { name?: string; answer?: FieldTypes }): Step<unknown> {
    const { name, answer } = options;
    const signal = present({ name, output: { ...fields }, answer: answer && { ...answer } });
    return this.#put(id, present({ id, signal, ...this.#waitJson(id, options) }));
  }

  respond(id: string, to: string, output: object, options: StepOptions): Step<unknown> {
    const respond = present({
      to: to === "" ? undefined : to,
      output: expressionsJson(`step ${id}.respond`, { ...output }, this.nameOf),
    });
    return this.#put(id, present({ id, respond, ...this.#gateJson(id, options) }));
  }

  callback(id: string, fields: FieldTypes, options: WaitOptions): CallbackStep<unknown> {
    const step = this.#put(id, present({ id, callback: { output: { ...fields } }, ...this.#waitJson(id, options) }));
    const at = (name: string) => reference(`callback.${id}.${name}`, this.nameOf) as Ref<string>;
    return { ...step, url: at("url"), token: at("token") };
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
    this.#branch?.push(id);
    return { id, output: reference(`steps.${id}.output`, this.nameOf) as Ref<unknown> };
  }

  /** The steps that `add` adds. Those of a switch within belong to that switch. */
  #stepsOf(place: string, add: () => unknown): string[] {
    const outer = this.#branch;
    const branch: string[] = [];
    this.#branch = branch;
    const answer = add();
    this.#branch = outer;
    if (answer instanceof Promise) throw refuse(place, "the function that adds the steps must not be async");
    return branch;
  }

  /** What lets a step begin, and what becomes of its failure. */
  #gateJson<Out>(id: string, { when, needs, join, onFailure }: StepOptions<Out>): JsonObject {
    return present({
      when: when === undefined ? undefined : conditionText(`step ${id}.when`, when),
      needs: needs?.map((step) => step.id),
      join: join && `JOIN_${join}`,
      onFailure: onFailure && rulesJson(id, onFailure, this.nameOf),
    });
  }

  #waitJson<Out>(id: string, { scheduleToClose, ...gate }: WaitOptions<Out>): JsonObject {
    const limit =
      scheduleToClose === undefined ? {} : { scheduleToClose: timeJson(`step ${id}.scheduleToClose`, scheduleToClose) };
    return { ...limit, ...this.#gateJson(id, gate) };
  }
}

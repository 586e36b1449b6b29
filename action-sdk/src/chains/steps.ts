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
import type { FieldTypes, Ref } from "./types.js";

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

/** Settings of every step. */
export interface StepOptions {
  /** The step is skipped if this is false. */
  when?: Expression<boolean>;
  /** Steps to wait for besides those that the expressions read. */
  needs?: readonly Pick<Step<unknown>, "id">[];
}

/** Settings of a step that waits for somebody. */
export interface WaitOptions extends StepOptions {
  /** How long it waits; default: until the run's deadline. */
  scheduleToClose?: Time;
}

/** Settings of a step that calls; see the ChainSpec for what each means. */
export interface CallOptions extends StepOptions {
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

  constructor(private readonly nameOf: (property: string) => string) {}

  call(id: string, method: string, input: object, options: CallOptions): Step<unknown> {
    const place = `step ${id}`;
    const time = (name: string, value: Time | undefined) =>
      value === undefined ? undefined : timeJson(`${place}.${name}`, value);
    const { retry, taskQueue, priority, parentClose } = options;
    const inputs = expressionsJson(`${place}.input`, { ...input }, this.nameOf);
    return this.#put(
      id,
      present({
        id,
        call: method,
        input: Object.keys(inputs).length > 0 ? inputs : undefined,
        ...gateJson(place, options),
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

  wait(id: string, until: { duration?: unknown; until?: unknown }, options: StepOptions): Step<unknown> {
    const place = `step ${id}.wait`;
    const { duration } = until;
    // A time is a literal of the mesh's own form; all else is an expression.
    const length = typeof duration === "string" ? { literal: timeJson(`${place}.duration`, duration) } : undefined;
    const given = length ? {} : expressionsJson(place, { ...until }, (name) => name);
    const wait = length ? { duration: length } : given;
    return this.#put(id, present({ id, wait, ...gateJson(`step ${id}`, options) }));
  }

  signal(id: string, fields: FieldTypes, options: WaitOptions & { name?: string }): Step<unknown> {
    const signal = present({ name: options.name, output: { ...fields } });
    return this.#put(id, present({ id, signal, ...waitJson(id, options) }));
  }

  callback(id: string, fields: FieldTypes, options: WaitOptions): CallbackStep<unknown> {
    const step = this.#put(id, present({ id, callback: { output: { ...fields } }, ...waitJson(id, options) }));
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
    return { id, output: reference(`steps.${id}.output`, this.nameOf) as Ref<unknown> };
  }
}

/** What lets a step begin. */
function gateJson(place: string, { when, needs }: StepOptions): JsonObject {
  return present({
    when: when === undefined ? undefined : conditionText(place, when),
    needs: needs?.map((step) => step.id),
  });
}

function waitJson(id: string, { scheduleToClose, ...gate }: WaitOptions): JsonObject {
  const limit =
    scheduleToClose === undefined ? {} : { scheduleToClose: timeJson(`step ${id}.scheduleToClose`, scheduleToClose) };
  return { ...limit, ...gateJson(`step ${id}`, gate) };
}

function conditionText(place: string, when: Expression<boolean>): string {
  const known = knownOf(when);
  if (!known) throw refuse(`${place}.when`, "it is no expression; write it with cel`…`");
  return known.text;
}

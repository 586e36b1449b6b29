/**
 * Kinds of steps of random chains, and what each computes.
 *
 * To add one: an entry in `stepKinds`, whose `draw` gives the plan what makes it of that kind. If something from outside moves such a step on, add that
 * to happenings.ts; if its output is not that of one handler, say so in `output` and `read`.
 */
import { createHash } from "node:crypto";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { placeInput, wholeOutput } from "../../coordinator/src/contracts/compile-inner.js";
import {
  type ChainPlan,
  type EachPlan,
  type Evaluated,
  internalContract,
  type OpenedItems,
  type Scope,
  type StepPlan,
  type Value,
  type WaitPlan,
} from "../../coordinator/src/engine/plan.js";
import { evaluated, planOf, type StepSpec } from "../../coordinator/src/engine/plan-fixture.js";
import type { Chain } from "./chains.js";
import type { Random } from "./random.js";

/** Where a step stands while it is drawn. */
export interface Place {
  index: number;
  stepId: string;
  /** Steps that it needs. */
  needs: readonly number[];
  /** The text that its input is. */
  given: (scope: Scope) => Evaluated<string>;
  callee?: Chain | undefined;
  chain: { method: string; plan: () => ChainPlan };
}

export interface StepKind {
  name: string;
  weight: number;
  /** What a step of this kind has beside what all have. */
  draw(random: Random, place: Place): StepSpec;
  /** Whether it runs, where its input decides it. */
  runs?(input: string): boolean;
  /** Its output travels by reference. */
  large?: true;
  /** What it puts out, where that is not what one handler makes of the input. */
  output?(stepId: string, input: string, callee: Chain | undefined): string;
  /** Its output as a text, where that is not its bytes. */
  read?(bytes: Uint8Array): string;
  /** It starts runs of the other chain. */
  nested?: true;
  /** It needs two steps or more, and reads how many of them it sees the output of. */
  joins?: "any" | "race";
  /** Its handler says in its output which attempt it was. */
  counts?: true;
  /** No undo belongs to it. */
  final?: true;
  /** Its handler fails for good. */
  doomed?: true;
  /** It answers the run's caller, or whoever sent what a step before it took: its output is its input. */
  answers?: "caller" | "sender";
  /** It begins with an escalation of a form before it, if that is not filled in by then. */
  hangs?: true;
  /** The run that it has started goes on without it. */
  leaves?: true;
}

/** A short text that stands for all that was hashed. */
export const digest = (...texts: readonly string[]): string =>
  createHash("sha256").update(texts.join("|")).digest("base64url").slice(0, 8);

export const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const decodeBytes = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes);
export const decode = (value: Value): string => decodeBytes(value.bytes);

/** What a handler of the step makes of its input. */
export const outputOf = (stepId: string, input: string): string => digest(stepId, input);

/** What a signal for the step says. */
export const signalText = (stepId: string): string => digest("signal", stepId);

/** What somebody writes into the form of the step. */
export const formText = (stepId: string): string => digest("form", stepId);

export const map = <A, B>(from: Evaluated<A>, to: (value: A) => B): Evaluated<B> =>
  from.kind === "value" ? evaluated(to(from.value)) : from;

const oftenRuns = (input: string): boolean => digest("condition", input) > "F";

const itemsMax = 3;

/** Items that a fan-out over the text has. */
const itemsOf = (text: string): string[] =>
  Array.from({ length: digest("items", text).charCodeAt(0) % (itemsMax + 1) }, (_, n) => `${text}#${n}`);

const openedAtOnce = 2;

const opened = (total: number, texts: readonly string[]): OpenedItems => {
  const items = texts.map((text) => ({ input: { kind: "value" as const, value: encode(text) } }));
  return { total, items };
};

function fanOut(random: Random, open: EachPlan["open"]): EachPlan {
  return { kind: "list", parallelMax: random.int(1, 3), toleratedCount: 0, toleratedShare: 0, open };
}

const eachOf = (random: Random, { given }: Place): EachPlan =>
  fanOut(random, (scope, from) =>
    map(given(scope), (text) => {
      const all = itemsOf(text);
      return opened(all.length, all.slice(from, from + openedAtOnce));
    }),
  );

/** Items that are runs, told apart by their index alone. */
const placesOf = (random: Random, { given }: Place): EachPlan =>
  fanOut(random, (scope, from) =>
    map(given(scope), (text) => {
      const total = itemsOf(text).length;
      const inputs = Array.from({ length: Math.min(openedAtOnce, total - from) }, (_, n) => {
        const input = placeInput({ ...scope, each: { value: undefined, index: from + n } });
        return { input: input as Exclude<typeof input, { kind: "deferred" }> };
      });
      return { total, items: inputs };
    }),
  );

/** The item that a run stands for. */
function itemAbove(scope: Scope, { given }: Place): Evaluated<string> {
  const index = scope.above?.at(-1);
  return index === undefined ? { kind: "deferred" } : map(given(scope), (text) => itemsOf(text)[index]!);
}

function innerPlan({ chain, stepId, index }: Place, step: StepSpec, outputContract: string): ChainPlan {
  return planOf(
    { [stepId]: step },
    {
      method: `${chain.method}.${stepId}`,
      outputContract,
      runTimeoutMs: 3_600_000,
      bindOutput: wholeOutput,
      within: { step: index, above: chain.plan },
    },
  );
}

/** The parts of a list that a fan-out puts out. */
function partsOf(bytes: Uint8Array): Uint8Array[] {
  const reader = new BinaryReader(bytes);
  const parts: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    reader.tag();
    parts.push(reader.bytes());
  }
  return parts;
}

const readList = (bytes: Uint8Array): string => partsOf(bytes).map(decodeBytes).join(",");

export const retries = (random: Random): NonNullable<StepSpec["retry"]> => ({
  attemptsMax: random.int(2, 6),
  initialMs: random.pick([0, 100, 2_000]),
  kind: random.pick(["fixed", "linear", "exponential"] as const),
  incrementMs: 100,
  factor: 2,
  capMs: 8_000,
  jitter: random.pick([0, 0.5, 1]),
});

const human: WaitPlan = { kind: "human", read: () => ({ title: "", instructions: "", assignees: [], groups: [] }) };

/** What is launched says its input and whether it is left alone. */
const launchInput = (text: string, left: boolean): string => `${left ? "leave" : "await"} ${text}`;

export const readLaunch = (input: string): { text: string; left: boolean } => {
  return { text: input.slice(6), left: input.startsWith("leave") };
};

/** What a step that launched puts out, where its run has put out that or is left alone. */
export const launchAnswer = (output: string | undefined): string =>
  output === undefined ? "begun" : digest("launched", output);

const fanOutKinds: readonly StepKind[] = [
  {
    name: "each",
    weight: 2.5,
    draw: (random, place) => ({ each: eachOf(random, place), retry: retries(random) }),
    output: (stepId, input) =>
      itemsOf(input)
        .map((item) => outputOf(stepId, item))
        .join(","),
    read: readList,
  },
  {
    name: "each within each",
    weight: 0.7,
    draw(random, place) {
      const inner = fanOut(random, (scope, from) =>
        map(itemAbove(scope, place), (text) => {
          const all = itemsOf(text);
          return opened(all.length, all.slice(from, from + openedAtOnce));
        }),
      );
      const plan = innerPlan(place, { each: inner, retry: retries(random), startToCloseMs: 30_000 }, internalContract);
      return {
        each: placesOf(random, place),
        child: { onParentClose: "cancel", inner: plan },
        startToCloseMs: 3_600_000,
        checkOutput: () => undefined,
      };
    },
    output: (stepId, input) =>
      itemsOf(input)
        .map((item) =>
          itemsOf(item)
            .map((one) => outputOf(stepId, one))
            .join(","),
        )
        .join(";"),
    read: (bytes) => partsOf(bytes).map(readList).join(";"),
    final: true,
  },
  {
    name: "forms",
    weight: 0.5,
    draw(random, place) {
      const bindInput: StepPlan["bindInput"] = (scope) => map(itemAbove(scope, place), encode);
      const plan = innerPlan(place, { wait: human, bindInput }, `contract-${place.stepId}`);
      return {
        each: placesOf(random, place),
        child: { onParentClose: "cancel", inner: plan },
        startToCloseMs: 3_600_000,
      };
    },
    output: (stepId, input) =>
      itemsOf(input)
        .map(() => formText(stepId))
        .join(","),
    read: readList,
    final: true,
  },
];

const itself = (_stepId: string, input: string): string => input;

export const stepKinds: readonly StepKind[] = [
  { name: "plain", weight: 8, draw: () => ({}) },
  { name: "retried", weight: 4, draw: (random) => ({ retry: retries(random) }) },
  { name: "exclusive", weight: 2, draw: (random) => ({ exclusive: true, retry: retries(random) }) },
  { name: "urgent", weight: 1, draw: (random) => ({ priority: random.int(-10, 10) }) },
  { name: "chosen", weight: 2, draw: () => ({}), runs: oftenRuns },
  { name: "large", weight: 2, draw: (random) => ({ retry: retries(random) }), large: true },
  {
    name: "watched",
    weight: 2,
    draw: (random) => ({ heartbeatMs: random.int(6_000, 20_000), retry: retries(random) }),
  },
  {
    name: "limited",
    weight: 2,
    draw: (random) => ({
      startToCloseMs: random.int(1_000, 20_000),
      scheduleToCloseMs: random.int(30_000, 90_000),
      ...(random.chance(0.3) ? { scheduleToStartMs: random.int(20_000, 60_000) } : {}),
      retry: retries(random),
    }),
  },
  {
    name: "sleeping",
    weight: 1,
    draw: (random) => {
      const ms = random.pick([0, 50, 3_000, 20_000]);
      return { wait: { kind: "timer", endsAtMs: (_input, readyAtMs) => readyAtMs + ms } };
    },
    output: () => "",
  },
  {
    name: "signalled",
    weight: 1,
    draw: (random, { stepId }) => ({
      wait: { kind: "signal", mailbox: stepId, answered: true },
      ...(random.chance(0.3) ? { scheduleToCloseMs: random.int(20_000, 60_000) } : {}),
    }),
    output: (stepId) => signalText(stepId),
  },
  {
    name: "human",
    weight: 1,
    draw: (random) => ({
      wait: human,
      ...(random.chance(0.3) ? { scheduleToCloseMs: random.int(20_000, 60_000) } : {}),
    }),
    output: (stepId) => formText(stepId),
  },
  {
    name: "repeated",
    weight: 1.5,
    draw: (random, { index }) => ({
      repeat: {
        until: ({ outputs }) => evaluated(Number(decode(outputs[index]!).split(".")[1]) > 1),
        delayMs: random.pick([0, 500, 4_000]),
        roundsMax: 20,
      },
      retry: retries(random),
    }),
    read: (bytes) => decodeBytes(bytes).split(".")[0]!,
    counts: true,
  },
  {
    name: "escalated",
    weight: 1,
    draw(random) {
      const afterMs = random.int(1_000, 15_000);
      const escalations = [
        { afterMs, handsOver: random.chance(0.5) },
        { afterMs: afterMs + random.int(1_000, 15_000), handsOver: random.chance(0.5) },
      ];
      return { wait: { ...human, escalations } };
    },
    output: (stepId) => formText(stepId),
  },
  { name: "hanging", weight: 1.5, draw: (random) => ({ retry: retries(random) }), hangs: true, final: true },
  { name: "answer", weight: 1, draw: () => ({ wait: { kind: "respond" } }), output: itself, answers: "caller" },
  {
    name: "answer to a signal",
    weight: 1,
    draw: () => ({ wait: { kind: "respond" } }),
    output: itself,
    answers: "sender",
  },
  { name: "first of any", weight: 1.5, draw: (_random, { needs }) => joinOf(needs, false), joins: "any" },
  { name: "race", weight: 1.5, draw: (_random, { needs }) => joinOf(needs, true), joins: "race" },
  ...fanOutKinds,
];

const joinOf = (of: readonly number[], cancelsOthers: boolean): StepSpec => ({ join: { of, cancelsOthers } });

const expectedOf = (callee: Chain | undefined, input: string): string => callee!.expected(input)!;

const launching = (random: Random, { given }: Place, left: boolean): StepSpec => ({
  child: { onParentClose: random.pick(["cancel", "cancel", "abandon", "wait"] as const), launches: "chain" },
  method: "launch",
  bindInput: (scope) => map(given(scope), (text) => encode(launchInput(text, left))),
  retry: retries(random),
  startToCloseMs: random.pick([20_000, 60_000, 300_000]),
});

export const nestedKinds: readonly StepKind[] = [
  {
    name: "nested",
    weight: 3,
    draw: (random, { callee }) => ({
      child: { onParentClose: random.pick(["cancel", "cancel", "abandon", "wait"] as const) },
      method: callee!.plan.method,
      retry: retries(random),
      startToCloseMs: random.pick([20_000, 60_000, 300_000]),
    }),
    output: (_stepId, input, callee) => expectedOf(callee, input),
    nested: true,
  },
  {
    name: "launched",
    weight: 1.5,
    draw: (random, place) => launching(random, place, false),
    output: (_stepId, input, callee) => launchAnswer(expectedOf(callee, input)),
    nested: true,
  },
  {
    name: "launched and left",
    weight: 1,
    draw: (random, place) => launching(random, place, true),
    output: () => launchAnswer(undefined),
    nested: true,
    leaves: true,
  },
  {
    name: "each nested",
    weight: 1.5,
    draw: (random, place) => ({
      child: { onParentClose: random.pick(["cancel", "cancel", "abandon", "wait"] as const) },
      method: place.callee!.plan.method,
      each: eachOf(random, place),
      retry: retries(random),
      startToCloseMs: random.pick([60_000, 300_000]),
    }),
    output: (_stepId, input, callee) =>
      itemsOf(input)
        .map((item) => expectedOf(callee, item))
        .join(","),
    read: readList,
    nested: true,
  },
];

/** The last step of a chain whose runs are to undo what they have done. */
export const doomedKind: StepKind = { name: "doomed", weight: 0, draw: () => ({}), doomed: true, final: true };

/** Steps that undo others, by what they are. */
export const undoKind: StepKind = { name: "undo", weight: 0, draw: () => ({}) };
export const undoByChainKind: StepKind = { ...undoKind, name: "undo by a chain", nested: true };

/** What undoes a fan-out: its items, the newest first, one at a time. */
export const undoEach = (): EachPlan => ({
  kind: "list",
  parallelMax: 1,
  toleratedCount: 0,
  toleratedShare: 1,
  open({ undone = { total: 0, items: [] } }) {
    const items = undone.items.map(({ index, output }) => {
      const input = { kind: "value" as const, value: encode(`${index}:${decode(output)}`) };
      return { key: `${index}`, input };
    });
    return evaluated({ total: undone.total, items: items.slice(0, openedAtOnce) });
  },
});

/**
 * Random chains, as plans that are values, and what each computes.
 *
 * A step's input is what the steps that it needs put out; its output is a hash of its id and that; so the result of a chain can be computed
 * beside the mesh, whatever attempts it took.
 *
 * To extend it to another kind of step: one more entry in `stepKinds`, whose `draw` gives the plan what makes it of that kind. If something
 * from outside moves such a step on, add that to happenings.ts; if its output is not that of a handler, say so in `output`.
 */
import { createHash } from "node:crypto";
import type { ChainPlan, Evaluated, Scope, Value } from "../../coordinator/src/engine/plan.js";
import { evaluated, planOf, type StepSpec } from "../../coordinator/src/engine/plan-fixture.js";
import type { Random } from "./random.js";

export interface StepKind {
  name: string;
  weight: number;
  /** What a step of this kind has beside what all have. */
  draw(random: Random, stepId: string): StepSpec;
  /** Whether it runs, where its input decides it. */
  runs?(input: string): boolean;
  /** Its output travels by reference. */
  large?: true;
  /** What it puts out, where no handler does. */
  output?(stepId: string): string;
  /** It calls another chain. */
  nested?: true;
}

/** A short text that stands for all that was hashed. */
export const digest = (...texts: readonly string[]): string =>
  createHash("sha256").update(texts.join("|")).digest("base64url").slice(0, 8);

const oftenRuns = (input: string): boolean => digest("condition", input) > "F";

const stepKinds: readonly StepKind[] = [
  { name: "plain", weight: 10, draw: () => ({}) },
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
    draw: (random, stepId) => ({
      wait: { kind: "signal", mailbox: stepId },
      ...(random.chance(0.3) ? { scheduleToCloseMs: random.int(20_000, 60_000) } : {}),
    }),
    output: (stepId) => signalText(stepId),
  },
];

/** What a signal for the step says. */
export const signalText = (stepId: string): string => digest("signal", stepId);

const retries = (random: Random): NonNullable<StepSpec["retry"]> => ({
  attemptsMax: random.int(2, 6),
  initialMs: random.pick([0, 100, 2_000]),
  kind: random.pick(["fixed", "linear", "exponential"] as const),
  incrementMs: 100,
  factor: 2,
  capMs: 8_000,
  jitter: random.pick([0, 0.5, 1]),
});

export interface Chain {
  plan: ChainPlan;
  /** By step index. */
  kinds: readonly StepKind[];
  /** What its output says for that input. */
  expected(input: string): string;
}

const nestedKind: StepKind = {
  name: "nested",
  weight: 4,
  draw: (random) => ({
    child: { onParentClose: random.pick(["cancel", "cancel", "abandon", "wait"] as const) },
    retry: retries(random),
    startToCloseMs: random.pick([20_000, 60_000, 300_000]),
  }),
  nested: true,
};

/** A chain of 1 to `stepsMax` steps, each of which needs some of those before it; some of them may call `callee`. */
export function drawChain(random: Random, no: number, callee?: Chain, stepsMax = 7): Chain {
  const count = random.int(1, stepsMax);
  const choice = callee ? [...stepKinds, nestedKind] : stepKinds;
  const kinds = Array.from({ length: count }, () => random.weighted(choice));
  const density = random.pick([0.2, 0.5, 1]);
  const needs = kinds.map((_, index) =>
    kinds.flatMap((_kind, at) => (at < index && random.chance(density) ? [at] : [])),
  );
  const specs: Record<string, StepSpec> = {};
  kinds.forEach((kind, index) => {
    const inputOf = (scope: Scope): Evaluated<string> => read(scope, needs[index]!);
    specs[`s${index}`] = {
      needs: needs[index]!.map((need) => `s${need}`),
      startToCloseMs: 30_000,
      ...(kind.runs ? { condition: (scope) => map(inputOf(scope), kind.runs!) } : {}),
      bindInput: (scope) => map(inputOf(scope), encode),
      ...kind.draw(random, `s${index}`),
      ...(kind.nested ? { method: callee!.plan.method } : {}),
    };
  });
  const everyStep = kinds.map((_, index) => index);
  placeUndos(random, kinds, specs);
  const plan = planOf(specs, {
    method: `test.v1.Chains/C${no}`,
    runTimeoutMs: random.pick([60_000, 120_000, 600_000]),
    ...(random.chance(0.3) ? { brokenTtlMs: random.pick([1_000, 20_000, 90_000]) } : {}),
    bindOutput: (scope) => map(read(scope, everyStep), encode),
  });
  const undos = plan.steps.slice(kinds.length).map(() => undoKind);
  return { plan, kinds: [...kinds, ...undos], expected: (input) => compute({ kinds, needs, callee }, input) };
}

const undoKind: StepKind = { name: "undo", weight: 0, draw: () => ({}) };

/** Some steps can be undone, in some chains: each undo is a step behind all others, whose input is what the step has put out. */
function placeUndos(random: Random, kinds: readonly StepKind[], specs: Record<string, StepSpec>): void {
  if (!random.chance(0.35)) return;
  const chosen = kinds.flatMap((kind, index) =>
    !kind.output && !specs[`s${index}`]!.wait && random.chance(0.6) ? [index] : [],
  );
  chosen.forEach((index, n) => {
    specs[`s${index}`] = { ...specs[`s${index}`], undo: kinds.length + n };
    specs[`s${index}.undo`] = {
      needs: [`s${index}`],
      undoes: index,
      startToCloseMs: 20_000,
      scheduleToCloseMs: random.pick([40_000, 90_000]),
      retry: retries(random),
      bindInput: (scope) => map(read(scope, [index]), encode),
    };
  });
}

interface Graph {
  kinds: readonly StepKind[];
  needs: readonly number[][];
  callee: Chain | undefined;
}

/** What the chain's steps put out, computed without a mesh. */
function compute({ kinds, needs, callee }: Graph, input: string): string {
  const outputs: string[] = [];
  kinds.forEach((kind, index) => {
    const given = join(
      input,
      needs[index]!.map((need) => outputs[need] ?? ""),
    );
    const stepId = `s${index}`;
    const output = (): string => {
      if (kind.nested) return callee!.expected(given);
      return kind.output ? kind.output(stepId) : outputOf(stepId, given);
    };
    outputs.push(kind.runs && !kind.runs(given) ? "" : output());
  });
  return join(input, outputs);
}

/** What a handler of the step makes of its input. */
export const outputOf = (stepId: string, input: string): string => digest(stepId, input);

const join = (input: string, outputs: readonly string[]): string => [input, ...outputs].join(" ");

/** The input and these steps' outputs; deferred while one of them is not in memory. */
function read(scope: Scope, steps: readonly number[]): Evaluated<string> {
  const values = [scope.input, ...steps.map((step) => scope.outputs[step])];
  if (values.some((value) => value && value.bytes === undefined)) return { kind: "deferred" };
  const [input, ...outputs] = values.map((value) => (value ? decode(value) : ""));
  return evaluated(join(input!, outputs));
}

const map = <A, B>(from: Evaluated<A>, to: (value: A) => B): Evaluated<B> =>
  from.kind === "value" ? evaluated(to(from.value)) : from;

export const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

export const decode = (value: Value): string => new TextDecoder().decode(value.bytes);

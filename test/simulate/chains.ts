/**
 * Random chains, as plans that are values, and what each computes.
 *
 * A step's input is what the steps that it needs put out; its output is a hash of its id and that; so the result of a chain can be computed
 * beside the mesh, whatever attempts it took. What steps there are is kinds.ts.
 */
import { Join } from "@taskmesh/proto";
import { racesOf } from "../../coordinator/src/contracts/compile-join.js";
import type { ChainPlan, Evaluated, Scope } from "../../coordinator/src/engine/plan.js";
import { evaluated, planOf, type StepSpec } from "../../coordinator/src/engine/plan-fixture.js";
import {
  decode,
  doomedKind,
  encode,
  map,
  nestedKinds,
  outputOf,
  type Place,
  retries,
  type StepKind,
  stepKinds,
  undoByChainKind,
  undoEach,
  undoKind,
} from "./kinds.js";
import type { Random } from "./random.js";

export interface Chain {
  plan: ChainPlan;
  /** By step index. */
  kinds: readonly StepKind[];
  /** What its output says for that input; undefined: it is a part of a chain whose output says it. */
  expected(input: string): string | undefined;
}

/** The steps of a chain while it is drawn. */
interface Graph {
  kinds: readonly StepKind[];
  needs: readonly (readonly number[])[];
  callee: Chain | undefined;
}

/** A chain of 1 to `stepsMax` steps, each of which needs some of those before it; some of them may call `callee`. */
export function drawChain(random: Random, no: number, callee?: Chain, stepsMax = 7): Chain {
  const count = random.int(1, stepsMax);
  const choice = callee ? [...stepKinds, ...nestedKinds] : stepKinds;
  const drawn = Array.from({ length: count }, () => random.weighted(choice));
  const density = random.pick([0.2, 0.5, 1]);
  const needs = drawn.map((_, index) =>
    drawn.flatMap((_kind, at) => (at < index && random.chance(density) ? [at] : [])),
  );
  const breaks = random.chance(0.3);
  const undoes = random.chance(0.4);
  if (undoes && !breaks && random.chance(0.5)) {
    needs.push(drawn.map((_, index) => index));
    drawn.push(doomedKind);
  }
  const { kinds, links } = placeKinds(drawn, needs);
  const graph: Graph = { kinds, needs, callee };
  const method = `test.v1.Chains/C${no}`;
  const specs: Record<string, StepSpec> = {};
  kinds.forEach((kind, index) => {
    const given = (scope: Scope): Evaluated<string> => inputOf(scope, graph, index);
    const stepId = `s${index}`;
    const place: Place = { index, stepId, needs: needs[index]!, given, callee, chain: { method, plan: () => plan } };
    specs[stepId] = {
      needs: needs[index]!.map((need) => `s${need}`),
      startToCloseMs: 30_000,
      ...(kind.runs ? { condition: (scope) => map(given(scope), kind.runs!) } : {}),
      bindInput: (scope) => map(given(scope), encode),
      ...kind.draw(random, place),
      ...links[index],
    };
  });
  placeRaces(graph, specs);
  const read = steadySteps(graph);
  const undos = undoes ? placeUndos(random, graph, specs) : [];
  const plan = planOf(specs, {
    method,
    runTimeoutMs: random.pick([60_000, 120_000, 600_000]),
    ...(breaks ? { brokenTtlMs: random.pick([1_000, 20_000, 90_000]) } : {}),
    bindOutput: (scope) => map(textsOf(scope, graph, read), encode),
  });
  return { plan, kinds: [...kinds, ...undos], expected: (input) => compute(graph, input, read) };
}

/** Kinds that have what they are about before them, and what they have of it; all others are plain steps. Adds to `needs`. */
function placeKinds(
  drawn: readonly StepKind[],
  needs: number[][],
): { kinds: StepKind[]; links: (StepSpec | undefined)[] } {
  const plain = stepKinds[0]!;
  const kinds: StepKind[] = [];
  const links: (StepSpec | undefined)[] = [];
  drawn.forEach((kind, index) => {
    // Whether a step that hangs runs is a matter of time: nobody reads it.
    if (!kind.doomed) needs[index] = needs[index]!.filter((need) => !kinds[need]!.hangs);
    const before = (name: string): number => kinds.findLastIndex((other) => other.name === name);
    const about = kind.hangs ? before("escalated") : kind.answers === "sender" ? before("signalled") : undefined;
    // A join of one is none, and a run has one answer.
    const lacks = (kind.joins && needs[index]!.length < 2) || about === -1;
    const again = kind.answers === "caller" && kinds.some(({ answers }) => answers === "caller");
    kinds.push(lacks || again ? plain : kind);
    if (lacks || about === undefined) return;
    needs[index] = [...new Set([...needs[index]!, about])].sort((a, b) => a - b);
    links[index] = kind.hangs
      ? { escalation: { of: about, level: 1 + (index % 2) } }
      : { wait: { kind: "respond", to: about } };
  });
  const steady = new Set(steadySteps({ kinds, needs, callee: undefined }));
  // An answer that a race may cancel is none to rely on.
  return { kinds: kinds.map((kind, at) => (kind.answers === "caller" && !steady.has(at) ? plain : kind)), links };
}

/** The plan of each step that is on a branch of a race says so. */
function placeRaces({ kinds, needs }: Graph, specs: Record<string, StepSpec>): void {
  const steps = kinds.map(({ joins }, index) => {
    const join = joins === "race" ? Join.JOIN_FIRST_SUCCESS : Join.JOIN_UNSPECIFIED;
    const spec = { id: `s${index}`, join, needs: needs[index]!.map((need) => `s${need}`) };
    return {
      spec: spec as Parameters<typeof racesOf>[0][number]["spec"],
      index,
      path: "",
      needs: new Set(needs[index]),
    };
  });
  for (const [index, race] of racesOf(steps)) Object.assign(specs[`s${index}`]!, { race });
}

/** Steps whose outputs are always there in a run that succeeds: what leads to a race may have been cancelled. */
function steadySteps({ kinds, needs }: Graph): number[] {
  const unsteady = new Set<number>();
  const open = kinds.flatMap(({ joins }, index) => (joins === "race" ? needs[index]! : []));
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (unsteady.has(at)) continue;
    unsteady.add(at);
    open.push(...needs[at]!);
  }
  return kinds.flatMap(({ hangs }, index) => (unsteady.has(index) || hangs ? [] : [index]));
}

/** Some steps can be undone: each undo is a step behind all others, whose input is what the step has put out. */
function placeUndos(random: Random, { kinds, callee }: Graph, specs: Record<string, StepSpec>): StepKind[] {
  const chosen = kinds.flatMap((kind, index) =>
    !kind.final && !specs[`s${index}`]!.wait && random.chance(specs[`s${index}`]!.each ? 0.9 : 0.6) ? [index] : [],
  );
  return chosen.map((index, n) => {
    specs[`s${index}`] = { ...specs[`s${index}`], undo: kinds.length + n };
    const byChain = callee !== undefined && random.chance(0.3);
    specs[`s${index}.undo`] = {
      needs: [`s${index}`],
      undoes: index,
      startToCloseMs: byChain ? 60_000 : 20_000,
      scheduleToCloseMs: random.pick([40_000, 90_000]),
      retry: retries(random),
      bindInput: (scope) => map(textsOf(scope, { kinds, needs: [], callee }, [index]), encode),
      ...(specs[`s${index}`]!.each ? { each: undoEach(), needs: [] } : {}),
      ...(byChain ? { child: { onParentClose: "cancel" }, method: callee.plan.method } : {}),
    };
    return byChain ? undoByChainKind : undoKind;
  });
}

/** What the chain's steps put out, computed without a mesh. */
function compute({ kinds, needs, callee }: Graph, input: string, read: readonly number[]): string {
  const outputs: (string | undefined)[] = [];
  kinds.forEach((kind, index) => {
    const seen = needs[index]!.map((need) => outputs[need]);
    const joined = seen.some((output) => output !== undefined) ? "1" : "0";
    const given = join(input, kind.joins ? [joined] : seen.map((output) => output ?? ""));
    const stepId = `s${index}`;
    const output = (): string => kind.output?.(stepId, given, callee) ?? outputOf(stepId, given);
    outputs.push(kind.runs && !kind.runs(given) ? undefined : output());
  });
  const answer = kinds.findIndex(({ answers }) => answers === "caller");
  if (answer >= 0) return outputs[answer]!;
  return join(
    input,
    read.map((step) => outputs[step] ?? ""),
  );
}

const join = (input: string, outputs: readonly string[]): string => [input, ...outputs].join(" ");

/** The text that is the input of a step: a join says how many outputs it sees, and all others what those are. */
function inputOf(scope: Scope, graph: Graph, index: number): Evaluated<string> {
  const needs = graph.needs[index]!;
  if (!graph.kinds[index]!.joins) return textsOf(scope, graph, needs);
  if (scope.input.bytes === undefined) return { kind: "deferred" };
  const seen = needs.filter((need) => scope.outputs[need] !== undefined).length;
  return evaluated(join(decode(scope.input), [`${seen}`]));
}

/** The input and these steps' outputs; deferred while one of them is not in memory. */
function textsOf(scope: Scope, { kinds }: Graph, steps: readonly number[]): Evaluated<string> {
  const values = [scope.input, ...steps.map((step) => scope.outputs[step])];
  if (values.some((value) => value && value.bytes === undefined)) return { kind: "deferred" };
  const texts = steps.map((step) => {
    const bytes = scope.outputs[step]?.bytes;
    if (bytes === undefined) return "";
    return kinds[step]!.read?.(bytes) ?? new TextDecoder().decode(bytes);
  });
  return evaluated(join(decode(scope.input), texts));
}

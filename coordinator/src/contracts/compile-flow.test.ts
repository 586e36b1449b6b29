/** Switches, joins and rounds, as people write them: what they become, and what is said about their mistakes. */
import { formatChainDocument, locateChainProblem, parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import type { Scope, Value } from "../engine/plan.js";
import { jsonToBytes } from "./check.js";
import { type CompiledChain, compileChain } from "./compile-chain.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";

const protos = {
  "acme/flow/v1/flow.proto": `syntax = "proto3"; package acme.flow.v1;
    service FlowActions { rpc Say(Words) returns (Words); }
    message Words { string text = 1; }`,
};
const contracts = new Map(contractsOf(parseDescriptorSet(compileProtos(protos))).map((c) => [c.method, c]));
const call = "call: acme.flow.v1.FlowActions/Say, input: { text: input.text }";
const compile = (steps: string, output = "'x'"): CompiledChain & { shown: string[] } => {
  const text = `contract:
  name: acme.flow.v1.Chains/Flow
  input: { text: string, amount: int32 }
  output: { text: string }
steps:
${steps}
output: { text: "${output}" }
`;
  const document = parseChainDocument(text);
  if (document.spec === undefined) throw new Error(JSON.stringify(document.problems));
  expect(parseChainDocument(formatChainDocument(document.spec)).spec).toEqual(document.spec);
  const compiled = compileChain(document.spec, { contractFor: (method) => contracts.get(method) });
  const shown = compiled.problems.map((problem) => locateChainProblem(problem, document, "chain.yaml"));
  return { ...compiled, shown };
};
const value = (bytes: Uint8Array): Value => ({
  contract: "c",
  sizeBytes: bytes.length,
  sha256: new Uint8Array(32),
  bytes,
});
const scope = (input: Uint8Array, outputs: (Value | undefined)[] = []): Scope => ({
  run: { id: "r", namespace: "n", method: "m", acceptedAtMs: 0 },
  input: value(input),
  outputs,
});
/** An input with that amount. */
function amount(n: number): Uint8Array {
  const read = jsonToBytes(compile(routed).contract!, "input", { value: { amount: n } });
  if (!read.ok) throw new Error(JSON.stringify(read.violations));
  return read.bytes;
}

const routed = `  - id: route
    switch:
      cases:
        - { when: input.amount > 100, steps: [review, report] }
        - { when: input.amount > 10, steps: [check] }
      otherwise: [pass]
  - { id: review, ${call} }
  - { id: report, call: acme.flow.v1.FlowActions/Say, input: { text: steps.review.output.text } }
  - { id: check, ${call} }
  - { id: pass, ${call} }`;

describe("a switch", () => {
  it.each([
    [120, 1, [true, true, false, false]],
    [50, 2, [false, false, true, false]],
    [5, 0, [false, false, false, true]],
  ])("takes the first case that holds: %i", (n, taken, runs) => {
    const { plan, shown } = compile(routed);
    expect(shown).toEqual([]);
    const [route, ...branches] = plan!.steps;
    expect(route!.wait).toEqual({ kind: "choice" });
    const bound = route!.bindInput(scope(amount(n)));
    expect(bound).toEqual({ kind: "value", value: taken === 0 ? expect.anything() : new Uint8Array([8, taken]) });
    const output = value((bound as { value: Uint8Array }).value);
    const decided = branches.map((step) => step.condition!(scope(amount(n), [output])));
    expect(decided).toEqual(runs.map((one) => ({ kind: "value", value: one })));
    // Skipped as a whole: none of its branches runs.
    expect(branches[0]!.condition!(scope(amount(n)))).toEqual({ kind: "value", value: false });
  });

  it.each([
    ["when: 'input.amount'", "step route, switch: the condition is int, and must be true or false"],
    ["when: 'input.amont > 1'", 'has no field "amont"; did you mean "amount"?'],
    ["when: 'input.amount > 1', steps: [revew]", 'there is no step "revew"; did you mean "review"?'],
    ["when: 'input.amount > 1', steps: [review, review]", "a step is on one branch"],
    ["when: 'input.amount > 1', steps: [route]", "waits for itself"],
  ])("says where a case is wrong: %s", (one, message) => {
    const { shown } = compile(`  - id: route\n    switch: { cases: [{ ${one} }] }\n  - { id: review, ${call} }`);
    expect(shown).toHaveLength(1);
    expect(shown[0]).toMatch(/^chain\.yaml:[67]:\d+ /);
    expect(shown[0]).toContain(message);
  });

  it("asks readers elsewhere to expect no output of a branch", () => {
    const { shown } = compile(routed, "steps.review.output.text + '!'");
    expect(shown).toEqual([expect.stringContaining('step "review" may be skipped')]);
  });

  it("is refused without cases, and beside a call", () => {
    expect(compile("  - { id: s, switch: { cases: [] } }").shown).toEqual([expect.stringContaining("has no cases")]);
    const both = compile(`  - { id: s, ${call}, switch: { cases: [{ when: true }] } }`).shown;
    expect(both.join()).toContain('the step has "switch" and "call"; it does one thing only');
  });
});

describe("a join", () => {
  const two = `  - { id: a, ${call} }\n  - { id: a2, call: acme.flow.v1.FlowActions/Say, input: { text: steps.a.output.text } }\n  - { id: b, ${call} }\n`;
  const reading = "has(steps.a2.output) ? steps.a2.output.text : 'other'";

  it.each(["ANY", "FIRST_SUCCESS"])(
    "%s names its steps, and only in a race the branches that it may cancel",
    (join) => {
      const { plan, shown } = compile(
        `${two}  - { id: c, join: ${join}, needs: [a2, b], call: acme.flow.v1.FlowActions/Say, input: { text: "${reading}" } }`,
      );
      expect(shown).toEqual([]);
      const race = join === "FIRST_SUCCESS";
      expect(plan!.steps[3]!.join).toEqual({ of: [1, 2], cancelsOthers: race });
      expect(plan!.steps.map((step) => step.race?.end)).toEqual(
        race ? [1, 1, 2, undefined] : [undefined, undefined, undefined, undefined],
      );
    },
  );

  it("asks for a guard where it reads what may be missing", () => {
    const { shown } = compile(
      `${two}  - { id: c, join: ANY, needs: [a2, b], call: acme.flow.v1.FlowActions/Say, input: { text: "steps.b.output.text + '!'" } }`,
    );
    expect(shown).toEqual([expect.stringContaining('step "b" may be skipped')]);
    const ended = compile(
      `${two}  - { id: c, join: FIRST_SUCCESS, needs: [a2, b], ${call} }`,
      "steps.a.output.text + '!'",
    );
    expect(ended.shown).toEqual([expect.stringContaining('step "a" may be skipped')]);
  });

  it("needs two steps", () => {
    const { shown } = compile(`${two}  - { id: c, join: ANY, needs: [a], ${call} }`);
    expect(shown).toEqual([expect.stringContaining("needs two of them or more")]);
  });
});

describe("a step that repeats", () => {
  it("reads its own output in `until`", () => {
    const { plan, shown } = compile(
      `  - { id: poll, ${call}, repeat: { until: "steps.poll.output.text == 'ready'", delay: 2s, max_rounds: 7 } }`,
    );
    expect(shown).toEqual([]);
    const { repeat } = plan!.steps[0]!;
    expect(repeat).toMatchObject({ delayMs: 2_000, roundsMax: 7 });
    const says = (text: string) =>
      repeat!.until(scope(amount(1), [value(Buffer.from([10, text.length, ...Buffer.from(text)]))]));
    expect(says("ready")).toEqual({ kind: "value", value: true });
    expect(says("not yet")).toEqual({ kind: "value", value: false });
    expect(plan!.steps[0]!.needs).toEqual([]);
  });

  it.each([
    ["until: 'steps.poll.output.text'", "must be true or false"],
    ["delay: 1s", "nothing says when the rounds end"],
    ["until: 'true', max_rounds: 5000", "too many"],
    ["until: 'steps.poll.output.txt == \"\"'", 'did you mean "text"?'],
  ])("says what is wrong: %s", (repeat, message) => {
    const { shown } = compile(`  - { id: poll, ${call}, repeat: { ${repeat} } }`);
    expect(shown).toEqual([expect.stringContaining(message)]);
  });
});

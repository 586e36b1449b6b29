import { locateChainProblem, parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import type { Scope, StepPlan } from "../engine/plan.js";
import { callbackToken } from "./callback-token.js";
import { bytesToJson, jsonToBytes } from "./check.js";
import { type ChainEnvironment, type CompiledChain, compileChain } from "./compile-chain.js";

const head = `contract:
  name: acme.v1.Chains/Sleep
  input: { at: google.protobuf.Timestamp, seconds: int64, text: string }
  output: { done: bool }
steps:
`;
const tail = `
output: { done: true }
`;

const compile = (steps: string, more: Partial<ChainEnvironment> = {}): CompiledChain & { shown: string[] } => {
  const document = parseChainDocument(`${head}${steps}${tail}`);
  if (document.spec === undefined) throw new Error(JSON.stringify(document.problems));
  const compiled = compileChain(document.spec, { contractFor: () => undefined, ...more });
  return {
    ...compiled,
    shown: compiled.problems.map((problem) => locateChainProblem(problem, document, "chain.yaml")),
  };
};

const readyAtMs = 1_700_000_000_000;

/** When the step's wait ends, for a run with this input. */
function endsAtMs({ plan, contract }: CompiledChain, input: Record<string, string>): number {
  const step = plan!.steps[0]! as StepPlan & { wait: { kind: "timer" } };
  const read = jsonToBytes(contract!, "input", { value: input });
  if (!read.ok) throw new Error(JSON.stringify(read.violations));
  const value = { contract: "c", sizeBytes: read.bytes.length, sha256: new Uint8Array(32), bytes: read.bytes };
  const scope: Scope = { run: { id: "r", namespace: "n", method: "m", acceptedAtMs: 0 }, input: value, outputs: [] };
  const bound = step.bindInput(scope);
  if (bound.kind !== "value" || step.wait?.kind !== "timer") throw new Error(JSON.stringify(bound));
  return step.wait.endsAtMs(bound.value, readyAtMs);
}

describe("a step that waits for an instant", () => {
  it.each([
    ["duration: 90s", {}, readyAtMs + 90_000],
    ["duration: 1h30m", {}, readyAtMs + 5_400_000],
    ["duration: duration(string(input.seconds) + 's')", { seconds: "7" }, readyAtMs + 7_000],
    ["duration: duration('-5s')", {}, readyAtMs],
    ["duration: duration('0.0001s')", {}, readyAtMs + 1],
    ["until: input.at", { at: "2023-11-14T22:13:21Z" }, readyAtMs + 1_000],
    ["until: input.at", { at: "2020-01-01T00:00:00Z" }, readyAtMs],
    ["until: input.at + duration('10m')", { at: "2023-11-14T22:13:20Z" }, readyAtMs + 600_000],
    ["until: 2023-11-14T22:13:21Z", {}, readyAtMs + 1_000],
    // Nothing was given to wait for.
    ["until: input.at", {}, readyAtMs],
  ])("%s, input %j", (wait, input, expected) => {
    const compiled = compile(`  - { id: pause, wait: { ${wait.replace(": ", ': "')}" } }`);
    expect(compiled.shown).toEqual([]);
    expect(endsAtMs(compiled, input)).toBe(expected);
  });

  it("has a contract of its own, which a stored version is compiled with", () => {
    const steps = "  - { id: pause, wait: { duration: 1s } }";
    const { declared, pins, contract } = compile(steps);
    expect(declared.map(({ method }) => method)).toEqual(["acme.v1.Chains.Sleep.Steps/pause"]);
    expect(pins).toEqual({ "acme.v1.Chains.Sleep.Steps/pause": declared[0]!.fingerprint });
    const input = jsonToBytes(declared[0]!, "input", '{"duration": "1s"}');
    expect(input.ok && bytesToJson(declared[0]!, "input", input.bytes)).toEqual({ duration: "1s" });
    const again = compile(steps, { contractFor: () => declared[0], chainContract: contract, pinned: true });
    expect(again.plan!.steps[0]!.contract).toBe(declared[0]!.fingerprint);
  });

  it("is waited for by the steps that need it, and its output is a message without fields", () => {
    const { edges, shown } = compile(`  - { id: a, wait: { duration: 1s } }
  - { id: b, needs: [a], wait: { duration: 1s } }
  - { id: c, when: has(steps.b.output), wait: { duration: 1s } }`);
    expect(shown).toEqual([]);
    expect(edges).toEqual([
      { from: "a", to: "b" },
      { from: "b", to: "c" },
    ]);
  });

  it.each([
    ["wait: { duration: input.text }", "duration is google.protobuf.Duration, and the expression gives string"],
    ["wait: { until: input.sconds }", 'until: SleepRequest has no field "sconds"; did you mean "seconds"?'],
    ["wait: { until: input.at, duration: 1s }", '"duration" and "until" can\'t both be set'],
    ["wait: {}", "the wait has no end"],
    ["wait: { duration: 1s }, call: acme.v1.A/B", 'call: the step has "wait" and "call"; it does one thing only'],
    [
      "wait: { duration: 1s }, retry: { max_attempts: 2 }",
      '"retry" means nothing beside "wait": no worker runs the step',
    ],
    ["wait: { duration: 1s }, input: { a: 1 }", '"input" means nothing beside "wait": no worker runs the step'],
    ["wait: { duration: 1s }, start_to_close: 1s", '"start_to_close" means nothing beside "wait"'],
    ["wait: { duration: 1s }, priority: 3", '"priority" means nothing beside "wait"'],
    ["signal: { name: no-name, output: {} }", 'signal.name: "no-name" can\'t be the name of a signal'],
    ["signal: { output: { a: strin } }", 'signal.output.a: "strin" is no type'],
    ["signal: {}, wait: { duration: 1s }", 'the step has "wait" and "signal"; it does one thing only'],
    ["callback: {}, call: a.B/C", 'the step has "callback" and "call"; it does one thing only'],
    ["signal: {}, retry: { max_attempts: 2 }", '"retry" means nothing beside "signal"'],
  ])("refuses %s", (setting, message) => {
    const { shown, plan } = compile(`  - { id: pause, ${setting} }`);
    expect(plan).toBeUndefined();
    expect(shown).toHaveLength(1);
    expect(shown[0]).toContain(message);
    expect(shown[0]).toMatch(/^chain.yaml:6:\d+ step pause, /);
  });
});

describe("a step that waits for a signal", () => {
  const steps = `  - id: ask
    signal: { name: decided, output: { approved: bool, by: string } }
    schedule_to_close: 48h
  - id: more
    needs: [ask]
    when: steps.ask.output.approved
    signal: { name: decided, output: { by: string, approved: bool } }`;

  it("has what the message brings as its output, by one contract for all steps of the signal", () => {
    const { plan, shown, declared, edges } = compile(steps);
    expect(shown).toEqual([]);
    expect(edges).toEqual([{ from: "ask", to: "more" }]);
    expect(declared.map(({ method }) => method)).toEqual(Array(2).fill("acme.v1.Chains.Sleep.Signals/decided"));
    expect(plan!.steps.map(({ wait, scheduleToCloseMs }) => [wait, scheduleToCloseMs])).toEqual([
      [{ kind: "signal", mailbox: "signal:decided" }, 172_800_000],
      [{ kind: "signal", mailbox: "signal:decided" }, undefined],
    ]);
  });

  it("keeps the numbers of its fields over versions, like the chain's own contract", () => {
    const before = compile(steps).declared[0]!;
    const numbers = (text: string) => {
      const previous = (method: string) => (method === before.method ? before : undefined);
      const { declared, shown } = compile(`  - { id: ask, signal: { name: decided, output: ${text} } }`, {
        contractFor: previous,
      });
      expect(shown).toEqual([]);
      return declared[0]!.output.fields.map(({ name, number }) => [name, number]);
    };
    expect(numbers("{ by: string, why: string, approved: bool }")).toEqual([
      ["approved", 1],
      ["by", 2],
      ["why", 3],
    ]);
    expect(numbers("{ by: bytes }")).toEqual([["by", 3]]);
  });

  it("refuses two types for one signal", () => {
    const { shown } = compile(`  - { id: a, signal: { name: go, output: { n: int32 } } }
  - { id: b, signal: { name: go, output: { n: int64 } } }`);
    expect(shown).toHaveLength(1);
    expect(shown[0]).toContain('step "a" waits for the same signal with another type');
  });
});

describe("a step that waits for a callback", () => {
  const asking = (expression: string) => `  - { id: ask, callback: { output: { ok: bool } } }
  - { id: told, signal: {}, when: "${expression}" }`;

  it("has a URL that expressions of other steps read, made of the run's secret", () => {
    const { plan, contract, shown, edges } = compile(asking("callback.ask.url == input.text"), {
      publicUrl: "https://m.example",
    });
    expect(shown).toEqual([]);
    // Handing the URL out waits for nobody.
    expect(edges).toEqual([]);
    const token = callbackToken("r", "s3cret", "ask");
    const read = jsonToBytes(contract!, "input", { value: { text: `https://m.example/api/v1/callbacks/${token}` } });
    const bytes = read.ok ? read.bytes : new Uint8Array();
    const input = { contract: "c", sizeBytes: bytes.length, sha256: new Uint8Array(32), bytes };
    const run = { id: "r", namespace: "n", method: "m", acceptedAtMs: 0, secret: "s3cret" };
    const scope: Scope = { run, input, outputs: [] };
    expect(plan!.steps[1]!.condition!(scope)).toEqual({ kind: "value", value: true });
    expect(plan!.steps[1]!.condition!({ ...scope, run: { ...run, secret: "other" } })).toEqual({
      kind: "value",
      value: false,
    });
  });

  it.each([
    ["callback.aks.url == ''", 'there is no step "aks" that waits for a callback; did you mean "ask"?'],
    ["callback.told.url == ''", 'there is no step "told" that waits for a callback'],
    ["callback.ask.uri == ''", 'callback has no field "uri"; did you mean "url"?'],
    ["callback.ask == ''", "write callback.<id>.url or callback.<id>.token"],
    ["callback.ask.url", "must be true or false"],
  ])("refuses %s", (expression, message) => {
    const { shown } = compile(asking(expression));
    expect(shown).toHaveLength(1);
    expect(shown[0]).toContain(message);
  });
});

describe("a step that waits for a person", () => {
  it("asks what its expressions say, and its form is its output", () => {
    const { plan, shown, declared, contract } = compile(`  - id: decide
    human:
      title: "'Approve ' + input.text"
      assignees: "[input.text, 'b']"
      output: { approved: bool }
    schedule_to_close: 1h`);
    expect(shown).toEqual([]);
    expect(declared[0]!.output.fields.map(({ name }) => name)).toEqual(["approved"]);
    const read = jsonToBytes(contract!, "input", { value: { text: "a\u0000" } });
    const bytes = read.ok ? read.bytes : new Uint8Array();
    const input = { contract: "c", sizeBytes: bytes.length, sha256: new Uint8Array(32), bytes };
    const { bindInput, wait, scheduleToCloseMs } = plan!.steps[0]!;
    const bound = bindInput({ run: { id: "r", namespace: "n", method: "m", acceptedAtMs: 0 }, input, outputs: [] });
    if (bound.kind !== "value" || wait?.kind !== "human") throw new Error(JSON.stringify(bound));
    // NUL can't be stored, and nobody could see it.
    expect(wait.read(bound.value, 0)).toEqual({
      title: "Approve a",
      instructions: "",
      assignees: ["a", "b"],
      groups: [],
    });
    expect(scheduleToCloseMs).toBe(3_600_000);
  });

  it.each([
    ["human: { title: input.seconds }", "title is string, and the expression gives int"],
    ["human: { assignees: input.text }", "assignees is repeated string, and the expression gives string"],
    ["human: { output: { a: strin } }", 'human.output.a: "strin" is no type'],
    ["human: {}, signal: {}", "it does one thing only"],
  ])("refuses %s", (setting, message) => {
    const { shown } = compile(`  - { id: pause, ${setting} }`);
    expect(shown).toHaveLength(1);
    expect(shown[0]).toContain(message);
  });
});

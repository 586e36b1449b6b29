import { parseChainDocument } from "@taskmesh/runtime";
import { afterEach, describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import type { Scope, Value } from "../engine/plan.js";
import { bytesToJson, jsonToBytes } from "./check.js";
import { compileChain } from "./compile-chain.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";
import { createEvaluationThread, type EvaluationThread } from "./evaluation.js";

const [echo] = contractsOf(
  parseDescriptorSet(
    compileProtos({
      "acme/echo.proto": `syntax = "proto3"; package acme.v1; service Echo { rpc Say(M) returns (M); }
        message M { repeated string words = 1; int32 count = 2; string text = 3; }`,
    }),
  ),
);
const { plan, problems } = compileChain(
  parseChainDocument(`contract: { name: acme.v1.Chain/Run, input: { words: repeated string, text: string }, output: { count: int32 } }
steps:
  - id: a
    when: input.words.exists(w, w == 'x')
    call: acme.v1.Echo/Say
    input: { words: "input.words.map(w, w + '!')", text: input.text }
  - id: slow
    call: acme.v1.Echo/Say
    input: { count: "size(input.words.filter(a, input.words.exists(b, a + b == '')))" }
output: { count: "has(steps.a.output) ? steps.a.output.count : 7" }`).spec!,
  { contractFor: () => echo },
);

function inputOf(words: number): Value {
  const contract = { ...echo!, input: echo!.input };
  const read = jsonToBytes(contract, "input", { value: { words: Array.from({ length: words }, (_, n) => `w${n}`) } });
  if (!read.ok) throw new Error("input");
  return { contract: "", sizeBytes: read.bytes.length, sha256: new Uint8Array(32), bytes: read.bytes };
}

const run = { id: "r", namespace: "default", method: "acme.v1.Chain/Run", acceptedAtMs: 0 };
const scopeOf = (words: number): Scope => ({ run, input: inputOf(words), outputs: [] });

describe("evaluation in a thread", () => {
  let thread: EvaluationThread | undefined;
  const start = (options = {}): EvaluationThread => {
    thread = createEvaluationThread(options);
    return thread;
  };
  afterEach(() => thread?.stop());

  it("does what was deferred", async () => {
    expect(problems).toEqual([]);
    const scope = scopeOf(20_000);
    expect(plan!.steps[0]!.bindInput(scope)).toEqual({ kind: "deferred" });
    const { input, condition, output } = start();
    const result = await input(plan!, 0, scope);
    if (result.kind !== "value") throw new Error(JSON.stringify(result));
    expect(bytesToJson(echo!, "input", result.value)).toMatchObject({
      words: expect.arrayContaining(["w0!", "w19999!"]),
    });
    expect(await condition(plan!, 0, scope)).toEqual({ kind: "value", value: false });
    expect(await condition(plan!, 1, scope)).toEqual({ kind: "value", value: true });
    const bytes = await output(plan!, scope);
    expect(bytes.kind === "value" && Buffer.from(bytes.value).toString("hex")).toBe("0807");
  });

  it("ends what takes too long, and goes on with a new thread", async () => {
    const evaluations = start({ timeoutMs: 2_000 });
    const [slow, after] = await Promise.all([
      evaluations.input(plan!, 1, scopeOf(20_000)),
      evaluations.output(plan!, scopeOf(1)),
    ]);
    expect(slow).toMatchObject({
      kind: "failed",
      error: { reason: "EXPRESSION_FAILED", message: expect.stringContaining("took") },
    });
    expect(after.kind).toBe("value");
  });

  it("answers everything when it is stopped, however often", async () => {
    const evaluations = start();
    const pending = [evaluations.input(plan!, 1, scopeOf(20_000)), evaluations.output(plan!, scopeOf(1))];
    await Promise.all([evaluations.stop(), evaluations.stop()]);
    for (const result of await Promise.all(pending)) expect(result.kind).toBe("failed");
    expect((await evaluations.output(plan!, scopeOf(1))).kind).toBe("failed");
  });

  it("answers with a failure when the payload is not there", async () => {
    const { bytes: _, ...reference } = inputOf(1);
    expect(await start().input(plan!, 0, { run, input: reference, outputs: [] })).toEqual({ kind: "deferred" });
  });
});

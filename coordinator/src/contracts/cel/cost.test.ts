import { ChainSpec } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../../test/fixtures/compile-protos.js";
import type { ChainPlan, Evaluated, Scope } from "../../engine/plan.js";
import { jsonToBytes } from "../check.js";
import { compileChain } from "../compile-chain.js";
import { contractsOf, parseDescriptorSet } from "../descriptors.js";
import { compilePattern, patternWeight, patternWeightMax } from "./patterns.js";

const [run] = contractsOf(
  parseDescriptorSet(
    compileProtos({
      "acme/cost.proto": `syntax = "proto3"; package acme.v1; service Cost { rpc Run(M) returns (M); }
        message M { string text = 1; string other = 2; repeated string texts = 3; bool flag = 4; repeated M parts = 5; int32 n = 6; bytes raw = 7; }`,
    }),
  ),
);

const compile = (field: string, expression: string): ChainPlan => {
  const spec = ChainSpec.fromPartial({
    contract: { name: "acme.v1.Cost/Run" },
    steps: [{ id: "a", call: "acme.v1.Cost/Run", input: { [field]: { kind: { $case: "cel", value: expression } } } }],
  });
  const { plan, problems } = compileChain(spec, { contractFor: () => run });
  if (plan === undefined) throw new Error(JSON.stringify(problems));
  return plan;
};

/** What becomes of the expression on the event loop, over a text of so many characters, a list of so many of five. */
function over(field: string, expression: string, { text = 0, texts = 0 }): Evaluated<Uint8Array>["kind"] {
  const value = { text: "a".repeat(text), other: "bbb", texts: Array.from({ length: texts }, () => "abcde"), n: 7 };
  const read = jsonToBytes(run!, "input", { value: { ...value, parts: [value] } });
  if (!read.ok) throw new Error("input");
  const input = { contract: "", sizeBytes: read.bytes.length, sha256: new Uint8Array(), bytes: read.bytes };
  const scope: Scope = { run: { id: "r", namespace: "n", method: "m", acceptedAtMs: 0 }, input, outputs: [] };
  return compile(field, expression).steps[0]!.bindInput(scope).kind;
}

describe("expressions on the event loop", () => {
  it.each([
    ["text", "input.text + input.other", { text: 100_000 }],
    ["text", "input.text.replace('a', 'b')", { text: 50_000 }],
    ["flag", "input.text.contains('needle')", { text: 100_000 }],
    ["flag", "input.text.matches('^a+$')", { text: 5_000 }],
    ["texts", "input.text.split(',')", { text: 10_000 }],
    ["texts", "input.texts.map(t, t + input.other)", { texts: 2_000 }],
    ["flag", "input.texts.exists(t, t == input.other)", { texts: 3_000, text: 50_000 }],
    ["text", "input.texts.join(', ')", { texts: 5_000 }],
    ["n", "size(input.texts) + 1", { texts: 100_000 }],
    ["flag", "input.n > 5 && input.flag", { texts: 100_000, text: 100_000 }],
  ] as const)("are those that cost little: %s = %s over %j", (field, expression, sizes) => {
    expect(over(field, expression, sizes)).toBe("value");
  });

  it.each([
    ["text", "input.text.replace('', input.text)", { text: 5_000 }],
    ["text", "input.texts.join(input.text)", { text: 5_000, texts: 1_000 }],
    ["flag", "input.text.contains(input.text + input.other)", { text: 20_000 }],
    ["flag", "input.text.matches(input.other)", { text: 20_000 }],
    ["flag", "input.text.matches('(a{30}){30}')", { text: 20_000 }],
    ["texts", "input.texts.map(t, t + input.text)", { text: 20_000, texts: 1_000 }],
    ["texts", "input.text.split('')", { text: 100_000 }],
    ["flag", "input.texts.all(a, input.texts.exists(b, a == b))", { texts: 1_000 }],
    ["flag", "input.parts.exists(p, p.texts.exists(t, p.texts.exists_one(u, u == t)))", { texts: 1_000 }],
    ["text", Array.from({ length: 40 }, () => "input.text.upperAscii()").join(" + "), { text: 50_000 }],
  ] as const)("are not those that may cost much: %s = %s over %j", (field, expression, sizes) => {
    if (expression.includes("exists_one")) {
      expect(() => over(field, expression, sizes)).toThrow("nests more than 2 deep");
      return;
    }
    expect(over(field, expression, sizes)).toBe("deferred");
    // The same over little is done at once.
    expect(over(field, expression, { text: 10, texts: 2 })).toBe("value");
  });

  it("are no constants that take long to make: neither whoever saves the chain nor the loop computes them", () => {
    const long = `'${"a".repeat(5_000)}'`;
    expect(over("text", `${long}.replace('', ${long})`, {})).toBe("deferred");
    expect(over("text", "'a'.replace('a', 'b')", {})).toBe("value");
  });
});

describe("patterns", () => {
  it.each([
    ["abc", 3],
    ["[a-z]+@[a-z]+", 5],
    ["a{100}", 100],
    ["(ab){10}", 40],
    ["((a{10}){10}){10}", 1_220],
    ["a{2,50}b", 51],
    ["\\d{3}-\\d{4}", 8],
    ["[]x{9}]{5}", 5],
    ["a{,5}", 5],
    ["(((", 0],
  ])("weigh about as much as their program is long: %s", (pattern, weight) => {
    expect(patternWeight(pattern)).toBe(weight);
  });

  it("are refused where they are too heavy, before anything is compiled", () => {
    expect(() => compilePattern(`(${"abcdefghij".repeat(100)}){100}`)).toThrow("too large");
    expect(() => compilePattern(`${"a{1000}".repeat(11)}`)).toThrow("too large");
    expect(compilePattern("a{900}b").test(`${"a".repeat(900)}b`)).toBe(true);
    expect(patternWeightMax).toBeGreaterThan(1_000);
  });

  it("run in linear time, whatever they say", () => {
    expect(compilePattern("^(a+)+$").test(`${"a".repeat(50_000)}!`)).toBe(false);
    expect(compilePattern("^(([a-z])+.)+[A-Z]([a-z])+$").test("a".repeat(20_000))).toBe(false);
  });
});

describe("functions of our own", () => {
  const shown = (field: string, expression: string): string => {
    const bound = compile(field, expression).steps[0]!.bindInput({
      run: { id: "r", namespace: "n", method: "m", acceptedAtMs: 0 },
      input: { contract: "", sizeBytes: 0, sha256: new Uint8Array(), bytes: new Uint8Array() },
      outputs: [],
    });
    return bound.kind === "value" ? Buffer.from(bound.value.subarray(2)).toString() : JSON.stringify(bound);
  };
  it.each([
    ["'a.b.c'.replace('.', '-')", "a-b-c"],
    ["'a.b.c'.replace('.', '-', 1)", "a-b.c"],
    ["'a.b.c'.replace('.', '-', 0)", "a.b.c"],
    ["'a.b.c'.replace('.', '-', -1)", "a-b-c"],
    ["'a$b'.replace('$', '$&$1')", "a$&$1b"],
    ["'ab'.replace('', '_')", "_a_b_"],
    ["string(timestamp('2026-01-02T00:00:01.5Z') - timestamp('2026-01-01T00:00:00Z'))", "86401.500s"],
    ["string(timestamp('2026-01-01T00:00:00Z') - timestamp('2026-01-01T00:00:00.250Z'))", "-0.250s"],
  ])("give what CEL says: %s", (expression, expected) => {
    expect(shown("text", expression)).toBe(expected);
  });
});

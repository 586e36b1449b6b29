/**
 * The type check against the engine: whatever wiring is accepted when a chain is saved must never fail for a type when it runs. Wirings and
 * values are random, over every kind of field and every place where an expression may stand; failures that only a value shows (a number out of
 * range, an index, a text that is no number) are no fault of the check. Nothing else is left out but dyn, which says itself that nobody
 * knows its type before it runs.
 */
import { type DescField, type DescMessage, fromBinary, ScalarType } from "@bufbuild/protobuf";
import { ChainSpec } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import type { Given } from "../../../test/fixtures/in-process-mesh.js";
import { type Random, randomMessage, seededRandom } from "../../../test/fixtures/random-message.js";
import type { ChainPlan, Evaluated, Scope, Value } from "../engine/plan.js";
import { compileChain } from "./compile-chain.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";

const scalars =
  "double float int32 int64 uint32 uint64 sint32 sint64 fixed32 fixed64 sfixed32 sfixed64 bool string bytes";
const wrappers = "Double Float Int32 Int64 UInt32 UInt64 Bool String Bytes";
const kinds = [
  ...scalars.split(" "),
  ...wrappers.split(" ").map((name) => `google.protobuf.${name}Value`),
  ...["Timestamp", "Duration", "Struct", "Value", "ListValue"].map((name) => `google.protobuf.${name}`),
  "Part",
  "Kind",
  "Mood",
];
let number = 0;
const declare = (type: string, label = ""): string => `${label}${type} f${++number} = ${number};`;
const all = [
  ...kinds.map((type) => declare(type)),
  ...["int32", "uint64", "string", "bool", "Kind", "Part"].map((type) => declare(type, "optional ")),
  ...kinds.map((type) => declare(type, "repeated ")),
  ...["string", "int32", "uint64", "bool"].map((key) => declare(`map<${key}, string>`)),
  ...["int64", "uint32", "Part", "Kind", "double", "google.protobuf.Value"].map((type) =>
    declare(`map<string, ${type}>`),
  ),
  `oneof one { ${declare("string")} ${declare("int32")} ${declare("Part")} }`,
];
const protos = `syntax = "proto3"; package t.v1;
  import "google/protobuf/wrappers.proto"; import "google/protobuf/struct.proto";
  import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto";
  service S { rpc Give(All) returns (All); rpc Run(All) returns (All); rpc Sub(All) returns (All); }
  enum Kind { KIND_UNSPECIFIED = 0; KIND_A = 1; KIND_B = 2; }
  enum Mood { MOOD_UNSPECIFIED = 0; MOOD_A = 1; }
  message Part { string text = 1; int32 count = 2; uint64 big = 3; Part part = 4; repeated Kind kinds = 5; google.protobuf.StringValue note = 6; }
  message All { ${all.join("\n")} }`;
/** Required fields, and an enum without unknown values. */
const old = `syntax = "proto2"; package old.v1;
  service S { rpc Take(Order) returns (Order); }
  enum Size { SMALL = 1; LARGE = 7; }
  message Order { required string text = 1; required int32 count = 2; optional uint64 big = 3; optional Size size = 4; repeated Size sizes = 5; }`;
const contracts = new Map(
  contractsOf(parseDescriptorSet(compileProtos({ "t.proto": protos, "old.proto": old }))).map((one) => [
    one.method,
    one,
  ]),
);
const desc: DescMessage = contracts.get("t.v1.S/Give")!.output;
const { fields } = desc;

const order: DescMessage = contracts.get("old.v1.S/Take")!.input;
const fieldOf = (type: string): string =>
  fields.find((field) => field.fieldKind === "scalar" && ScalarType[field.scalar] === type)!.name;
const [flag, text, count] = [fieldOf("BOOL"), fieldOf("STRING"), fieldOf("INT32")] as const;

/** Ways to use a value, and two of them. */
const unary = [
  (a: string) => a,
  (a: string) => `string(${a})`,
  (a: string) => `int(${a})`,
  (a: string) => `uint(${a})`,
  (a: string) => `double(${a})`,
  (a: string) => `bool(${a})`,
  (a: string) => `bytes(${a})`,
  (a: string) => `[${a}]`,
  (a: string) => `{'k': ${a}}`,
  (a: string) => `{${a}: 'v'}`,
  (a: string) => `${a}[0]`,
  (a: string) => `${a}['k']`,
  (a: string) => `size(${a})`,
  (a: string) => `${a}.size()`,
  (a: string) => `-${a}`,
  (a: string) => `!${a}`,
  (a: string) => `${a}.map(e, e)`,
  (a: string) => `${a}.map(e, string(e))`,
  (a: string) => `${a}.map(e, e + e)`,
  (a: string) => `${a}.map(e, e.note)`,
  (a: string) => `${a}.map(e, has(e.note) ? e.note + 'x' : e.text)`,
  (a: string) => `${a}.filter(e, true)`,
  (a: string) => `${a}.exists(e, e == e)`,
  (a: string) => `${a}.join(',')`,
  (a: string) => `${a}.split(',')`,
  (a: string) => `${a}.replace('a', 'b')`,
  (a: string) => `${a}.lowerAscii().contains('a')`,
  (a: string) => `${a}.getFullYear()`,
  (a: string) => `${a}.getSeconds()`,
  (a: string) => `${a}.text`,
  (a: string) => `${a}.note`,
  (a: string) => `${a}.note + 'x'`,
  (a: string) => `${a}.part.count`,
  (a: string) => `${a} + ${a}`,
  (a: string) => `${a} - ${a}`,
  (a: string) => `${a} * ${a}`,
  (a: string) => `${a} > ${a}`,
  (a: string) => `${a} == null`,
  (a: string) => `has(${a}) ? ${a} : ${a}`,
  (a: string) => `has(${a}) ? ${a} + ${a} : ${a}`,
  (a: string) => `${a} != null && ${a} == ${a}`,
  (a: string) => `[${a}, null]`,
];
const binary = [
  (a: string, b: string) => `${a} + ${b}`,
  (a: string, b: string) => `${a} - ${b}`,
  (a: string, b: string) => `${a} == ${b}`,
  (a: string, b: string) => `${a} < ${b}`,
  (a: string, b: string) => `input.${flag} ? ${a} : ${b}`,
  (a: string, b: string) => `input.${flag} ? [${a}] : [${b}]`,
  (a: string, b: string) => `${a} in ${b}`,
  (a: string, b: string) => `[${a}, ${b}]`,
  (a: string, b: string) => `{'k': ${a}, 'l': ${b}}`,
  (a: string, b: string) => `${a}[${b}]`,
  (a: string, b: string) => `${a}.map(e, e == ${b})`,
  (a: string, b: string) => `has(${a}) && ${a} == ${b}`,
];
const literals = [
  "1",
  "-1",
  "3000000000",
  "1u",
  "1.5",
  "'a'",
  "'KIND_A'",
  "b'a'",
  "true",
  "null",
  "[]",
  "{}",
  "duration('1s')",
];

const pick = <T>(list: readonly T[], random: Random): T => list[random(list.length)]!;
const kindOf = (field: DescField) =>
  field.fieldKind + (field.scalar ?? field.message?.typeName ?? field.enum?.typeName);

/** An expression over random fields; half of what it reads is of the target's own kind, else hardly any would be accepted. */
function wiring(target: DescField, roots: readonly string[], random: Random): string {
  const alike = fields.filter((field) => kindOf(field) === kindOf(target));
  const own = alike.length > 0 ? alike : fields;
  const read = (): string => {
    if (random(8) === 0) return pick(literals, random);
    return `${pick(roots, random)}.${pick(random(2) === 0 ? own : fields, random).name}`;
  };
  const inner = random(4) === 0 ? pick(unary, random)(read()) : read();
  return random(3) === 0 ? pick(binary, random)(inner, read()) : pick(unary, random)(inner);
}

const cel = (value: string) => ({ kind: { $case: "cel" as const, value } });
const give = { id: "a", call: "t.v1.S/Give" };

/** A chain of which only some fields are given. */
type GivenChain = Given<ChainSpec>;

/** Where an expression may stand: the chain with it, what it may read, and how it is run. */
interface Position {
  roots: readonly string[];
  /** Of the message whose field is set. */
  target: DescMessage;
  chain(field: string, expression: string): GivenChain;
  run(plan: ChainPlan, scope: Scope): Evaluated<unknown> | undefined;
}

const both = ["input", "steps.a.output"];
const positions: Record<string, Position> = {
  output: {
    ...{ roots: both, target: desc },
    chain: (field, expression) => ({ steps: [give], output: { [field]: cel(expression) } }),
    run: (plan, scope) => plan.bindOutput(scope),
  },
  "input of an action": {
    ...{ roots: both, target: desc },
    chain: (field, expression) => ({ steps: [give, { ...give, id: "b", input: { [field]: cel(expression) } }] }),
    run: (plan, scope) => plan.steps[1]!.bindInput(scope),
  },
  "input of a chain, after a step that may be skipped": {
    ...{ roots: [...both, "steps.a.output"], target: desc },
    chain: (field, expression) => ({
      steps: [
        { ...give, when: `input.${flag}` },
        { id: "b", call: "t.v1.S/Sub", input: { [field]: cel(expression) }, when: "has(steps.a.output)" },
      ],
    }),
    run: (plan, scope) => (scope.outputs[0] === undefined ? undefined : plan.steps[1]!.bindInput(scope)),
  },
  "output, with a step that may be skipped": {
    ...{ roots: ["input", "steps.a.output"], target: desc },
    chain: (field, expression) => ({
      steps: [{ ...give, when: `input.${flag}` }],
      output: {
        [field]: cel(`has(steps.a.output) ? ${expression} : ${expression.replaceAll("steps.a.output", "input")}`),
      },
    }),
    run: (plan, scope) => plan.bindOutput(scope),
  },
  condition: {
    ...{ roots: both, target: desc },
    chain: (_, expression) => ({ steps: [give, { ...give, id: "b", when: expression }] }),
    run: (plan, scope) => plan.steps[1]!.condition!(scope),
  },
  "case of a switch": {
    ...{ roots: both, target: desc },
    chain: (_, expression) => ({ steps: [give, { id: "b", switch: { cases: [{ when: expression }] } }] }),
    run: (plan, scope) => plan.steps[1]!.bindInput(scope),
  },
  "items of a fan-out": {
    ...{ roots: both, target: desc },
    chain: (field, expression) => ({
      steps: [give, { ...give, id: "b", each: { items: expression }, input: { [field]: cel("each.value") } }],
    }),
    run: openItems,
  },
  "input of an item": {
    ...{ roots: ["input", "each.value", "each.value"], target: desc },
    chain: (field, expression) => ({
      steps: [
        give,
        { ...give, id: "b", each: { items: "[input, steps.a.output]" }, input: { [field]: cel(expression) } },
      ],
    }),
    run: openItems,
  },
  catch: {
    ...{ roots: ["input"], target: desc },
    chain: (field, expression) => ({
      steps: [
        { ...give, onFailure: [{ output: { [field]: cel(expression.replace(`input.${text}`, "error.message")) } }] },
      ],
    }),
    run: (plan, scope) => plan.steps[0]!.catches![0]!.bindOutput!(scope),
  },
  compensation: {
    ...{ roots: both, target: desc },
    chain: (field, expression) => ({
      steps: [{ ...give, compensate: { call: "t.v1.S/Give", input: { [field]: cel(expression) } } }],
    }),
    run: (plan, scope) => plan.steps[1]!.bindInput(scope),
  },
  "form of a person": {
    ...{ roots: both, target: desc },
    chain: (_, expression) => ({
      steps: [give, { id: "b", human: { title: cel(expression), output: { ok: "bool" } } }],
    }),
    run: (plan, scope) => plan.steps[1]!.bindInput(scope),
  },
  "message with required fields": {
    ...{ roots: both, target: order },
    chain: (field, expression) => ({
      steps: [
        give,
        {
          ...{ id: "b", call: "old.v1.S/Take" },
          input: { text: cel("'a'"), count: cel(`input.${count}`), [field]: cel(expression) },
        },
      ],
    }),
    run: (plan, scope) => {
      const bound = plan.steps[1]!.bindInput(scope);
      // Whole: the worker's decoder must take it.
      if (bound.kind === "value") fromBinary(order, bound.value);
      return bound;
    },
  },
};

function openItems(plan: ChainPlan, scope: Scope): Evaluated<unknown> {
  const opened = plan.steps[1]!.each!.open(scope, 0);
  if (opened.kind !== "value") return opened;
  return opened.value.items.find(({ input }) => input.kind === "failed")?.input ?? opened;
}

/** The plan of a chain; undefined: refused. What is costly is evaluated at once. */
function compiled(chain: GivenChain): ChainPlan | undefined {
  const spec = ChainSpec.fromPartial({ contract: { name: "t.v1.S/Run" }, ...chain } as never);
  return compileChain(spec, {
    contractFor: (method) => contracts.get(method),
    isChain: (method) => method === "t.v1.S/Sub",
    force: true,
  }).plan;
}

const value = (bytes: Uint8Array): Value => ({
  contract: "",
  sizeBytes: bytes.length,
  sha256: new Uint8Array(0),
  bytes,
});
const scopeOf = (random: Random, skipped: boolean): Scope => ({
  run: { id: "r", namespace: "default", method: "t.v1.S/Run", acceptedAtMs: 0 },
  input: value(randomMessage(desc, random)),
  outputs: [skipped ? undefined : value(randomMessage(desc, random))],
  error: { reason: "BROKEN", message: "it broke", retryable: false, details: [], cause: undefined },
});

/** What a value can do to a well-typed expression: numbers out of range, texts that are no number or name, keys and indexes that are not there. */
const ofValues =
  /overflow|out of bounds|field not found|does not fit into|is too large for|Unable to convert|Cannot convert|is no value of|has no JSON form|Failed to decode|map key conflict|lone surrogate/i;
/** Fields that hold JSON: whoever reads one says by a conversion what it should be, which only the value shows. */
const json = fields.filter((field) => /\.(Struct|Value|ListValue)$/.test(field.message?.typeName ?? ""));
const readsJson = (expression: string): boolean =>
  json.some((field) => new RegExp(`\\.${field.name}\\b`).test(expression));

describe("what the type check accepts", () => {
  it.each(Object.entries(positions))(
    "never fails for a type when it runs: %s",
    (name, position) => {
      const random = seededRandom(20_261 + name.length);
      const faults: string[] = [];
      let accepted = 0;
      for (let n = 0; n < 600; n++) {
        const field = pick(position.target.fields, random);
        const expression = wiring(field, position.roots, random);
        const plan = compiled(position.chain(field.name, expression));
        if (plan === undefined) continue;
        accepted += 1;
        for (let tries = 0; tries < 4; tries++) {
          const result = position.run(plan, scopeOf(random, /skipped/.test(name) && tries % 2 === 1));
          const failed = result?.kind === "failed" ? result.error.message : undefined;
          if (failed !== undefined && !ofValues.test(failed) && !readsJson(expression))
            faults.push(`${field.name} = ${expression}: ${failed}`);
        }
      }
      expect(faults).toEqual([]);
      expect(accepted).toBeGreaterThan(4);
    },
    60_000,
  );

  it("lets every field be passed on to its like", () => {
    for (const { name } of fields)
      expect(compiled({ steps: [give], output: { [name]: cel(`input.${name}`) } }), name).toBeDefined();
  });
});

/**
 * The type check against the engine: whatever wiring is accepted when a chain is saved must never fail for a type when it runs. Wirings and
 * values are random, over every kind of field; failures that only a value shows (a number out of range, an index, a text that is no number)
 * are no fault of the check.
 */
import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { ChainSpec } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { type Random, randomMessage, seededRandom } from "../../../test/fixtures/random-message.js";
import type { ChainPlan, Scope, Value } from "../engine/plan.js";
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
  service S { rpc Give(All) returns (All); rpc Run(All) returns (All); }
  enum Kind { KIND_UNSPECIFIED = 0; KIND_A = 1; KIND_B = 2; }
  message Part { string text = 1; int32 count = 2; uint64 big = 3; Part part = 4; repeated Kind kinds = 5; }
  message All { ${all.join("\n")} }`;
const contracts = new Map(
  contractsOf(parseDescriptorSet(compileProtos({ "t.proto": protos }))).map((one) => [one.method, one]),
);
const desc: DescMessage = contracts.get("t.v1.S/Give")!.output;
const { fields } = desc;

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
  (a: string) => `${a}[0]`,
  (a: string) => `${a}['k']`,
  (a: string) => `size(${a})`,
  (a: string) => `-${a}`,
  (a: string) => `!${a}`,
  (a: string) => `${a}.map(e, e)`,
  (a: string) => `${a}.map(e, string(e))`,
  (a: string) => `${a}.filter(e, true)`,
  (a: string) => `${a}.exists(e, e == e)`,
  (a: string) => `${a}.text`,
  (a: string) => `${a}.part.count`,
  (a: string) => `${a} + ${a}`,
  (a: string) => `${a} * ${a}`,
  (a: string) => `${a} > ${a}`,
  (a: string) => `[${a}, null]`,
];
const binary = [
  (a: string, b: string) => `${a} + ${b}`,
  (a: string, b: string) => `${a} == ${b}`,
  (a: string, b: string) => `${a} < ${b}`,
  (a: string, b: string) => `true ? ${a} : ${b}`,
  (a: string, b: string) => `${a} in ${b}`,
  (a: string, b: string) => `[${a}, ${b}]`,
  (a: string, b: string) => `${a}[${b}]`,
  (a: string, b: string) => `${a} - ${b}`,
];

const pick = <T>(list: readonly T[], random: Random): T => list[random(list.length)]!;

/** An expression over random fields; half of what it reads is of the target's own kind, else hardly any would be accepted. */
function wiring(target: DescField, random: Random): string {
  const kindOf = (field: DescField) =>
    field.fieldKind + (field.scalar ?? field.message?.typeName ?? field.enum?.typeName);
  const alike = fields.filter((field) => kindOf(field) === kindOf(target));
  const read = (): string =>
    `${pick(["input", "steps.a.output"], random)}.${pick(random(2) === 0 ? alike : fields, random).name}`;
  const inner = random(4) === 0 ? pick(unary, random)(read()) : read();
  return random(3) === 0 ? pick(binary, random)(inner, read()) : pick(unary, random)(inner);
}

/** The plan of a chain that puts the expression into the field; undefined: refused. */
function compiled(field: DescField, expression: string): ChainPlan | undefined {
  const spec = ChainSpec.fromPartial({
    contract: { name: "t.v1.S/Run" },
    steps: [{ id: "a", call: "t.v1.S/Give" }],
    output: { [field.name]: { kind: { $case: "cel", value: expression } } },
  });
  return compileChain(spec, { contractFor: (method) => contracts.get(method) }).plan;
}

const value = (bytes: Uint8Array): Value => ({
  contract: "",
  sizeBytes: bytes.length,
  sha256: new Uint8Array(0),
  bytes,
});
const scopeOf = (random: Random): Scope => ({
  run: { id: "r", namespace: "default", method: "t.v1.S/Run", acceptedAtMs: 0 },
  input: value(randomMessage(desc, random)),
  outputs: [value(randomMessage(desc, random))],
});

/** What a value can do to a well-typed expression: numbers out of range, texts that are no number or name, keys and indexes that are not there. */
const ofValues =
  /overflow|out of bounds|field not found|does not fit into|is too large for|Unable to convert|Cannot convert|is no value of|has no JSON form/i;
/**
 * Fields whose type only a value shows: a wrapper that is not set reads as null, as CEL wants it (has() asks), and a Value is anything,
 * which is why it needs a conversion that may fail.
 */
const open = fields.filter((field) => {
  const type = field.message?.typeName ?? "";
  return type.startsWith("google.protobuf.") && !/Timestamp|Duration/.test(type);
});
const readsOpen = (expression: string): boolean =>
  open.some((field) => new RegExp(`\\.${field.name}\\b`).test(expression));

describe("what the type check accepts", () => {
  it("never fails for a type when it runs, and every field can be passed on to its like", () => {
    const random = seededRandom(20_261);
    const faults: string[] = [];
    let accepted = 0;
    for (let n = 0; n < 1_000; n++) {
      const field = pick(fields, random);
      const expression = wiring(field, random);
      const plan = compiled(field, expression);
      if (plan === undefined) continue;
      accepted += 1;
      for (let tries = 0; tries < 3; tries++) {
        const result = plan.bindOutput(scopeOf(random));
        if (result.kind === "failed" && !ofValues.test(result.error.message) && !readsOpen(expression))
          faults.push(`${field.name} = ${expression}: ${result.error.message}`);
      }
    }
    expect(faults).toEqual([]);
    expect(accepted).toBeGreaterThan(60);
    for (const field of fields) expect(compiled(field, `input.${field.name}`), field.name).toBeDefined();
  }, 60_000);
});

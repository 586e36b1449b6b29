import { type DescMessage, fromBinary, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../../test/fixtures/compile-protos.js";
import { randomMessage, seededRandom } from "../../../../test/fixtures/random-message.js";
import type { Evaluated, Scope, Value } from "../../engine/plan.js";
import { jsonToBytes } from "../check.js";
import type { Contract } from "../contract.js";
import { contractsOf, parseDescriptorSet } from "../descriptors.js";
import { isAssignable, targetOf } from "./assignable.js";
import { type BindOptions, compileBinding, compileCondition } from "./bind.js";
import { checkExpression } from "./check.js";
import { createScopeTypes, type ScopeTypes } from "./scope-types.js";

/** Fields of every kind; `shift` moves their numbers, and `optional` gives scalars presence, so that source and target differ. */
const fields = (shift: number, optional: string) => `
  ${optional} double f_double = ${1 + shift}; ${optional} float f_float = ${2 + shift};
  ${optional} int32 f_int32 = ${3 + shift}; ${optional} int64 f_int64 = ${4 + shift};
  ${optional} uint32 f_uint32 = ${5 + shift}; ${optional} uint64 f_uint64 = ${6 + shift};
  ${optional} sint32 f_sint32 = ${7 + shift}; ${optional} sint64 f_sint64 = ${8 + shift};
  ${optional} fixed32 f_fixed32 = ${9 + shift}; ${optional} fixed64 f_fixed64 = ${10 + shift};
  ${optional} sfixed32 f_sfixed32 = ${11 + shift}; ${optional} sfixed64 f_sfixed64 = ${12 + shift};
  ${optional} bool f_bool = ${13 + shift}; ${optional} string f_string = ${14 + shift};
  ${optional} bytes f_bytes = ${15 + shift}; ${optional} Kind f_kind = ${16 + shift};
  Item f_item = ${17 + shift};
  repeated int32 r_int32 = ${18 + shift}; repeated string r_string = ${19 + shift};
  repeated Item r_item = ${20 + shift}; repeated Kind r_kind = ${21 + shift}; repeated double r_double = ${22 + shift};
  map<string, string> m_string = ${23 + shift}; map<int32, Item> m_item = ${24 + shift};
  map<bool, Kind> m_kind = ${25 + shift}; map<uint64, bytes> m_bytes = ${26 + shift};
  google.protobuf.Timestamp at = ${27 + shift}; google.protobuf.Duration took = ${28 + shift};
  google.protobuf.Struct struct = ${29 + shift}; google.protobuf.Value value = ${30 + shift};
  google.protobuf.ListValue list = ${31 + shift}; google.protobuf.StringValue w_string = ${32 + shift};
  google.protobuf.Int64Value w_int64 = ${33 + shift}; google.protobuf.BoolValue w_bool = ${34 + shift};
  google.protobuf.UInt32Value w_uint32 = ${35 + shift};
  oneof choice { string o_string = ${36 + shift}; Item o_item = ${37 + shift}; int32 o_int32 = ${38 + shift}; }`;

const set = parseDescriptorSet(
  compileProtos({
    "acme/copy.proto": `syntax = "proto3"; package acme.v1;
      import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto";
      import "google/protobuf/struct.proto"; import "google/protobuf/wrappers.proto"; import "google/protobuf/any.proto";
      service Copy { rpc Run(Source) returns (Target); rpc Wrap(Source) returns (Wrapping); }
      enum Kind { KIND_UNSPECIFIED = 0; KIND_A = 1; KIND_B = 2; }
      message Item { string name = 1; int32 n = 2; Item next = 3; oneof pick { string x = 4; string y = 5; } }
      message Source { ${fields(0, "")} google.protobuf.Any any = 90; optional string o = 91; }
      message Target { ${fields(100, "optional")} google.protobuf.Any any = 190; }
      message Wrapping { Source source = 1; repeated Source sources = 2; Item item = 3; }`,
  }),
);
const [copy, wrap] = contractsOf(set, ["acme.v1.Copy/Run", "acme.v1.Copy/Wrap"]) as [Contract, Contract];
const { input: source, output: target } = copy;

const types = createScopeTypes({ desc: source, registry: copy.registry }, [
  { id: "done", index: 0, output: target, registry: copy.registry, skippable: false },
  { id: "maybe", index: 1, output: source, registry: copy.registry, skippable: true },
]);

const payload = (bytes: Uint8Array | undefined): Value => ({
  contract: "",
  sizeBytes: bytes?.length ?? 0,
  sha256: new Uint8Array(),
  ...(bytes === undefined ? { reference: "elsewhere" } : { bytes }),
});
const run = { id: "run-1", namespace: "default", method: "acme.v1.Copy/Run", acceptedAtMs: 1_000 };
const scopeOf = (input: Uint8Array, outputs: (Value | undefined)[] = []): Scope => ({
  run,
  input: payload(input),
  outputs,
});

/** Compiles `field: expression` pairs onto a type, without the checks of whole chains. */
function bind(
  mapping: Record<string, string>,
  options: Partial<BindOptions> & { desc?: DescMessage; types?: ScopeTypes } = {},
): (scope: Scope) => Evaluated<Uint8Array> {
  const desc = options.desc ?? target;
  const sources = Object.entries(mapping).map(([name, text]) => {
    const field = desc.fields.find((candidate) => candidate.name === name)!;
    const checked = checkExpression(text, options.types ?? types, { bareAllowed: true });
    if (!checked.ok) throw new Error(`${text}: ${JSON.stringify(checked.problems)}`);
    expect(isAssignable(checked.value.ast, checked.value.type, targetOf(field), options.types ?? types), text).toBe(
      true,
    );
    return { kind: "expression" as const, field, expression: checked.value };
  });
  return compileBinding(desc, sources, options.types ?? types, { label: "step", force: false, ...options });
}

const show = (result: Evaluated<Uint8Array>, desc = target): JsonValue | string =>
  result.kind === "value" ? toJson(desc, fromBinary(desc, result.value)) : JSON.stringify(result);

/** An encoded Source from JSON. */
function given(value: JsonObject): Uint8Array {
  const read = jsonToBytes(copy, "input", { value });
  if (!read.ok) throw new Error(JSON.stringify(read.violations));
  return read.bytes;
}

const nothing = new Uint8Array();
const evaluate = (text: string, field: string, input: Uint8Array = nothing) =>
  show(bind({ [field]: text }, { force: true })(scopeOf(input)));

describe("projections", () => {
  const everyField = source.fields.map((field) => field.name);
  const copied = everyField.filter((name) => !["any", "o", "o_string", "o_item", "o_int32"].includes(name));
  const oneofs = ["o_string", "o_item", "o_int32"];
  const both = (mapping: Record<string, string>, desc = target) => ({
    fast: bind(mapping, { desc }),
    slow: bind(mapping, { desc, projections: false, force: true }),
  });
  const all = copied.map((name) => both({ [name]: `input.${name}` }));
  const members = oneofs.map((name) => both({ [name]: `input.${name}` }));
  const deep = [
    both({ f_string: "input.f_item.name" }),
    both({ f_int32: "input.f_item.next.n" }),
    both({ o_string: "input.f_item.next.x" }),
    both({ f_string: "input.o_item.y" }),
    both({ f_item: "input.o_item.next" }),
    both({ f_item: "steps.done.output.f_item" }),
    both({ f_string: "steps.maybe.output.f_string" }),
  ];
  const whole = [both({ source: "input" }, wrap.output), both({ source: "steps.maybe.output" }, wrap.output)];

  it("give what decoding, evaluating and encoding gives, for messages written in any number of pieces", () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 3 }), fc.boolean(), (seed, pieces, skipped) => {
        const random = seededRandom(seed);
        const piece = () => randomMessage(source, random);
        // Encoded messages one after the other are one message: later values win, messages and lists are merged.
        const input = Buffer.concat(Array.from({ length: pieces }, piece));
        const outputs = [payload(randomMessage(target, random)), skipped ? undefined : payload(piece())];
        const scope = scopeOf(input, outputs);
        for (const { fast, slow } of [...all, ...members, ...deep])
          expect(show(fast(scope))).toEqual(show(slow(scope)));
        for (const { fast, slow } of whole)
          expect(show(fast(scope), wrap.output)).toEqual(show(slow(scope), wrap.output));
      }),
      { numRuns: 60 },
    );
  });

  it("leave groups to evaluation, and pass over them", () => {
    const [grouped] = contractsOf(
      parseDescriptorSet(
        compileProtos({
          "acme/grouped.proto": `edition = "2023"; package acme.v1;
            service Grouped { rpc Run(Whole) returns (Whole); }
            message Whole { string before = 1; Whole part = 2 [features.message_encoding = DELIMITED];
              repeated Whole parts = 3 [features.message_encoding = DELIMITED]; Whole plain = 4; string after = 5; }`,
        }),
      ),
    ) as [Contract];
    const desc = grouped.output;
    const inner = { before: "b", plain: { after: "p" }, parts: [{}, { after: "q", part: {} }] };
    const read = jsonToBytes(grouped, "input", { value: { before: "a", part: inner, parts: [inner], after: "z" } });
    if (!read.ok) throw new Error(JSON.stringify(read.violations));
    const scope = scopeOf(Buffer.concat([Uint8Array.of(0x7b, 0x0b, 0x08, 1, 0x0c, 0x7c), read.bytes]));
    const ofInput = createScopeTypes({ desc, registry: grouped.registry }, []);
    const paths = { part: "input.part", plain: "input.part", parts: "input.parts", after: "input.part.plain.after" };
    for (const [field, path] of Object.entries({ ...paths, before: "input.after" })) {
      const fast = bind({ [field]: path }, { desc, types: ofInput });
      const slow = bind({ [field]: path }, { desc, types: ofInput, projections: false, force: true });
      expect(show(fast(scope), desc), path).toEqual(show(slow(scope), desc));
    }
    expect(show(bind({ plain: "input.part" }, { desc, types: ofInput })(scope), desc)).toEqual({ plain: inner });
    const cut = scopeOf(Uint8Array.of(0x7b, 0x0b, 0x0c));
    expect(bind({ before: "input.after" }, { desc, types: ofInput })(cut)).toMatchObject({ kind: "failed" });
  });

  it("take the last of single values, all of repeated ones, and unset a oneof's earlier member", () => {
    const input = Buffer.concat([
      given({ fString: "first", rString: ["a"], oString: "x" }),
      given({ fString: "last", rString: ["b"], oInt32: 5 }),
    ]);
    const mapping = { f_string: "input.f_string", r_string: "input.r_string", o_string: "input.o_string" };
    expect(show(bind(mapping)(scopeOf(input)))).toEqual({ fString: "last", rString: ["a", "b"] });
  });

  it("leave unset what is unset, and a written-out default of a field without presence", () => {
    expect(show(bind({ f_string: "input.f_string", f_int32: "input.f_int32" })(scopeOf(nothing)))).toEqual({});
    const zeros = Uint8Array.of(0x18, 0x80, 0x00, 0x72, 0x00); // f_int32 = 0, f_string = ""
    expect(show(bind({ f_string: "input.f_string", f_int32: "input.f_int32" })(scopeOf(zeros)))).toEqual({});
  });

  it("copy numbers packed and unpacked", () => {
    const unpacked = Uint8Array.of(0x90, 0x01, 1, 0x90, 0x01, 2, 0x92, 0x01, 2, 3, 4);
    expect(show(bind({ r_int32: "input.r_int32" })(scopeOf(unpacked)))).toEqual({ rInt32: [1, 2, 3, 4] });
  });

  it("copy an Any that nobody can read", () => {
    const input = Uint8Array.of(0xd2, 0x05, 4, 0x0a, 2, 0x78, 0x79);
    const { fast } = { fast: compileBinding(target, [anyPath()], types, { label: "step", force: false }) };
    const result = fast(scopeOf(input));
    expect(result.kind === "value" && Buffer.from(result.value).toString("hex")).toBe("f20b040a027879");
  });

  it("answer garbage with a failure, never an exception", () => {
    const fast = bind({ f_string: "input.f_item.name", r_int32: "input.r_int32" });
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        expect(["value", "failed"]).toContain(fast(scopeOf(bytes)).kind);
      }),
    );
    expect(fast(scopeOf(Uint8Array.of(0x8a, 0x01, 50)))).toMatchObject({ kind: "failed" });
  });

  it("stay the same however often and however large", () => {
    const fast = bind({ f_string: "input.f_string" });
    const large = given({ fString: "x".repeat(2_000_000) });
    expect(show(fast(scopeOf(large)))).toEqual({ fString: "x".repeat(2_000_000) });
    expect(show(fast(scopeOf(given({ fString: "small" }))))).toEqual({ fString: "small" });
  });
});

function anyPath() {
  const checked = checkExpression("input.any", types, { bareAllowed: true });
  if (!checked.ok) throw new Error("input.any");
  return { kind: "expression" as const, field: target.field["any"]!, expression: checked.value };
}

describe("evaluation", () => {
  it.each<[string, string, JsonObject]>([
    ["'a' + 'b'", "f_string", { fString: "ab" }],
    ["1 + 2", "f_int32", { fInt32: 3 }],
    ["1", "f_double", { fDouble: 1 }],
    ["-1", "f_float", { fFloat: -1 }],
    ["1", "f_uint64", { fUint64: "1" }],
    ["9007199254740993", "f_int64", { fInt64: "9007199254740993" }],
    ["1u + 2u", "f_uint32", { fUint32: 3 }],
    ["true && !false", "f_bool", { fBool: true }],
    ["b'ab'", "f_bytes", { fBytes: "YWI=" }],
    ["'KIND_B'", "f_kind", { fKind: "KIND_B" }],
    ["2", "f_kind", { fKind: "KIND_B" }],
    ["7", "f_kind", { fKind: 7 }],
    ["['a', 'b']", "r_string", { rString: ["a", "b"] }],
    ["[1, 2]", "r_double", { rDouble: [1, 2] }],
    ["['KIND_A', 'KIND_B']", "r_kind", { rKind: ["KIND_A", "KIND_B"] }],
    ["[]", "r_int32", {}],
    ["{'a': 'b'}", "m_string", { mString: { a: "b" } }],
    ["{}", "m_string", {}],
    ["{true: 'KIND_A'}", "m_kind", { mKind: { true: "KIND_A" } }],
    ["{'a': 1, 'b': [true, null], 'c': {'d': 1.5}}", "struct", { struct: { a: 1, b: [true, null], c: { d: 1.5 } } }],
    ["[1, 'a']", "list", { list: [1, "a"] }],
    ["null", "value", { value: null }],
    ["b'ab'", "value", { value: "YWI=" }],
    ["'x'", "w_string", { wString: "x" }],
    ["5", "w_int64", { wInt64: "5" }],
    ["5", "w_uint32", { wUint32: 5 }],
    ["null", "w_string", {}],
    ["timestamp('2026-01-02T03:04:05Z')", "at", { at: "2026-01-02T03:04:05Z" }],
    ["duration('90s')", "took", { took: "90s" }],
    ["timestamp('2026-01-02T03:04:05Z') + duration('1h')", "at", { at: "2026-01-02T04:04:05Z" }],
    ["string(duration('90s'))", "f_string", { fString: "90s" }],
    ["run.id + '/' + run.namespace", "f_string", { fString: "run-1/default" }],
    ["run.accepted_at", "at", { at: "1970-01-01T00:00:01Z" }],
    ["'abc'.matches('^a.c$') ? 1 : 2", "f_double", { fDouble: 1 }],
    ["'a,b'.split(',').map(x, x.upperAscii()).join('-')", "f_string", { fString: "A-B" }],
    ["'größe'.size()", "f_int32", { fInt32: 5 }],
    ["int(5u) + int('6')", "f_int64", { fInt64: "11" }],
  ])("of %s into %s", (text, field, expected) => {
    expect(evaluate(text, field)).toEqual(expected);
  });

  it("reads fields of every kind", () => {
    const input = given({
      fInt64: "5",
      fKind: "KIND_B",
      fItem: { name: "n", next: { n: 7 } },
      rItem: [{ n: 1 }, { n: 2 }],
      mString: { k: "v" },
      at: "2026-01-02T03:04:05Z",
      struct: { a: { b: "deep" } },
      wString: "wrapped",
    });
    const cases: [string, string, JsonObject][] = [
      ["input.f_int64 * 2", "f_int64", { fInt64: "10" }],
      ["input.f_kind == 2 ? 'yes' : 'no'", "f_string", { fString: "yes" }],
      ["input.f_item.next.n + 1", "f_int32", { fInt32: 8 }],
      ["input.r_item.map(i, i.n)", "r_int32", { rInt32: [1, 2] }],
      ["input.r_item[1]", "f_item", { fItem: { n: 2 } }],
      ["input.r_item.filter(i, i.n > 1)", "r_item", { rItem: [{ n: 2 }] }],
      ["input.r_item.exists(i, i.n == 2) && input.r_item.all(i, i.n > 0)", "f_bool", { fBool: true }],
      ["input.m_string['k'] + input.m_string.k", "f_string", { fString: "vv" }],
      ["'k' in input.m_string", "f_bool", { fBool: true }],
      ["input.at.getFullYear()", "f_int32", { fInt32: 2026 }],
      ["string(input.at)", "f_string", { fString: "2026-01-02T03:04:05Z" }],
      ["string(input.struct.a.b)", "f_string", { fString: "deep" }],
      ["input.w_string + '!'", "f_string", { fString: "wrapped!" }],
      [
        "{'item': input.f_item, 'at': input.at}",
        "struct",
        { struct: { item: { name: "n", next: { n: 7 } }, at: "2026-01-02T03:04:05Z" } },
      ],
      ["has(input.f_item.next) && !has(input.o_item)", "f_bool", { fBool: true }],
      ["input.f_item", "value", { value: { name: "n", next: { n: 7 } } }],
      ["{1: input.f_item}", "m_item", { mItem: { 1: { name: "n", next: { n: 7 } } } }],
    ];
    for (const [text, field, expected] of cases) expect(evaluate(text, field, input), text).toEqual(expected);
  });

  it("knows a skipped step's output from an empty one", () => {
    const condition = (text: string, outputs: (Value | undefined)[]) => {
      const checked = checkExpression(text, types, { bareAllowed: false });
      if (!checked.ok) throw new Error(JSON.stringify(checked.problems));
      return compileCondition(checked.value, types, { label: "step", force: false })(scopeOf(nothing, outputs));
    };
    const there = [undefined, payload(nothing)];
    expect(condition("has(steps.maybe.output)", [])).toEqual({ kind: "value", value: false });
    expect(condition("has(steps.maybe.output)", there)).toEqual({ kind: "value", value: true });
    expect(condition("has(steps.maybe.output.f_item.next)", [])).toEqual({ kind: "value", value: false });
    expect(condition("!has(steps.maybe.output.f_string)", there)).toEqual({ kind: "value", value: true });
    expect(condition("has(steps.maybe.output) && steps.maybe.output.f_int32 == 0", there)).toEqual({
      kind: "value",
      value: true,
    });
  });

  it.each([
    ["input.f_int64 / 0", "f_int64", "divi"],
    ["input.f_int64 + 3000000000", "f_int32", "3000000000 does not fit into int32"],
    ["input.f_int64 - 1", "f_uint32", undefined],
    ["input.r_string[3]", "f_string", "step, field"],
    ["input.m_string['x']", "f_string", "input.m_string['x']"],
    ["input.f_string + 'KIND_X'", "f_kind", '"KIND_X" is no value of acme.v1.Kind'],
    ["{'a': input.f_int64 + 9007199254740993}", "struct", "too large for a JSON number"],
    ["{'a': 1.0 / double(input.f_int64)}", "struct", "has no JSON form"],
    ["string(b'\\xff' + input.f_bytes)", "f_string", "step, field"],
  ])("of %s into %s fails with the step, the field and the expression", (text, field, message) => {
    const checked = checkExpression(text, types, { bareAllowed: true });
    if (message === undefined) {
      expect(
        checked.ok &&
          isAssignable(
            checked.value.ast,
            checked.value.type,
            targetOf(target.fields.find((candidate) => candidate.name === field)!),
            types,
          ),
      ).toBe(false);
      return;
    }
    const result = bind({ [field]: text })(scopeOf(nothing));
    expect(result).toMatchObject({ kind: "failed", error: { reason: "EXPRESSION_FAILED" } });
    expect(JSON.stringify(result)).toContain(JSON.stringify(message).slice(1, -1));
    expect(JSON.stringify(result)).toContain(`step, field \\"${field}\\"`);
  });
});

describe("work that may take long", () => {
  it("is deferred when a payload is not in memory, and only then for a path", () => {
    const path = bind({ f_string: "steps.done.output.f_string" });
    expect(path(scopeOf(nothing, [payload(undefined)]))).toEqual({ kind: "deferred" });
    expect(path(scopeOf(nothing, [payload(nothing)])).kind).toBe("value");
    expect(bind({ f_string: "input.f_string" })(scopeOf(nothing, [payload(undefined)])).kind).toBe("value");
    const expression = bind({ f_string: "steps.done.output.f_string + 'x'" });
    expect(expression(scopeOf(nothing, [payload(undefined)]))).toEqual({ kind: "deferred" });
  });

  it("is deferred when a list is long, and done when forced", () => {
    const mapping = { r_string: "input.r_string.map(s, s + '!')" };
    const long = given({ rString: Array(20_000).fill("a") });
    expect(bind(mapping)(scopeOf(given({ rString: ["a"] }))).kind).toBe("value");
    expect(bind(mapping)(scopeOf(long))).toEqual({ kind: "deferred" });
    expect(bind(mapping, { force: true })(scopeOf(long))).toMatchObject({ kind: "value" });
  });

  it("is deferred when the result is large, and fails when it is absurd even if forced", () => {
    const square = { struct: "{'all': input.r_string.map(s, input.r_string)}" };
    const result = bind(square)(scopeOf(given({ rString: Array(100).fill("a".repeat(20)) })));
    expect(result).toEqual({ kind: "deferred" });
    const absurd = bind(square, { force: true })(scopeOf(given({ rString: Array(4_000).fill("") })));
    expect(absurd).toMatchObject({ kind: "failed" });
  });

  it("does not let a pattern blow up", () => {
    const text = `${"a".repeat(40)}!`;
    const result = bind({ f_bool: "input.f_string.matches('^(a+)+$')" })(scopeOf(given({ fString: text })));
    expect(show(result)).toEqual({ fBool: false });
  });
});

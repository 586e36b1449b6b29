/**
 * The whole-chain check, word by word: what may be wired and what not, and that each refusal says where it is, what is expected, what was
 * found and, where there is one, what was meant.
 */
import type { ChainProblem } from "@taskmesh/proto";
import { parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { compileChain } from "./compile-chain.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";

const protos = {
  "t.proto": `syntax = "proto3"; package t.v1;
    import "google/protobuf/wrappers.proto"; import "google/protobuf/struct.proto"; import "google/protobuf/any.proto";
    import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto"; import "buf/validate/validate.proto";
    service Actions { rpc Make(All) returns (All); rpc Undo(UndoRequest) returns (Part); rpc Need(Needy) returns (Part); }
    service Chains { rpc Run(All) returns (All); rpc Sub(Part) returns (Part); }
    enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; COLOR_GREEN = 2; }
    enum Mood { MOOD_UNSPECIFIED = 0; MOOD_GOOD = 1; }
    message Part { string name = 1; int32 n = 2; google.protobuf.StringValue note = 3; }
    message Needy { string text = 1 [(buf.validate.field).required = true]; }
    message UndoRequest { string text = 1; int64 big = 2; Part part = 3; }
    message All {
      string text = 1; int32 n = 2; int64 big = 3; uint32 u = 4; uint64 ubig = 5; double d = 6; float f = 7; bool flag = 8; bytes raw = 9;
      Color color = 10; Mood mood = 11; repeated Color colors = 12; Part part = 13; repeated Part parts = 14;
      repeated string texts = 15; repeated int32 ns = 16; map<string, string> pairs = 17; map<int32, string> numbered = 18;
      map<string, Part> named = 19; google.protobuf.Timestamp at = 20; google.protobuf.Duration took = 21;
      google.protobuf.Struct struct = 22; google.protobuf.Value value = 23; google.protobuf.ListValue list = 24;
      google.protobuf.Any any = 25; google.protobuf.StringValue note = 26; google.protobuf.Int64Value count = 27;
      google.protobuf.BoolValue sure = 28; google.protobuf.UInt32Value width = 29; optional int32 maybe = 30;
      repeated google.protobuf.StringValue notes = 31;
      oneof choice { string left = 32; int32 right = 33; Part other = 34; }
    }`,
  "old.proto": `syntax = "proto2"; package old.v1;
    service Old { rpc Take(Order) returns (Order); }
    enum Size { SMALL = 1; LARGE = 7; }
    message Order { required string id = 1; required int32 n = 2; optional Size size = 3; optional string text = 4; }`,
};
const contracts = new Map(contractsOf(parseDescriptorSet(compileProtos(protos))).map((one) => [one.method, one]));
const { registry } = contracts.get("t.v1.Actions/Make")!;

const compile = (steps: string, output = "{}") => {
  const document = parseChainDocument(`contract: { name: t.v1.Chains/Run }
steps:
  - { id: a, call: t.v1.Actions/Make, input: {} }
  - { id: maybe, when: input.flag, call: t.v1.Actions/Make, input: {} }
${steps.replace(/^/gm, "  ")}
output: ${output}
`);
  if (document.spec === undefined) throw new Error(JSON.stringify(document.problems));
  return compileChain(document.spec, {
    contractFor: (method) => contracts.get(method),
    isChain: (method) => method.startsWith("t.v1.Chains/"),
    methods: () => contracts.keys(),
    resolveType: (name) => registry.getMessage(name) ?? registry.getEnum(name),
  });
};

/** A step that puts the expression into a field of the action that has every kind of field. */
const make = (field: string, cel: string): string =>
  `- { id: s, call: t.v1.Actions/Make, input: { ${field}: ${JSON.stringify(cel)} } }`;

type Row = [steps: string, refused?: Partial<ChainProblem> & { part?: string }];
const table: Record<string, Row[]> = {
  binding: [
    [make("text", "input.text + steps.a.output.text")],
    [make("text", "input.txt"), { reason: "UNKNOWN_FIELD", part: "txt", found: "txt", suggestion: "text" }],
    [make("text", "steps.b.output.text"), { reason: "UNKNOWN_STEP", part: "b", expected: "one of a, maybe, s" }],
    [make("txet", "input.text"), { reason: "UNKNOWN_FIELD", path: "steps[2].input.txet", suggestion: "text" }],
    [make("text", "input.n"), { reason: "WRONG_TYPE", part: "input.n", expected: "string", found: "int" }],
    [make("text", "input.flag ? 'a' : input.n"), { reason: "WRONG_TYPE", expected: "string", found: "int" }],
    [make("text", "steps.maybe.output.text + ''"), { reason: "MISSING_GUARD", part: "steps.maybe.output.text" }],
    [make("text", "steps.s.output.text"), { reason: "SELF_REFERENCE" }],
    [make("text", "input.text + 1"), { reason: "WRONG_TYPE" }],
    [make("text", "input.texts.join(input.text) + string(input.ns[0])")],
    [make("text", "input.ns.join(',')"), { reason: "WRONG_TYPE" }],
    [make("text", "lower(input.text)"), { reason: "UNKNOWN_FUNCTION", found: "lower" }],
    [make("text", "input.n.size()"), { reason: "WRONG_TYPE", found: "int.size()" }],
    [make("text", "input.text.name"), { reason: "WRONG_TYPE", part: "name" }],
    ["- { id: s, call: t.v1.Actions/Need, input: { text: steps.a.output.text } }"],
    ["- { id: s, call: t.v1.Actions/Need, input: {} }", { reason: "MISSING_FIELD", expected: "string" }],
    [
      "- { id: s, call: t.v1.Actions/Need, input: { text: steps.maybe.output.text } }",
      { reason: "MISSING_GUARD", part: "steps.maybe.output.text", expected: "has(steps.maybe.output)" },
    ],
    ["- { id: s, when: has(steps.maybe.output), call: t.v1.Actions/Need, input: { text: steps.maybe.output.text } }"],
  ],
  condition: [
    ["- { id: s, when: 'input.n > 0 && input.texts.exists(t, t == input.text)', call: t.v1.Actions/Make, input: {} }"],
    [
      "- { id: s, when: input.n, call: t.v1.Actions/Make, input: {} }",
      { reason: "WRONG_TYPE", expected: "bool", found: "int" },
    ],
    [
      "- { id: s, when: input.sure, call: t.v1.Actions/Make, input: {} }",
      { reason: "MISSING_GUARD", part: "input.sure" },
    ],
    ["- { id: s, when: has(input.sure) && input.sure, call: t.v1.Actions/Make, input: {} }"],
    ["- { id: s, switch: { cases: [{ when: input.note == 'a', steps: [] }] } }"],
    [
      "- { id: s, switch: { cases: [{ when: input.text, steps: [] }] } }",
      { reason: "WRONG_TYPE", path: "steps[2].switch.cases[0].when" },
    ],
    [`- { id: s, switch: { cases: [${"{ when: input.flag, steps: [] }, ".repeat(100)}] } }`],
    ["- { id: s, call: t.v1.Actions/Make, input: {}, repeat: { until: steps.s.output.flag } }"],
    [
      "- { id: s, call: t.v1.Actions/Make, input: {}, repeat: { until: steps.s.output.text } }",
      { reason: "WRONG_TYPE", expected: "bool" },
    ],
  ],
  "fan-out item": [
    [
      "- { id: s, each: { items: input.parts }, call: t.v1.Actions/Make, input: { text: each.value.name, n: each.index } }",
    ],
    [
      "- { id: s, each: { items: input.parts }, call: t.v1.Actions/Make, input: { text: each.value.nam } }",
      { reason: "UNKNOWN_FIELD", suggestion: "name" },
    ],
    [
      "- { id: s, each: { items: input.parts }, call: t.v1.Actions/Make, input: { text: each.value.n } }",
      { reason: "WRONG_TYPE", part: "each.value.n" },
    ],
    [
      "- { id: s, each: { items: input.parts }, call: t.v1.Actions/Make, input: { text: each.value.note + '!' } }",
      { reason: "MISSING_GUARD", part: "each.value.note", suggestion: "has(each.value.note) ? each.value.note : ''" },
    ],
    ["- { id: s, each: { items: input.notes }, call: t.v1.Actions/Make, input: { text: each.value + '!' } }"],
    [
      "- { id: s, each: { entries: input.named }, call: t.v1.Actions/Make, input: { text: each.key, part: each.value } }",
    ],
    [
      "- { id: s, each: { items: input.text }, call: t.v1.Actions/Make, input: {} }",
      { reason: "WRONG_TYPE", expected: "a list", found: "string" },
    ],
    ["- { id: s, each: { entries: input.numbered }, call: t.v1.Actions/Make, input: {} }", { reason: "WRONG_TYPE" }],
    [
      "- { id: s, each: { items: input.ns }, call: t.v1.Actions/Make, input: { n: each.value } }\n- { id: t, call: t.v1.Actions/Make, input: { text: steps.s.output.text } }",
      { reason: "WRONG_TYPE", stepId: "t" },
    ],
    [
      "- { id: s, each: { items: input.ns }, call: t.v1.Actions/Make, input: { n: each.value } }\n- { id: t, call: t.v1.Actions/Make, input: { texts: 'steps.s.output.map(o, o.text)' } }",
    ],
  ],
  "sub-chain boundary": [
    [
      "- { id: s, call: t.v1.Chains/Sub, input: { name: input.text } }\n- { id: t, call: t.v1.Actions/Make, input: { part: steps.s.output } }",
    ],
    ["- { id: s, call: t.v1.Chains/Sub, input: { name: input.n } }", { reason: "WRONG_TYPE", part: "input.n" }],
    [
      "- { id: s, call: t.v1.Chains/Sub, input: {} }\n- { id: t, call: t.v1.Actions/Make, input: { text: steps.s.output.text } }",
      { reason: "UNKNOWN_FIELD", stepId: "t" },
    ],
    ["- { id: s, call: t.v1.Chains/Subb, input: {} }", { reason: "UNKNOWN_ACTION", suggestion: "t.v1.Chains/Sub" }],
  ],
  catch: [
    [
      "- { id: s, call: t.v1.Actions/Undo, input: {}, on_failure: [{ output: { name: error.message, n: size(error.details) } }] }",
    ],
    [
      "- { id: s, call: t.v1.Actions/Undo, input: {}, on_failure: [{ output: { name: error.messge } }] }",
      { reason: "UNKNOWN_FIELD", suggestion: "message" },
    ],
    [
      "- { id: s, call: t.v1.Actions/Undo, input: {}, on_failure: [{ output: { n: error.message } }] }",
      { reason: "WRONG_TYPE", path: "steps[2].on_failure[0].output.n", found: "string" },
    ],
    [
      "- { id: s, call: t.v1.Actions/Undo, input: {}, on_failure: [{ continue: true }] }\n- { id: t, call: t.v1.Actions/Make, input: { text: 'steps.s.output.name + \"\"' } }",
      { reason: "MISSING_GUARD", stepId: "t" },
    ],
  ],
  "compensation pair": [
    [
      "- { id: s, call: t.v1.Actions/Make, input: {}, compensate: { call: t.v1.Actions/Undo, input: { text: steps.s.output.text, big: steps.s.output.big, part: input.part } } }",
    ],
    [
      "- { id: s, call: t.v1.Actions/Make, input: {}, compensate: { call: t.v1.Actions/Undo, input: { text: steps.s.output.big } } }",
      { reason: "WRONG_TYPE", path: "steps[2].compensate.input.text" },
    ],
    [
      "- { id: s, call: t.v1.Actions/Make, input: {}, compensate: { call: t.v1.Actions/Need, input: {} } }",
      { reason: "MISSING_FIELD", path: "steps[2].compensate.input.text" },
    ],
    [
      "- { id: s, call: t.v1.Actions/Make, input: {}, compensate: { call: t.v1.Actions/Undo, input: { text: steps.maybe.output.text + '' } } }",
      { reason: "MISSING_GUARD" },
    ],
    [
      "- { id: s, call: t.v1.Actions/Make, input: {}, compensate: { call: t.v1.Actions/Undone, input: {} } }",
      { reason: "UNKNOWN_ACTION", suggestion: "t.v1.Actions/Undo" },
    ],
  ],
  "human form": [
    [
      "- { id: s, human: { title: input.text, groups: input.texts, output: { ok: bool, color: t.v1.Color } } }\n- { id: t, when: steps.s.output.ok, call: t.v1.Actions/Make, input: { color: steps.s.output.color } }",
    ],
    [
      "- { id: s, human: { title: input.n, output: { ok: bool } } }",
      { reason: "WRONG_TYPE", path: "steps[2].human.title" },
    ],
    [
      "- { id: s, human: { title: input.text, assignees: input.text, output: { ok: bool } } }",
      { reason: "WRONG_TYPE", expected: "repeated string" },
    ],
    [
      "- { id: s, human: { title: input.text, output: { ok: boolean } } }",
      { reason: "UNKNOWN_TYPE", found: "boolean", suggestion: "bool" },
    ],
  ],
  callback: [
    [
      "- { id: s, callback: { output: { paid: bool } } }\n- { id: t, call: t.v1.Actions/Make, input: { text: callback.s.url } }",
    ],
    [
      "- { id: s, callback: { output: { paid: bool } } }\n- { id: t, call: t.v1.Actions/Make, input: { text: callback.s } }",
      { reason: "UNKNOWN_FIELD", stepId: "t" },
    ],
    [
      "- { id: s, callback: { output: { paid: bool } } }\n- { id: t, call: t.v1.Actions/Make, input: { text: callback.ss.url } }",
      { reason: "UNKNOWN_STEP", stepId: "t", suggestion: "s" },
    ],
    [
      "- { id: s, callback: { output: { paid: bool } } }\n- { id: t, call: t.v1.Actions/Make, input: { n: callback.s.url } }",
      { reason: "WRONG_TYPE", stepId: "t" },
    ],
    [
      "- { id: s, signal: { output: { paid: bool } } }\n- { id: t, call: t.v1.Actions/Make, input: { text: steps.s.output.paid } }",
      { reason: "WRONG_TYPE", stepId: "t" },
    ],
    ["- { id: s, wait: { duration: input.took } }"],
    ["- { id: s, wait: { duration: input.at } }", { reason: "WRONG_TYPE", expected: "google.protobuf.Duration" }],
  ],
  enum: [
    [make("color", "input.color")],
    [make("color", "'COLOR_RED'")],
    [make("color", "input.flag ? 'COLOR_RED' : 'COLOR_GREEN'")],
    [
      make("color", "input.flag ? 'COLOR_RED' : 'COLOR_GREN'"),
      { reason: "INVALID_VALUE", part: "'COLOR_GREN'", suggestion: "'COLOR_GREEN'" },
    ],
    [make("color", "'RED'"), { reason: "INVALID_VALUE", part: "'RED'", found: "'RED'" }],
    [
      make("color", "input.mood"),
      { reason: "WRONG_TYPE", expected: "t.v1.Color", found: "t.v1.Mood", suggestion: "int(input.mood)" },
    ],
    [make("color", "input.flag ? input.mood : 1"), { reason: "WRONG_TYPE", part: "input.mood" }],
    [make("color", "int(input.mood)")],
    [make("colors", "[input.color, 'COLOR_RED', 2]")],
    [make("colors", "[input.color, 'COLOR_REDD']"), { reason: "INVALID_VALUE", suggestion: "'COLOR_RED'" }],
    [make("color", "5000000000"), { reason: "INVALID_VALUE" }],
    ["- { id: s, call: t.v1.Actions/Make, input: { color: { literal: COLOR_REDD } } }", { reason: "WRONG_TYPE" }],
    [
      "- { id: s, call: old.v1.Old/Take, input: { id: input.text, n: input.n, size: 'input.flag ? 7 : 2' } }",
      { reason: "INVALID_VALUE", part: "2" },
    ],
  ],
  oneof: [
    [make("left", "input.left")],
    [
      "- { id: s, call: t.v1.Actions/Make, input: { left: input.left, right: input.right } }",
      { reason: "CONFLICT", path: "steps[2].input.right" },
    ],
    [make("text", "has(input.other) ? input.other.name : input.left")],
  ],
  map: [
    [make("pairs", "{'a': input.text, input.text: 'b'}")],
    [make("pairs", "{'a': input.n}"), { reason: "WRONG_TYPE", part: "input.n", expected: "string" }],
    [make("pairs", "{1: 'a'}"), { reason: "WRONG_TYPE", part: "1" }],
    [make("pairs", "{'a': input.text, 'a': 'b'}"), { reason: "CONFLICT", part: "'a'" }],
    [make("numbered", "{5: input.text}")],
    [make("numbered", "{5000000000: input.text}"), { reason: "INVALID_VALUE", part: "5000000000" }],
    [make("pairs", "input.numbered"), { reason: "WRONG_TYPE", expected: "map<string, string>" }],
    [make("text", "input.numbered['a']"), { reason: "WRONG_TYPE", expected: "int", found: "string" }],
    [make("named", "{'a': input.part}")],
    [make("named", "{'a': input}"), { reason: "WRONG_TYPE", part: "input" }],
  ],
  repeated: [
    [make("texts", "input.texts + ['a']")],
    [make("texts", "input.text"), { reason: "WRONG_TYPE", expected: "repeated string", found: "string" }],
    [make("texts", "['a', input.n]"), { reason: "WRONG_TYPE", part: "input.n" }],
    [make("ns", "[1, 3000000000]"), { reason: "INVALID_VALUE", part: "3000000000" }],
    [make("texts", "input.parts.map(p, p.name)")],
    [make("texts", "input.parts.map(p, p.n)"), { reason: "WRONG_TYPE" }],
    [make("text", "input.texts[input.u]"), { reason: "WRONG_TYPE", expected: "int", found: "uint" }],
    [make("notes", "input.parts.map(p, p.note)"), { reason: "MISSING_GUARD", part: "p.note" }],
    [make("notes", "input.parts.filter(p, has(p.note)).map(p, has(p.note) ? p.note : '')")],
  ],
  "well-known types": [
    [make("at", "input.at + input.took")],
    [make("took", "input.at - steps.a.output.at")],
    [make("at", "input.took"), { reason: "WRONG_TYPE", expected: "google.protobuf.Timestamp" }],
    [make("at", "'2026-01-02T03:04:05Z'"), { reason: "WRONG_TYPE", found: "string" }],
    [make("took", "duration('5 parsecs')"), { reason: "INVALID_VALUE" }],
    [make("struct", "{'a': input.text, 'b': [1, null, input.part]}")],
    [make("struct", "{1: 'a'}"), { reason: "WRONG_TYPE" }],
    [make("value", "input.parts")],
    [make("list", "input.text"), { reason: "WRONG_TYPE" }],
    [make("any", "input.any")],
    [make("any", "input.part"), { reason: "WRONG_TYPE", expected: "google.protobuf.Any" }],
    [make("text", "input.struct.a"), { reason: "WRONG_TYPE", found: "dyn" }],
    [make("text", "string(input.struct.a)")],
  ],
  wrappers: [
    [make("note", "input.note")],
    [make("note", "'a'")],
    [make("note", "input.flag ? input.note : 'x'")],
    [make("text", "input.note")],
    [make("text", "input.flag ? input.note : ''"), { reason: "MISSING_GUARD", part: "input.note" }],
    [make("text", "input.note + '!'"), { reason: "MISSING_GUARD", suggestion: "has(input.note) ? input.note : ''" }],
    [make("text", "has(input.note) ? input.note + '!' : ''")],
    [make("text", "input.note != null && input.note.startsWith('a') ? input.note : ''")],
    [make("text", "!has(input.note) || input.note == '' ? '' : string(input.note)")],
    [make("text", "has(input.note) || input.flag ? string(input.note) : ''"), { reason: "MISSING_GUARD" }],
    [make("n", "input.part.note.size()"), { reason: "MISSING_GUARD", part: "input.part.note" }],
    [make("big", "input.count * 2"), { reason: "MISSING_GUARD", suggestion: "has(input.count) ? input.count : 0" }],
    [make("flag", "input.note == 'a'")],
    [make("flag", "!input.sure"), { reason: "MISSING_GUARD" }],
    [make("struct", "{'note': input.note}")],
    [make("pairs", "{'note': input.note}"), { reason: "MISSING_GUARD" }],
    [make("note", "input.n"), { reason: "WRONG_TYPE" }],
    [make("width", "input.flag ? 5 : -5"), { reason: "INVALID_VALUE", part: "-5" }],
    ["- { id: s, when: has(input.note), call: t.v1.Actions/Make, input: { text: \"input.note + '!'\" } }"],
  ],
  presence: [
    [make("maybe", "input.maybe")],
    [make("n", "has(input.maybe) ? input.maybe : 7")],
    [make("flag", "has(input.part.note)")],
    ["- { id: s, call: old.v1.Old/Take, input: { id: { literal: x }, n: input.n, text: \"input.text + '!'\" } }"],
    [
      "- { id: s, call: old.v1.Old/Take, input: { id: input.text } }",
      { reason: "MISSING_FIELD", path: "steps[2].input.n" },
    ],
    [
      "- { id: s, call: old.v1.Old/Take, input: { id: steps.maybe.output.text, n: input.n } }",
      { reason: "MISSING_GUARD", part: "steps.maybe.output.text" },
    ],
  ],
  "64-bit": [
    [make("big", "9223372036854775807")],
    [make("n", "input.big")],
    [
      make("n", "input.flag ? 3000000000 : 1"),
      { reason: "INVALID_VALUE", part: "3000000000", expected: "-2147483648 to 2147483647" },
    ],
    [make("big", "9223372036854775808"), { reason: "INVALID_VALUE" }],
    [make("text", "string(input.big) + string(input.ubig)")],
    [make("d", "input.big"), { reason: "WRONG_TYPE", expected: "double" }],
    [make("d", "double(input.big)")],
  ],
  unsigned: [
    [make("u", "input.ubig + 1u")],
    [make("u", "input.flag ? 5 : 7")],
    [make("u", "input.n"), { reason: "WRONG_TYPE", expected: "uint32", found: "int" }],
    [make("u", "uint(input.n)")],
    [make("u", "input.flag ? -1 : 1"), { reason: "INVALID_VALUE", part: "-1" }],
    [make("u", "input.flag ? 4294967296u : 1u"), { reason: "INVALID_VALUE", part: "4294967296u" }],
    [make("n", "input.u"), { reason: "WRONG_TYPE", expected: "int32", found: "uint" }],
    [make("ubig", "input.u + input.n"), { reason: "WRONG_TYPE" }],
    [make("flag", "input.u > 5u && input.u == 5u")],
  ],
  bounds: [
    [make("text", `${"(".repeat(60)}input.text${")".repeat(60)}`), { reason: "TOO_LARGE" }],
    [make("texts", "input.texts.map(a, input.texts.map(b, input.texts.map(c, a))[0][0])"), { reason: "TOO_LARGE" }],
    [make("flag", "input.text.matches('((a{40}){40}b{900}){9}')"), { reason: "INVALID_VALUE" }],
    [make("flag", "input.text.matches('(')"), { reason: "INVALID_VALUE" }],
  ],
};

const rows = Object.entries(table).flatMap(([word, list]) =>
  list.map(([steps, refused]) => ({ word, steps, refused })),
);

describe("the check of a chain", () => {
  it.each(rows.filter(({ refused }) => refused === undefined))("$word: takes $steps", ({ steps }) => {
    const { problems, plan } = compile(steps);
    expect(problems).toEqual([]);
    expect(plan).toBeDefined();
  });

  it.each(rows.filter(({ refused }) => refused !== undefined))("$word: refuses $steps", ({ steps, refused }) => {
    const { part, ...expected } = refused!;
    const { problems } = compile(steps);
    expect(problems).toHaveLength(1);
    const [problem] = problems as [ChainProblem];
    expect(problem).toMatchObject({ stepId: "s", ...expected });
    expect(problem.message).not.toBe("");
    const read = problem.expression.slice(problem.start, problem.end);
    if (part !== undefined) expect(read).toBe(part);
    // What is wrong in an expression has a place in it, and says what is expected and what was found there.
    if (problem.expression === "") return;
    expect(read).not.toBe("");
    expect([problem.expected, problem.found], JSON.stringify(problem)).not.toContain("");
  });
});

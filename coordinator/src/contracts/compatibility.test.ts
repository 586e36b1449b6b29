import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { incompatibilities } from "./compatibility.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";

const base = `
  message Order { string id = 1; repeated Line lines = 2; Kind kind = 3; oneof pay { string card = 4; int64 cash = 5; }
    map<string, int32> counts = 6; Order parent = 7; }
  message Line { string sku = 1; int32 qty = 2; }
  enum Kind { KIND_UNSPECIFIED = 0; KIND_A = 1; KIND_B = 2; }
  message Receipt { string id = 1; }`;

const contractOf = (messages: string, output = "Receipt") =>
  contractsOf(
    parseDescriptorSet(
      compileProtos({
        "o.proto": `syntax = "proto3"; package o.v1; service O { rpc Do(Order) returns (${output}); } ${messages}`,
      }),
    ),
  )[0]!;
const before = contractOf(base);
const after = (from: string, to: string) => {
  if (!base.includes(from)) throw new Error(`no ${from}`);
  return incompatibilities(before, contractOf(base.replace(from, to))).map(({ rule, subject }) => `${rule} ${subject}`);
};

describe("a contract may follow another", () => {
  it.each([
    ["that is the same", "string id = 1;", "string id = 1;"],
    ["with a new field", "string id = 1;", "string id = 1; string note = 20;"],
    ["with a new enum value", "KIND_B = 2", "KIND_B = 2; KIND_C = 3"],
    ["with a new member of a oneof", "int64 cash = 5;", "int64 cash = 5; string voucher = 8;"],
    ["without a field that it reserves", "string sku = 1;", 'reserved 1; reserved "sku";'],
    ["without an enum value that it reserves", "KIND_B = 2;", 'reserved 2; reserved "KIND_B";'],
  ])("%s", (_what, from, to) => expect(after(from, to)).toEqual([]));
});

describe("a contract may not follow one", () => {
  it.each([
    ["whose field it retypes", "int32 qty = 2", "int64 qty = 2", "FIELD_TYPE_CHANGED o.v1.Line.qty"],
    ["whose field it makes repeated", "int32 qty = 2", "repeated int32 qty = 2", "FIELD_TYPE_CHANGED o.v1.Line.qty"],
    ["whose map it retypes", "map<string, int32>", "map<string, string>", "FIELD_TYPE_CHANGED o.v1.Order.counts"],
    ["whose field it renames", "string sku = 1", "string code = 1", "FIELD_NAME_CHANGED o.v1.Line.sku"],
    ["whose field it renumbers", "string sku = 1", "string sku = 9", "FIELD_NUMBER_CHANGED o.v1.Line.sku"],
    ["whose field it removes", "string sku = 1;", "", "FIELD_REMOVED o.v1.Line.sku"],
    [
      "whose field it removes with the number reserved alone",
      "string sku = 1;",
      "reserved 1;",
      "FIELD_REMOVED o.v1.Line.sku",
    ],
    [
      "whose field gets another JSON name",
      "string sku = 1",
      'string sku = 1 [json_name = "code"]',
      "FIELD_JSON_NAME_CHANGED o.v1.Line.sku",
    ],
    [
      "whose field leaves its oneof",
      "string card = 4; int64 cash = 5; }",
      "string card = 4; } int64 cash = 5;",
      "FIELD_ONEOF_CHANGED o.v1.Order.cash",
    ],
    ["whose enum value it renames", "KIND_A = 1", "KIND_X = 1", "ENUM_VALUE_NAME_CHANGED o.v1.Kind.KIND_A"],
    ["whose enum value it removes", "KIND_B = 2;", "", "ENUM_VALUE_REMOVED o.v1.Kind.KIND_B"],
  ])("%s", (_what, from, to, expected) => expect(after(from, to)).toEqual([expected]));

  it("with another output type", () => {
    expect(incompatibilities(before, contractOf(base, "Line"))).toMatchObject([
      { rule: "TYPE_CHANGED", subject: "o.v1.O/Do" },
    ]);
  });
});

import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { bytesToJson, checkMessage, describeViolations, faultOfRules, jsonToBytes } from "./check.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";

const contractOf = (messages: string, imported?: string) =>
  contractsOf(
    parseDescriptorSet(
      compileProtos({
        "acme/order.proto": `syntax = "proto3"; package acme.order.v1; import "buf/validate/validate.proto";
          ${imported === undefined ? "" : 'import "acme/rules.proto";'}
          service Orders { rpc Place(Order) returns (Order); } ${messages}`,
        ...(imported === undefined ? {} : { "acme/rules.proto": imported }),
      }),
    ),
  )[0]!;

const ruled = contractOf(`
  message Order {
    string id = 1 [(buf.validate.field).string.uuid = true];
    repeated Line lines = 2 [(buf.validate.field).repeated.min_items = 1];
    int64 total = 3;
    option (buf.validate.message).cel = {id: "sum", message: "total must not be negative", expression: "this.total >= 0"};
  }
  message Line { string sku = 1 [(buf.validate.field).string.min_len = 2]; int32 qty = 2 [(buf.validate.field).int32 = {gte: 1, lte: 9}]; }`);
const plain = contractOf(`
  message Order { string id = 1; repeated Line lines = 2; int64 total = 3; map<string, Line> parts = 4; double weight = 5; bytes raw = 6; }
  message Line { string sku = 1; int32 qty = 2; Line inner = 3; }`);

const id = "0b1fa0bc-8c7b-4b5e-9c5e-0d6e4a4d5b6f";
const good: JsonObject = { id, lines: [{ sku: "ab", qty: 1 }], total: "5" };
const encode = (json: JsonObject, contract = ruled) => jsonToBytes(contract, "input", { value: json });
const violations = (json: JsonObject, contract = ruled) => {
  const read = encode(json, contract);
  return read.ok ? [] : read.violations.map((violation) => `${violation.field}: ${violation.message}`);
};

describe("messages of a contract with rules", () => {
  it("pass when they keep them", () => {
    const read = encode(good);
    expect(read.ok && checkMessage(ruled, "input")(read.bytes)).toEqual([]);
    expect(read.ok && bytesToJson(ruled, "output", read.bytes)).toEqual(good);
  });

  it("name each field that breaks one", () => {
    const broken = violations({ id: "1", lines: [{ sku: "a", qty: 10 }], total: "-1" });
    expect(broken).toEqual([
      expect.stringMatching(/^id: .*UUID/),
      expect.stringMatching(/^lines\[0\]\.sku: /),
      expect.stringMatching(/^lines\[0\]\.qty: /),
      ": total must not be negative",
    ]);
    expect(violations({ id })).toEqual([expect.stringMatching(/^lines: /)]);
  });

  it("are checked on the wire first", () => {
    expect(checkMessage(ruled, "input")(Uint8Array.of(0x0a, 1, 0xff))).toEqual([
      { field: "id", message: "not valid UTF-8" },
    ]);
    expect(
      describeViolations([
        { field: "a", message: "x" },
        { field: "", message: "y" },
      ]),
    ).toBe("a: x; y");
    expect(describeViolations([])).toBeUndefined();
  });

  it("keep apart what two contracts mean by one name", () => {
    const read = encode({ id: "any", lines: [] }, plain);
    expect(read.ok).toBe(true);
    if (!read.ok) return;
    expect(checkMessage(plain, "input")(read.bytes)).toEqual([]);
    expect(checkMessage(ruled, "input")(read.bytes)).not.toEqual([]);
    expect(checkMessage(plain, "input")(read.bytes)).toEqual([]);
  });

  it("honour rules that the author predefined", () => {
    const contract = contractOf(
      "message Order { string id = 1 [(buf.validate.field).string.(acme.rules.v1.shouted) = true]; }",
      `syntax = "proto2"; package acme.rules.v1; import "buf/validate/validate.proto";
        extend buf.validate.StringRules { optional bool shouted = 51900 [(buf.validate.predefined).cel = {
          id: "shouted", message: "must be upper case", expression: "!rule || this.matches('^[A-Z]+$')" }]; }`,
    );
    expect(faultOfRules(contract)).toBeUndefined();
    expect(violations({ id: "abc" }, contract)).toEqual(["id: must be upper case"]);
    expect(violations({ id: "ABC" }, contract)).toEqual([]);
  });

  it("can't be used when a rule does not compile", () => {
    const bad = contractOf(
      `message Order { string id = 1 [(buf.validate.field).cel = {id: "x", expression: "this +"}]; }`,
    );
    expect(faultOfRules(bad)).toContain("acme.order.v1.Order don't compile");
    const wrongType = contractOf("message Order { string id = 1 [(buf.validate.field).int32.gt = 1]; }");
    expect(faultOfRules(wrongType)).toContain("acme.order.v1.Order");
    expect(faultOfRules(ruled)).toBeUndefined();
    expect(faultOfRules(plain)).toBeUndefined();
  });

  it("never make the check throw, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        expect(Array.isArray(checkMessage(ruled, "input")(bytes))).toBe(true);
        expect(Array.isArray(checkMessage(plain, "output")(bytes))).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});

describe("JSON of a contract", () => {
  const refused: [string, RegExp][] = [
    ['{"idd": "x"}', /^idd: .*id/],
    ['{"id": 5}', /^id: .*string/],
    ['{"total": 1.5}', /^total: /],
    ['{"total": 1e400}', /^total: /],
    ['{"total": 99999999999999999999}', /^total: /],
    ['{"lines": {}}', /^lines: /],
    ['{"lines": [{"qty": 3000000000}]}', /^lines\[0\].qty: /],
    ['{"lines": [null]}', /^lines\[0\]: /],
    ['{"parts": {"a": {"sku": true}}}', /^parts.a.sku: /],
    ['{"raw": "not base64!"}', /^raw: /],
    ['{"id": "\\ud800"}', /^id: .*surrogate/],
    ['{"id": "a", "id": "b"}', /^id: /],
    ["[]", /^: /],
    ["{", /^: /],
    ["", /^: /],
    [`${'{"lines":[{"inner":'.repeat(1)}${'{"inner":'.repeat(10_000)}1${"}".repeat(10_000)}}]}`, /nest/],
  ];

  it.each(refused.map(([text, expected]) => ({ start: text.slice(0, 60), text, expected })))(
    "such as $start is refused with its field",
    ({ text, expected }) => {
      const read = jsonToBytes(plain, "input", text);
      expect(read.ok).toBe(false);
      if (!read.ok) expect(`${read.violations[0]?.field}: ${read.violations[0]?.message}`).toMatch(expected);
    },
  );

  it("keeps NUL, large integers and both spellings of names", () => {
    const read = jsonToBytes(plain, "input", '{"id": "a\\u0000b", "total": "9007199254740993", "weight": "NaN"}');
    expect(read.ok && bytesToJson(plain, "input", read.bytes)).toMatchObject({
      id: "a\u0000b",
      total: "9007199254740993",
      weight: "NaN",
    });
  });

  it("is made of every message that passes the check", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        if (checkMessage(plain, "input")(bytes).length === 0) bytesToJson(plain, "input", bytes);
      }),
      { numRuns: 1_000 },
    );
    expect(bytesToJson(plain, "input", toBinary(plain.input, create(plain.input)))).toMatchObject({ id: "" });
  });
});

import { createFileRegistry, fromBinary, fromJson, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { meshDescriptorSet } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { JSON_VIOLATIONS_MAX } from "./json-faults.js";
import {
  bytesToJson,
  fillJsonNames,
  MASKED_VALUE,
  messageToJson,
  type ProtobufJsonResult,
  parseProtobufJson,
} from "./protobuf-json.js";

const field = (name: string, number: number, type: string, rest: object = {}) => ({ name, number, type, ...rest });
const repeated = { label: "LABEL_REPEATED" };

const file = fromJson(FileDescriptorProtoSchema, {
  name: "shop.proto",
  package: "shop.v1",
  syntax: "proto3",
  dependency: ["google/protobuf/timestamp.proto", "google/protobuf/struct.proto", "google/protobuf/any.proto"],
  enumType: [
    {
      name: "Color",
      value: [
        { name: "COLOR_UNSPECIFIED", number: 0 },
        { name: "COLOR_RED", number: 1 },
      ],
    },
  ],
  messageType: [
    {
      name: "Item",
      field: [field("sku", 1, "TYPE_STRING"), field("price_cents", 2, "TYPE_INT64"), field("photo", 3, "TYPE_BYTES")],
    },
    {
      name: "Order",
      field: [
        field("items", 1, "TYPE_MESSAGE", { ...repeated, typeName: ".shop.v1.Item" }),
        field("count", 2, "TYPE_UINT32"),
        field("placed_at", 3, "TYPE_MESSAGE", { typeName: ".google.protobuf.Timestamp" }),
        field("color", 4, "TYPE_ENUM", { typeName: ".shop.v1.Color" }),
        field("labels", 5, "TYPE_MESSAGE", { ...repeated, typeName: ".shop.v1.Order.LabelsEntry" }),
        field("password", 6, "TYPE_STRING", { options: {} }),
        field("extra", 7, "TYPE_MESSAGE", { typeName: ".google.protobuf.Value" }),
        field("card", 8, "TYPE_STRING", { oneofIndex: 0 }),
        field("cash", 9, "TYPE_BOOL", { oneofIndex: 0 }),
        field("weight", 10, "TYPE_DOUBLE"),
        field("parent", 11, "TYPE_MESSAGE", { typeName: ".shop.v1.Order" }),
        field("proof", 12, "TYPE_MESSAGE", { typeName: ".google.protobuf.Any" }),
      ],
      oneofDecl: [{ name: "payment" }],
      nestedType: [
        {
          name: "LabelsEntry",
          options: { mapEntry: true },
          field: [field("key", 1, "TYPE_STRING"), field("value", 2, "TYPE_STRING")],
        },
      ],
    },
  ],
});
const password = file.messageType[1]!.field[5]!;
password.options!.$unknown = [{ no: 51802, wireType: 0, data: new Uint8Array([1]) }];

const set = fromBinary(FileDescriptorSetSchema, meshDescriptorSet);
set.file.push(file);
fillJsonNames(set);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, toBinary(FileDescriptorSetSchema, set)));
const order = registry.getMessage("shop.v1.Order")!;

function faults(result: ProtobufJsonResult): string[] {
  if (result.ok) return [];
  return result.violations.map(({ field: path, message }) => `${path}: ${message}`);
}

const parse = (text: string | Uint8Array) => parseProtobufJson(order, text, registry);

describe("protobuf JSON", () => {
  it("reads canonical JSON, and the proto names of fields", () => {
    const text = JSON.stringify({
      items: [{ sku: "a", priceCents: "9007199254740993", photo: "AAE=" }],
      placed_at: "2026-01-31T12:00:00Z",
      color: "COLOR_RED",
      labels: { __proto__x: "1", constructor: "2" },
      extra: { deep: [1, null, "x"] },
      weight: 1e300,
      proof: { "@type": "type.googleapis.com/shop.v1.Item", sku: "b" },
    });
    const result = parse(text);
    expect(faults(result)).toEqual([]);
    if (!result.ok) return;
    expect(messageToJson(order, result.message, { registry })).toMatchObject({
      items: [{ sku: "a", priceCents: "9007199254740993", photo: "AAE=" }],
      placedAt: "2026-01-31T12:00:00Z",
      count: 0,
      labels: { __proto__x: "1", constructor: "2" },
    });
  });

  it("keeps a map key named __proto__ as data", () => {
    const result = parse('{"labels":{"__proto__":"x"}}');
    expect(result.ok).toBe(true);
    if (!result.ok) return;
    const json = JSON.stringify(messageToJson(order, result.message));
    expect(json).toContain('"labels":{"__proto__":"x"}');
    expect(({} as Record<string, unknown>)["x"]).toBeUndefined();
  });

  it("reports every fault with its path and the nearest name", () => {
    const text = JSON.stringify({
      items: [{ sku: 5 }, { skuu: "x", priceCents: "12.5" }, null],
      count: -1,
      placedAt: "yesterday",
      color: "COLOR_RAD",
      labels: { a: 1 },
      cuont: 1,
      card: "1",
      cash: true,
    });
    expect(faults(parse(text))).toEqual([
      "items[0].sku: expected a string, found 5",
      'items[1].skuu: Item has no field "skuu"; did you mean "sku"?',
      'items[1].priceCents: expected an integer from -9223372036854775808 to 9223372036854775807, found "12.5"',
      "items[2]: null is not allowed here",
      "count: expected an integer from 0 to 4294967295, found -1",
      'placedAt: expected an RFC 3339 time such as "2026-01-31T12:00:00Z", found "yesterday"',
      'color: shop.v1.Color has no value "COLOR_RAD"; did you mean "COLOR_RED"?',
      "labels.a: expected a string, found 1",
      'cuont: Order has no field "cuont"; did you mean "count"?',
      'cash: only one of "card", "cash" may be set',
    ]);
  });

  it.each([
    ["a top that is no object", "[]", ": expected an object (shop.v1.Order), found a list"],
    ["null", "null", ": expected an object (shop.v1.Order), found null"],
    ["a fraction", '{"count":1.5}', "count: expected an integer from 0 to 4294967295, found 1.5"],
    [
      "a number out of range",
      '{"count":4294967296}',
      "count: expected an integer from 0 to 4294967295, found 4294967296",
    ],
    ["an infinite number", '{"weight":1e400}', "weight: expected a number, found Infinity"],
    [
      "a field under both its names",
      '{"placedAt":null,"placed_at":null}',
      'placed_at: the same field is set as "placedAt"',
    ],
    ["bad base64", '{"items":[{"photo":"*"}]}', 'items[0].photo: expected a base64 string, found "*"'],
    ["__proto__ as a field", '{"__proto__":{"count":1}}', '__proto__: Order has no field "__proto__"'],
  ])("refuses %s", (_, text, expected) => {
    expect(faults(parse(text))).toEqual([expected]);
  });

  it("refuses an integer whose digits a JSON number would lose, only where they matter", () => {
    expect(faults(parse('{"items":[{"priceCents":9007199254740993}]}'))).toEqual([
      "items[0].priceCents: the integer is too large for a JSON number: write it as a string",
    ]);
    expect(parse('{"weight":9007199254740993}').ok).toBe(true);
    expect(parse('{"items":[{"priceCents":9007199254740991}]}').ok).toBe(true);
  });

  it.each([
    ["twice the same key", '{"count":1,"count":2}', 'count: the key "count" occurs twice'],
    ["twice the same key, once escaped", '{"count":1,"\\u0063ount":2}', 'count: the key "count" occurs twice'],
    [
      "a lone surrogate",
      '{"items":[{"sku":"\\ud800"}]}',
      "items[0].sku: the string has a lone surrogate, which no UTF-8 text can hold",
    ],
    ["a cut text", '{"count":1', ": malformed JSON: "],
    ["an empty text", " ", ": malformed JSON: the text is empty"],
    ["NaN", '{"weight":NaN}', ": malformed JSON: "],
  ])("calls %s malformed", (_, text, expected) => {
    const result = parse(text);
    expect(result).toMatchObject({ ok: false, reason: "JSON_MALFORMED" });
    expect(faults(result)[0]).toContain(expected);
  });

  it("refuses bytes that are not UTF-8, and takes a NUL character as data", () => {
    expect(faults(parse(new Uint8Array([0x22, 0xff, 0x22])))).toEqual([": the text is not valid UTF-8"]);
    expect(parse('{"card":"\\u0000"}').ok).toBe(true);
  });

  it("accepts 64 levels and refuses the 65th, and a million, without a crash", () => {
    const nested = (levels: number) => `{"extra":${"[".repeat(levels - 1)}${"]".repeat(levels - 1)}}`;
    expect(faults(parse(nested(64)))).toEqual([]);
    expect(faults(parse(nested(65)))[0]).toContain("nested deeper than 64 levels");
    expect(faults(parse(nested(1_000_000)))[0]).toContain("nested deeper than 64 levels");
  });

  it("stops reporting after a bounded number of faults", () => {
    const text = JSON.stringify(Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`x${index}`, 1])));
    expect(faults(parse(text))).toHaveLength(JSON_VIOLATIONS_MAX);
  });

  it("renders large bytes like small ones, wherever they are", () => {
    const photo = Buffer.alloc(100_000, 0xfb).toString("base64");
    const text = JSON.stringify({ items: [{ sku: "a" }, { photo }], parent: { items: [{ photo }] }, count: 3 });
    const result = parse(text);
    if (!result.ok) throw new Error("refused");
    const json = bytesToJson(order, toBinary(order, result.message), { registry });
    expect(json).toEqual(messageToJson(order, result.message, { registry }));
  });

  it("masks sensitive fields, also inside other messages", () => {
    const result = parse('{"password":"hunter2","parent":{"password":"swordfish"}}');
    if (!result.ok) throw new Error("refused");
    const bytes = toBinary(order, result.message);
    const json = JSON.stringify(bytesToJson(order, bytes, { registry, maskSensitive: true }));
    expect(json).not.toMatch(/hunter2|swordfish/);
    expect(json).toContain(`"password":"${MASKED_VALUE}"`);
  });
});

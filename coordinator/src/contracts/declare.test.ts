import type { DescEnum, DescMessage } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { checkMessage } from "./check.js";
import type { Contract } from "./contract.js";
import { declareContract } from "./declare.js";
import { contractsOf, loadContract, parseDescriptorSet } from "./descriptors.js";

const name = "acme.pages.v1.Pages/Check";
const declare = (input: Record<string, string>, output: Record<string, string> = {}, previous?: Contract) =>
  declareContract({ name, input, output }, { previous, resolveType: (type) => types.get(type) });
const numbers = (contract: Contract | undefined) =>
  Object.fromEntries(contract!.input.fields.map((field) => [field.name, field.number]));

const [stock] = contractsOf(
  parseDescriptorSet(
    compileProtos({
      "acme/stock.proto": `syntax = "proto3"; package acme.stock.v1;
        service Stock { rpc Get(CheckRequest) returns (Item); }
        message CheckRequest {} message Item { string sku = 1; Size size = 2; } enum Size { SIZE_UNSPECIFIED = 0; }`,
    }),
  ),
);
const types = new Map<string, DescMessage | DescEnum>([
  ["acme.stock.v1.Item", stock!.output],
  ["acme.stock.v1.Size", stock!.registry.getEnum("acme.stock.v1.Size")!],
]);

describe("inline contracts", () => {
  it("make messages of scalars, lists, maps and registered types", () => {
    const { contract, problems } = declare(
      {
        url: "string",
        tags: "repeated string",
        counts: "map<string, int64>",
        item: "acme.stock.v1.Item",
        items: "map<int32, acme.stock.v1.Item>",
        sizes: "repeated acme.stock.v1.Size",
        at: "google.protobuf.Timestamp",
        extra: "google.protobuf.Struct",
      },
      { words: "int32" },
    );
    expect(problems).toEqual([]);
    expect(contract!.method).toBe(name);
    expect(contract!.input.typeName).toBe("acme.pages.v1.CheckRequest");
    expect(contract!.output.typeName).toBe("acme.pages.v1.CheckResponse");
    expect(contract!.input.fields.map((field) => `${field.name} ${field.fieldKind} ${field.number}`)).toEqual([
      "url scalar 1",
      "tags list 2",
      "counts map 3",
      "item message 4",
      "items map 5",
      "sizes list 6",
      "at message 7",
      "extra message 8",
    ]);
    expect(loadContract(contract!.descriptorSet, name).fingerprint).toBe(contract!.fingerprint);
    expect(checkMessage(contract!, "input")(new Uint8Array())).toEqual([]);
  });

  it("keep field numbers by name over saves, and never use a number again", () => {
    const first = declare({ a: "string", b: "int32", c: "bool" }).contract;
    const second = declare({ d: "string", c: "bool", a: "string" }, {}, first).contract;
    expect(numbers(second)).toEqual({ d: 4, c: 3, a: 1 });
    const third = declare({ b: "int32", a: "string" }, {}, second).contract;
    expect(numbers(third)).toEqual({ b: 5, a: 1 });
    const reloaded = loadContract(third!.descriptorSet, name);
    expect(numbers(declare({ e: "string", a: "string" }, {}, reloaded).contract)).toEqual({ e: 6, a: 1 });
  });

  it("give a retyped field a new number", () => {
    const first = declare({ a: "string", m: "map<string, string>", r: "repeated int32" }).contract;
    const second = declare({ a: "int32", m: "map<string, int32>", r: "repeated int32" }, {}, first).contract;
    expect(numbers(second)).toEqual({ a: 4, m: 5, r: 3 });
  });

  it("are the same revision when nothing changed, in any order", () => {
    const first = declare({ a: "string", b: "int32" }).contract!;
    expect(declare({ b: "int32", a: "string" }, {}, first).contract!.fingerprint).toBe(first.fingerprint);
    expect(declare({ a: "string" }, {}, first).contract!.fingerprint).not.toBe(first.fingerprint);
  });

  it("make way for a registered type that has their message's name", () => {
    const { contract } = declareContract(
      { name: "acme.stock.v1.Chains/Check", input: { item: "acme.stock.v1.Item" }, output: {} },
      { resolveType: (type) => types.get(type) },
    );
    expect(contract!.input.typeName).toBe("acme.stock.v1.ChainsCheckRequest");
    const clash = declareContract(
      { name: "acme.stock.v1.Stock/Check", input: { item: "acme.stock.v1.Item" }, output: {} },
      { resolveType: (type) => types.get(type) },
    );
    expect(clash.problems[0]).toMatchObject({
      reason: "CHAIN_INVALID",
      message: expect.stringContaining("is declared in a file"),
    });
  });

  it.each([
    [{ a: "strng" }, "input.a", "UNKNOWN_TYPE", "string"],
    [{ a: "acme.Nope" }, "input.a", "UNKNOWN_TYPE", undefined],
    [{ a: "map<double, string>" }, "input.a", "UNKNOWN_TYPE", undefined],
    [{ a: "repeated repeated string" }, "input.a", "UNKNOWN_TYPE", undefined],
    [{ a: "" }, "input.a", "UNKNOWN_TYPE", undefined],
    [{ "a b": "string" }, "input.a b", "INVALID_NAME", undefined],
    [{ a_b: "string", aB: "string" }, "input.aB", "INVALID_NAME", undefined],
  ])("refuse %j", (input, path, reason, suggestion) => {
    const [problem] = declare(input).problems;
    expect(problem).toMatchObject({ path, reason });
    expect(problem?.suggestion).toBe(suggestion);
  });

  it("refuse names that are none or reserved, and too many fields", () => {
    const named = (method: string) => declareContract({ name: method, input: {}, output: {} }).problems[0]?.reason;
    expect(named("Check")).toBe("INVALID_NAME");
    expect(named("acme..x/Check")).toBe("INVALID_NAME");
    expect(named("taskmesh.x.v1.Y/Check")).toBe("SERVICE_RESERVED");
    const many = Object.fromEntries(Array.from({ length: 501 }, (_, n) => [`f${n}`, "string"]));
    expect(declare(many).problems[0]?.reason).toBe("TOO_LARGE");
  });
});

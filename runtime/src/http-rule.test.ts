import { createFileRegistry, type DescMethod, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { beforeAll, describe, expect, it } from "vitest";
import { compileProtos } from "../../test/fixtures/compile-protos.js";
import { readHttpBindings } from "./http-rule.js";

const rules: Record<string, string> = {
  All: `get: "/v1/{name}" additional_bindings { post: "/v1/all" body: "*" response_body: "inner" }
    additional_bindings { custom: { kind: "SEARCH" path: "/v1/all/{inner.inner.text=a/**}" } body: "inner" }`,
  NoField: 'get: "/v1/{nam}"',
  BelowText: 'get: "/v1/{name.x}"',
  Message: 'get: "/v1/{inner}"',
  Repeated: 'get: "/v1/{inners.text}"',
  Time: 'get: "/v1/{since}/{mask}"',
  BodyOfGet: 'get: "/v1/a" body: "*"',
  NoBody: 'post: "/v1/a" body: "innr"',
  NoAnswer: 'post: "/v1/a" response_body: "inner.text"',
  BodyInPath: 'post: "/v1/{name}" body: "name"',
  Nothing: 'body: "*"',
  Small: 'custom: { kind: "search" path: "/v1/a" }',
  Nested: 'get: "/v1/a" additional_bindings { get: "/v1/b" additional_bindings { get: "/v1/c" } }',
};

const proto = `
  syntax = "proto3";
  package acme.rules.v1;
  import "google/api/annotations.proto";
  import "google/protobuf/field_mask.proto";
  import "google/protobuf/timestamp.proto";
  service RuleActions {
    ${Object.entries(rules)
      .map(([name, rule]) => `rpc ${name}(Input) returns (Input) { option (google.api.http) = { ${rule} }; }`)
      .join("\n")}
    rpc Plain(Input) returns (Input);
  }
  message Input {
    string name = 1; Inner inner = 2; repeated Inner inners = 3;
    google.protobuf.Timestamp since = 4; google.protobuf.FieldMask mask = 5;
  }
  message Inner { string text = 1; Inner inner = 2; }`;

let methods: Map<string, DescMethod>;
beforeAll(() => {
  const registry = createFileRegistry(
    fromBinary(FileDescriptorSetSchema, compileProtos({ "acme/rules.proto": proto })),
  );
  methods = new Map(registry.getService("acme.rules.v1.RuleActions")!.methods.map((method) => [method.name, method]));
});

describe("google.api.http of an rpc", () => {
  it("is read with its additional bindings, in order", () => {
    const { bindings, faults } = readHttpBindings(methods.get("All")!);
    expect(faults).toEqual([]);
    expect(
      bindings.map(({ verb, template, body, responseBody }) => [
        verb,
        template.text,
        typeof body === "object" ? body.name : body,
        responseBody?.name,
      ]),
    ).toEqual([
      ["GET", "/v1/{name}", undefined, undefined],
      ["POST", "/v1/all", "*", "inner"],
      ["SEARCH", "/v1/all/{inner.inner.text=a/**}", "inner", undefined],
    ]);
    expect(readHttpBindings(methods.get("Plain")!)).toEqual({ bindings: [], faults: [] });
    expect(readHttpBindings(methods.get("Time")!).bindings).toHaveLength(1);
  });

  it.each([
    ["NoField", 'acme.rules.v1.Input has no field "nam"; did you mean "name"?'],
    ["BelowText", 'name is no message: it has no field "x"'],
    ["Message", "inner is a message: name one of its fields"],
    ["Repeated", "inners.text: a repeated field can't be in a path"],
    ["BodyOfGet", 'a GET request has no body: leave "body" out'],
    ["NoBody", 'body: acme.rules.v1.Input has no field "innr"; did you mean "inner"?'],
    ["NoAnswer", 'response_body: acme.rules.v1.Input has no field "inner.text"'],
    ["BodyInPath", "name is in the path and can't be the body too"],
    ["Nothing", "the rule names no method and path"],
    ["Small", '"search" is no HTTP method: write it in capitals'],
  ])("says what is wrong with %s", (name, message) => {
    const { bindings, faults } = readHttpBindings(methods.get(name)!);
    expect(bindings).toEqual([]);
    expect(faults.map((fault) => fault.message)).toEqual([expect.stringContaining(message)]);
  });

  it("keeps the good bindings of a rule with a bad one", () => {
    const { bindings, faults } = readHttpBindings(methods.get("Nested")!);
    expect(bindings.map(({ template }) => template.text)).toEqual(["/v1/a"]);
    expect(faults).toEqual([{ verb: "GET", path: "/v1/b", message: expect.stringContaining("additional_bindings") }]);
  });

  it("reports damaged bytes and goes on", () => {
    const plain = methods.get("All")!;
    const data = new Uint8Array([3, 0x12, 9, 0x41]);
    const options = { ...plain.proto.options!, $unknown: [{ no: 72295728, wireType: 2, data }] };
    const damaged = { ...plain, proto: { ...plain.proto, options } } as DescMethod;
    expect(readHttpBindings(damaged)).toEqual({
      bindings: [],
      faults: [{ verb: "", path: "", message: "the bytes of google.api.http are damaged" }],
    });
  });
});

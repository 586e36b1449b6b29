import { create, toBinary } from "@bufbuild/protobuf";
import { formatChainDocument, parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import type { Scope, Value } from "../engine/plan.js";
import { bytesToJson, jsonToBytes } from "./check.js";
import { compileChain } from "./compile-chain.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";

const protos = {
  "acme/shop/v1/shop.proto": `syntax = "proto3"; package acme.shop.v1;
    service ShopActions {
      rpc Price(PriceRequest) returns (PriceResponse);
      rpc Tell(TellRequest) returns (TellResponse);
    }
    message PriceRequest { string item = 1; }
    message PriceResponse { int32 cents = 1; string note = 2; }
    message TooOften { int32 wait_seconds = 1; }
    message TellRequest { string text = 1; }
    message TellResponse { string text = 1; }`,
};
const contracts = new Map(contractsOf(parseDescriptorSet(compileProtos(protos))).map((c) => [c.method, c]));
const price = contracts.get("acme.shop.v1.ShopActions/Price")!;

const chain = (rules: string, text = "has(steps.price.output) ? steps.price.output.note : 'none'") => `contract:
  name: acme.shop.v1.Shop/Ask
  input: { item: string }
  output: { text: string }
steps:
  - id: price
    call: acme.shop.v1.ShopActions/Price
    input: { item: input.item }
    on_failure: ${rules}
  - id: tell
    call: acme.shop.v1.ShopActions/Tell
    input: { text: "${text}" }
output: { text: steps.tell.output.text }
`;

const compile = (yaml: string) => {
  const document = parseChainDocument(yaml);
  if (document.spec === undefined) throw new Error(JSON.stringify(document.problems));
  const found = compileChain(document.spec, { contractFor: (method) => contracts.get(method) });
  return { ...found, spec: document.spec };
};
const problemsOf = (rules: string, text?: string) =>
  compile(chain(rules, text)).problems.map(({ path, reason, suggestion }) => [path, reason, suggestion]);

function scopeWith(error: NonNullable<Scope["error"]>): Scope {
  const read = jsonToBytes(price, "input", { value: { item: "tea" } });
  if (!read.ok) throw new Error("the input is wrong");
  const input: Value = { contract: "", sizeBytes: 0, sha256: new Uint8Array(32), bytes: read.bytes };
  const run = { id: "r", namespace: "default", method: "m", acceptedAtMs: 0 };
  return { run, input, outputs: [], error };
}

describe("on_failure", () => {
  const rules = `[{ reasons: [TOO_OFTEN], output: { cents: "int(error.details[0].wait_seconds)", note: "error.reason + ' ' + input.item" } },
      { continue: true }]`;
  const tooOften = price.registry.getMessage("acme.shop.v1.TooOften")!;
  const detail = (seconds: number) => ({
    typeUrl: "type.googleapis.com/acme.shop.v1.TooOften",
    value: Buffer.from(toBinary(tooOften, create(tooOften, { waitSeconds: seconds } as never))),
  });

  it("compiles to a value made of the failure's reason and typed details", () => {
    const { plan, problems } = compile(chain(rules));
    expect(problems).toEqual([]);
    const [first, second] = plan!.steps[0]!.catches!;
    const error = { reason: "TOO_OFTEN", message: "", retryable: false, details: [detail(7)], cause: undefined };
    const bound = first!.bindOutput!(scopeWith(error));
    expect(bound.kind === "value" && bytesToJson(price, "output", bound.value)).toEqual({
      cents: 7,
      note: "TOO_OFTEN tea",
    });
    expect(second).toEqual({ reasons: [] });
  });

  it("fails, rather than to guess, where a detail is of another type", () => {
    const { plan } = compile(chain(rules));
    const other = { typeUrl: "type.googleapis.com/acme.Other", value: Buffer.from("x") };
    const error = { reason: "TOO_OFTEN", message: "", retryable: false, details: [other], cause: undefined };
    const bound = plan!.steps[0]!.catches![0]!.bindOutput!(scopeWith(error));
    expect(bound).toMatchObject({ kind: "failed", error: { reason: "EXPRESSION_FAILED" } });
  });

  it("is written back as it was read", () => {
    const { spec } = compile(chain(rules));
    expect(parseChainDocument(formatChainDocument(spec)).spec).toEqual(spec);
  });

  it("makes has() necessary behind a step that may go on without an output, and only there", () => {
    const bare = "steps.price.output.note + '!'";
    expect(problemsOf("[{ continue: true }]", bare)).toEqual([["steps[1].input.text", "MISSING_GUARD", ""]]);
    expect(problemsOf("[{ output: { note: \"'none'\" } }]", bare)).toEqual([]);
  });

  it("names what is wrong with a rule", () => {
    expect(problemsOf("[{ reasons: [NOT_FOUND] }]")).toEqual([["steps[0].on_failure[0]", "MISSING_VALUE", ""]]);
    expect(problemsOf("[{ continue: true, output: { cents: 1 } }]")).toEqual([
      ["steps[0].on_failure[0]", "CONFLICT", ""],
    ]);
    expect(problemsOf("[{ reasons: [not-found], continue: true }]")).toEqual([
      ["steps[0].on_failure[0].reasons[0]", "INVALID_NAME", "NOT_FOUND"],
    ]);
    expect(problemsOf("[{ continue: true }, { reasons: [X], continue: true }]")).toEqual([
      ["steps[0].on_failure[1]", "CONFLICT", ""],
    ]);
    expect(problemsOf("[{ output: { cent: 1 } }]")).toEqual([
      ["steps[0].on_failure[0].output.cent", "UNKNOWN_FIELD", "cents"],
    ]);
    expect(problemsOf("[{ output: { cents: error.reason } }]")).toEqual([
      ["steps[0].on_failure[0].output.cents", "WRONG_TYPE", ""],
    ]);
    expect(problemsOf("[{ output: { note: error.reson } }]")).toEqual([
      ["steps[0].on_failure[0].output.note", "UNKNOWN_FIELD", "reason"],
    ]);
  });

  it("lets no other expression read the failure", () => {
    expect(problemsOf("[{ continue: true }]", "error.reason")).toEqual([["steps[1].input.text", "UNKNOWN_NAME", ""]]);
  });
});

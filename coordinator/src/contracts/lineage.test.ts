import { parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { compileChain } from "./compile-chain.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";
import { isUseOf, usesOf } from "./lineage.js";

const protos = `syntax = "proto3"; package shop.v1;
  service ShopActions { rpc Load(LoadRequest) returns (LoadResponse); rpc Bill(BillRequest) returns (BillResponse);
    rpc Ship(Order) returns (BillResponse); }
  message LoadRequest { string id = 1; }
  message LoadResponse { Order order = 1; repeated Order others = 2; map<string, Order> by_id = 3; }
  message Order { string id = 1; double total = 2; Buyer buyer = 3; }
  message Buyer { string name = 1; Buyer parent = 2; }
  message BillRequest { double total = 1; string text = 2; Order order = 3; repeated Order orders = 4; }
  message BillResponse { string id = 1; }`;
const contracts = new Map(
  contractsOf(parseDescriptorSet(compileProtos({ "shop.proto": protos }))).map((one) => [one.method, one]),
);
const environment = { contractFor: (method: string) => contracts.get(method), isChain: () => false };

/** The uses of a chain that loads and then does `steps`, each as "kind field at path from source: what is read". */
function uses(steps: string, output = "{ id: steps.load.output.order.id }"): string[] {
  const { spec, problems } = parseChainDocument(`contract:
  name: shop.v1.Shop/Do
  input: { id: string, order: shop.v1.Order }
  output: { id: string }
steps:
  - id: load
    call: shop.v1.ShopActions/Load
    input: { id: input.id }
${steps}
output: ${output}
`);
  expect(problems).toEqual([]);
  const types = contracts.get("shop.v1.ShopActions/Ship")!.registry;
  const all = { ...environment, resolveType: (name: string) => types.getMessage(name) };
  expect(compileChain(spec!, all).problems).toEqual([]);
  return usesOf(spec!, all)
    .filter((use) => use.stepId !== "load")
    .map(({ kind, type, field, path, source, expression, start, end }) => {
      const what = expression.slice(start, end);
      return `${kind} ${type.replace("shop.v1.", "")}${field && `.${field}`} at ${path}${source && ` from ${source}`}: ${what}`;
    });
}

describe("the uses of a chain", () => {
  it("are the fields that its expressions read and set, each with its place", () => {
    expect(
      uses(
        "  - { id: bill, call: shop.v1.ShopActions/Bill, input: { total: steps.load.output.order.total + 1.0, text: { literal: x } } }".replace(
          "{ literal: x }",
          "string(run.id)",
        ),
      ),
    ).toEqual([
      "write BillRequest.total at steps[1].input.total: steps.load.output.order.total + 1.0",
      "read Order.total at steps[1].input.total from steps.load: steps.load.output.order.total",
      "read LoadResponse.order at steps[1].input.total from steps.load: steps.load.output.order",
      "write BillRequest.text at steps[1].input.text: string(run.id)",
      "write DoResponse.id at output.id: steps.load.output.order.id",
      "read Order.id at output.id from steps.load: steps.load.output.order.id",
      "read LoadResponse.order at output.id from steps.load: steps.load.output.order",
    ]);
  });

  it("are found in conditions, tests of presence, comprehensions, cases, rounds and fan-outs", () => {
    const found =
      uses(`  - { id: a, call: shop.v1.ShopActions/Bill, when: "has(steps.load.output.order.total)", input: { total: "0.5" } }
  - { id: b, call: shop.v1.ShopActions/Bill, when: "steps.load.output.others.exists(one, one.total > 1.0)", input: { total: "0.5" } }
  - { id: c, call: shop.v1.ShopActions/Bill, input: { text: "steps.load.output.by_id['x'].buyer.parent.name" } }
  - { id: d, call: shop.v1.ShopActions/Bill, each: { items: steps.load.output.others }, input: { total: each.value.total } }
  - { id: e, call: shop.v1.ShopActions/Bill, repeat: { until: "steps.e.output.id == input.order.id" }, input: { total: "0.5" } }`);
    for (const expected of [
      "read Order.total at steps[1].when from steps.load: steps.load.output.order.total",
      "read Order.total at steps[2].when: one.total",
      "read Buyer.name at steps[3].input.text: steps.load.output.by_id['x'].buyer.parent.name",
      "pass Order at steps[4].each.items from steps.load: steps.load.output.others",
      "read Order.total at steps[4].input.total: each.value.total",
      "read Order.id at steps[5].repeat.until from input: input.order.id",
    ]) {
      expect(found.map((one) => one.replace("shop.v1.", ""))).toContain(expected);
    }
  });

  it("are also messages that are passed on whole", () => {
    const { spec } =
      parseChainDocument(`contract: { name: shop.v1.Shop/Do, input: { id: string }, output: { id: string } }
steps:
  - { id: load, call: shop.v1.ShopActions/Load, input: { id: input.id } }
  - { id: bill, call: shop.v1.ShopActions/Bill, input: { order: steps.load.output.order, orders: steps.load.output.others } }
`);
    const passed = usesOf(spec!, environment).filter((use) => use.kind === "pass");
    expect(passed.map(({ type, path }) => `${type} ${path}`)).toEqual([
      "shop.v1.Order steps[1].input.order",
      "shop.v1.Order steps[1].input.orders",
    ]);
    // Order holds a Buyer, so whoever gets an Order gets the buyer's name.
    expect(passed.every((use) => isUseOf(use, "shop.v1.Buyer", 1))).toBe(true);
    expect(passed.some((use) => isUseOf(use, "shop.v1.LoadRequest", 1))).toBe(false);
  });
});

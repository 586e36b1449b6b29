/** For tests of the gate: a shop whose contract changes, and a chain that reads it. */
import type { Register } from "@taskmesh/proto";
import { parseChainDocument } from "@taskmesh/runtime";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { contractsOf, parseDescriptorSet } from "../contracts/descriptors.js";

export const priceMethod = "shop.v1.ShopActions/Price";

/** Fields of the shop's messages, to be changed. */
export interface ShopFields {
  request?: string;
  order?: string;
}

const sets = new Map<string, Buffer>();

/** Descriptors of the shop; each text is compiled once. */
export function shop({ request = "", order = "double total = 2; string note = 3;" }: ShopFields = {}): Buffer {
  const text = `syntax = "proto3"; package shop.v1;
    service ShopActions { rpc Price(PriceRequest) returns (PriceResponse); }
    message PriceRequest { string id = 1; ${request} }
    message PriceResponse { Order order = 1; }
    message Order { string id = 1; ${order} }`;
  const known = sets.get(text);
  if (known) return known;
  const set = Buffer.from(compileProtos({ "shop/v1/shop.proto": text }, { sourceInfo: true }));
  sets.set(text, set);
  return set;
}

/** Fingerprint of the shop's contract. */
export const fingerprintOf = (set: Buffer): string => contractsOf(parseDescriptorSet(set))[0]!.fingerprint;

/** Registers the shop. */
export const offering = (descriptorSet: Buffer, methods = [priceMethod]): Partial<Register> => ({
  descriptorSet,
  queues: [{ taskQueue: "shop", methods, slots: 4 }],
});

/** A chain that prices an order and gives its total. */
export function billChain(name = "shop.v1.Shop/Bill", field = "total", type = "double") {
  const { spec, problems } = parseChainDocument(`contract:
  name: ${name}
  input: { id: string }
  output: { value: ${type} }
steps:
  - { id: price, call: ${priceMethod}, input: { id: input.id } }
output: { value: steps.price.output.order.${field} }
`);
  if (spec === undefined) throw new Error(problems[0]?.message);
  return spec;
}

import { describe, expect, it } from "vitest";
import type { Contract } from "../contracts/contract.js";
import { loadContract } from "../contracts/descriptors.js";
import { contractServes } from "./contract-serves.js";
import { descriptorSet, methodOf, type TestService } from "./descriptors-fixture.js";

const service: TestService = { package: "acme.pages.v1" };
const contract = (change: Partial<TestService> = {}): Contract =>
  loadContract(descriptorSet({ ...service, ...change }), methodOf({ ...service, ...change }));
const shared = { file: "shared.proto", package: "shared.v1" };

describe("contract revisions", () => {
  it("lets workers with more fields run what was pinned before, and not the other way round", () => {
    const before = contract({ inputFields: ["lang"] });
    const after = contract({ inputFields: ["lang", "depth"] });
    expect(contractServes(after, before)).toBe(true);
    expect(contractServes(before, after)).toBe(false);
    expect(contractServes(before, before)).toBe(true);
  });

  it("takes a renamed field, or another field under its number, for another contract", () => {
    expect(contractServes(contract({ inputFields: ["language"] }), contract({ inputFields: ["lang"] }))).toBe(false);
    expect(contractServes(contract({ inputFields: ["a", "b"] }), contract({ inputFields: ["b", "a"] }))).toBe(false);
  });

  it("looks into imported messages", () => {
    const with1 = contract({ imports: [{ ...shared, fields: ["a"] }] });
    const with2 = contract({ imports: [{ ...shared, fields: ["a", "b"] }] });
    expect(contractServes(with2, with1)).toBe(true);
    expect(contractServes(with1, with2)).toBe(false);
  });

  it("never takes one method for another", () => {
    expect(contractServes(contract({ package: "acme.other.v1" }), contract())).toBe(false);
  });
});

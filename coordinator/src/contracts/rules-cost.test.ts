/** Validation rules are bounded before they run: the event loop waits for nobody's rules. */
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { checkMessage, faultOfRules, jsonToBytes } from "./check.js";
import type { Contract } from "./contract.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";

const contractOf = (messages: string): Contract => {
  const text = `syntax = "proto3"; package acme.v1; import "buf/validate/validate.proto";
    service Orders { rpc Place(Order) returns (Order); } ${messages}`;
  return contractsOf(parseDescriptorSet(compileProtos({ "acme/order.proto": text })))[0]!;
};
const rule = (expression: string): string =>
  `option (buf.validate.message).cel = {id: "r", expression: "${expression}"};`;
const lists = (expression: string): Contract =>
  contractOf(`message Order { repeated Line lines = 1; repeated int32 numbers = 2; string text = 3; ${rule(expression)} }
    message Line { string sku = 1; repeated Line parts = 2; }`);

const lines = (count: number): { sku: string }[] => Array.from({ length: count }, (_, at) => ({ sku: `s${at}` }));
const verdict = (contract: Contract, value: object): string => {
  const read = jsonToBytes(contract, "input", { value: value as never });
  return read.ok ? "kept" : read.violations.map(({ message }) => message).join("; ");
};

describe("rules of a contract", () => {
  it.each([
    [
      "loops in loops in loops",
      lists("this.lines.all(a, a.parts.all(b, b.parts.all(c, c.sku != a.sku)))"),
      /acme\.v1\.Order: rule "r" nests 3 .* at most 2/,
    ],
    [
      "a pattern whose repetitions explode, in an expression",
      lists("this.text.matches('((a{1,99}){1,99}){1,99}')"),
      /acme\.v1\.Order: rule "r" matches can't be used: the pattern is too large.*smaller repetitions/,
    ],
    [
      "the same as a field's pattern, within a list",
      contractOf(
        'message Order { repeated string tags = 1 [(buf.validate.field).repeated.items.string.pattern = "((a{1,99}){1,99}){1,99}"]; }',
      ),
      /acme\.v1\.Order\.tags: string\.pattern can't be used/,
    ],
    [
      "a pattern that looks behind",
      contractOf('message Order { string id = 1 [(buf.validate.field).string.pattern = "(?<=a)b"]; }'),
      /acme\.v1\.Order\.id: string\.pattern can't be used/,
    ],
  ])("are refused for %s, with the field and what to do", (_, contract, fault) => {
    expect(faultOfRules(contract)).toMatch(fault);
  });

  it.each([
    ["a loop in a loop", lists("this.lines.all(a, this.lines.all(b, a == b || a.sku != b.sku))")],
    ["a search for each element", lists("this.numbers.unique()")],
    [
      "a search of one list for elements of another",
      lists("this.lines.all(a, !(a.sku in this.lines.map(b, b.sku + 'x')))"),
    ],
  ])(
    "with %s are run over what is small, and a message that is too much for them is refused at once",
    (_, contract) => {
      expect(faultOfRules(contract)).toBeUndefined();
      expect(verdict(contract, { lines: lines(20), numbers: [1, 2, 3] })).toBe("kept");
      const large = { lines: lines(20_000), numbers: Array.from({ length: 20_000 }, (__, at) => at) };
      expect(verdict(contract, large)).toMatch(
        /would take too long over \d+ bytes .* rule "r" of acme\.v1\.Order: send less/,
      );
    },
  );

  it("that go over a message once are run over all that travels inline", () => {
    const contract =
      contractOf(`message Order { repeated Line lines = 1; ${rule("this.lines.all(a, a.sku.size() > 0)")} }
      message Line { string sku = 1 [(buf.validate.field).string.pattern = "^s[0-9]+$", (buf.validate.field).cel = {id: "c", expression: "this != 'x'"}]; }`);
    expect(verdict(contract, { lines: lines(12_000) })).toBe("kept");
    expect(verdict(contract, { lines: [...lines(12_000), { sku: "" }] })).toContain("pattern");
  });

  it("take no time for a hostile text, whatever the pattern", () => {
    const contract = contractOf('message Order { string id = 1 [(buf.validate.field).string.pattern = "^(a+)+$"]; }');
    const bytes = jsonToBytes(contractOf("message Order { string id = 1; }"), "input", {
      value: { id: `${"a".repeat(100_000)}!` },
    });
    expect(bytes.ok && checkMessage(contract, "input")(bytes.bytes)).toMatchObject([{ field: "id" }]);
  });
});

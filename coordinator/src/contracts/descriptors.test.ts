import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type FileDescriptorSet, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { meshDescriptorSet } from "@taskmesh/proto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { isFullName, splitMethod } from "./contract.js";
import { contractsOf, descriptorSetBytesMax, loadContract, parseDescriptorSet } from "./descriptors.js";

const source = (body: string, more = "") => `syntax = "proto3";
package acme.shop.v1;
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "taskmesh/v1/options.proto";
service ShopActions {
  // Buys things.
  rpc Buy(BuyRequest) returns (BuyResponse) {
    option (taskmesh.v1.action) = { start_to_close: {seconds: 5}, exclusive: true, retry: {max_attempts: 7} };
  }
  rpc Sell(SellRequest) returns (BuyResponse);
  ${more}
}
${body}`;
const body = `
message BuyRequest {
  string sku = 1 [(buf.validate.field).string.min_len = 2, (buf.validate.field).string.max_len = 9];
  Kind kind = 2;
  Nested.Inner inner = 3;
  google.protobuf.Timestamp at = 4;
  google.protobuf.StringValue note = 5;
  map<string, Nested> parts = 6;
}
enum Kind { KIND_UNSPECIFIED = 0; KIND_A = 1; }
message Nested { message Inner { int32 n = 1; } Inner inner = 1; }
message BuyResponse { repeated int64 ids = 1; }
message SellRequest { string sku = 1; }
message Unrelated { string a = 1; }`;

const buy = "acme.shop.v1.ShopActions/Buy";
const withComments = compileProtos({ "acme/shop/v1/shop.proto": source(body) }, { sourceInfo: true });
const contractIn = (bytes: Uint8Array, method = buy) => contractsOf(parseDescriptorSet(bytes), [method])[0]!;
const fingerprintOf = (text: string, method = buy, path = "acme/shop/v1/shop.proto") =>
  contractIn(compileProtos({ [path]: text }), method).fingerprint;

const edit = (change: (set: FileDescriptorSet) => void, bytes = withComments) => {
  const set = fromBinary(FileDescriptorSetSchema, bytes);
  change(set);
  return toBinary(FileDescriptorSetSchema, set);
};
const shopFile = (set: FileDescriptorSet) => set.file.find((file) => file.name === "acme/shop/v1/shop.proto")!;
const onlyShop = (set: FileDescriptorSet) => {
  set.file = [shopFile(set)];
};

describe("contracts of a descriptor set", () => {
  it("has one per rpc, with types, options and comment", () => {
    const contracts = contractsOf(parseDescriptorSet(withComments));
    expect(contracts.map((contract) => contract.method)).toEqual([buy, "acme.shop.v1.ShopActions/Sell"]);
    const [contract] = contracts;
    expect(contract).toMatchObject({ service: "acme.shop.v1.ShopActions", description: "Buys things." });
    expect(contract!.input.typeName).toBe("acme.shop.v1.BuyRequest");
    expect(contract!.output.typeName).toBe("acme.shop.v1.BuyResponse");
    expect(contract!.options).toMatchObject({
      exclusive: true,
      startToClose: { seconds: 5n },
      retry: { maxAttempts: 7 },
    });
    expect(contracts[1]!.options).toBeUndefined();
    expect(contract!.fingerprint).toMatch(/^[0-9a-f]{64}$/);
  });

  it("supplies the files that SDKs leave out, and puts files into order", () => {
    const bare = contractIn(edit(onlyShop));
    expect(bare.fingerprint).toBe(contractIn(withComments).fingerprint);
    expect(bare.registry.getMessage("google.protobuf.StringValue")).toBeDefined();
    const reversed = contractIn(edit((set) => set.file.reverse()));
    expect(reversed.fingerprint).toBe(bare.fingerprint);
  });

  it("gives a complete set, dependencies first, that any tool can read and that loads to the same contract", () => {
    const contract = contractIn(edit(onlyShop));
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, contract.descriptorSet));
    expect(registry.getService("acme.shop.v1.ShopActions")).toBeDefined();
    expect(loadContract(contract.descriptorSet, buy).fingerprint).toBe(contract.fingerprint);
  });

  it("never lets a set redefine the mesh's own files", () => {
    const bytes = edit((set) => {
      const file = set.file.find((f) => f.name === "google/protobuf/timestamp.proto")!;
      file.messageType[0]!.field[0]!.name = "evil";
    });
    expect(contractIn(bytes).registry.getMessage("google.protobuf.Timestamp")?.field["seconds"]).toBeDefined();
  });

  it("keeps two revisions of one file, and two files of one name, apart", () => {
    const one = contractIn(withComments);
    const two = contractIn(
      compileProtos({ "acme/shop/v1/shop.proto": source(body.replace("string sku = 1 [", "string item = 1 [")) }),
    );
    expect(one.input.field["sku"]).toBeDefined();
    expect(two.input.field["sku"]).toBeUndefined();
    expect(two.input.field["item"]).toBeDefined();
  });

  it("refuses reserved services unless they are the mesh's own", () => {
    const text = 'syntax = "proto3"; package taskmesh.evil.v1; service S { rpc M(A) returns (A); } message A {}';
    const set = parseDescriptorSet(compileProtos({ "evil.proto": text }));
    expect(() => contractsOf(set)).toThrow(/reserved package/);
    expect(contractsOf(set, undefined, { allowReserved: true })).toHaveLength(1);
    expect(() => contractsOf(parseDescriptorSet(meshDescriptorSet), ["taskmesh.v1.RunService/GetRun"])).toThrow(
      expect.objectContaining({ reason: "SERVICE_RESERVED" }),
    );
  });

  it("takes rpcs that return a stream, and refuses by name those that take one, and unknown methods", () => {
    const rpcs = `rpc Flow(stream SellRequest) returns (BuyResponse);
      rpc Both(stream SellRequest) returns (stream BuyResponse);
      rpc Out(SellRequest) returns (stream BuyResponse);`;
    const set = parseDescriptorSet(compileProtos({ "acme/shop/v1/shop.proto": source(body, rpcs) }));
    const refused = (name: string) => () => contractsOf(set, [`acme.shop.v1.ShopActions/${name}`]);
    expect(refused("Flow")).toThrow(
      /Flow takes a stream: .* write `rpc Flow\(SellRequest\)` without the word `stream`/,
    );
    expect(refused("Both")).toThrow(expect.objectContaining({ reason: "DESCRIPTORS_INVALID" }));
    expect(contractsOf(set, ["acme.shop.v1.ShopActions/Out"])[0]?.rpc.methodKind).toBe("server_streaming");
    expect(contractsOf(set, [buy])).toHaveLength(1);
    expect(() => contractsOf(set, ["acme.shop.v1.ShopActions/Nope"])).toThrow(/is not in the descriptor set/);
  });

  it.each<[string, (set: FileDescriptorSet) => void, RegExp]>([
    [
      "a missing import",
      (set) => shopFile(set).dependency.push("acme/none.proto"),
      /"acme\/none.proto", imported by .* is missing/,
    ],
    ["an import of itself", (set) => shopFile(set).dependency.push("acme/shop/v1/shop.proto"), /imports itself/],
    ["a file twice", (set) => set.file.push(shopFile(set)), /is in the descriptor set twice/],
    [
      "a type that is missing",
      (set) => {
        shopFile(set).messageType.pop();
        shopFile(set).messageType.splice(0, 1);
      },
      /shop.proto/,
    ],
    [
      "a bad name",
      (set) => {
        shopFile(set).messageType[0]!.field[0]!.name = "a b";
      },
      /is not a name/,
    ],
    [
      "an endless name",
      (set) => {
        shopFile(set).service[0]!.method[0]!.name = "x".repeat(10_000);
      },
      /is not a name \(at most 255/,
    ],
    [
      "a file without a name",
      (set) => {
        shopFile(set).name = "";
      },
      /no usable name/,
    ],
    [
      "a type twice",
      (set) => {
        const copy = { ...shopFile(set), name: "acme/copy.proto" };
        set.file.push(copy);
      },
      /is declared in/,
    ],
  ])("refuses %s", (_name, change, message) => {
    const bytes = edit(change);
    expect(() => contractsOf(parseDescriptorSet(bytes))).toThrow(message);
    expect(() => contractsOf(parseDescriptorSet(bytes))).toThrow(
      expect.objectContaining({ reason: "DESCRIPTORS_INVALID" }),
    );
  });

  it("refuses a declaration that nests too deeply, and a set that is too large", () => {
    const deep = edit((set) => {
      const nest = (depth: number): FileDescriptorSet["file"][0]["messageType"][0] => ({
        ...shopFile(set).messageType[3]!,
        name: "M",
        field: [],
        nestedType: depth === 0 ? [] : [nest(depth - 1)],
      });
      shopFile(set).messageType.push(nest(40));
    });
    expect(() => parseDescriptorSet(deep)).toThrow(/inside more than 32 messages/);
    expect(() => parseDescriptorSet(new Uint8Array(descriptorSetBytesMax + 1))).toThrow(/at most 4194304/);
  });

  it("refuses garbage and damaged sets without another kind of error", () => {
    const small = edit(onlyShop);
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 5 }), fc.nat(), (changes, cut) => {
        const bytes = Uint8Array.from(small);
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        try {
          contractsOf(parseDescriptorSet(cut % 4 === 0 ? bytes.subarray(0, cut % bytes.length) : bytes));
        } catch (error) {
          expect(error).toMatchObject({ name: "ContractRefused" });
        }
      }),
      // The example once came through as another error: an option whose bytes are damaged is read late.
      { numRuns: 300, examples: [[[[70904162, 0]], 2025]] },
    );
  });
});

describe("fingerprint", () => {
  const base = contractIn(withComments).fingerprint;

  it("does not see comments, file names, unrelated types, or how the set was made", () => {
    expect(fingerprintOf(source(body))).toBe(base);
    expect(fingerprintOf(source(body), buy, "other/name.proto")).toBe(base);
    expect(fingerprintOf(source(body.replace("Unrelated { string a", "Unrelated { int32 b")))).toBe(base);
    expect(fingerprintOf(source(body, "rpc More(SellRequest) returns (BuyResponse);"))).toBe(base);
    expect(fingerprintOf(source(body).replace("package acme", 'option java_package = "x";\npackage acme'))).toBe(base);
  });

  it("does not see in how many pieces an option was written", () => {
    const joined = body.replace(/\[\(buf.*\]/, "[(buf.validate.field) = {string: {min_len: 2, max_len: 9}}]");
    expect(fingerprintOf(source(joined))).toBe(base);
  });

  it.each([
    ["a field's name", body.replace("string sku = 1 [", "string sku_id = 1 [")],
    ["a field's number", body.replace("Kind kind = 2", "Kind kind = 12")],
    ["a field's type", body.replace("Kind kind = 2", "int32 kind = 2")],
    ["a field's presence", body.replace("Kind kind = 2", "optional Kind kind = 2")],
    ["a rule", body.replace("min_len = 2", "min_len = 3")],
    ["an enum's value", body.replace("KIND_A = 1", "KIND_A = 1; KIND_B = 2")],
    ["a nested type", body.replace("int32 n = 1", "int64 n = 1")],
    ["the output", body.replace("repeated int64 ids", "repeated int32 ids")],
  ])("sees %s", (_name, changed) => {
    expect(fingerprintOf(source(changed))).not.toBe(base);
  });

  it("sees the action's options", () => {
    expect(fingerprintOf(source(body).replace("seconds: 5", "seconds: 6"))).not.toBe(base);
  });

  it("tells a message that is written as a group from one that is not", () => {
    const text = (field: string) => `edition = "2023"; package acme.shop.v1;
      service ShopActions { rpc Buy(Order) returns (Order); } message Order { ${field} }`;
    const plain = fingerprintOf(text("Order part = 1;"));
    expect(fingerprintOf(text("Order part = 1 [features.message_encoding = LENGTH_PREFIXED];"))).toBe(plain);
    const delimited = text("Order part = 1 [features.message_encoding = DELIMITED];");
    const grouped = contractIn(compileProtos({ "acme/shop/v1/shop.proto": delimited }));
    expect(grouped.fingerprint).not.toBe(plain);
    expect(loadContract(grouped.descriptorSet, buy).fingerprint).toBe(grouped.fingerprint);
  });

  it("is of one method: another's input does not matter", () => {
    expect(fingerprintOf(source(body.replace("SellRequest { string sku", "SellRequest { int32 sku")))).toBe(base);
  });
});

describe("names", () => {
  it("are identifiers with dots between them", () => {
    expect(["a", "a.b1", "_x.Y"].every(isFullName)).toBe(true);
    expect(["", ".a", "a.", "a..b", "1a", "a-b", "a*", "a b", "ä", "a>", "x".repeat(256)].some(isFullName)).toBe(false);
  });

  it("of methods have one slash", () => {
    expect(splitMethod("a.B/C")).toEqual({ service: "a.B", rpc: "C" });
    expect(["", "a", "/a", "a/", "a/b/c", "a/b.c", `a/${"x".repeat(300)}`].map(splitMethod)).toEqual(
      Array(7).fill(undefined),
    );
  });
});

it("links an empty set to nothing", () => {
  expect(contractsOf(parseDescriptorSet(toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema))))).toEqual(
    [],
  );
});

import { create, createFileRegistry, type DescMessage, fromBinary, toBinary, toJson } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  DurationSchema,
  FieldMaskSchema,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  StructSchema,
  TimestampSchema,
  UninterpretedOption_NamePartSchema,
  ValueSchema,
} from "@bufbuild/protobuf/wkt";
import { meshDescriptorSet } from "@taskmesh/proto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../test/fixtures/compile-protos.js";
import { randomMessage, seededRandom } from "../../test/fixtures/random-message.js";
import { sha256 } from "./sha256.js";
import { compileWireCheck, nestingMax } from "./wire.js";

const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, meshDescriptorSet));
const type = (name: string): DescMessage => registry.getMessage(name)!;
const everyShape = [
  "taskmesh.v1.GetRunResponse",
  "taskmesh.v1.ChainSpec",
  "taskmesh.v1.StartStep",
  "taskmesh.v1.Failure",
];

describe("wire check", () => {
  it("takes every message that protobuf-es writes", () => {
    fc.assert(
      fc.property(fc.integer(), fc.constantFrom(...everyShape), (seed, name) => {
        const bytes = randomMessage(type(name), seededRandom(seed));
        expect(compileWireCheck(type(name))(bytes)).toBeUndefined();
      }),
      { numRuns: 300 },
    );
  });

  it("never throws, and what it takes can be read and shown as JSON", () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.constantFrom(...everyShape),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
        fc.nat(),
        (seed, name, changes, cut) => {
          const desc = type(name);
          const bytes = randomMessage(desc, seededRandom(seed));
          for (const [at, value] of changes) if (bytes.length > 0) bytes[at % bytes.length] = value;
          const damaged = cut % 3 === 0 ? bytes.subarray(0, cut % (bytes.length + 1)) : bytes;
          const fault = compileWireCheck(desc)(damaged);
          if (fault === undefined) toJson(desc, fromBinary(desc, damaged));
        },
      ),
      { numRuns: 1_000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const fault = compileWireCheck(type("taskmesh.v1.ChainSpec"))(bytes);
        expect(fault === undefined || typeof fault === "string").toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });

  it("names the field and what is wrong with it", () => {
    const check = compileWireCheck(type("taskmesh.v1.ChainSpec"));
    const step = (fill: (writer: BinaryWriter) => BinaryWriter) =>
      check(new BinaryWriter().tag(3, WireType.LengthDelimited).bytes(fill(new BinaryWriter()).finish()).finish());
    expect(step((w) => w.tag(1, WireType.LengthDelimited).bytes(Uint8Array.of(0xff)))).toBe(
      "steps.id: not valid UTF-8",
    );
    expect(step((w) => w.tag(1, WireType.Varint).uint32(1))).toBe(
      "steps.id: wire type varint where length-delimited is expected",
    );
    expect(step((w) => w.tag(12, WireType.LengthDelimited).bytes(Uint8Array.of(1)))).toContain(
      "steps.priority: wire type",
    );
    expect(check(Uint8Array.of(0x1a, 5, 0))).toBe("steps: the message is cut off");
    expect(check(Uint8Array.of(0x1a))).toBe("steps: the message is cut off");
    expect(check(Uint8Array.of(0x1a, 0xff, 0xff, 0xff, 0xff, 0x7f))).toBe("steps: the message is cut off");
    expect(check(Uint8Array.of(0))).toBe("field number 0");
    expect(check(Uint8Array.of(0xa7, 0x06))).toBe("wire type 7 does not exist");
  });

  it("takes groups, known and unknown, that end where they began", () => {
    const compiled = fromBinary(
      FileDescriptorSetSchema,
      compileProtos({
        "t.proto": `edition = "2023"; package t; message T {
          T part = 1 [features.message_encoding = DELIMITED];
          repeated T parts = 2 [features.message_encoding = DELIMITED];
          string text = 3;
          T plain = 4;
        }`,
      }),
    );
    const desc = createFileRegistry(compiled).getMessage("t.T")!;
    const check = compileWireCheck(desc);
    const inner = create(desc, { text: "größer", parts: [create(desc), create(desc, { text: "b" })] } as never);
    const bytes = toBinary(desc, create(desc, { part: inner, plain: inner } as never));
    expect(check(bytes)).toBeUndefined();
    expect(toBinary(desc, fromBinary(desc, bytes))).toEqual(bytes);
    for (let end = 1; end < bytes.length; end++) {
      const cut = bytes.subarray(0, end);
      const isWhole = end === bytes.length - 1 - toBinary(desc, inner).length - 1;
      if (!isWhole) expect(check(cut), `the first ${end} bytes`).toContain("cut off");
    }
    expect(check(Uint8Array.of(0x0b, 0x1a, 1, 0xff, 0x0c))).toBe("part.text: not valid UTF-8");
    expect(check(Uint8Array.of(0x0b, 0x14))).toBe("part: the end of a group that did not begin");
    expect(check(Uint8Array.of(0x0c))).toBe("the end of a group that did not begin");
    expect(check(Uint8Array.of(0x0a, 0))).toBe("part: wire type length-delimited where group is expected");
    expect(check(Uint8Array.of(0x23, 0x24))).toBe("plain: wire type group where length-delimited is expected");
    // Unknown: a group with a number, a text and a group in it.
    const unknown = [0xc3, 0x3e, 0x08, 0x05, 0x12, 1, 0xff, 0x1b, 0x1c, 0xc4, 0x3e];
    expect(check(Uint8Array.from(unknown))).toBeUndefined();
    expect(check(Uint8Array.from(unknown.slice(0, -2)))).toBe("the message is cut off");
    expect(check(Uint8Array.from([...unknown.slice(0, -2), 0x0c]))).toBe("the end of a group that did not begin");
  });

  it(`lets groups nest ${nestingMax} deep and no deeper`, () => {
    const check = compileWireCheck(type("taskmesh.v1.ChainSpec"));
    const nested = (levels: number) => Buffer.concat([Buffer.alloc(levels, 0x7b), Buffer.alloc(levels, 0x7c)]);
    expect(check(nested(nestingMax - 1))).toBeUndefined();
    expect(check(nested(nestingMax))).toBe(`messages nest deeper than ${nestingMax}`);
    expect(check(nested(100_000))).toBe(`messages nest deeper than ${nestingMax}`);
  });

  it("takes unknown fields of every wire type", () => {
    const bytes = new BinaryWriter();
    bytes.tag(900, WireType.Varint).uint64(2n ** 64n - 1n);
    bytes.tag(900, WireType.Bit64).fixed64(1n);
    bytes.tag(900, WireType.Bit32).fixed32(1);
    bytes.tag(536870911, WireType.LengthDelimited).bytes(Uint8Array.of(0xff));
    expect(compileWireCheck(type("taskmesh.v1.ChainSpec"))(bytes.finish())).toBeUndefined();
  });

  it("takes repeated numbers packed and one by one", () => {
    const check = compileWireCheck(FileDescriptorProtoSchema);
    const number = 10; // public_dependency: repeated int32
    const packed = new BinaryWriter()
      .tag(number, WireType.LengthDelimited)
      .bytes(Uint8Array.of(1, 2, 0x80, 1))
      .finish();
    const single = new BinaryWriter()
      .tag(number, WireType.Varint)
      .int32(5)
      .tag(number, WireType.Varint)
      .int32(-5)
      .finish();
    expect(check(packed)).toBeUndefined();
    expect(check(single)).toBeUndefined();
    expect(check(Uint8Array.of((number << 3) | 2, 1, 0x80))).toBe("public_dependency: the message is cut off");
  });

  it("allows a varint of ten bytes and not of eleven", () => {
    const check = compileWireCheck(type("taskmesh.v1.RunEvent")); // field 1 is a uint64
    const varint = (bytes: number) => Uint8Array.of(8, ...Array.from({ length: bytes - 1 }, () => 0xff), 1);
    expect(check(varint(10))).toBeUndefined();
    expect(check(varint(11))).toBe("seq: a varint of more than 10 bytes");
  });

  it(`lets messages nest ${nestingMax} deep and no deeper`, () => {
    // Each round adds a Struct, an entry and a Value; the innermost Value is a number.
    const check = compileWireCheck(ValueSchema);
    const nested = (levels: number) => {
      let bytes = new BinaryWriter().tag(2, WireType.Bit64).double(1).finish();
      for (let n = 1; n < levels; n++) {
        const list = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(bytes).finish();
        bytes = new BinaryWriter().tag(6, WireType.LengthDelimited).bytes(list).finish();
      }
      return bytes;
    };
    expect(check(nested(50))).toBeUndefined(); // 99 messages
    expect(check(nested(51))).toContain(`messages nest deeper than ${nestingMax}`);
    expect(check(nested(2_000))).toContain("nest deeper");
  });

  it("asks for the required fields of proto2", () => {
    const check = compileWireCheck(UninterpretedOption_NamePartSchema);
    expect(check(new Uint8Array())).toBe("name_part: required, and missing");
    expect(check(Uint8Array.of(0x0a, 1, 0x61, 0x10, 1))).toBeUndefined();
  });

  it("refuses what has no JSON form", () => {
    const timestamp = (seconds: bigint, nanos: number) =>
      compileWireCheck(TimestampSchema)(toBinary(TimestampSchema, create(TimestampSchema, { seconds, nanos })));
    expect(timestamp(253_402_300_799n, 999_999_999)).toBeUndefined();
    expect(timestamp(253_402_300_800n, 0)).toBe("not between the years 1 and 9999");
    expect(timestamp(-62_135_596_801n, 0)).toBe("not between the years 1 and 9999");
    expect(timestamp(0n, -1)).toContain("nanos");
    const duration = (seconds: bigint, nanos: number) =>
      compileWireCheck(DurationSchema)(toBinary(DurationSchema, create(DurationSchema, { seconds, nanos })));
    expect(duration(-1n, -500_000_000)).toBeUndefined();
    expect(duration(1n, -1)).toContain("different signs");
    expect(duration(315_576_000_001n, 0)).toContain("10,000 years");
    const mask = (...paths: string[]) =>
      compileWireCheck(FieldMaskSchema)(toBinary(FieldMaskSchema, create(FieldMaskSchema, { paths })));
    expect(mask("", "a", "a_b.c3", "größe")).toBeUndefined();
    for (const path of ["aB", "a__b", "a_3", "_A", "a_", "a,b"]) {
      expect(mask("a", path)).toBe(`the path "${path}" has no JSON form: names are in lower_snake_case`);
    }
    const value = compileWireCheck(ValueSchema);
    expect(value(new Uint8Array())).toBe("a Value without any kind");
    expect(value(new BinaryWriter().tag(2, WireType.Bit64).double(Number.NaN).finish())).toContain("NaN");
    const entry = new BinaryWriter().tag(1, WireType.LengthDelimited).string("k").finish();
    const struct = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(entry).finish();
    expect(compileWireCheck(StructSchema)(struct)).toBe("fields.value: required, and missing");
  });
});

it("hashes as SHA-256 does", () => {
  expect(sha256(new TextEncoder().encode("abc")).toString("hex")).toBe(
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
  expect(sha256(new Uint8Array())).toHaveLength(32);
});

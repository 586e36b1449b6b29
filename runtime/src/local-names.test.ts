import { create, createFileRegistry, fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { guardLocalNames } from "./local-names.js";

/** What every object has, as far as it is a name of protobuf. */
const taken = Object.getOwnPropertyNames(Object.prototype);

function messageWith(name: string, oneof: boolean) {
  const field = {
    name,
    jsonName: name,
    number: 1,
    label: 1,
    type: 11,
    typeName: ".t.M",
    ...(oneof ? { oneofIndex: 0 } : {}),
  };
  const plain = { name: "plain", jsonName: "plain", number: 2, label: 1, type: 9, ...(oneof ? { oneofIndex: 0 } : {}) };
  const oneofDecl = oneof ? [{ name: name === "propertyIsEnumerable" ? "isPrototypeOf" : "propertyIsEnumerable" }] : [];
  const messageType = [{ name: "M", field: [field, plain], oneofDecl }];
  const file = create(FileDescriptorProtoSchema, { name: "t.proto", package: "t", syntax: "proto3", messageType });
  const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [file] }));
  guardLocalNames(registry.files);
  return registry.getMessage("t.M")!;
}

describe("fields that are called like a property of every object", () => {
  it.each(taken.flatMap((name) => [true, false].map((oneof) => ({ name, oneof }))))(
    "$name, in a oneof: $oneof",
    ({ name, oneof }) => {
      const desc = messageWith(name, oneof);
      expect(toJson(desc, fromBinary(desc, new Uint8Array()))).toEqual({});
      const text = `{${JSON.stringify(name)}:{"plain":"a"}}`;
      const message = fromJson(desc, JSON.parse(text));
      expect(JSON.stringify(toJson(desc, fromBinary(desc, toBinary(desc, message))))).toBe(text);
    },
  );
});

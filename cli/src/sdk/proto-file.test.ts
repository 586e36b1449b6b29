/** What is printed compiles to the same descriptor again: every kind of declaration, options and comments included. */
import { createFileRegistry, type DescExtension, fromBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { printProtoFile } from "./proto-file.js";
import { createOptionPrinter } from "./proto-options.js";

const path = "acme/all/v1/all.proto";

/** The file as its compiler sees it, without positions. */
function compiled(text: string) {
  const registry = createFileRegistry(
    fromBinary(FileDescriptorSetSchema, compileProtos({ [path]: text }, { sourceInfo: true })),
  );
  const file = registry.getFile(path)!;
  const comments = (file.proto.sourceCodeInfo?.location ?? []).flatMap(({ leadingComments }) =>
    leadingComments === "" ? [] : [leadingComments.trim()],
  );
  const plain = { ...file.proto, sourceCodeInfo: undefined };
  // Entries of maps are declared where their field stands, which no text can say otherwise.
  for (const message of plain.messageType) message.nestedType.sort((a, b) => (a.name < b.name ? -1 : 1));
  return { registry, file, comments, json: toJson(FileDescriptorProtoSchema, plain, { registry }) };
}

function roundTrip(text: string): string {
  const first = compiled(text);
  const extensions = [...first.registry].filter((one): one is DescExtension => one.kind === "extension");
  const printed = printProtoFile(first.file, createOptionPrinter(extensions));
  const second = compiled(printed);
  expect(second.json).toEqual(first.json);
  expect(second.comments.toSorted()).toEqual(first.comments.toSorted());
  return printed;
}

describe("a printed .proto file", () => {
  it("is the same contract: services, options, maps, oneofs, presence, reserved names and numbers", () => {
    const printed = roundTrip(`syntax = "proto3";
      package acme.all.v1;
      import "buf/validate/validate.proto";
      import "google/api/annotations.proto";
      import "google/protobuf/struct.proto";
      import "taskmesh/v1/options.proto";
      option java_package = "com.acme.all";
      option java_multiple_files = true;
      // Does everything.
      //
      // In two paragraphs.
      service AllActions {
        option deprecated = true;
        // Do does it.
        rpc Do(Request) returns (Response) {
          option (google.api.http) = {post: "/v1/{name=items/*}" body: "*" additional_bindings {get: "/v1/x"}};
          option (taskmesh.v1.action) = {retry: {exponential: {initial: {seconds: 1} factor: 1.5} non_retryable: ["A", "B"]}};
        }
        rpc Watch(stream Request) returns (stream Response);
      }
      message Request {
        reserved 5, 7 to 9, 1000 to max;
        reserved "old", "older";
        // Its name: "quoted" \\\\ backslash.
        string name = 1 [(buf.validate.field).string = {pattern: "^[a-z\\\\d\\"]+$" min_len: 1}, json_name = "theName"];
        optional int32 count = 2 [deprecated = true];
        repeated double numbers = 3 [packed = false];
        map<string, Nested> by_name = 4;
        oneof choice {
          option (buf.validate.oneof).required = true;
          // One of them.
          Kind kind = 10;
          google.protobuf.Value any_value = 11;
        }
        message Nested {
          enum Inner { INNER_UNSPECIFIED = 0; INNER_ONE = 1; }
          Inner inner = 1;
          .acme.all.v1.Request.Nested again = 2;
        }
      }
      message Response { bytes data = 1 [(taskmesh.v1.sensitive) = true, (buf.validate.field).bytes.const = "\\001\\377"]; }
      enum Kind {
        option allow_alias = true;
        reserved -5, 10 to 20;
        reserved "KIND_GONE";
        KIND_UNSPECIFIED = 0;
        // The first.
        KIND_ONE = 1;
        KIND_UNO = 1 [deprecated = true];
        KIND_NEGATIVE = -1;
      }
      message Empty {}
    `);
    expect(printed).toContain("message Empty {}");
    expect(printed).toContain("reserved 5, 7 to 9, 1000 to max;");
  });

  it("keeps what only proto2 has: required fields, defaults, extensions", () => {
    roundTrip(`syntax = "proto2";
      package acme.all.v1;
      import "google/protobuf/descriptor.proto";
      message Old {
        extensions 100 to 199, 500 to max;
        required string name = 1 [default = "a \\"b\\" \\n ü"];
        optional double ratio = 2 [default = -inf];
        optional bytes data = 3 [default = "\\000x"];
        optional bool on = 4 [default = true];
        optional Level level = 5 [default = LEVEL_HIGH];
        enum Level { LEVEL_LOW = 0; LEVEL_HIGH = 1; }
        repeated int32 packed_numbers = 6 [packed = true];
      }
      extend Old { optional string extra = 100; }
      extend google.protobuf.FieldOptions { repeated string tags = 50100; optional Old about = 50101; }
      message Tagged { optional string x = 1 [(tags) = "one", (tags) = "two", (about) = {name: "n" [acme.all.v1.extra]: "e"}]; }
    `);
  });
});

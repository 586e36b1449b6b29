/** For tests: contracts with rules and routes of every kind, and the document of them. */
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { repeatProto, shelfProto } from "../../../test/fixtures/repeat-protos.js";
import type { Contract } from "../contracts.js";
import { HttpRoutes } from "../http-routes.js";
import { DocumentBuilder } from "./document.js";

const ruledProto = `
  syntax = "proto3";
  package acme.ruled.v1;
  import "buf/validate/validate.proto";
  import "google/protobuf/timestamp.proto";
  // Actions with rules.
  service RuledActions {
    // Order takes an order. More words about it.
    rpc Order(OrderRequest) returns (OrderResponse);
    // Track tells of an order as it moves.
    rpc Track(OrderResponse) returns (stream OrderResponse);
  }
  // What is wanted.
  message OrderRequest {
    option (buf.validate.message).cel = { id: "fits" message: "first must not be above last" expression: "this.first <= this.last" };
    // Whom to tell.
    string mail = 1 [(buf.validate.field).string.email = true];
    string code = 2 [(buf.validate.field).string = { pattern: "^[A-Z]{3}$" }];
    string short = 3 [(buf.validate.field).string = { min_len: 2 max_len: 4 }];
    int32 first = 4 [(buf.validate.field).int32 = { gte: 1 lt: 100 }];
    int64 last = 5 [(buf.validate.field).int64 = { lte: 9007199254740993 }];
    repeated string tags = 6 [(buf.validate.field).repeated = { min_items: 1 max_items: 3 unique: true items: { string: { prefix: "t-" } } }];
    map<string, double> prices = 7 [(buf.validate.field).map = { max_pairs: 2 values: { double: { gt: 0 } } }];
    Kind kind = 8 [(buf.validate.field).enum = { in: [1, 2] }];
    google.protobuf.Timestamp at = 9 [(buf.validate.field).required = true];
    string maybe = 10 [(buf.validate.field).string.min_len = 5, (buf.validate.field).ignore = IGNORE_IF_ZERO_VALUE];
    string perl = 11 [(buf.validate.field).string.pattern = "(?i)x"];
    oneof way { string road = 12; int32 rail = 13; }
    Part part = 14 [(buf.validate.field).cel = { id: "whole" message: "the part must be whole" expression: "true" }];
  }
  message Part { Part inner = 1; float weight = 2; bytes raw = 3; uint64 number = 4; optional bool flag = 5; }
  // Sorts of orders.
  enum Kind {
    KIND_UNSPECIFIED = 0;
    // By land.
    KIND_LAND = 1;
    KIND_SEA = 2;
    KIND_AIR = 3;
  }
  message OrderResponse { string id = 1; }
`;

/** The contracts of all methods of the files; `id`: their fingerprint, else one made of the method. */
export function contractsOf(files: Record<string, string>, id = ""): Contract[] {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, compileProtos(files, { sourceInfo: true })));
  const services = [...registry]
    .filter((one) => one.kind === "service")
    .filter(({ typeName }) => typeName.startsWith("acme."));
  const methods = services.flatMap((service) => service.methods.map((rpc) => ({ service, rpc })));
  return methods
    .map(({ service, rpc }) => {
      const method = `${service.typeName}/${rpc.name}`;
      return { id: id || `id-of-${rpc.name}`, method, input: rpc.input, output: rpc.output, registry, rpc };
    })
    .sort((a, b) => (a.method < b.method ? -1 : 1));
}

/** The document of contracts. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into documents of every shape
export function documentOf(contracts: readonly Contract[]): any {
  const builder = new DocumentBuilder({ namespace: "default", credentials: { bearer: true, certificate: false } });
  const { served } = new HttpRoutes(contracts, new Set(contracts.map(({ method }) => method)));
  for (const contract of contracts) {
    builder.add(
      contract,
      false,
      served.filter((route) => route.contract === contract),
    );
  }
  return builder.build();
}

/** Files with every kind of field, rule and route. */
export const protos = {
  "acme/repeat.proto": repeatProto,
  "acme/shelf.proto": shelfProto,
  "acme/ruled.proto": ruledProto,
};

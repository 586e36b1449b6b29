/**
 * The protobuf contracts of Taskmesh as TypeScript. `gen/` is generated and committed; `npm run gen` renews it.
 *
 * Messages of taskmesh.v1 are exported by name; well-known and status types under a namespace of their own.
 */

export { meshComments } from "./gen/comments.js";
export { meshDescriptorSet } from "./gen/descriptors.js";
export { Any } from "./gen/google/protobuf/any.js";
export { Duration } from "./gen/google/protobuf/duration.js";
export * as struct from "./gen/google/protobuf/struct.js";
export { Timestamp } from "./gen/google/protobuf/timestamp.js";
export * as errorDetails from "./gen/google/rpc/error_details.js";
export * as rpcStatus from "./gen/google/rpc/status.js";
export * as reflectionV1 from "./gen/grpc/reflection/v1/reflection.js";
export * as reflectionV1alpha from "./gen/grpc/reflection/v1alpha/reflection.js";
export * from "./gen/index.js";
export * as launch from "./gen/taskmesh/launch/v1/launch.js";

/** Messages of taskmesh.v1 as canonical protobuf JSON, with full enum names and 64-bit integers as strings. */
import {
  createFileRegistry,
  type DescMessage,
  type FileRegistry,
  fromBinary,
  type JsonObject,
  type JsonValue,
  type Registry,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { Any, Failure } from "@taskmesh/proto";
import { meshDescriptorSet } from "@taskmesh/proto";
import { bytesToJson, messageFromJson, type ProtobufJsonResult } from "@taskmesh/runtime";

/** The types of taskmesh.v1, google.rpc and the well-known ones. */
export const meshRegistry: FileRegistry = createFileRegistry(fromBinary(FileDescriptorSetSchema, meshDescriptorSet));

/** A ts-proto message type. */
interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
}

/** The descriptor of a type of the mesh, by its name in taskmesh.v1. Throws for unknown names: they are a bug here. */
export function meshType(name: string): DescMessage {
  const desc = meshRegistry.getMessage(`taskmesh.v1.${name}`);
  if (desc === undefined) throw new Error(`no message taskmesh.v1.${name}`);
  return desc;
}

/** Renders one message of taskmesh.v1. Messages that hold an Any go through `failureToJson` instead. */
export function render<T>(name: string, codec: Codec<T>, message: T): JsonObject {
  return bytesToJson(meshType(name), codec.encode(message).finish(), { registry: meshRegistry }) as JsonObject;
}

/** Reads a message of taskmesh.v1 from a JSON value. */
export function readMessage(name: string, json: JsonValue): ProtobufJsonResult {
  return messageFromJson(meshType(name), json, { registry: meshRegistry });
}

/** Renders a failure and its causes; details of types that nobody here knows keep their bytes. */
export function failureToJson(failure: Failure, registry?: Registry): JsonObject {
  return {
    reason: failure.reason,
    message: failure.message,
    retryable: failure.retryable,
    details: failure.details.map((any) => anyToJson(any, registry)),
    ...(failure.cause === undefined ? {} : { cause: failureToJson(failure.cause, registry) }),
  };
}

/** Renders an Any. A type that neither `registry` nor the mesh knows becomes `{"@type", "value": <base64>}`. */
export function anyToJson(any: Any, registry?: Registry): JsonObject {
  const name = any.typeUrl.slice(any.typeUrl.lastIndexOf("/") + 1);
  const known = meshRegistry.getMessage(name) === undefined ? registry : meshRegistry;
  const desc = known?.getMessage(name);
  const type = { "@type": any.typeUrl };
  try {
    if (desc !== undefined && known !== undefined) {
      const json = bytesToJson(desc, any.value, { registry: known, maskSensitive: true });
      const isPlain =
        typeof json === "object" && json !== null && !Array.isArray(json) && !name.startsWith("google.protobuf.");
      return isPlain ? { ...type, ...json } : { ...type, value: json };
    }
  } catch {
    // Bytes that are not what their type says are shown as they are.
  }
  return { ...type, value: any.value.toString("base64") };
}

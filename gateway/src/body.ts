/** Bodies that are a request message of the mesh as JSON. */
import { type JsonObject, toBinary } from "@bufbuild/protobuf";
import { nearestName, statusError } from "@taskmesh/runtime";
import { meshType, readMessage } from "./render.js";

/** Reads a JSON object as a request message of taskmesh.v1. `others`: keys of the body that are not the message's. */
export function decodeBody<T>(
  name: string,
  codec: { decode(bytes: Uint8Array): T },
  json: JsonObject,
  others: readonly string[] = [],
): T {
  const parsed = readMessage(name, json);
  if (parsed.ok) return codec.decode(toBinary(meshType(name), parsed.message));
  const [first] = parsed.violations;
  const other = first === undefined ? undefined : nearestName(first.field, others);
  const hint = other === undefined ? "" : `; or did you mean ${JSON.stringify(other)}?`;
  const message = `${first?.field || "the body"}: ${first?.message ?? "is invalid"}${hint}`;
  const fieldViolations = parsed.violations.map(({ field, message: description }) => ({ field, description }));
  throw statusError({ reason: "ARGUMENT_INVALID", message, fieldViolations });
}

/** A stored chain as a document that its author can change and apply again. */
import { createFileRegistry, fromBinary, fromJson, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { ChainSpec, meshDescriptorSet } from "@taskmesh/proto";
import { formatChainDocument } from "@taskmesh/runtime";
import type { JsonObject } from "./json.js";

/** The YAML of a ChainSpec that is given as canonical JSON. Throws for anything else. */
export function chainDocumentOf(spec: JsonObject): string {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, meshDescriptorSet));
  const type = registry.getMessage("taskmesh.v1.ChainSpec");
  if (!type) throw new Error("the descriptors of taskmesh.v1 hold no ChainSpec");
  return formatChainDocument(ChainSpec.decode(toBinary(type, fromJson(type, spec)))).trimEnd();
}

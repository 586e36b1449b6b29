/**
 * The contracts of a worker at run time: what `taskmesh gen` embeds, completed with the files that every contract may leave out.
 *
 * google/*, buf/validate/* and taskmesh/* may be missing from the given set; the SDK brings its own copies.
 */
import { createFileRegistry, type DescMethod, type FileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type FileDescriptorProto, type FileDescriptorSet, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { meshDescriptorSet } from "@taskmesh/proto";
import { guardLocalNames } from "@taskmesh/runtime";

/** An encoded google.protobuf.FileDescriptorSet, or the same as base64. */
export type Descriptors = Uint8Array | string;

/** Largest descriptor set that a coordinator takes. */
export const descriptorBytesMax = 4 * 1024 * 1024;

/** A parsed set, with the bytes that registration sends. */
export interface ParsedDescriptors {
  registry: FileRegistry;
  bytes: Uint8Array;
}

/** Parses and completes a descriptor set. Throws a TypeError that says what is wrong with it. */
export function parseDescriptors(descriptors: Descriptors): ParsedDescriptors {
  const bytes = typeof descriptors === "string" ? fromBase64(descriptors) : descriptors;
  if (bytes.length > descriptorBytesMax) throw new TypeError(`descriptors are ${bytes.length} bytes; at most 4 MiB`);
  let set: FileDescriptorSet;
  try {
    set = fromBinary(FileDescriptorSetSchema, bytes);
  } catch (cause) {
    throw new TypeError("descriptors are not an encoded google.protobuf.FileDescriptorSet", { cause });
  }
  if (set.file.length === 0) throw new TypeError("descriptors hold no file");
  try {
    const completed = { ...set, file: inOrder(set.file) };
    const registry = createFileRegistry(completed);
    guardLocalNames(registry.files);
    return { registry, bytes: toBinary(FileDescriptorSetSchema, ownOf(set)) };
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new TypeError(`descriptors do not fit together: ${why}`, { cause });
  }
}

/** The rpc `service/Name`. Throws a TypeError if the descriptors don't have it. */
export function methodOf(registry: FileRegistry, fullName: string): DescMethod {
  const [service = "", name = ""] = fullName.split("/");
  const found = registry.getService(service)?.methods.find((method) => method.name === name);
  if (!found) throw new TypeError(`the descriptors have no rpc ${fullName}; were they generated from the same .proto?`);
  return found;
}

function fromBase64(text: string): Uint8Array {
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(text)) throw new TypeError("descriptors are not base64");
  return Buffer.from(text, "base64");
}

let bundled: Map<string, FileDescriptorProto> | undefined;

function bundledFile(name: string): FileDescriptorProto | undefined {
  bundled ??= new Map(fromBinary(FileDescriptorSetSchema, meshDescriptorSet).file.map((file) => [file.name, file]));
  return bundled.get(name);
}

/** The given files and what they need, dependencies first. */
function inOrder(given: readonly FileDescriptorProto[]): FileDescriptorProto[] {
  const byName = new Map(given.map((file) => [file.name, file]));
  const ordered: FileDescriptorProto[] = [];
  const seen = new Set<string>();
  const visit = (name: string): void => {
    if (seen.has(name)) return;
    seen.add(name);
    const file = byName.get(name) ?? bundledFile(name);
    if (!file) return;
    for (const dependency of file.dependency) visit(dependency);
    ordered.push(file);
  };
  for (const file of given) visit(file.name);
  return ordered;
}

/** What is sent: the given files alone, dependencies first. */
function ownOf(set: FileDescriptorSet): FileDescriptorSet {
  const own = new Set(set.file.map((file) => file.name));
  return { ...set, file: inOrder(set.file).filter((file) => own.has(file.name)) };
}

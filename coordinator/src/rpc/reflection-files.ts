/**
 * Descriptors as reflection sends them: the file of a symbol and everything that it imports.
 *
 * F1. A file and its imports come from one linked set, so that files of one name from two teams never mix in an answer.
 * F2. A service whose methods were registered apart (each chain brings a file with its own method) is one file to a client.
 */
import { clone, type DescExtension, type DescFile, type DescService, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** Encoded FileDescriptorProtos; the wanted file first. */
export type EncodedFiles = Uint8Array[];

const encoded = new WeakMap<DescFile, Uint8Array>();

/** The file and all its imports, encoded. */
export function withImports(file: DescFile): EncodedFiles {
  return closure([file]).map(encode);
}

/** Files and their imports, each once, users before their dependencies. */
function closure(roots: readonly DescFile[]): DescFile[] {
  const seen = new Set<DescFile>();
  const open = [...roots];
  for (let file = open.shift(); file; file = open.shift()) {
    if (seen.has(file)) continue;
    seen.add(file);
    open.push(...file.dependencies);
  }
  return [...seen];
}

function encode(file: DescFile): Uint8Array {
  let bytes = encoded.get(file);
  if (!bytes) {
    bytes = toBinary(FileDescriptorProtoSchema, file.proto);
    encoded.set(file, bytes);
  }
  return bytes;
}

/**
 * The file of a service, put together from all its revisions: every method that any of them has (F2). The revisions are given newest
 * first; where two have a method or a type of one name, the newer counts.
 */
export function serviceFile(revisions: readonly DescService[]): EncodedFiles {
  const [newest, ...older] = revisions;
  if (!newest) return [];
  const missing = older.filter((service) => service.methods.some((method) => !hasMethod(newest, method.name)));
  if (missing.length === 0) return withImports(newest.file);

  const merged = clone(FileDescriptorProtoSchema, newest.file.proto);
  const target = merged.service.find(({ name }) => name === newest.name);
  const roots = new Map(newest.file.dependencies.map((file) => [file.proto.name, file]));
  for (const service of missing) {
    const { proto } = service.file;
    for (const method of service.proto.method) {
      if (target && !target.method.some(({ name }) => name === method.name)) target.method.push(method);
    }
    addMissing(merged.messageType, proto.messageType);
    addMissing(merged.enumType, proto.enumType);
    for (const file of service.file.dependencies) {
      if (roots.has(file.proto.name)) continue;
      roots.set(file.proto.name, file);
      merged.dependency.push(file.proto.name);
    }
  }
  return [toBinary(FileDescriptorProtoSchema, merged), ...closure([...roots.values()]).map(encode)];
}

function hasMethod(service: DescService, name: string): boolean {
  return service.methods.some((method) => method.name === name);
}

function addMissing<T extends { name: string }>(to: T[], from: readonly T[]): void {
  for (const item of from) if (!to.some(({ name }) => name === item.name)) to.push(item);
}

/** The file that declares a symbol: a message, an enum, an extension, or one of their or a service's members. */
export function fileOfSymbol(registry: SymbolRegistry, symbol: string): DescFile | undefined {
  // A member's name is one component longer than its parent's.
  const parent = symbol.slice(0, Math.max(0, symbol.lastIndexOf(".")));
  return (registry.get(symbol) ?? (parent ? registry.get(parent) : undefined))?.file;
}

/** What is looked up in: a protobuf registry. */
export interface SymbolRegistry extends Iterable<{ kind: string }> {
  get(name: string): { file: DescFile } | undefined;
}

/** The extensions of a message type that a registry knows. */
export function extensionsOf(registry: SymbolRegistry, typeName: string): DescExtension[] {
  const found: DescExtension[] = [];
  for (const type of registry) {
    const extension = type as DescExtension;
    if (type.kind === "extension" && extension.extendee.typeName === typeName) found.push(extension);
  }
  return found;
}

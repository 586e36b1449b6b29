/**
 * From an untrusted FileDescriptorSet to contracts.
 *
 * D1. Sizes and nesting are bounded and the wire form is checked before anything is built from it.
 * D2. Files that the mesh knows (google/protobuf, google/api, buf/validate, taskmesh/v1 …) are always its own, whether the set
 *     has them or not: nobody redefines Timestamp, and SDKs may leave them out.
 * D3. Files are linked dependencies first, whatever their order in the set; a cycle or a missing import is refused by name.
 * D4. Nothing is global: each set is linked on its own, so that sets never clash.
 */
import {
  create,
  createFileRegistry,
  type DescFile,
  type DescMethod,
  type FileRegistry,
  fromBinary,
  toBinary,
} from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import * as wkt from "@bufbuild/protobuf/wkt";
import { ActionOptions, meshDescriptorSet } from "@taskmesh/proto";
import { compileWireCheck, fillJsonNames, guardLocalNames } from "@taskmesh/runtime";
import {
  type Contract,
  ContractRefused,
  isFullName,
  isReservedService,
  nameLengthMax,
  splitMethod,
} from "./contract.js";
import { fingerprintOf } from "./fingerprint.js";

/** Largest encoded FileDescriptorSet that is accepted. Fits in a gRPC message of the default size. */
export const descriptorSetBytesMax = 4 * 1024 * 1024;
/** What a set may hold: far above real ones, low enough to link in well under a second. */
const filesMax = 1_000;
const declarationsMax = 50_000;
/** Deepest nesting of message declarations. */
const declarationDepthMax = 32;

/** Files of one set, linked. */
export interface DescriptorFiles {
  /** By import path, dependencies before their users. */
  readonly files: ReadonlyMap<string, DescFile>;
  /** Import paths that came with the set and are not the mesh's own. */
  readonly own: ReadonlySet<string>;
}

export interface ParseOptions {
  /** Accept services of reserved packages: built-in actions, and sets that were accepted before. */
  allowReserved?: boolean;
}

/**
 * Links an encoded FileDescriptorSet. Throws ContractRefused (DESCRIPTORS_INVALID) when it is malformed, too large, incomplete,
 * or has names or features that the mesh does not take.
 */
export function parseDescriptorSet(bytes: Uint8Array): DescriptorFiles {
  if (bytes.length > descriptorSetBytesMax) {
    refuse(`the descriptor set has ${bytes.length} bytes; at most ${descriptorSetBytesMax} are allowed`);
  }
  const fault = checkSet(bytes);
  if (fault !== undefined) refuse(`the descriptor set is not a google.protobuf.FileDescriptorSet: ${fault}`);
  const set = fromBinary(wkt.FileDescriptorSetSchema, bytes);
  if (set.file.length > filesMax)
    refuse(`the descriptor set has ${set.file.length} files; at most ${filesMax} are allowed`);
  for (const file of set.file) checkDeclarations(file);
  fillJsonNames(set); // some compilers leave out what is derived from the name
  return link(set.file);
}

/**
 * The contracts of a set, one per rpc: of the given methods, or of every rpc that came with the set and may be registered.
 * Throws ContractRefused when a wanted method is not in the set (DESCRIPTORS_INVALID), takes a stream (DESCRIPTORS_INVALID) or
 * belongs to a reserved package (SERVICE_RESERVED).
 */
export function contractsOf(set: DescriptorFiles, methods?: Iterable<string>, options: ParseOptions = {}): Contract[] {
  const found = rpcsOf(set);
  const wanted = methods ?? [...found].filter(([, { file }]) => set.own.has(file.proto.name)).map(([name]) => name);
  return [...wanted].map((method) => {
    const entry = found.get(method);
    if (entry === undefined) return refuse(`method ${shown(method)} is not in the descriptor set`);
    const service = entry.rpc.parent.typeName;
    if (isReservedService(service) && options.allowReserved !== true) {
      throw new ContractRefused(
        "SERVICE_RESERVED",
        `service ${service} is in a reserved package; declare it in a package of your own`,
      );
    }
    if (entry.rpc.methodKind === "client_streaming" || entry.rpc.methodKind === "bidi_streaming") {
      return refuse(
        `method ${method} takes a stream: an action takes one message, for its input is recorded before it runs; ` +
          `write \`rpc ${entry.rpc.name}(${entry.rpc.input.name})\` without the word \`stream\` before the input, ` +
          "put many items into a repeated field and large contents into a bytes field (up to 64 MiB)",
      );
    }
    return unlessDamaged(method, () => contractOf(entry.rpc, registryOf(entry.file)));
  });
}

type Rpcs = ReadonlyMap<string, { rpc: DescMethod; file: DescFile }>;

/** The rpcs of sets by full name: contracts of one set are asked for one by one, a thousand times where there are a thousand. */
const rpcsBySet = new WeakMap<DescriptorFiles, Rpcs>();

function rpcsOf(set: DescriptorFiles): Rpcs {
  const known = rpcsBySet.get(set);
  if (known !== undefined) return known;
  const found = new Map<string, { rpc: DescMethod; file: DescFile }>();
  for (const file of set.files.values()) {
    for (const service of file.services) {
      for (const rpc of service.methods) found.set(`${service.typeName}/${rpc.name}`, { rpc, file });
    }
  }
  rpcsBySet.set(set, found);
  return found;
}

/** Options are decoded when they are first asked for: damage in their bytes shows here, and is the sender's. */
function unlessDamaged<T>(method: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof ContractRefused) throw error;
    const message = `the options of ${shown(method)}, its messages or its file can't be read: ${(error as Error).message}`;
    throw new ContractRefused("DESCRIPTORS_INVALID", message, { cause: error });
  }
}

/** The contract of one method from a stored set (Contract.descriptorSet). Throws ContractRefused if it is not in there. */
export function loadContract(descriptorSet: Uint8Array, method: string): Contract {
  const [contract] = contractsOf(parseDescriptorSet(descriptorSet), [method], { allowReserved: true });
  return contract!;
}

/** The contract of a linked rpc. */
export function contractOf(rpc: DescMethod, registry: FileRegistry): Contract {
  const method = `${rpc.parent.typeName}/${rpc.name}`;
  if (splitMethod(method) === undefined)
    refuse(`method name ${shown(method)} is longer than ${nameLengthMax} characters`);
  return {
    fingerprint: fingerprintOf(rpc, registry),
    method,
    service: rpc.parent.typeName,
    input: rpc.input,
    output: rpc.output,
    rpc,
    registry,
    get descriptorSet() {
      const files = dependenciesFirst(rpc.parent.file);
      return toBinary(
        wkt.FileDescriptorSetSchema,
        create(wkt.FileDescriptorSetSchema, { file: files.map((f) => f.proto) }),
      );
    },
    options: actionOptions(rpc),
    description: leadingComment(rpc),
  };
}

const registries = new WeakMap<DescFile, FileRegistry>();

/** The registry of the file and everything that it imports; one for all contracts of the file. */
export function registryOf(file: DescFile): FileRegistry {
  const known = registries.get(file);
  if (known !== undefined) return known;
  const files = dependenciesFirst(file);
  const byName = new Map(files.map((f) => [f.proto.name, f]));
  // A registry is made of a file and what it imports: an empty file that imports exactly these gives one of the very same objects.
  const root = create(wkt.FileDescriptorProtoSchema, { name: "", syntax: "proto3", dependency: [...byName.keys()] });
  const registry = createFileRegistry(root, (name) => byName.get(name));
  registries.set(file, registry);
  return registry;
}

/** The file and its imports, dependencies first. */
export function dependenciesFirst(file: DescFile): DescFile[] {
  const done = new Set<DescFile>();
  const visit = (f: DescFile) => {
    if (done.has(f)) return;
    for (const dependency of f.dependencies) visit(dependency);
    done.add(f);
  };
  visit(file);
  return [...done];
}

let known: Map<string, DescFile> | undefined;

/** The files that are the mesh's own (D2), linked once. */
export function meshFiles(): ReadonlyMap<string, DescFile> {
  if (known !== undefined) return known;
  const set = fromBinary(wkt.FileDescriptorSetSchema, meshDescriptorSet);
  const own = set.file;
  // Well-known files that the mesh does not use itself, such as wrappers and empty, come with the protobuf library.
  for (const value of Object.values(wkt)) {
    if (typeof value !== "object" || !("kind" in value) || value.kind !== "file") continue;
    if (!own.some((file) => file.name === value.proto.name)) own.push(value.proto);
  }
  known = new Map();
  for (const file of sorted(own, new Map())) known.set(file.name, linkFile(file, known));
  return known;
}

const checkSet = compileWireCheck(wkt.FileDescriptorSetSchema);

function link(protos: wkt.FileDescriptorProto[]): DescriptorFiles {
  const mesh = meshFiles();
  const own = new Set<string>();
  for (const proto of protos) {
    if (mesh.has(proto.name)) continue;
    if (own.has(proto.name)) refuse(`file ${shown(proto.name)} is in the descriptor set twice`);
    own.add(proto.name);
  }
  const files = new Map<string, DescFile>(mesh);
  for (const proto of sorted(
    protos.filter((p) => own.has(p.name)),
    mesh,
  ))
    files.set(proto.name, linkFile(proto, files));
  refuseDuplicates(
    [...own].map((name) => files.get(name)!),
    mesh,
  );
  return { files, own };
}

function linkFile(proto: wkt.FileDescriptorProto, files: ReadonlyMap<string, DescFile>): DescFile {
  try {
    const linked = createFileRegistry(proto, (name) => files.get(name)).getFile(proto.name);
    if (linked === undefined) return refuse(`file ${shown(proto.name)} can't be linked`);
    guardLocalNames([linked]);
    return linked;
  } catch (cause) {
    if (cause instanceof ContractRefused) throw cause;
    return refuse(`file ${shown(proto.name)}: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
}

/** Dependencies first; the files in `given` are there already. Not recursive: a chain of imports may be as long as the set. */
function sorted(protos: wkt.FileDescriptorProto[], given: ReadonlyMap<string, unknown>): wkt.FileDescriptorProto[] {
  const byName = new Map(protos.map((proto) => [proto.name, proto]));
  const state = new Map<string, "open" | "done">();
  const result: wkt.FileDescriptorProto[] = [];
  for (const root of protos) {
    const stack: { proto: wkt.FileDescriptorProto; next: number }[] = [];
    const enter = (proto: wkt.FileDescriptorProto) => {
      state.set(proto.name, "open");
      stack.push({ proto, next: 0 });
    };
    if (state.get(root.name) === undefined) enter(root);
    while (stack.length > 0) {
      const top = stack[stack.length - 1]!;
      const name = top.proto.dependency[top.next++];
      if (name === undefined) {
        state.set(top.proto.name, "done");
        result.push(top.proto);
        stack.pop();
        continue;
      }
      if (given.has(name) || state.get(name) === "done") continue;
      if (state.get(name) === "open") refuse(`file ${shown(name)} imports itself by way of ${shown(top.proto.name)}`);
      const proto = byName.get(name);
      if (proto === undefined)
        return refuse(`file ${shown(name)}, imported by ${shown(top.proto.name)}, is missing in the descriptor set`);
      enter(proto);
    }
  }
  return result;
}

/** Two files of one set with a type of the same name would shadow each other without a word. */
function refuseDuplicates(files: DescFile[], mesh: ReadonlyMap<string, DescFile>): void {
  const owners = new Map<string, DescFile>();
  for (const file of [...mesh.values(), ...files]) {
    for (const type of [...file.messages, ...file.enums, ...file.services]) {
      const other = owners.get(type.typeName);
      if (other !== undefined && other !== file) {
        refuse(`${type.typeName} is declared in ${shown(other.proto.name)} and in ${shown(file.proto.name)}`);
      }
      owners.set(type.typeName, file);
    }
  }
}

function checkDeclarations(file: wkt.FileDescriptorProto): void {
  if (file.name === "" || file.name.length > 1_024)
    refuse(`a file of the descriptor set has no usable name: ${shown(file.name)}`);
  let count = 0;
  const check = (scope: string, name: string | undefined) => {
    const full = scope === "" ? (name ?? "") : `${scope}.${name ?? ""}`;
    if (!isFullName(full))
      refuse(`file ${shown(file.name)}: ${shown(full)} is not a name (at most ${nameLengthMax} characters)`);
    if (++count > declarationsMax) refuse(`file ${shown(file.name)} declares more than ${declarationsMax} things`);
    return full;
  };
  if (file.package !== "") check("", file.package);
  const open = file.messageType.map((message) => ({ message, scope: file.package, depth: 1 }));
  for (let entry = open.pop(); entry !== undefined; entry = open.pop()) {
    const { message, depth } = entry;
    const scope = check(entry.scope, message.name);
    if (depth > declarationDepthMax) refuse(`${scope} is declared inside more than ${declarationDepthMax} messages`);
    for (const part of [...message.field, ...message.oneofDecl]) check(scope, part.name);
    for (const type of message.enumType) for (const value of type.value) check(check(scope, type.name), value.name);
    for (const nested of message.nestedType) open.push({ message: nested, scope, depth: depth + 1 });
  }
  for (const type of file.enumType) for (const value of type.value) check(check(file.package, type.name), value.name);
  for (const service of file.service) {
    const scope = check(file.package, service.name);
    for (const rpc of service.method) check(scope, rpc.name);
  }
}

/** Number of taskmesh.v1.action in google.protobuf.MethodOptions. */
const actionExtension = 51801;

function actionOptions(rpc: DescMethod): ActionOptions | undefined {
  const records = rpc.proto.options?.$unknown?.filter((record) => record.no === actionExtension) ?? [];
  if (records.length === 0) return undefined;
  try {
    return ActionOptions.decode(Buffer.concat(records.map((record) => new BinaryReader(record.data).bytes())));
  } catch (cause) {
    return refuse(`option (taskmesh.v1.action) of ${rpc.parent.typeName}/${rpc.name} is malformed`, cause);
  }
}

function leadingComment(rpc: DescMethod): string {
  const file = rpc.parent.file;
  const service = file.services.indexOf(rpc.parent);
  const method = rpc.parent.methods.indexOf(rpc);
  // 6: services of a file, 2: methods of a service, as descriptor.proto numbers them.
  const path = [6, service, 2, method];
  const location = file.proto.sourceCodeInfo?.location.find(
    (l) => l.path.length === path.length && l.path.every((part, index) => part === path[index]),
  );
  return (location?.leadingComments ?? "").slice(0, descriptionLengthMax).trim();
}

/** A comment is kept up to this length: catalogues list many. */
const descriptionLengthMax = 4_096;

function refuse(message: string, cause?: unknown): never {
  throw new ContractRefused("DESCRIPTORS_INVALID", message, cause === undefined ? undefined : { cause });
}

/** A name from outside, made safe to show. */
const shown = (name: string): string => JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name);

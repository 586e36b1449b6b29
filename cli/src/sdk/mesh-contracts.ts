/**
 * The contracts of a live mesh, chosen by name, as one set of files.
 *
 * C1. Files that Taskmesh ships (google, buf.validate, its own) are never taken from a mesh: a generator has them, or gets those.
 * C2. A service whose methods were registered apart, as those of chains are, is one service again.
 * C3. Two contracts that bring different files under one name can't be in one set; the refusal names both.
 */
import {
  clone,
  create,
  createFileRegistry,
  type DescFile,
  equals,
  type FileRegistry,
  fromBinary,
} from "@bufbuild/protobuf";
import { type FileDescriptorProto, FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { type Api, methodPath } from "../api.js";
import { CliError, exitCode, usageError } from "../exit.js";
import { objects, text } from "../json.js";

/** A contract as the mesh lists it. */
export interface ListedContract {
  /** Full method name. */
  method: string;
  /** Names the descriptor set: contracts of one name have the same bytes there. */
  descriptorSet: string;
}

/** The chosen contracts. */
export interface ChosenContracts {
  /** Full method names, sorted. */
  methods: readonly string[];
  /** Files that the mesh alone has, dependencies first. */
  files: readonly DescFile[];
  registry: FileRegistry;
}

/** Packages of the mesh itself: clients of these come with it. */
const ownPackages = /^(taskmesh|grpc|google|buf)\./;
/** Files that generators have anyway (C1). */
export const isShipped = (path: string): boolean =>
  /^(google\/(protobuf|api|rpc|type)|buf\/validate|taskmesh\/v1)\//.test(path);
/** Contracts of one project; more would be thousands of generated files. */
const contractsMax = 1_000;

/**
 * Those of `listed` that one of `wanted` names: a method, a service, or a package. Without names: all but the mesh's own.
 * @throws CliError (not found) for a name that fits nothing.
 */
export function chooseContracts(listed: readonly ListedContract[], wanted: readonly string[]): ListedContract[] {
  const fits = (name: string, method: string): boolean =>
    method === name || method.startsWith(`${name}/`) || method.startsWith(`${name}.`);
  const idle = wanted.find((name) => !listed.some(({ method }) => fits(name, method)));
  if (idle !== undefined) {
    throw new CliError(exitCode.notFound, `the mesh has no method, service or package ${idle}`, {
      hint: "List them with: taskmesh actions list, taskmesh chains list",
    });
  }
  const chosen =
    wanted.length === 0
      ? listed.filter(({ method }) => !ownPackages.test(method))
      : listed.filter(({ method }) => wanted.some((name) => fits(name, method)));
  if (chosen.length === 0) {
    throw new CliError(exitCode.notFound, "the mesh has no contracts besides its own", {
      hint: "Start a worker or store a chain; built-in actions are named in full: taskmesh.http.v1.HttpActions",
    });
  }
  if (chosen.length > contractsMax) {
    throw usageError(
      `${chosen.length} contracts are too many for one project (at most ${contractsMax})`,
      "Name services.",
    );
  }
  return [...chosen].sort((a, b) => (a.method < b.method ? -1 : 1));
}

/** Asks the mesh for the contracts. */
export async function fetchContracts(api: Api, wanted: readonly string[]): Promise<ChosenContracts> {
  const answer = await api.call("GET", "/api/v1/contracts");
  const listed = objects(answer.contracts).map(({ method, descriptorSet }) => ({
    method: text(method),
    descriptorSet: text(descriptorSet),
  }));
  const chosen = chooseContracts(listed, wanted);
  const sets = new Map(chosen.map((one) => [one.descriptorSet, one.method]));
  const files: FileDescriptorProto[] = [];
  for (const method of sets.values()) {
    const contract = await api.call("GET", `/api/v1/contracts/${methodPath(method)}`);
    const set = fromBinary(FileDescriptorSetSchema, Buffer.from(text(contract.descriptorSet), "base64"));
    files.push(...set.file);
  }
  return linkContracts(
    chosen.map(({ method }) => method),
    files,
  );
}

/** Puts the files of several contracts together. @throws CliError (bad) where they contradict each other (C3). */
export function linkContracts(methods: readonly string[], files: readonly FileDescriptorProto[]): ChosenContracts {
  const byName = new Map<string, FileDescriptorProto>();
  for (const file of files) {
    const known = byName.get(file.name);
    if (known === undefined) byName.set(file.name, file);
    else byName.set(file.name, isShipped(file.name) ? known : merged(known, file));
  }
  for (const file of [...byName.values()]) gatherServices(file, byName);
  const set = create(FileDescriptorSetSchema, { file: dependenciesFirst(byName) });
  const registry = createFileRegistry(set);
  return { methods, files: [...registry.files].filter(({ proto }) => !isShipped(proto.name)), registry };
}

/** Two files of one name: equal, or one of them with more methods and messages. */
function merged(a: FileDescriptorProto, b: FileDescriptorProto): FileDescriptorProto {
  if (equals(FileDescriptorProtoSchema, a, b)) return a;
  const all = clone(FileDescriptorProtoSchema, a);
  for (const service of b.service) {
    const target = all.service.find(({ name }) => name === service.name);
    if (!target) all.service.push(service);
    else addMissing(target.method, service.method);
  }
  addMissing(all.messageType, b.messageType);
  addMissing(all.enumType, b.enumType);
  for (const path of b.dependency) if (!all.dependency.includes(path)) all.dependency.push(path);
  // What both have must be the same: another order of the same declarations is no contradiction.
  for (const message of b.messageType) {
    const mine = a.messageType.find(({ name }) => name === message.name);
    if (mine && JSON.stringify(plainFields(mine)) !== JSON.stringify(plainFields(message))) {
      throw new CliError(
        exitCode.bad,
        `two contracts bring different files ${a.name}: message ${message.name} differs`,
        {
          hint: "Generate them apart: name one service, and another --out for the other.",
        },
      );
    }
  }
  return all;
}

const plainFields = (message: { field: { name: string; number: number; type: number; typeName: string }[] }): unknown =>
  message.field.map(({ name, number, type, typeName }) => [name, number, type, typeName]).sort();

function addMissing<T extends { name: string }>(to: T[], from: readonly T[]): void {
  for (const item of from) if (!to.some(({ name }) => name === item.name)) to.push(item);
}

/** C2: methods of a service that another file declared before go there. */
function gatherServices(file: FileDescriptorProto, byName: Map<string, FileDescriptorProto>): void {
  for (const other of byName.values()) {
    if (other === file) return;
    if (other.package !== file.package) continue;
    for (const service of [...file.service]) {
      const target = other.service.find(({ name }) => name === service.name);
      if (!target) continue;
      addMissing(target.method, service.method);
      for (const path of [...file.dependency, file.name])
        if (path !== other.name && !other.dependency.includes(path)) other.dependency.push(path);
      file.service.splice(file.service.indexOf(service), 1);
    }
  }
}

function dependenciesFirst(byName: ReadonlyMap<string, FileDescriptorProto>): FileDescriptorProto[] {
  const sorted = new Set<FileDescriptorProto>();
  const visit = (file: FileDescriptorProto, above: readonly string[]): void => {
    if (sorted.has(file) || above.includes(file.name)) return;
    for (const path of file.dependency) {
      const dependency = byName.get(path);
      if (!dependency) throw new CliError(exitCode.bad, `${file.name} imports ${path}, which the mesh does not have`);
      visit(dependency, [...above, file.name]);
    }
    sorted.add(file);
  };
  for (const file of byName.values()) visit(file, []);
  return [...sorted];
}

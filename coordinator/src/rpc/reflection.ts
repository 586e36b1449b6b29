/**
 * gRPC server reflection, v1 and v1alpha: the mesh's own services and the contracts that are live in the caller's namespace,
 * each with complete imports, so that grpcurl, buf curl and generic clients can call any action without its .proto files.
 */
import type { DescFile, DescMethod, DescService, FileRegistry } from "@bufbuild/protobuf";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { Metadata } from "@grpc/grpc-js";
import { meshDescriptorSet, reflectionV1, reflectionV1alpha } from "@taskmesh/proto";
import { isStatusError, status } from "@taskmesh/runtime";
import { bidi } from "./calls.js";
import { healthFile } from "./health-file.js";
import type { Listener } from "./listener.js";
import { type EncodedFiles, extensionsOf, fileOfSymbol, serviceFile, withImports } from "./reflection-files.js";

/** One live contract, as reflection needs it; contracts/contract.ts has it. */
export interface ReflectedContract {
  rpc: DescMethod;
  registry: FileRegistry;
}

export interface ReflectionOptions {
  /** The namespace of callers that name none. */
  defaultNamespace: string;
  /** The live contracts of a namespace, newest first. Rejects with a StatusError if there is no such namespace. */
  contracts(namespace: string): Promise<readonly ReflectedContract[]> | readonly ReflectedContract[];
}

/** Metadata by which a caller names its namespace. */
export const namespaceKey = "taskmesh-namespace";

type Request = reflectionV1.ServerReflectionRequest;
type Response = reflectionV1.ServerReflectionResponse;
type Answer = NonNullable<Response["messageResponse"]>;

/** Adds reflection, v1 and v1alpha, to a listener. */
export function addReflection(listener: Pick<Listener, "addService">, options: ReflectionOptions): void {
  const serverReflectionInfo = bidi<Request, Response>(async (requests, send, context) => {
    const catalogue = await readCatalogue(options, context.metadata);
    const memory: Memory = { contract: undefined };
    for await (const request of requests) {
      const messageResponse = answer(catalogue, request, memory);
      await send({ validHost: request.host, originalRequest: request, messageResponse });
    }
  });
  listener.addService(reflectionV1.ServerReflectionService, { serverReflectionInfo });
  listener.addService(reflectionV1alpha.ServerReflectionService, { serverReflectionInfo });
}

/** What one caller can see. Read once a stream, so that its answers fit together. */
interface Catalogue {
  own: FileRegistry;
  contracts: readonly ReflectedContract[];
  /** Services of the contracts by name, newest revision first, each once. */
  services: ReadonlyMap<string, DescService[]>;
}

/** The contract that answered last on a stream: a file asked for by name is most likely one of its imports. */
interface Memory {
  contract: ReflectedContract | undefined;
}

async function readCatalogue(options: ReflectionOptions, metadata: Metadata): Promise<Catalogue> {
  const namespace = metadata.get(namespaceKey)[0]?.toString() || options.defaultNamespace;
  const contracts = await options.contracts(namespace);
  const services = new Map<string, DescService[]>();
  for (const { rpc } of contracts) {
    const revisions = services.get(rpc.parent.typeName) ?? [];
    if (!revisions.includes(rpc.parent)) revisions.push(rpc.parent);
    services.set(rpc.parent.typeName, revisions);
  }
  return { own: ownFiles(), contracts, services };
}

let ownRegistry: FileRegistry | undefined;

/** The files of taskmesh.v1, reflection and health, linked once. */
function ownFiles(): FileRegistry {
  if (ownRegistry) return ownRegistry;
  const set = fromBinary(FileDescriptorSetSchema, meshDescriptorSet);
  set.file.push(healthFile);
  ownRegistry = createFileRegistry(set);
  return ownRegistry;
}

function answer(catalogue: Catalogue, request: Request, memory: Memory): Answer {
  try {
    return find(catalogue, request.messageRequest, memory);
  } catch (error) {
    if (!isStatusError(error)) throw error;
    return { $case: "errorResponse", value: { errorCode: error.code, errorMessage: error.message } };
  }
}

function find(catalogue: Catalogue, asked: Request["messageRequest"], memory: Memory): Answer {
  switch (asked?.$case) {
    case "listServices":
      return { $case: "listServicesResponse", value: { service: serviceNames(catalogue).map((name) => ({ name })) } };
    case "fileContainingSymbol":
      return files(filesOfSymbol(catalogue, asked.value.replace(/^\./, ""), memory), asked.value);
    case "fileByFilename":
      return files(
        first(catalogue, memory, (registry) => registry.getFile(asked.value)),
        asked.value,
      );
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = asked.value;
      const file = first(catalogue, memory, (registry) => {
        return extensionsOf(registry, containingType).find(({ number }) => number === extensionNumber)?.file;
      });
      return files(file, `extension ${extensionNumber} of ${containingType}`);
    }
    case "allExtensionNumbersOfType": {
      const registries = [catalogue.own, ...catalogue.contracts.map(({ registry }) => registry)];
      if (!registries.some((registry) => registry.getMessage(asked.value))) return notFound(asked.value);
      const numbers = registries.flatMap((registry) => extensionsOf(registry, asked.value)).map(({ number }) => number);
      const extensionNumber = [...new Set(numbers)].sort((a, b) => a - b);
      return { $case: "allExtensionNumbersResponse", value: { baseTypeName: asked.value, extensionNumber } };
    }
    case undefined: {
      const value = { errorCode: status.INVALID_ARGUMENT, errorMessage: "the request asks for nothing" };
      return { $case: "errorResponse", value };
    }
  }
}

/** Services that are served: ours, and those of live contracts. */
function serviceNames(catalogue: Catalogue): string[] {
  const names = new Set(catalogue.services.keys());
  for (const type of catalogue.own) if (type.kind === "service") names.add(type.typeName);
  return [...names].sort();
}

function filesOfSymbol(catalogue: Catalogue, symbol: string, memory: Memory): DescFile | EncodedFiles | undefined {
  // Services first: the newest contract of that service answers, with the methods of all its siblings.
  for (const name of [symbol, symbol.slice(0, Math.max(0, symbol.lastIndexOf(".")))]) {
    const revisions = catalogue.services.get(name);
    if (!revisions) continue;
    memory.contract = catalogue.contracts.find(({ rpc }) => rpc.parent === revisions[0]);
    return serviceFile(revisions);
  }
  return first(catalogue, memory, (registry) => fileOfSymbol(registry, symbol));
}

function first(
  { own, contracts }: Catalogue,
  memory: Memory,
  look: (registry: FileRegistry) => DescFile | undefined,
): DescFile | undefined {
  const remembered = memory.contract && look(memory.contract.registry);
  if (remembered) return remembered;
  const ours = look(own);
  if (ours) return ours;
  for (const contract of contracts) {
    const file = look(contract.registry);
    if (!file) continue;
    memory.contract = contract;
    return file;
  }
  return undefined;
}

function files(found: DescFile | EncodedFiles | undefined, asked: string): Answer {
  if (!found) return notFound(asked);
  const fileDescriptorProto = (Array.isArray(found) ? found : withImports(found)).map((bytes) => Buffer.from(bytes));
  return { $case: "fileDescriptorResponse", value: { fileDescriptorProto } };
}

function notFound(asked: string): Answer {
  return { $case: "errorResponse", value: { errorCode: status.NOT_FOUND, errorMessage: `${asked} is not known` } };
}

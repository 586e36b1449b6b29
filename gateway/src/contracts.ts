/**
 * Contracts that the gateway has seen: what it needs to read and write their messages.
 *
 * A revision never changes, so it is kept by its fingerprint until others push it out. Which revision is the newest of a
 * method changes, so that answer lives for two seconds: as long as coordinators take to agree on it.
 */
import { setMaxListeners } from "node:events";
import {
  createFileRegistry,
  type DescMessage,
  type DescMethod,
  type FileRegistry,
  fromBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { type GetContractResponse, RegistryServiceService } from "@taskmesh/proto";
import { fillJsonNames, guardLocalNames, isStatusError, statusError } from "@taskmesh/runtime";
import type { CallOptions, Upstream } from "./upstream.js";

/** One revision of a contract, ready to use. */
export interface Contract {
  /** Fingerprint. */
  id: string;
  /** Full method name. */
  method: string;
  input: DescMessage;
  output: DescMessage;
  registry: FileRegistry;
  /** The rpc, where the set declares it; the contract of a chain may only have messages. */
  rpc: DescMethod | undefined;
}

/** A registry is some 100 kB; this many are below 100 MB. */
const contractsMax = 500;
const newestMaxAgeMs = 2_000;
const newestMax = 5_000;

export class ContractCache {
  /** By namespace and fingerprint, the least recently used first. */
  private readonly revisions = new Map<string, Promise<Contract>>();
  private readonly newest = new Map<string, { contract: Promise<Contract>; untilMs: number }>();

  constructor(
    private readonly upstream: Upstream,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** The newest revision of an action or a chain. Rejects with METHOD_NOT_FOUND. */
  current(namespace: string, method: string, options: CallOptions): Promise<Contract> {
    const key = `${namespace}\n${method}`;
    const known = this.newest.get(key);
    if (known !== undefined && known.untilMs > this.now()) return known.contract;
    const contract = this.fetch(namespace, "", method, options);
    this.newest.delete(key);
    this.newest.set(key, { contract, untilMs: this.now() + newestMaxAgeMs });
    evict(this.newest, newestMax);
    contract.then(
      (found) => this.keep(`${namespace}\n${found.id}`, contract),
      () => this.forget(this.newest, key, contract),
    );
    return contract;
  }

  /** A revision by its fingerprint. Rejects with CONTRACT_NOT_FOUND. */
  revision(namespace: string, id: string, options: CallOptions): Promise<Contract> {
    const key = `${namespace}\n${id}`;
    const known = this.revisions.get(key);
    const contract = known ?? this.fetch(namespace, id, "", options);
    this.keep(key, contract);
    if (known === undefined) {
      contract.catch(() => {
        if (this.revisions.get(key) === contract) this.revisions.delete(key);
      });
    }
    return contract;
  }

  private keep(key: string, contract: Promise<Contract>): void {
    this.revisions.delete(key);
    this.revisions.set(key, contract);
    evict(this.revisions, contractsMax);
  }

  private forget(map: Map<string, { contract: Promise<Contract> }>, key: string, contract: Promise<Contract>): void {
    if (map.get(key)?.contract === contract) map.delete(key);
  }

  private async fetch(namespace: string, id: string, method: string, options: CallOptions): Promise<Contract> {
    // Others may share the answer, so it does not end with the one who asked first.
    const shared = { ...options, signal: neverAborted };
    const request = { namespace, contract: id, method };
    const answer = await this.upstream.call(RegistryServiceService.getContract, request, shared).catch((error) => {
      const isUnknown = method !== "" && isStatusError(error) && error.reason === "CONTRACT_NOT_FOUND";
      if (!isUnknown) throw error;
      const message = `no action or chain named ${method} is registered in namespace ${namespace}`;
      throw statusError({ reason: "METHOD_NOT_FOUND", message, metadata: { namespace, method }, cause: error });
    });
    return readContract(answer);
  }
}

/** A contract from what a coordinator answered. Throws when the set lacks its own types: a fault of the mesh. */
export function readContract(answer: GetContractResponse): Contract {
  const { registry, input, output } = readTypes(answer.descriptorSet, answer.inputType, answer.outputType);
  const [service, rpc] = splitMethod(answer.method);
  const declared = registry.getService(service)?.methods.find((method) => method.name === rpc);
  return { id: answer.contract, method: answer.method, input, output, registry, rpc: declared };
}

/** Whether its calls are answered with many outputs. */
export const returnsStream = ({ rpc }: Contract): boolean => rpc?.methodKind === "server_streaming";

function readTypes(
  descriptorSet: Uint8Array,
  inputType: string,
  outputType: string,
): Pick<Contract, "registry" | "input" | "output"> {
  const set = fromBinary(FileDescriptorSetSchema, descriptorSet);
  fillJsonNames(set);
  const registry = createFileRegistry(set);
  guardLocalNames(registry.files);
  const input = registry.getMessage(inputType);
  const output = registry.getMessage(outputType);
  if (input === undefined || output === undefined) {
    throw new Error(`the contract lacks its type ${input === undefined ? inputType : outputType}`);
  }
  return { registry, input, output };
}

/** "acme.v1.Actions/Do" as service and rpc. */
export function splitMethod(method: string): [service: string, rpc: string] {
  const slash = method.indexOf("/");
  return [method.slice(0, slash), method.slice(slash + 1)];
}

/** For calls whose answer is shared: it does not end with the one who asked first. */
export const neverAborted: AbortSignal = new AbortController().signal;
setMaxListeners(0, neverAborted);

function evict(map: Map<string, unknown>, max: number): void {
  for (const key of map.keys()) {
    if (map.size <= max) return;
    map.delete(key);
  }
}

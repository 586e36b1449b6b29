import type { DescMessage, DescMethod, FileRegistry } from "@bufbuild/protobuf";
import type { ActionOptions } from "@taskmesh/proto";

/**
 * One protobuf rpc as an agreement between callers and whoever implements it. Immutable; made by descriptors.ts from what
 * a worker registered or the store kept, and by declare.ts from what a chain declares inline.
 *
 * Each contract reads its types from a registry of its own, so that different files under one name, and two revisions of one
 * import, live side by side in a process. Well-known files are the coordinator's own and shared by all.
 */
export interface Contract {
  /** SHA-256 in hex of everything that gives a message of this contract its meaning (fingerprint.ts). Names the revision. */
  fingerprint: string;
  /** Full method name, "acme.html.v1.HtmlActions/FetchPage". */
  method: string;
  /** Full name of the service. */
  service: string;
  input: DescMessage;
  output: DescMessage;
  rpc: DescMethod;
  /** The file of the service and everything that it imports. */
  registry: FileRegistry;
  /** Encoded FileDescriptorSet, complete, dependencies first. Encoded on each access: a set of many contracts is large. */
  readonly descriptorSet: Uint8Array;
  /** What the author wrote as (taskmesh.v1.action); undefined: nothing. */
  options: ActionOptions | undefined;
  /** Leading comment of the rpc, "" if the descriptors carry none. */
  description: string;
}

/** Why descriptors or a declaration can't become contracts; the message is for their author. */
export class ContractRefused extends Error {
  constructor(
    /** Of the reasons in runtime: DESCRIPTORS_INVALID, SERVICE_RESERVED or CHAIN_INVALID. */
    readonly reason: "DESCRIPTORS_INVALID" | "SERVICE_RESERVED" | "CHAIN_INVALID",
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = "ContractRefused";
  }
}

/** Longest full name of a type or method; names end up in subjects, keys, paths and logs. */
export const nameLengthMax = 255;

const identifiers = /^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$/;

/** Whether `name` is a full protobuf name: identifiers with dots between them, at most `nameLengthMax` characters. */
export const isFullName = (name: string): boolean => name.length <= nameLengthMax && identifiers.test(name);

/** Splits "acme.html.v1.HtmlActions/FetchPage"; undefined if it is not a full method name. */
export function splitMethod(method: string): { service: string; rpc: string } | undefined {
  if (method.length > nameLengthMax) return undefined;
  const slash = method.indexOf("/");
  const service = method.slice(0, Math.max(0, slash));
  const rpc = method.slice(slash + 1);
  return slash > 0 && isFullName(service) && isFullName(rpc) && !rpc.includes(".") ? { service, rpc } : undefined;
}

/** Packages that only the mesh itself may serve. */
const reserved = ["taskmesh", "grpc", "google", "buf"];

/** Whether the service belongs to a package that users can't register. */
export const isReservedService = (service: string): boolean => reserved.includes(service.split(".", 1)[0]!);

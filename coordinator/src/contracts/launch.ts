/**
 * The mesh's own contracts by which runs are launched (proto/taskmesh/launch/v1/launch.proto): two actions that no worker serves, and the chain
 * that consists of them. Every namespace has them, and nobody else can register them: their package is reserved.
 */
import { meshComments } from "@taskmesh/proto";
import type { Contract } from "./contract.js";
import { contractOf, meshFiles, registryOf } from "./descriptors.js";

const file = "taskmesh/launch/v1/launch.proto";

export const startActionMethod = "taskmesh.launch.v1.LaunchActions/StartAction";
export const startChainMethod = "taskmesh.launch.v1.LaunchActions/StartChain";
/** The system chain. */
export const launchMethod = "taskmesh.launch.v1.Launches/Launch";

/** What a step that calls the method launches; undefined: it calls like any other. */
export function launchesOf(method: string): "action" | "chain" | undefined {
  if (method === startActionMethod) return "action";
  return method === startChainMethod ? "chain" : undefined;
}

let known: ReadonlyMap<string, Contract> | undefined;

/** These contracts by method. */
export function launchContracts(): ReadonlyMap<string, Contract> {
  if (known) return known;
  const own = meshFiles().get(file);
  if (!own) throw new Error(`${file} is not among the mesh's own files`);
  const rpcs = own.services.flatMap((service) => service.methods);
  known = new Map(
    rpcs.map((rpc) => {
      const contract = contractOf(rpc, registryOf(own));
      // The mesh's descriptors carry no comments.
      const description = meshComments[`${rpc.parent.typeName}.${rpc.name}`] ?? "";
      return [contract.method, { ...contract, description }];
    }),
  );
  return known;
}

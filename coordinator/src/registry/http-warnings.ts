/** What is wrong with the google.api.http of new contracts, for the log of the worker that registers them. */
import { readHttpBindings } from "@taskmesh/runtime";
import type { Contract } from "../contracts/contract.js";

/** A sentence for each declared request that no gateway will serve. Such a contract is served all the same, by its plain call. */
export function httpWarnings(contracts: readonly Contract[]): string[] {
  return contracts.flatMap(({ method, rpc }) =>
    readHttpBindings(rpc).faults.map(
      ({ verb, path, message }) => `${method}: ${[verb, path].join(" ").trim()} is not served over HTTP: ${message}`,
    ),
  );
}

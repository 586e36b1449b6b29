/** The contract of a chain: registered, or declared by the chain itself. */
import type { ChainSpec } from "@taskmesh/proto";
import { nearestName } from "@taskmesh/runtime";
import type { ChainEnvironment } from "./compile-chain.js";
import type { Report } from "./compile-message.js";
import { type Contract, isReservedService, splitMethod } from "./contract.js";
import { declareContract } from "./declare.js";

/** Finds or makes it; undefined, and reported, if there is none. */
export function chainContract(spec: ChainSpec, environment: ChainEnvironment, report: Report): Contract | undefined {
  const declared = spec.contract;
  if (declared === undefined || declared.name === "") {
    report({
      reason: "MISSING_VALUE",
      path: "contract.name",
      message: "the chain needs the name of the rpc that it implements",
      expected: "package.Service/Method",
    });
    return undefined;
  }
  const inline = Object.keys(declared.input).length > 0 || Object.keys(declared.output).length > 0;
  const { allowReserved = false } = environment;
  if (!inline) {
    if (!allowReserved && isReservedService(splitMethod(declared.name)?.service ?? "")) {
      const message = `the package of ${declared.name} is reserved; use a package of your own`;
      report({ reason: "SERVICE_RESERVED", path: "contract.name", message });
      return undefined;
    }
    const contract = environment.chainContract ?? environment.contractFor(declared.name);
    if (contract !== undefined) return contract;
    const message = `no contract ${declared.name} is registered, and the chain declares neither input nor output`;
    const suggestion = nearestName(declared.name, environment.methods?.() ?? []) ?? "";
    report({ reason: "UNKNOWN_CONTRACT", path: "contract.name", message, found: declared.name, suggestion });
    return undefined;
  }
  const { contract, problems } = declareContract(declared, {
    previous: environment.chainContract,
    resolveType: environment.resolveType,
    allowReserved,
  });
  for (const { path, ...problem } of problems)
    report({ ...problem, path: path === "" ? "contract" : `contract.${path}` });
  return contract;
}

/** A chain made ready for a rehearsal: compiled against the contracts that its author gives, exactly as when it is saved. */
import type { JsonValue } from "@bufbuild/protobuf";
import type { ChainSpec } from "@taskmesh/proto";
import { describeChainProblem, parseChainDocument } from "@taskmesh/runtime";
import { bytesToJson, describeViolations, jsonToBytes, type Side } from "../contracts/check.js";
import { type ChainEnvironment, compileChain } from "../contracts/compile-chain.js";
import type { Contract } from "../contracts/contract.js";
import { contractsOf, loadContract, parseDescriptorSet } from "../contracts/descriptors.js";
import type { ChainPlan } from "../engine/plan.js";

/** A chain: YAML or JSON text, a ChainSpec, or what the builder of `@taskmesh/action-sdk/chains` made. */
export type Rehearsed = string | ChainSpec | { readonly spec: ChainSpec };

export interface Prepared {
  plan: ChainPlan;
  /** The same, evaluating whatever it costs: for what the mesh evaluates in a thread. */
  forced: ChainPlan;
  /** The chain's own contract. */
  contract: Contract;
  /** The contract of a step's callee, or of what the step waits for. */
  contractOf(method: string): Contract;
  /** The chains that it may call, by their names. */
  chains: ReadonlyMap<string, Rehearsed>;
}

/** Compiles the chain. Throws an Error that names every problem. */
export function prepare(
  chain: Rehearsed,
  descriptors: readonly Uint8Array[],
  others: readonly Rehearsed[] = [],
): Prepared {
  const spec = specOf(chain);
  const contracts = new Map<string, Contract>();
  for (const bytes of descriptors)
    for (const contract of contractsOf(parseDescriptorSet(bytes), undefined, { allowReserved: true }))
      contracts.set(contract.method, contract);
  const environment: ChainEnvironment = {
    contractFor: (method) => contracts.get(method),
    resolveType: (name) => findType(contracts.values(), name),
    methods: () => contracts.keys(),
    version: 1,
  };
  const chains = new Map<string, Rehearsed>();
  for (const other of others) {
    const { contract } = compileChain(specOf(other), environment);
    if (contract) contracts.set(contract.method, contract);
    if (contract) chains.set(contract.method, other);
  }
  const own = { ...environment, chainContract: contracts.get(spec.contract?.name ?? "") };
  const { plan, contract, problems } = compileChain(spec, own);
  const { plan: forced } = compileChain(spec, { ...own, force: true });
  if (!plan || !contract || !forced)
    throw new Error(
      `the chain has problems:\n${problems.map((problem) => `  ${describeChainProblem(problem)}`).join("\n")}`,
    );
  return {
    chains,
    plan,
    forced,
    contract,
    contractOf(method) {
      const known = contracts.get(method);
      if (known) return known;
      const source = plan.source?.contracts.get(method);
      if (!source) throw new Error(`the descriptors have no ${method}`);
      const loaded = loadContract(source.descriptorSet, method);
      contracts.set(method, loaded);
      return loaded;
    },
  };
}

function specOf(chain: Rehearsed): ChainSpec {
  if (typeof chain !== "string") return "spec" in chain ? chain.spec : chain;
  const { spec, problems } = parseChainDocument(chain);
  if (spec) return spec;
  throw new Error(problems.map(({ line, column, message }) => `${line}:${column} ${message}`).join("\n"));
}

function findType(contracts: Iterable<Contract>, name: string) {
  for (const { registry } of contracts) {
    const found = registry.getMessage(name) ?? registry.getEnum(name);
    if (found) return found;
  }
  return undefined;
}

/** Encodes JSON as one side of a contract. Throws an Error that says what breaks it. */
export function encodeSide(contract: Contract, side: Side, json: unknown, what: string): Uint8Array {
  const read = jsonToBytes(contract, side, { value: json as JsonValue });
  if (read.ok) return read.bytes;
  throw new Error(`${what} breaks the contract of ${contract.method}: ${describeViolations(read.violations)}`);
}

/** Bytes as canonical JSON, for people. */
export const decodeSide = (contract: Contract, side: Side, bytes: Uint8Array): JsonValue =>
  bytesToJson(contract, side, bytes);

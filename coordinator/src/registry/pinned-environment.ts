/** What a stored chain version is compiled in: its own contract and those that it is pinned to. */
import { statusError } from "@taskmesh/runtime";
import type { ChainEnvironment } from "../contracts/compile-chain.js";
import type { Contract } from "../contracts/contract.js";
import { type ChainRow, chainsAmong } from "../store/chains.js";
import type { Db } from "../store/db.js";
import type { ContractCache } from "./contract-cache.js";

/** The environment of a version. Rejects with CONTRACT_NOT_FOUND if something else than the mesh changed the database. */
export async function pinnedEnvironment(
  { db, contracts }: { db: Db; contracts: ContractCache },
  namespaceId: number,
  row: ChainRow,
): Promise<ChainEnvironment & { chainContract: Contract }> {
  const own = await contracts.byFingerprint(namespaceId, row.contract);
  if (!own) throw notStored(`contract ${row.contract}`);
  const callees = await loadPins(contracts, namespaceId, row.pins);
  // What implements a method never changes its kind.
  const chains = await chainsAmong(db, namespaceId, Object.keys(row.pins));
  return {
    contractFor: (callee) => callees.get(callee),
    isChain: (callee) => chains.has(callee),
    chainContract: own,
    resolveType: (name) => own.registry.getMessage(name) ?? own.registry.getEnum(name),
    version: row.version,
    pinned: true,
    allowReserved: true,
  };
}

async function loadPins(
  contracts: ContractCache,
  namespaceId: number,
  pins: Readonly<Record<string, string>>,
): Promise<Map<string, Contract>> {
  await contracts.warm(namespaceId, Object.values(pins));
  const loaded = await Promise.all(
    Object.entries(pins).map(async ([method, fingerprint]): Promise<[string, Contract]> => {
      const contract = await contracts.byFingerprint(namespaceId, fingerprint);
      if (!contract) throw notStored(`contract ${fingerprint} of ${method}`);
      return [method, contract];
    }),
  );
  return new Map(loaded);
}

/** Contracts and versions are kept for ever, so this says that something else than the mesh changed the database. */
export const notStored = (what: string): Error =>
  statusError({ reason: "CONTRACT_NOT_FOUND", message: `${what} is not stored any more` });

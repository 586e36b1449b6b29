/** Stored contracts, linked and kept in memory: they never change, so what was loaded once is right for ever. */
import type { Contract } from "../contracts/contract.js";
import { loadContract } from "../contracts/descriptors.js";
import type { Db } from "../store/db.js";
import { readContract } from "../store/registry.js";
import { LruMap } from "./lru-map.js";

/** Contracts that are kept: more than a mesh calls at a time, little enough to fit in memory (about 50 kB each). */
const contractsMax = 1_000;

export interface ContractCache {
  /** One revision by its fingerprint; undefined: not in the namespace. */
  byFingerprint(namespaceId: number, fingerprint: string): Promise<Contract | undefined>;
}

export function createContractCache(db: Db): ContractCache {
  const kept = new LruMap<string, Promise<Contract | undefined>>(contractsMax);
  const load = async (namespaceId: number, fingerprint: string): Promise<Contract | undefined> => {
    const row = await readContract(db, namespaceId, { fingerprint });
    return row ? loadContract(row.descriptorSet, row.method) : undefined;
  };
  return {
    byFingerprint(namespaceId, fingerprint) {
      const key = `${namespaceId}/${fingerprint}`;
      const known = kept.get(key);
      if (known) return known;
      const loading = load(namespaceId, fingerprint);
      kept.set(key, loading);
      // What is missing may be registered later, and what failed may work later.
      loading.then(
        (contract) => {
          if (!contract) kept.delete(key);
        },
        () => kept.delete(key),
      );
      return loading;
    },
  };
}

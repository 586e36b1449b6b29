/**
 * Stored contracts, linked and kept in memory: they never change, so what was loaded once is right for ever. Contracts share descriptor sets,
 * which are large: a set is read and linked once for all of its contracts that are asked for at about the same time.
 */
import type { Contract } from "../contracts/contract.js";
import { contractsOf, type DescriptorFiles, parseDescriptorSet } from "../contracts/descriptors.js";
import type { Db } from "../store/db.js";
import { readDescriptorSet } from "../store/gates.js";
import { type ContractPlace, readContractPlaces } from "../store/registry.js";
import { LruMap } from "./lru-map.js";

/** Contracts that are kept: more than the largest chain calls, little enough to fit in memory (about 50 kB each, if they share nothing). */
const contractsMax = 2_000;
/** Linked sets that are kept for contracts that are still to be asked for. */
const setsMax = 16;

export interface ContractCache {
  /** One revision by its fingerprint; undefined: not in the namespace. */
  byFingerprint(namespaceId: number, fingerprint: string): Promise<Contract | undefined>;
  /** Loads many at once, so that asking for each of them afterwards costs nothing. */
  warm(namespaceId: number, fingerprints: readonly string[]): Promise<void>;
}

export function createContractCache(db: Db): ContractCache {
  const kept = new LruMap<string, Promise<Contract | undefined>>(contractsMax);
  const sets = new LruMap<string, Promise<DescriptorFiles>>(setsMax);
  const setOf = (namespaceId: number, hash: string): Promise<DescriptorFiles> => {
    const key = `${namespaceId}/${hash}`;
    const known = sets.get(key);
    if (known) return known;
    const linking = readDescriptorSet(db, namespaceId, hash).then((bytes) => {
      if (bytes === undefined) throw new Error(`descriptor set ${hash} is not stored any more`);
      return parseDescriptorSet(bytes);
    });
    sets.set(key, linking);
    linking.catch(() => sets.delete(key));
    return linking;
  };
  const link = async (namespaceId: number, place: ContractPlace | undefined): Promise<Contract | undefined> => {
    if (!place) return undefined;
    const set = await setOf(namespaceId, place.descriptorHash);
    return contractsOf(set, [place.method], { allowReserved: true })[0];
  };
  const keep = (key: string, loading: Promise<Contract | undefined>): Promise<Contract | undefined> => {
    kept.set(key, loading);
    // What is missing may be registered later, and what failed may work later.
    loading.then(
      (contract) => {
        if (!contract) kept.delete(key);
      },
      () => kept.delete(key),
    );
    return loading;
  };
  return {
    byFingerprint(namespaceId, fingerprint) {
      const key = `${namespaceId}/${fingerprint}`;
      const known = kept.get(key);
      if (known) return known;
      const places = readContractPlaces(db, namespaceId, [fingerprint]);
      return keep(
        key,
        places.then(([place]) => link(namespaceId, place)),
      );
    },
    async warm(namespaceId, fingerprints) {
      const missing = [...new Set(fingerprints)].filter((one) => !kept.get(`${namespaceId}/${one}`));
      if (missing.length === 0) return;
      const places = await readContractPlaces(db, namespaceId, missing);
      await Promise.all(places.map((place) => keep(`${namespaceId}/${place.fingerprint}`, link(namespaceId, place))));
    },
  };
}

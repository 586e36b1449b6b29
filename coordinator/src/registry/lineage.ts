/** Which chains use which fields, over the stored chains. A version never changes, so what was found once is kept. */
import { setImmediate as yieldToOthers } from "node:timers/promises";
import { ChainSpec } from "@taskmesh/proto";
import { type Use, usesOf } from "../contracts/lineage.js";
import { type ChainRow, listChains } from "../store/chains.js";
import type { Db } from "../store/db.js";
import type { ContractCache } from "./contract-cache.js";
import { LruMap } from "./lru-map.js";
import { pinnedEnvironment } from "./pinned-environment.js";

/** Chain versions whose uses are kept, and uses of one above which they are found again each time: some 50 MB at most. */
const versionsMax = 500;
const keptUsesMax = 500;
/** Chains that are read at once. */
const pageSize = 100;

/** A use with the chain version that it is in. */
export interface ChainUse extends Use {
  chain: string;
  version: number;
}

export interface Lineage {
  /** What one version uses. */
  usesOf(namespaceId: number, row: ChainRow): Promise<readonly Use[]>;
  /**
   * Uses that `wanted` takes in the newest version of every chain, by chain and place; at most `limit`, and how many chains were looked at.
   */
  find(
    namespaceId: number,
    wanted: (use: Use) => boolean,
    limit: number,
  ): Promise<{ uses: ChainUse[]; chains: number; truncated: boolean }>;
}

/** Makes it. */
export function createLineage(options: { db: Db; contracts: ContractCache }): Lineage {
  const kept = new LruMap<string, readonly Use[]>(versionsMax);
  const lookUp: Lineage["usesOf"] = async (namespaceId, row) => {
    const key = `${namespaceId}/${row.name}/${row.version}`;
    const known = kept.get(key);
    if (known) return known;
    const environment = await pinnedEnvironment(options, namespaceId, row);
    // Compiling a large chain takes a while, and there may be many: others get their turn in between.
    await yieldToOthers();
    const uses = usesOf(ChainSpec.decode(row.spec), environment);
    if (uses.length <= keptUsesMax) kept.set(key, uses);
    return uses;
  };
  return {
    usesOf: lookUp,
    async find(namespaceId, wanted, limit) {
      const found: ChainUse[] = [];
      let chains = 0;
      for (let after = ""; ; ) {
        const rows = await listChains(options.db, namespaceId, after, pageSize);
        for (const row of rows) {
          chains += 1;
          const uses = (await lookUp(namespaceId, row)).filter(wanted);
          found.push(...uses.map((use) => ({ ...use, chain: row.name, version: row.version })));
          if (found.length > limit) return { uses: found.slice(0, limit), chains, truncated: true };
        }
        const last = rows.at(-1);
        if (rows.length < pageSize || last === undefined) return { uses: found, chains, truncated: false };
        after = last.name;
      }
    },
  };
}

/**
 * Whether a use is of what a person named: a field, "shop.v1.Order.total", or a message and all of its fields. A name may leave out
 * packages and outer messages.
 */
export function isUseOfName(name: string): (use: Use) => boolean {
  const names = (full: string, wanted: string): boolean => full === wanted || full.endsWith(`.${wanted}`);
  const owner = name.slice(0, Math.max(0, name.lastIndexOf(".")));
  return (use) => {
    if (use.kind !== "pass") return names(`${use.type}.${use.field}`, name) || names(use.type, name);
    return [...use.holds].some((type) => names(type, name) || (owner !== "" && names(type, owner)));
  };
}

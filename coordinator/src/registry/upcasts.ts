/**
 * The upcasters that are in force, compiled: which other revisions the workers of a lane can take by them.
 *
 * A step that goes to such a lane is pinned to its own revision all the same: only what the worker is sent is of the newer one, and what it returns is
 * read as the older one, which the declaration has checked.
 */
import { Upcaster } from "@taskmesh/proto";
import type { Logger } from "@taskmesh/runtime";
import { compileUpcaster } from "../contracts/upcast.js";
import type { ChainPlan } from "../engine/plan.js";
import type { Db } from "../store/db.js";
import { readUpcasters, type UpcasterRow } from "../store/upcasters.js";
import type { ContractCache } from "./contract-cache.js";
import { LruMap } from "./lru-map.js";

/** Compiled upcasters that are kept. */
const keptMax = 500;

/** How the inputs of other revisions become those of a lane's workers, by "method@fingerprint" of the older one. */
export type LaneUpcasts = ReadonlyMap<string, ChainPlan>;

export interface Upcasts {
  /** Reads the declarations again; answers what gives a lane its own, undefined where there are none. */
  load(): Promise<(namespaceId: number, contracts: readonly string[]) => Promise<LaneUpcasts | undefined>>;
}

/** Makes it. */
export function createUpcasts(db: Db, contracts: ContractCache, log: Logger): Upcasts {
  const kept = new LruMap<string, Promise<ChainPlan | undefined>>(keptMax);
  const compile = async (row: UpcasterRow): Promise<ChainPlan | undefined> => {
    const { namespaceId, method, fromContract, toContract, spec } = row;
    const [from, to] = await Promise.all([
      contracts.byFingerprint(namespaceId, fromContract),
      contracts.byFingerprint(namespaceId, toContract),
    ]);
    const compiled = from && to && compileUpcaster(Upcaster.decode(spec), from, to);
    // What was checked when it was declared: it is left out rather than the lane.
    if (compiled?.plan === undefined) log.error({ method, fromContract, toContract }, "an upcaster no longer compiles");
    return compiled?.plan;
  };
  const planOf = (row: UpcasterRow): Promise<ChainPlan | undefined> => {
    const key = `${row.namespaceId}/${row.method}/${row.fromContract}/${row.toContract}/${row.declaredAtMs}`;
    const known = kept.get(key);
    if (known) return known;
    const compiling = compile(row);
    kept.set(key, compiling);
    compiling.catch(() => kept.delete(key));
    return compiling;
  };
  return {
    async load() {
      const rows = await readUpcasters(db);
      if (rows.length === 0) return () => Promise.resolve(undefined);
      return async (namespaceId, served) => {
        const own = new Set(served);
        const upcasts = new Map<string, ChainPlan>();
        for (const row of rows) {
          const callee = `${row.method}@${row.fromContract}`;
          if (row.namespaceId !== namespaceId || !own.has(`${row.method}@${row.toContract}`) || own.has(callee))
            continue;
          const plan = await planOf(row);
          if (plan) upcasts.set(callee, plan);
        }
        return upcasts.size === 0 ? undefined : upcasts;
      };
    },
  };
}

/**
 * Compiled chains and lone actions.
 *
 * P1. A plan follows from (method, version, contract) and the pins of the version, so compiled plans are kept and never outdated.
 * P2. Which version new runs use is asked of the database once per epoch of the registry: a saved chain is current here at once,
 *     and at other coordinators when they see the epoch move.
 */
import { ChainSpec } from "@taskmesh/proto";
import { compileAction } from "../contracts/compile-action.js";
import { compileChain } from "../contracts/compile-chain.js";
import { innerOf, innerPath } from "../contracts/compile-inner.js";
import { splitMethod } from "../contracts/contract.js";
import type { ChainPlan } from "../engine/plan.js";
import type { Plans } from "../pipeline/ports.js";
import { readCanaries } from "../store/canaries.js";
import { readChain, readChainVersion } from "../store/chains.js";
import type { Db } from "../store/db.js";
import { type ContractRow, readCallable, readRevisionsOf } from "../store/registry.js";
import type { LiveCatalogue } from "./catalogue.js";
import type { ContractCache } from "./contract-cache.js";
import { LruMap } from "./lru-map.js";
import { notStored, pinnedEnvironment } from "./pinned-environment.js";

/** Plans that are kept; a large chain's plan takes a few hundred kB. */
const plansMax = 500;
/** Methods whose current plan is remembered within an epoch. */
const currentMax = 5_000;

export interface PlansOptions {
  db: Db;
  contracts: ContractCache;
  catalogue: Pick<LiveCatalogue, "onChange" | "slotsOf">;
  /** Evaluate expressions whatever they cost: for the thread that does what was deferred. Default false. */
  force?: boolean;
  /** Where the gateways are reached from outside. Default "": URLs of callbacks are paths. */
  publicUrl?: string;
}

/** Makes the plans. */
export function createPlans(options: PlansOptions): Plans {
  const { db } = options;
  const kept = new LruMap<string, Promise<ChainPlan>>(plansMax);
  let current = new LruMap<string, Promise<ChainPlan | undefined>>(currentMax);
  options.catalogue.onChange(() => {
    // A new map rather than a cleared one: what is being looked up now still goes into the old one (P2).
    current = new LruMap(currentMax);
  });

  const pinned: Plans["pinned"] = (namespaceId, method, version, contract) => {
    const key = `${namespaceId}/${method}/${version}/${contract}`;
    const known = kept.get(key);
    if (known) return known;
    const { chain, path } = innerPath(method);
    const compiling =
      version === 0
        ? actionPlan(options, namespaceId, contract)
        : path.length > 0
          ? pinned(namespaceId, chain, version, "").then((plan) => innerOf(plan, path))
          : chainPlan(options, namespaceId, { method, version });
    kept.set(key, compiling);
    compiling.catch(() => kept.delete(key));
    return compiling;
  };
  const lookUp = async (namespaceId: number, method: string): Promise<ChainPlan | undefined> => {
    const kind = await readCallable(db, namespaceId, method);
    if (kind === undefined) return undefined;
    if (kind === "chain") {
      const version = await readChainVersion(db, namespaceId, method);
      return version === undefined ? undefined : pinned(namespaceId, method, version, "");
    }
    const revision = await preferredRevision(db, options.catalogue, namespaceId, method);
    return revision && pinned(namespaceId, method, 0, revision.fingerprint);
  };
  return {
    // The contract of a chain's version follows from the version.
    pinned: (namespaceId, method, version, contract) =>
      pinned(namespaceId, method, version, version === 0 ? contract : ""),
    current(namespaceId, method) {
      if (!splitMethod(method)) return Promise.resolve(undefined);
      const key = `${namespaceId}/${method}`;
      const known = current.get(key);
      if (known) return known;
      const looking = lookUp(namespaceId, method);
      const map = current;
      map.set(key, looking);
      const forget = (): void => map.delete(key);
      // Unknown methods are asked for again: they may be registered in this very moment.
      looking.then((plan) => plan ?? forget(), forget);
      return looking;
    },
  };
}

/**
 * The revision of an action that new work is given to: the newest that a live worker serves, else the newest of all. Revisions in quarantine
 * are none, and canaries are none while they are given only a share.
 */
export async function preferredRevision(
  db: Db,
  catalogue: Pick<LiveCatalogue, "slotsOf">,
  namespaceId: number,
  method: string,
): Promise<ContractRow | undefined> {
  return (await preferredRevisions(db, catalogue, namespaceId, [method])).get(method);
}

/** The same of several actions at once, by method. */
export async function preferredRevisions(
  db: Db,
  catalogue: Pick<LiveCatalogue, "slotsOf">,
  namespaceId: number,
  methods: readonly string[],
): Promise<Map<string, ContractRow>> {
  const slots = catalogue.slotsOf(namespaceId);
  const canaries = new Set(
    (await readCanaries(db, { namespaceId, methods }))
      .filter(({ share }) => share < 100)
      .map(({ method, fingerprint }) => `${method}@${fingerprint}`),
  );
  const isServed = (row: ContractRow): boolean => slots.has(`${row.method}@${row.fingerprint}`);
  const preferred = new Map<string, ContractRow>();
  // Oldest first: a newer one takes the place of an older one, unless only that one is served.
  for (const row of await readRevisionsOf(db, namespaceId, methods)) {
    const before = preferred.get(row.method);
    // What is pinned to a canary would be all its own, whatever its share.
    const isTried = before !== undefined && canaries.has(`${row.method}@${row.fingerprint}`);
    if (!row.quarantined && !isTried && (before === undefined || isServed(row) || !isServed(before)))
      preferred.set(row.method, row);
  }
  return preferred;
}

async function actionPlan({ contracts }: PlansOptions, namespaceId: number, fingerprint: string): Promise<ChainPlan> {
  const contract = await contracts.byFingerprint(namespaceId, fingerprint);
  if (!contract) throw notStored(`contract ${fingerprint}`);
  return compileAction(contract);
}

async function chainPlan(
  { db, contracts, force = false, publicUrl = "" }: PlansOptions,
  namespaceId: number,
  { method, version }: { method: string; version: number },
): Promise<ChainPlan> {
  const row = await readChain(db, namespaceId, method, version);
  if (!row) throw notStored(`version ${version} of chain ${method}`);
  const environment = await pinnedEnvironment({ db, contracts }, namespaceId, row);
  const { plan, problems } = compileChain(ChainSpec.decode(row.spec), { ...environment, force, publicUrl });
  if (!plan) throw new Error(`version ${version} of chain ${method} no longer compiles: ${problems[0]?.message ?? ""}`);
  // What the declaration gives and what was stored are the same contract; payloads and runs name the stored one.
  return { ...plan, contract: row.contract, outputContract: row.contract };
}

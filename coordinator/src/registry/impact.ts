/**
 * What the next revision of a contract means for what is stored: chains that use what changed, and chains and runs whose steps workers of
 * the new revision can't take.
 */
import { ChainSpec } from "@taskmesh/proto";
import type { Contract } from "../contracts/contract.js";
import type { RemovedField } from "../contracts/evolution/compare.js";
import type { Violation } from "../contracts/evolution/violation.js";
import { isUseOf, type Use } from "../contracts/lineage.js";
import { readChain } from "../store/chains.js";
import type { Db } from "../store/db.js";
import { type LiveRunsRow, type PinRow, readLiveRuns, readPins } from "../store/gates.js";
import type { ContractCache } from "./contract-cache.js";
import { contractServes } from "./contract-serves.js";
import type { ChainUse, Lineage } from "./lineage.js";

/** Bounds of a report: chain versions, uses of one of them, and live runs that are counted. */
const pinsMax = 1_000;
const chainsMax = 100;
const usesMax = 20;
const liveRunsMax = 100_000;

/** A contract that takes the place of another, and what is known of the difference. */
export interface ChangedContract {
  newer: Contract;
  violations: readonly Violation[];
  removed: readonly RemovedField[];
}

/** A chain version that feels the change. */
export interface ChainImpact {
  name: string;
  version: number;
  current: boolean;
  /** Steps that call the method. */
  steps: string[];
  /** Workers of the newer revision can't take these steps. */
  unserved: boolean;
  uses: ChainUse[];
  liveRuns: number;
  runIds: string[];
}

/** What a change means. */
export interface Impact {
  chains: ChainImpact[];
  /** Runs of the action alone that workers of the newer revision can't take. */
  liveRuns: number;
  runIds: string[];
  /** Removed fields that chains still read (of outputs) or set (of inputs), with the uses. */
  inUse: { field: RemovedField; uses: ChainUse[] }[];
}

export interface ImpactOptions {
  db: Db;
  contracts: ContractCache;
  lineage: Lineage;
}

/** What each of the changes means, in their order. */
export async function impactsOf(
  options: ImpactOptions,
  namespaceId: number,
  changes: readonly ChangedContract[],
): Promise<Impact[]> {
  const live = await readLiveRuns(options.db, namespaceId, liveRunsMax);
  const versions = live.filter((row) => row.version > 0).map((row) => `${row.method}@${row.version}`);
  const methods = changes.map(({ newer }) => newer.method);
  const pins = await readPins(options.db, namespaceId, methods, versions, pinsMax);
  const chains = chainReader(options, namespaceId);
  const impacts: Impact[] = [];
  for (const change of changes) {
    const own = pins.filter((pin) => pin.method === change.newer.method);
    impacts.push(await impactOf({ options, namespaceId, chains, live }, change, own));
  }
  return impacts;
}

/** What one report looks at. */
interface Report {
  options: ImpactOptions;
  namespaceId: number;
  chains: ChainReader;
  live: readonly LiveRunsRow[];
}

async function impactOf(
  { options: { contracts }, namespaceId, chains, live }: Report,
  change: ChangedContract,
  pins: readonly PinRow[],
): Promise<Impact> {
  const { newer, removed } = change;
  const serves = async (fingerprint: string): Promise<boolean> => {
    const pinned = await contracts.byFingerprint(namespaceId, fingerprint);
    return pinned !== undefined && contractServes(newer, pinned);
  };
  const impact: Impact = { chains: [], liveRuns: 0, runIds: [], inUse: removed.map((field) => ({ field, uses: [] })) };
  for (const pin of pins) {
    const runs = live.find((row) => row.method === pin.chain && row.version === pin.version);
    const { steps, uses } = usesOfMethod(await chains(pin), pin);
    const touched = uses.filter((use) => touches(use, change));
    for (const { field, uses: found } of impact.inUse) found.push(...uses.filter((use) => stillUses(use, field)));
    const unserved = !(await serves(pin.fingerprint));
    if (!unserved && touched.length === 0) continue;
    if (impact.chains.length < chainsMax) {
      const { chain: name, version, current } = pin;
      const about = { name, version, current, steps, unserved, uses: touched.slice(0, usesMax) };
      impact.chains.push({ ...about, liveRuns: runs?.count ?? 0, runIds: runs?.ids ?? [] });
    }
  }
  for (const row of live) {
    if (row.method !== newer.method || row.version !== 0 || (await serves(row.contract))) continue;
    impact.liveRuns += row.count;
    impact.runIds.push(...row.ids);
  }
  impact.runIds.sort().reverse().splice(runIdsMax);
  return impact;
}

const runIdsMax = 10;

/** A chain version with its steps by callee and its uses by the step that they are about; "": about no one step. */
interface ReadChain {
  steps: ReadonlyMap<string, string[]>;
  uses: ReadonlyMap<string, Use[]>;
}

type ChainReader = (pin: PinRow) => Promise<ReadChain>;

/** Reads each chain version once, however many of its callees changed. */
function chainReader({ db, lineage }: ImpactOptions, namespaceId: number): ChainReader {
  const known = new Map<string, Promise<ReadChain>>();
  const read = async ({ chain, version }: PinRow): Promise<ReadChain> => {
    const row = await readChain(db, namespaceId, chain, version);
    if (row === undefined) return { steps: new Map(), uses: new Map() };
    const { steps } = ChainSpec.decode(row.spec);
    const calls = steps.flatMap(({ id, call, compensate }) => [
      { id, call },
      ...(compensate ? [{ id, call: compensate.call }] : []),
    ]);
    const uses = await lineage.usesOf(namespaceId, row);
    return {
      steps: new Map([...grouped(calls, ({ call }) => call)].map(([call, list]) => [call, list.map(({ id }) => id)])),
      // What is set belongs to the step that is called with it, what is read to the step that it comes from.
      uses: grouped(uses, (use) => (use.kind === "write" ? use.stepId : use.source.slice("steps.".length))),
    };
  };
  return (pin) => {
    const key = `${pin.chain}@${pin.version}`;
    const reading = known.get(key) ?? read(pin);
    known.set(key, reading);
    return reading;
  };
}

function grouped<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group) group.push(item);
    else groups.set(keyOf(item), [item]);
  }
  return groups;
}

/** Uses that are about one method: what its steps set in the input, and what is read from their outputs. */
function usesOfMethod(
  { steps, uses }: ReadChain,
  { chain, version, method }: PinRow,
): { steps: string[]; uses: ChainUse[] } {
  const ids = steps.get(method) ?? [];
  // What comes out of a comprehension or an item has no one source: its type alone decides.
  const loose = (uses.get("") ?? []).filter((use) => use.kind !== "write" && use.source === "");
  const own = [...ids.flatMap((id) => uses.get(id) ?? []), ...loose];
  return { steps: ids, uses: own.map((use) => ({ ...use, chain, version })) };
}

const touches = (use: Use, { violations, removed }: ChangedContract): boolean =>
  violations.some(({ type, number }) => type !== "" && isUseOf(use, type, number)) ||
  removed.some(({ type, number }) => isUseOf(use, type, number));

/** A chain that passes a message on whole names none of its fields, so it can't be asked to leave one out. */
const stillUses = (use: Use, { type, number, sides }: RemovedField): boolean =>
  use.kind !== "pass" && sides.includes(use.kind === "read" ? "output" : "input") && isUseOf(use, type, number);

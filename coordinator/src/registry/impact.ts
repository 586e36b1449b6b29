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
  const impacts: Impact[] = [];
  for (const change of changes) {
    const own = pins.filter((pin) => pin.method === change.newer.method);
    impacts.push(await impactOf(options, namespaceId, change, own, live));
  }
  return impacts;
}

async function impactOf(
  options: ImpactOptions,
  namespaceId: number,
  change: ChangedContract,
  pins: readonly PinRow[],
  live: readonly LiveRunsRow[],
): Promise<Impact> {
  const { contracts } = options;
  const { newer, removed } = change;
  const serves = async (fingerprint: string): Promise<boolean> => {
    const pinned = await contracts.byFingerprint(namespaceId, fingerprint);
    return pinned !== undefined && contractServes(newer, pinned);
  };
  const impact: Impact = { chains: [], liveRuns: 0, runIds: [], inUse: removed.map((field) => ({ field, uses: [] })) };
  for (const pin of pins) {
    const runs = live.find((row) => row.method === pin.chain && row.version === pin.version);
    const { steps, uses } = await usesOfMethod(options, namespaceId, pin);
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

/** Uses of a chain version that are about one method: what its steps set in the input, and what is read from their outputs. */
async function usesOfMethod(
  { db, lineage }: ImpactOptions,
  namespaceId: number,
  pin: PinRow,
): Promise<{ steps: string[]; uses: ChainUse[] }> {
  const { chain, version } = pin;
  const row = await readChain(db, namespaceId, chain, version);
  if (row === undefined) return { steps: [], uses: [] };
  const steps = ChainSpec.decode(row.spec).steps.filter((step) => step.call === pin.method);
  const ids = new Set(steps.map((step) => step.id));
  const own = (use: Use): boolean => {
    if (use.kind === "write") return ids.has(use.stepId);
    // What comes out of a comprehension or an item has no one source: its type alone decides.
    return use.source === "" || ids.has(use.source.slice("steps.".length));
  };
  const uses = (await lineage.usesOf(namespaceId, row)).filter(own);
  return { steps: [...ids], uses: uses.map((use) => ({ ...use, chain, version })) };
}

const touches = (use: Use, { violations, removed }: ChangedContract): boolean =>
  violations.some(({ type, number }) => type !== "" && isUseOf(use, type, number)) ||
  removed.some(({ type, number }) => isUseOf(use, type, number));

/** A chain that passes a message on whole names none of its fields, so it can't be asked to leave one out. */
const stillUses = (use: Use, { type, number, sides }: RemovedField): boolean =>
  use.kind !== "pass" && sides.includes(use.kind === "read" ? "output" : "input") && isUseOf(use, type, number);

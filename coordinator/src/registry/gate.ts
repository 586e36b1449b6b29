/**
 * The gate that the next revision of a contract has to pass when it is registered.
 *
 *   not stored yet ──► compared with the newest revision that is not in quarantine ──► breaks nothing: stored
 *                                                     └─► breaks something: refused | quarantined | allowed, by the namespace's mode
 *
 * G1. What is stored was accepted and is never judged again: equal registrations cost nothing, and a restart refuses nobody.
 * G2. A revision that somebody allowed passes in every mode; why is recorded, and what it breaks.
 * G3. A verdict holds for the base that it was found with: whoever stores looks again whether that is still the newest (registration.ts).
 * G4. Contracts of the mesh itself pass: their changes are judged where the mesh is built.
 */
import { setImmediate as yieldToOthers } from "node:timers/promises";
import { type Contract, isReservedService } from "../contracts/contract.js";
import { contractsOf, parseDescriptorSet } from "../contracts/descriptors.js";
import { compareContracts, type RemovedField, removedFields } from "../contracts/evolution/compare.js";
import type { Violation } from "../contracts/evolution/violation.js";
import type { Db } from "../store/db.js";
import {
  type BaseRow,
  type GateMode,
  readBases,
  readDescriptorSet,
  readGates,
  readVerdicts,
  type VerdictRow,
  writeVerdict,
} from "../store/gates.js";
import { contractServes } from "./contract-serves.js";
import { type Impact, type ImpactOptions, impactsOf } from "./impact.js";

/** What is recorded of one revision's violations. */
const recordedMax = 50;
/** Chains that a violation names. */
const usersShownMax = 3;
/** Revisions of the judged methods whose decisions are read. */
const verdictsMax = 10_000;

export interface GateOptions extends ImpactOptions {
  /** Mode of namespaces for which none was set. */
  defaultMode: GateMode;
}

/** What the gate says of one contract. */
export interface Judgement {
  method: string;
  fingerprint: string;
  verdict: "new" | "compatible" | "allowed" | "quarantined" | "refused";
  base: Pick<BaseRow, "fingerprint" | "revision"> | undefined;
  violations: Violation[];
  /** What would break; undefined where nothing does and workers of the new revision take everything. */
  impact: Impact | undefined;
  /** Why it passes in spite of its violations. */
  reason: string;
}

export interface Gate {
  /** Judges contracts that are not stored, in their order. */
  judge(namespaceId: number, contracts: readonly Contract[]): Promise<Judgement[]>;
  /** Records what was decided, in the transaction that stores the contracts. False: a base is no longer the newest (G3). */
  record(tx: Db, namespaceId: number, judgements: readonly Judgement[]): Promise<boolean>;
  /** The mode of a namespace, and why. */
  modeOf(namespaceId: number): Promise<{ mode: GateMode; reason: string; changedAtMs: number | undefined }>;
}

/** Makes the gate. */
export function createGate(options: GateOptions): Gate {
  const { db, defaultMode } = options;
  const modeOf: Gate["modeOf"] = async (namespaceId) => {
    const [row] = await readGates(db, namespaceId, 1);
    return (
      row ?? { mode: defaultMode, reason: `the default of this mesh is to ${defaultMode}`, changedAtMs: undefined }
    );
  };
  return {
    modeOf,
    async judge(namespaceId, contracts) {
      if (contracts.length === 0) return [];
      const methods = contracts.map((contract) => contract.method);
      const bases = new Map((await readBases(db, namespaceId, methods)).map((base) => [base.method, base]));
      if (bases.size === 0) return contracts.map((contract) => judgementOf(contract, "new"));
      const changes = await compareAll(options, namespaceId, contracts, bases);
      const deep = changes.filter((change) => change.older !== undefined && isDeep(change));
      const impacts = deep.length === 0 ? [] : await impactsOf(options, namespaceId, deep);
      for (const [at, change] of deep.entries()) addUses(change, impacts[at]!);
      const breaking = changes.some((change) => change.violations.length > 0);
      const decide = breaking ? await decider(options, modeOf, namespaceId, methods) : () => undefined;
      return changes.map((change) => {
        const impact = impacts[deep.indexOf(change)];
        if (change.base === undefined) return judgementOf(change.newer, "new");
        const { base, violations } = change;
        const decided = violations.length > 0 ? decide(change.newer) : undefined;
        const { verdict, reason } = decided ?? { verdict: "compatible" as const, reason: "" };
        return { ...judgementOf(change.newer, verdict), base, violations, impact, reason };
      });
    },
    async record(tx, namespaceId, judgements) {
      const bases = await readBases(
        tx,
        namespaceId,
        judgements.map((one) => one.method),
      );
      const newest = new Map(bases.map((base) => [base.method, base.fingerprint]));
      if (judgements.some((one) => newest.get(one.method) !== one.base?.fingerprint)) return false;
      for (const { method, fingerprint, verdict, reason, base, violations } of judgements) {
        if (verdict !== "allowed" && verdict !== "quarantined") continue;
        const about = { method, fingerprint, verdict, reason, base: base?.fingerprint ?? "" };
        await writeVerdict(tx, namespaceId, { ...about, violations: violations.slice(0, recordedMax) });
      }
      return true;
    },
  };
}

const judgementOf = ({ method, fingerprint }: Contract, verdict: Judgement["verdict"]): Judgement => ({
  method,
  fingerprint,
  verdict,
  base: undefined,
  violations: [],
  impact: undefined,
  reason: "",
});

interface Change {
  newer: Contract;
  base: BaseRow | undefined;
  older: Contract | undefined;
  violations: Violation[];
  removed: RemovedField[];
}

/** Whether chains and runs are to be asked: something breaks, or workers of the newer revision can't take steps of the older one. */
const isDeep = ({ newer, older, violations, removed }: Change): boolean =>
  violations.length > 0 || removed.length > 0 || !contractServes(newer, older!);

/** Bases share descriptor sets, which are large: each is read and linked once, and one is in memory at a time. */
async function compareAll(
  { db }: GateOptions,
  namespaceId: number,
  contracts: readonly Contract[],
  bases: ReadonlyMap<string, BaseRow>,
): Promise<Change[]> {
  const changes = contracts.map(
    (newer): Change => ({ newer, base: bases.get(newer.method), older: undefined, violations: [], removed: [] }),
  );
  const sets = new Map<string, Change[]>();
  for (const change of changes) {
    const hash = change.base?.descriptorHash;
    if (hash !== undefined) sets.set(hash, [...(sets.get(hash) ?? []), change]);
  }
  for (const [hash, group] of sets) {
    const bytes = await readDescriptorSet(db, namespaceId, hash);
    if (bytes === undefined) throw new Error(`descriptor set ${hash} is not stored any more`);
    const methods = group.map((change) => change.newer.method);
    const olders = contractsOf(parseDescriptorSet(bytes), methods, { allowReserved: true });
    for (const [at, change] of group.entries()) {
      const older = olders[at]!;
      change.older = older;
      change.violations = compareContracts(older, change.newer);
      change.removed = removedFields(older, change.newer);
      if (at % compareYield === compareYield - 1) await yieldToOthers();
    }
    await yieldToOthers();
  }
  return changes;
}

/** Comparisons between two turns of others; each takes well under a millisecond. */
const compareYield = 20;

/** A removed field is a break of its own where chains still use it, however well it is reserved. */
function addUses(change: Change, impact: Impact): void {
  const { violations } = change;
  for (const { field, uses } of impact.inUse) {
    if (uses.length === 0 || violations.some(({ type, number }) => type === field.type && number === field.number))
      continue;
    const users = [...new Set(uses.map((use) => `${use.chain}${use.stepId === "" ? "" : `, step ${use.stepId}`}`))];
    const more = users.length > usersShownMax ? ` and ${users.length - usersShownMax} more` : "";
    const verb = uses[0]!.kind === "read" ? "read" : "set";
    const { file, line, type, number, sides } = field;
    const message = `was removed, and is ${verb} by ${users.slice(0, usersShownMax).join("; ")}${more}`;
    const subject = `${type}.${field.name}`;
    violations.push({ rule: "MESH_FIELD_IN_USE", file, line, subject, type, number, sides, message });
  }
}

type Decision = { verdict: "allowed" | "quarantined" | "refused"; reason: string };

/** What becomes of contracts that break something: by a decision on the revision (G2), else by the mode. */
async function decider(
  { db }: GateOptions,
  modeOf: Gate["modeOf"],
  namespaceId: number,
  methods: readonly string[],
): Promise<(contract: Contract) => Decision> {
  const [{ mode, reason }, rows] = await Promise.all([
    modeOf(namespaceId),
    readVerdicts(db, namespaceId, { methods, limit: verdictsMax }),
  ]);
  const key = ({ method, fingerprint }: Pick<VerdictRow, "method" | "fingerprint">) => `${method}@${fingerprint}`;
  const allowed = new Map(rows.filter((row) => row.verdict === "allowed").map((row) => [key(row), row.reason]));
  const byMode = { refuse: "refused", quarantine: "quarantined", allow: "allowed" } as const;
  return (contract) => {
    const own = allowed.get(key(contract));
    if (own !== undefined) return { verdict: "allowed", reason: own };
    if (isReservedService(contract.service)) return { verdict: "allowed", reason: "a part of the mesh" }; // G4
    return { verdict: byMode[mode], reason };
  };
}

/**
 * Checks and stores chains.
 *
 * K1. A chain is compiled against what is registered now: each callee's preferred revision, and the chain's own contract of its newest
 *     version, so that field numbers stay.
 * K2. Saves of one chain take turns: one that was compiled against an older version than the newest is compiled again.
 * K3. What is stored is the spec with its maps in order, so that writing them in another order is no new version.
 */

import { createHash } from "node:crypto";
import type { DescEnum, DescMessage } from "@bufbuild/protobuf";
import { ChainInvalid, ChainProblem, ChainSpec } from "@taskmesh/proto";
import { type StatusError, statusDetail, statusError } from "@taskmesh/runtime";
import { type CompiledChain, compileChain } from "../contracts/compile-chain.js";
import { calledBy } from "../contracts/compile-compensate.js";
import { problemOf } from "../contracts/compile-message.js";
import { isDeclaredBy } from "../contracts/compile-wait.js";
import type { Contract } from "../contracts/contract.js";
import { launchContracts } from "../contracts/launch.js";
import { type ChainRow, insertChainVersion, type NewChainVersion, readChain } from "../store/chains.js";
import type { Db } from "../store/db.js";
import { storeGiven } from "../store/given-chains.js";
import {
  bumpEpoch,
  claimMethods,
  insertContracts,
  type NewContract,
  readCallable,
  readCallables,
} from "../store/registry.js";
import type { LiveCatalogue } from "./catalogue.js";
import { strandedCallers } from "./chain-callers.js";
import type { ContractCache } from "./contract-cache.js";
import { nameGiven } from "./given-chains.js";
import { preferredRevision, preferredRevisions } from "./plans.js";
import { newContract } from "./registration.js";
import { specInOrder } from "./spec-order.js";
import { unservedSteps } from "./unserved.js";

/** Tries of a save that meets other saves of the same chain. */
const triesMax = 10;
/** Contracts that are searched for a type which no callee has. */
const searchedMax = 500;

export interface ChainSaveOptions {
  db: Db;
  contracts: ContractCache;
  catalogue: Pick<LiveCatalogue, "slotsOf" | "queuesOf" | "refresh">;
}

/** What a check found. */
export interface CheckedChain {
  problems: ChainProblem[];
  /** What works but will surprise. */
  warnings: ChainProblem[];
}

export interface ChainSave {
  /** Checks a chain and stores nothing. */
  validate(namespaceId: number, spec: ChainSpec): Promise<CheckedChain>;
  /**
   * Checks and stores a chain. Rejects: INVALID_ARGUMENT / CHAIN_INVALID, FAILED_PRECONDITION / METHOD_TAKEN, and with
   * `requireLiveWorkers` FAILED_PRECONDITION / CHAIN_UNSERVABLE.
   */
  put(
    namespaceId: number,
    spec: ChainSpec,
    options: { requireLiveWorkers: boolean },
  ): Promise<{ chain: ChainRow; created: boolean; warnings: ChainProblem[] }>;
  /** Checks and stores a chain of the mesh itself, whose contract it knows. Rejects like `put`. */
  putOwn(namespaceId: number, spec: ChainSpec): Promise<void>;
  /**
   * Checks a chain that is given as data and stores it for its runs alone: nobody can call it by its name. Equal data is one version
   * (given-chains.ts). Rejects: INVALID_ARGUMENT / CHAIN_INVALID.
   */
  putGiven(namespaceId: number, spec: ChainSpec): Promise<Pick<ChainRow, "name" | "version">>;
}

/** Makes it. */
export function createChainSave(options: ChainSaveOptions): ChainSave {
  const { db, catalogue } = options;
  const put = async (
    namespaceId: number,
    spec: ChainSpec,
    { requireLiveWorkers, allowReserved = false }: { requireLiveWorkers: boolean; allowReserved?: boolean },
  ) => {
    for (let tries = 1; tries <= triesMax; tries += 1) {
      const draft = await compile(options, namespaceId, spec, allowReserved);
      const { contract, problems } = draft.compiled;
      if (problems.length > 0 || !contract) throw chainInvalid(problems);
      if (requireLiveWorkers && draft.unserved.length > 0) throw unservable(draft.unserved);
      const stored = await store(db, namespaceId, spec, draft, contract);
      if (stored === "outdated") continue; // K2
      if (stored.created) await catalogue.refresh();
      return { ...stored, warnings: draft.warnings };
    }
    throw statusError({ reason: "OVERLOADED", message: "too many saves of this chain at once", retryAfterMs: 500 });
  };
  return {
    async validate(namespaceId, spec) {
      const draft = await compile(options, namespaceId, spec);
      const name = spec.contract?.name ?? "";
      const taken = draft.compiled.contract && (await readCallable(db, namespaceId, name)) === "action";
      const problems = taken
        ? [
            ...draft.compiled.problems,
            problemOf({ reason: "METHOD_TAKEN", path: "contract.name", message: takenMessage(name) }),
          ]
        : draft.compiled.problems;
      return { problems, warnings: draft.warnings };
    },
    put: (namespaceId, spec, { requireLiveWorkers }) => put(namespaceId, spec, { requireLiveWorkers }),
    async putOwn(namespaceId, spec) {
      await put(namespaceId, spec, { requireLiveWorkers: false, allowReserved: true });
    },
    async putGiven(namespaceId, spec) {
      const named = nameGiven(spec);
      const draft = await compile(options, namespaceId, named, true);
      const { contract, problems } = draft.compiled;
      if (problems.length > 0 || !contract) throw chainInvalid(problems);
      return storeGiven(db, newVersion(namespaceId, named, draft.compiled, contract), contractsOf(draft, contract));
    },
  };
}

interface Draft {
  compiled: CompiledChain;
  warnings: ChainProblem[];
  /** Warnings about steps that no live worker serves. */
  unserved: ChainProblem[];
  /** Version and contract that it was compiled against, undefined for a new chain. */
  previous: ChainRow | undefined;
}

async function compile(
  options: ChainSaveOptions,
  namespaceId: number,
  spec: ChainSpec,
  allowReserved = false,
): Promise<Draft> {
  const { db, contracts, catalogue } = options;
  const name = spec.contract?.name ?? "";
  const [previous, methods] = await Promise.all([
    isText(name) ? readChain(db, namespaceId, name, 0) : undefined,
    readCallables(db, namespaceId),
  ]);
  const callees = await loadCallees(options, namespaceId, spec, methods);
  // Of what steps declare themselves, the contracts that they had before: field numbers stay.
  for (const [method, fingerprint] of Object.entries(previous?.pins ?? {})) {
    if (!isDeclaredBy(name, method)) continue;
    const contract = await contracts.byFingerprint(namespaceId, fingerprint);
    if (contract) callees.set(method, contract);
  }
  const own = previous && (await contracts.byFingerprint(namespaceId, previous.contract));
  const sources = [...callees.values(), ...(own ? [own] : [])];
  const types = await findTypes(options, namespaceId, spec, sources, methods);
  const compiled = compileChain(spec, {
    contractFor: (method) => callees.get(method) ?? launchContracts().get(method),
    allowReserved,
    chainContract: own,
    resolveType: (type) => types.get(type),
    isChain: (method) => methods.get(method) === "chain",
    methods: () => methods.keys(),
  });
  const chain = { steps: spec.steps, pins: compiled.pins };
  const unservedNow = () => unservedSteps(chain, { db, namespaceId, methods, served: catalogue.queuesOf(namespaceId) });
  let unserved = await unservedNow();
  if (unserved.length > 0) {
    // A worker that registered a moment ago, perhaps elsewhere, is not seen before the next poll; whoever waited for it is right to expect it.
    await catalogue.refresh();
    unserved = await unservedNow();
  }
  const { contract } = compiled;
  const changed = previous !== undefined && contract !== undefined && contract.fingerprint !== previous.contract;
  const stranded = changed ? await strandedCallers(options, namespaceId, contract) : [];
  return { compiled, warnings: [...compiled.warnings, ...stranded, ...unserved], unserved, previous };
}

/** The contract of each action and chain that a step calls. */
async function loadCallees(
  { db, contracts, catalogue }: ChainSaveOptions,
  namespaceId: number,
  spec: ChainSpec,
  methods: ReadonlyMap<string, string>,
): Promise<Map<string, Contract>> {
  const wanted = [...new Set(calledBy(spec))].filter((call) => methods.has(call));
  const callees = new Map<string, Contract>();
  const actions = wanted.filter((method) => methods.get(method) !== "chain");
  const preferred = await preferredRevisions(db, catalogue, namespaceId, actions);
  await contracts.warm(
    namespaceId,
    [...preferred.values()].map((row) => row.fingerprint),
  );
  for (const method of wanted) {
    const fingerprint =
      methods.get(method) === "chain"
        ? (await readChain(db, namespaceId, method, 0))?.contract
        : preferred.get(method)?.fingerprint;
    const contract = fingerprint && (await contracts.byFingerprint(namespaceId, fingerprint));
    if (contract) callees.set(method, contract);
  }
  return callees;
}

/** The types that an inline contract names: from the contracts at hand, else from any registered one. */
async function findTypes(
  { db, contracts, catalogue }: ChainSaveOptions,
  namespaceId: number,
  spec: ChainSpec,
  sources: readonly Contract[],
  methods: ReadonlyMap<string, string>,
): Promise<Map<string, DescMessage | DescEnum>> {
  const declared = spec.steps.flatMap((step) => [
    step.signal?.output ?? {},
    step.signal?.answer ?? {},
    step.callback?.output ?? {},
    step.human?.output ?? {},
  ]);
  const maps = [spec.contract?.input ?? {}, spec.contract?.output ?? {}, ...declared];
  const texts = maps.flatMap((map) => Object.values(map));
  const names = new Set(texts.flatMap((text) => text.match(/[A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)+/g) ?? []));
  const found = new Map<string, DescMessage | DescEnum>();
  const look = (contract: Contract): void => {
    for (const name of names) {
      const type = contract.registry.getMessage(name) ?? contract.registry.getEnum(name);
      if (type && !found.has(name)) found.set(name, type);
    }
  };
  for (const contract of sources) look(contract);
  const others = [...methods].filter(([, kind]) => kind === "action").slice(0, searchedMax);
  for (const [method] of others) {
    if (found.size === names.size) break;
    const revision = await preferredRevision(db, catalogue, namespaceId, method);
    const contract = revision && (await contracts.byFingerprint(namespaceId, revision.fingerprint));
    if (contract) look(contract);
  }
  return found;
}

async function store(
  db: Db,
  namespaceId: number,
  spec: ChainSpec,
  draft: Draft,
  contract: Contract,
): Promise<{ chain: ChainRow; created: boolean } | "outdated"> {
  const { compiled, previous } = draft;
  const name = contract.method;
  return db.transaction(async (tx) => {
    const taken = await claimMethods(tx, namespaceId, "chain", [name]);
    if (taken.length > 0) {
      throw statusError({ reason: "METHOD_TAKEN", message: takenMessage(name), metadata: { method: name } });
    }
    const newest = await readChain(tx, namespaceId, name, 0);
    if (newest?.version !== previous?.version) return "outdated";
    await insertContracts(tx, namespaceId, "chain", contractsOf(draft, contract));
    const { created } = await insertChainVersion(tx, newVersion(namespaceId, spec, compiled, contract));
    const chain = created ? await readChain(tx, namespaceId, name, 0) : newest;
    if (!chain) throw new Error(`chain ${name} vanished within its transaction`);
    if (created) await bumpEpoch(tx);
    return { chain, created };
  });
}

/** What is stored with a version beside itself: its own contract and those that its steps declare. */
const contractsOf = ({ compiled }: Draft, contract: Contract): NewContract[] =>
  [contract, ...compiled.declared].map(newContract);

function newVersion(
  namespaceId: number,
  spec: ChainSpec,
  { pins, edges }: CompiledChain,
  contract: Contract,
): NewChainVersion {
  const bytes = ChainSpec.encode(specInOrder(spec)).finish();
  const hash = createHash("sha256").update(bytes).update(contract.fingerprint);
  for (const pin of Object.entries(pins).sort(([a], [b]) => (a < b ? -1 : 1))) hash.update(pin.join("@"));
  const specHash = hash.digest("hex");
  return { namespaceId, name: contract.method, spec: bytes, specHash, contract: contract.fingerprint, pins, edges };
}

const takenMessage = (name: string): string => `${name} is an action; a chain can't have the same name`;

/** Whether a name may be compared with stored ones. */
const isText = (name: string): boolean => name.length > 0 && name.length <= 512 && !name.includes("\u0000");

/** INVALID_ARGUMENT / CHAIN_INVALID with the problems that fit. */
export function chainInvalid(problems: readonly ChainProblem[]): StatusError {
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : "";
  const violations = problems.map(({ path, message, reason }) => ({
    field: path.slice(0, violationTextMax),
    description: message.slice(0, violationTextMax),
    reason,
  }));
  return statusError({
    reason: "CHAIN_INVALID",
    message: `${problems[0]?.path ?? "the chain"}: ${problems[0]?.message ?? "is not valid"}${more}`,
    fieldViolations: fitting(
      violations,
      violationBytesMax,
      ({ field, description }) => field.length + description.length,
    ),
    details: [problemsDetail(problems)],
  });
}

function unservable(unserved: readonly ChainProblem[]): StatusError {
  const [first] = unserved;
  const others = unserved.length > 1 ? ` and ${unserved.length - 1} more steps call actions` : " calls an action";
  return statusError({
    reason: "CHAIN_UNSERVABLE",
    message: `step ${first?.stepId ?? ""}${others} that no live worker serves`,
    details: [problemsDetail(unserved)],
  });
}

/** Trailers are small (8 KiB of details), and a detail that does not fit is left out whole: the first problems must get through. */
const violationBytesMax = 2_048;
const problemBytesMax = 5_120;
/** Characters of a violation's texts. */
const violationTextMax = 400;
/** Characters of an expression or message within a detail. */
const textMax = 1_024;

function problemsDetail(problems: readonly ChainProblem[]): ReturnType<typeof statusDetail> {
  const short = problems.map((one) => ({
    ...one,
    // A part of an expression would make the offsets lie.
    expression: one.expression.length <= textMax ? one.expression : "",
    message: one.message.slice(0, textMax),
    found: one.found.slice(0, textMax),
    suggestion: one.suggestion.slice(0, textMax),
  }));
  const shown = fitting(short, problemBytesMax, (one) => ChainProblem.encode(one).finish().length);
  return statusDetail("taskmesh.v1.ChainInvalid", ChainInvalid, { problems: shown });
}

/** The first items that are not larger than `max` together. */
function fitting<T>(items: readonly T[], max: number, sizeOf: (item: T) => number): T[] {
  let room = max;
  return items.filter((item) => {
    room -= sizeOf(item) + 8;
    return room >= 0;
  });
}

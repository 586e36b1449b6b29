/**
 * Upcasters that workers bring with their registration (Register.upcasters).
 *
 *   checked --the contracts are stored--> tried with live runs --none fails--> stored, in force
 *      |                                        |--one fails--> a warning; tried again with a later registration
 *      +--problems--> the registration is refused, and nothing was stored
 *
 * D1. Equal declarations are stored once: thousands of workers that come back read a row each, and nothing more.
 * D2. What an operator declared stays. Of two workers' declarations between the same revisions the later one counts.
 * D3. A registration is not held up by a trial for longer than `patienceMs`: the trial goes on, and what it finds is logged.
 */
import { type Register, Upcaster, type UpcasterOffer, UpcastOutcome } from "@taskmesh/proto";
import { type Logger, sleep } from "@taskmesh/runtime";
import type { Contract } from "../contracts/contract.js";
import type { ChainPlan } from "../engine/plan.js";
import type { Db } from "../store/db.js";
import { readUpcasters } from "../store/upcasters.js";
import type { ContractCache } from "./contract-cache.js";
import { fingerprintForm, invalid, reasonOf } from "./contract-request.js";
import { LruMap } from "./lru-map.js";
import { linkContracts } from "./registration.js";
import { checkUpcaster, inOrder, storeUpcaster, tryWithRuns, type UpcasterLive } from "./upcaster-trial.js";

/** Upcasters of one worker. */
const offersMax = 100;
/** A trial that failed, or that is under way, answers others for this long: workers of one program ask the same, all at once. */
const triedAgainMs = 60_000;
const trialsKeptMax = 1_000;
/** How long a registration waits for a trial. */
const patienceMsDefault = 5_000;

export interface DeclaredUpcastersOptions {
  db: Db;
  contracts: Pick<ContractCache, "byFingerprint">;
  /** What steps of live runs are given. Asked for when needed: the engine comes after the registry. */
  live: () => UpcasterLive | undefined;
  /** Reads the registry again after a declaration. */
  refresh: () => Promise<void>;
  /** Default 5 s. */
  patienceMs?: number;
  log: Logger;
}

export interface DeclaredUpcasters {
  /**
   * Checks what a worker declares. Answers what puts it in force once the contracts of the registration are stored, and tells what keeps it from
   * being so. Rejects with INVALID_ARGUMENT: CHAIN_INVALID, ARGUMENT_INVALID with the field, and what `linkContracts` throws.
   */
  check(namespaceId: number, message: Register): Promise<() => Promise<string[]>>;
}

interface Checked {
  declared: Upcaster;
  plan: ChainPlan;
  from: Contract;
  to: Contract;
  warnings: string[];
}

/** Makes them. */
export function createDeclaredUpcasters(options: DeclaredUpcastersOptions): DeclaredUpcasters {
  const { db, contracts, log } = options;
  const trials = new LruMap<string, { atMs: number; warnings: Promise<string[]> }>(trialsKeptMax);

  const settle = async (namespaceId: number, one: Checked): Promise<string[]> => {
    const { declared, plan, from, to } = one;
    const tried = await tryWithRuns(db, options.live(), namespaceId, plan, from, to);
    const failed = tried.reports.find(({ outcome }) => outcome === UpcastOutcome.UPCAST_OUTCOME_FAILED);
    if (failed) {
      const why = `run ${failed.runId}, step ${failed.stepId}: ${failed.message}`;
      return [`${nameOf(declared)} is not in force: ${tried.failed} steps of live runs can't be upcast (${why})`];
    }
    await storeUpcaster(db, namespaceId, declared);
    await options.refresh();
    log.info({ method: declared.method, from: declared.fromContract }, "a worker's upcaster is in force");
    return one.warnings;
  };

  const settleOnce = (namespaceId: number, one: Checked, spec: Buffer): Promise<string[]> => {
    const key = `${namespaceId} ${spec.toString("base64")}`;
    const known = trials.get(key);
    if (known && performance.now() - known.atMs < triedAgainMs) return known.warnings;
    const warnings = settle(namespaceId, one);
    trials.set(key, { atMs: performance.now(), warnings });
    warnings.catch(() => trials.delete(key));
    return warnings;
  };

  const put = async (namespaceId: number, one: Checked): Promise<string[]> => {
    const { declared } = one;
    const spec = Buffer.from(Upcaster.encode(declared).finish());
    const rows = await readUpcasters(db, namespaceId, declared.method);
    const row = rows.find(
      ({ fromContract, toContract }) => fromContract === declared.fromContract && toContract === declared.toContract,
    );
    if (row && spec.equals(row.spec)) return one.warnings; // D1
    if (row && !Upcaster.decode(row.spec).byWorker) {
      return [`${nameOf(declared)} is not in force: an operator declared another one, which stays`]; // D2
    }
    const settled = settleOnce(namespaceId, one, spec);
    const over = new AbortController();
    const late = sleep(options.patienceMs ?? patienceMsDefault, over.signal).then(() => undefined);
    const warnings = await Promise.race([settled, late]).finally(() => over.abort());
    if (warnings) return warnings;
    settled.then(
      (found) => log.info({ method: declared.method, warnings: found }, "a worker's upcaster was tried"),
      (error: unknown) => log.warn({ err: error, method: declared.method }, "a worker's upcaster could not be tried"),
    );
    return [`${nameOf(declared)} is not in force yet: it is being tried with the live runs`]; // D3
  };

  return {
    async check(namespaceId, message) {
      const checked: Checked[] = [];
      const warnings: string[] = [];
      const own = ownContracts(message);
      for (const [at, offer] of message.upcasters.entries()) {
        const to = own.get(offer.method)!;
        const declared = declaredBy(offer, to, `upcasters[${at}]`);
        const from = await contracts.byFingerprint(namespaceId, offer.fromContract);
        if (from?.method === offer.method) checked.push({ ...compiled(declared, from, to), from, to });
        else warnings.push(`${nameOf(declared)} has nothing to do: the namespace never had that revision`);
        // Each may have hundreds of expressions, and other calls wait meanwhile.
        await new Promise((resolve) => setImmediate(resolve));
      }
      return async () => {
        for (const one of checked) warnings.push(...(await put(namespaceId, one)));
        return warnings;
      };
    },
  };
}

const nameOf = ({ method, fromContract }: Upcaster): string =>
  `the upcaster of ${method} from revision ${fromContract.slice(0, 12)}…`;

/** The revisions that the worker registers of the methods with upcasters. */
function ownContracts({ upcasters, queues, descriptorSet }: Register): ReadonlyMap<string, Contract> {
  if (upcasters.length > offersMax) throw invalid("upcasters", `has ${upcasters.length} entries; at most ${offersMax}`);
  const offered = new Set(queues.flatMap(({ methods }) => methods));
  for (const [at, { method }] of upcasters.entries()) {
    if (!offered.has(method)) throw invalid(`upcasters[${at}].method`, "must be a method of the worker's queues");
  }
  const methods = [...new Set(upcasters.map(({ method }) => method))];
  return new Map(linkContracts(descriptorSet, methods).map((contract) => [contract.method, contract]));
}

function declaredBy(offer: UpcasterOffer, to: Contract, at: string): Upcaster {
  const { method, fromContract, reason } = offer;
  if (!fingerprintForm.test(fromContract))
    throw invalid(`${at}.from_contract`, "must be the fingerprint of a contract");
  if (fromContract === to.fingerprint)
    throw invalid(`${at}.from_contract`, "must be another revision than the one that the worker registers");
  const input = Object.entries(offer.input).map(
    ([field, value]) => [field, { kind: { $case: "cel", value } }] as const,
  );
  const entries = Object.fromEntries(input) as Upcaster["input"];
  return Upcaster.fromPartial({
    ...{ method, fromContract, toContract: to.fingerprint, byWorker: true },
    ...{ input: inOrder(entries), reason: reasonOf(reason, false) },
  });
}

function compiled(declared: Upcaster, from: Contract, to: Contract): Omit<Checked, "from" | "to"> {
  const { plan, warnings } = checkUpcaster(declared, from, to);
  return { declared, plan, warnings: warnings.map(({ message }) => `${nameOf(declared)}: ${message}`) };
}

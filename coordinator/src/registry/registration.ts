/**
 * From a Register message to what the database knows of it: contracts, task queues and lanes.
 *
 * R1. Idempotent: the same message again changes nothing and locks nothing.
 * R2. A lane is (task queue, exact set of contract revisions), so every worker of a lane can take every start of it.
 * R3. What a worker says is untrusted: names are checked, free texts are cleaned, everything is bounded.
 * R4. All or nothing: a refusal leaves no trace.
 */
import { createHash } from "node:crypto";
import type { Register, TransportKind } from "@taskmesh/proto";
import { type Lane, statusError } from "@taskmesh/runtime";
import { faultOfRules } from "../contracts/check.js";
import { type Contract, ContractRefused, isReservedService } from "../contracts/contract.js";
import { contractsOf, parseDescriptorSet } from "../contracts/descriptors.js";
import { type Db, sqlState } from "../store/db.js";
import {
  claimMethods,
  ensureLane,
  ensureQueues,
  insertContracts,
  knownContracts,
  type NewContract,
} from "../store/registry.js";
import type { SessionFacts } from "../store/sessions.js";
import { builtinContracts } from "./builtin-contracts.js";
import type { Gate } from "./gate.js";
import { quarantineWarning, refuseBreaking, warningsOf } from "./gate-answers.js";
import { httpWarnings } from "./http-warnings.js";
import { LruMap } from "./lru-map.js";
import { together } from "./together.js";

/** What one worker may offer: far above real ones, so that a hostile one can't fill tables. */
const queuesMax = 64;
export const methodsMax = 1_000;
const slotsMax = 10_000;
const labelsMax = 32;
/** Characters of a queue's name. */
const queueNameMax = 255;
/** Characters of a free text such as a host name. */
const textMax = 255;
/** Characters of a label's key or value. */
const labelMax = 128;
/** Parsed sets that are kept: workers of one program send the same bytes, all at once after a restart. */
const parsedSetsMax = 32;
/** Lanes that are remembered. */
const lanesMax = 10_000;
/** Tries of the transaction when it meets another one: each lost deadlock is somebody else's progress. */
const triesMax = 5;

/** A task queue that the worker serves, with its lane. */
export interface GrantedLane {
  taskQueue: string;
  lane: Lane;
  slots: number;
  /** Sorted "method@fingerprint". */
  contracts: readonly string[];
}

/** What a registration gave. */
export interface Registered {
  lanes: GrantedLane[];
  /** What is odd but allowed. */
  warnings: string[];
}

export interface Registration {
  /** Parses, checks, judges and stores what a worker offers. Rejects with the statuses of RegistryService.Connect. */
  register(namespaceId: number, message: Register): Promise<Registered>;
  /** Forgets which lanes are stored: a database that failed over may have lost what was read of it. */
  forget(): void;
}

/** Makes the registration. */
export function createRegistration(db: Db, gate: Gate): Registration {
  const parsed = new LruMap<string, Map<string, NewContract>>(parsedSetsMax);
  const known = together({ round: (asked: readonly Known[]) => knownTogether(db, asked) });
  /** Lanes that are stored, by what makes them; none is ever deleted. */
  let stored = new LruMap<string, Lane>(lanesMax);

  const parse = (message: Register): Map<string, NewContract> => {
    const methods = [...new Set(message.queues.flatMap((offer) => offer.methods))].sort();
    if (methods.length > methodsMax) throw invalid("queues", `more than ${methodsMax} methods`);
    const key = createHash("sha256").update(message.descriptorSet).update(JSON.stringify(methods)).digest("base64");
    const before = parsed.get(key);
    if (before) return before;
    const contracts = newContracts(linkContracts(message.descriptorSet, methods));
    const result = new Map(contracts.map((contract) => [contract.method, contract]));
    parsed.set(key, result);
    return result;
  };

  return {
    forget() {
      stored = new LruMap(lanesMax);
    },
    async register(namespaceId, message) {
      checkOffers(message);
      const contracts = parse(message);
      const wanted = [...contracts.values()];
      for (let tries = 1; tries <= triesMax; tries += 1) {
        const found = await known({ namespaceId, methods: [...contracts.keys()] });
        const missing = wanted.filter((contract) => !found.has(entryOf(contract)));
        // Linked again, and only for what is new: contracts that are kept in memory would hold their whole sets.
        const linked = missing.length === 0 ? [] : linkContracts(message.descriptorSet, missing.map(methodOf));
        const judgements = await gate.judge(namespaceId, linked);
        refuseBreaking(message.namespace, judgements);
        const record = (tx: Db) => gate.record(tx, namespaceId, judgements);
        const offers = offersOf(namespaceId, message, contracts);
        let lanes = missing.length > 0 ? undefined : lanesOf(offers, (offer) => stored.get(offer.key));
        lanes ??= await retried(() =>
          db.transaction(async (tx) => {
            if (missing.length > 0) await storeContracts(tx, namespaceId, missing, record);
            return grantLanes(tx, namespaceId, offers);
          }),
        ).catch((error: unknown) => {
          if (error !== outpaced) throw error;
          return undefined;
        });
        if (!lanes) continue;
        for (const [at, { key }] of offers.entries()) stored.set(key, lanes[at]!.lane);
        const waiting = wanted.filter((contract) => found.get(entryOf(contract))?.quarantined);
        const warnings = [...waiting.map(quarantineWarning), ...warningsOf(judgements), ...httpWarnings(linked)];
        return { lanes, warnings };
      }
      throw statusError({
        reason: "OVERLOADED",
        message: "too many registrations of these methods",
        retryAfterMs: 500,
      });
    },
  };
}

const methodOf = (contract: NewContract): string => contract.method;

const entryOf = (contract: { method: string; fingerprint: string }): string =>
  `${contract.method}@${contract.fingerprint}`;

/** Another registration of the same methods was faster, and what was judged is to be judged again. */
const outpaced = new Error("a newer revision was registered in the meantime");

async function storeContracts(
  tx: Db,
  namespaceId: number,
  contracts: readonly NewContract[],
  record: (tx: Db) => Promise<boolean>,
): Promise<void> {
  const methods = contracts.map((contract) => contract.method);
  const [taken] = await claimMethods(tx, namespaceId, "action", methods);
  if (taken !== undefined) {
    throw statusError({
      reason: "METHOD_TAKEN",
      message: `${taken} is a chain; an action can't have the same name`,
      metadata: { method: taken },
    });
  }
  // From here on the methods are this transaction's: nobody changes what the judgements were made with.
  if (!(await record(tx))) throw outpaced;
  await insertContracts(tx, namespaceId, "action", contracts);
}

/** A task queue that a worker offers to serve, with all that makes its lane. */
interface Offer {
  taskQueue: string;
  slots: number;
  /** Sorted "method@fingerprint". */
  entries: readonly string[];
  contractsHash: string;
  /** Equal for equal lanes. */
  key: string;
}

/** Sorted: two registrations that make the same queues and lanes meet in one order. */
function offersOf(namespaceId: number, message: Register, contracts: ReadonlyMap<string, NewContract>): Offer[] {
  const offers = [...message.queues].sort((a, b) => (a.taskQueue < b.taskQueue ? -1 : 1));
  return offers.map(({ taskQueue, methods, slots }) => {
    const found = new Set(methods.map((method) => contracts.get(method)).filter((one) => one !== undefined));
    const entries = [...found].map(entryOf).sort();
    const contractsHash = createHash("sha256").update(JSON.stringify(entries)).digest("hex");
    return { taskQueue, slots, entries, contractsHash, key: `${namespaceId} ${contractsHash} ${taskQueue}` };
  });
}

/** The lanes of all offers, undefined if one is not found. */
function lanesOf(offers: readonly Offer[], find: (offer: Offer) => Lane | undefined): GrantedLane[] | undefined {
  const granted: GrantedLane[] = [];
  for (const offer of offers) {
    const lane = find(offer);
    if (!lane) return undefined;
    granted.push({ taskQueue: offer.taskQueue, lane, slots: offer.slots, contracts: offer.entries });
  }
  return granted;
}

async function grantLanes(tx: Db, namespaceId: number, offers: readonly Offer[]): Promise<GrantedLane[]> {
  const queueIds = await ensureQueues(
    tx,
    namespaceId,
    offers.map((offer) => offer.taskQueue),
  );
  const lanes = new Map<Offer, Lane>();
  for (const offer of offers) {
    const queueId = queueIds.get(offer.taskQueue);
    if (queueId === undefined) throw new Error("a task queue vanished within its transaction");
    const { contractsHash, entries } = offer;
    const laneId = await ensureLane(tx, { queueId, contractsHash, contracts: entries });
    lanes.set(offer, { namespaceId, queueId, laneId });
  }
  return lanesOf(offers, (offer) => lanes.get(offer))!;
}

interface Known {
  namespaceId: number;
  methods: readonly string[];
}

/** What is stored of the methods of each; those that ask the same share one read. */
async function knownTogether(db: Db, asked: readonly Known[]): Promise<Awaited<ReturnType<typeof knownContracts>>[]> {
  const reads = new Map<string, ReturnType<typeof knownContracts>>();
  return Promise.all(
    asked.map(({ namespaceId, methods }) => {
      const key = JSON.stringify([namespaceId, methods]);
      const read = reads.get(key) ?? knownContracts(db, namespaceId, "action", methods);
      reads.set(key, read);
      return read;
    }),
  );
}

/**
 * The contracts of an encoded set, checked as registration checks them; without `methods` every rpc that came with it. Throws
 * INVALID_ARGUMENT / DESCRIPTORS_INVALID and SERVICE_RESERVED.
 */
export function linkContracts(bytes: Uint8Array, methods?: readonly string[]): Contract[] {
  return refusing(() => {
    const contracts = contractsOf(parseDescriptorSet(bytes), methods, { allowReserved: true });
    const foreign = contracts.find((one) => isReservedService(one.service) && !builtinContracts.has(entryOf(one)));
    if (foreign) {
      throw new ContractRefused(
        "SERVICE_RESERVED",
        `service ${foreign.service} is in a reserved package; declare it in a package of your own`,
      );
    }
    for (const contract of contracts) {
      const fault = faultOfRules(contract);
      if (fault !== undefined) throw new ContractRefused("DESCRIPTORS_INVALID", fault);
    }
    return contracts;
  });
}

/** A contract in the form that the store takes. */
export const newContract = (contract: Contract): NewContract => newContracts([contract])[0]!;

/** Contracts in the form that the store takes; those of one file share its encoded set. */
function newContracts(contracts: readonly Contract[]): NewContract[] {
  const sets = new Map<object, { descriptorSet: Uint8Array; descriptorHash: string }>();
  return contracts.map((contract) => {
    const { file } = contract.rpc.parent;
    let set = sets.get(file);
    if (set === undefined) {
      const { descriptorSet } = contract;
      set = { descriptorSet, descriptorHash: createHash("sha256").update(descriptorSet).digest("hex") };
      sets.set(file, set);
    }
    return {
      method: contract.method,
      fingerprint: contract.fingerprint,
      inputType: contract.input.typeName,
      outputType: contract.output.typeName,
      description: storable(contract.description, Number.POSITIVE_INFINITY),
      ...set,
    };
  });
}

function refusing<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof ContractRefused)) throw error;
    throw statusError({ reason: error.reason, message: error.message, cause: error });
  }
}

function checkOffers(message: Register): void {
  const { queues } = message;
  if (queues.length === 0) throw invalid("queues", "a worker must offer at least one task queue");
  if (queues.length > queuesMax) throw invalid("queues", `more than ${queuesMax} task queues`);
  const names = new Set<string>();
  for (const [index, offer] of queues.entries()) {
    const at = `queues[${index}]`;
    if (!isName(offer.taskQueue)) {
      throw invalid(`${at}.task_queue`, `must have 1 to ${queueNameMax} printable characters`);
    }
    if (names.has(offer.taskQueue)) throw invalid(`${at}.task_queue`, "is offered twice");
    names.add(offer.taskQueue);
    if (offer.methods.length === 0) throw invalid(`${at}.methods`, "must name at least one method");
    if (offer.slots < 1 || offer.slots > slotsMax) throw invalid(`${at}.slots`, `must be from 1 to ${slotsMax}`);
  }
  const labels = Object.entries(message.labels);
  if (labels.length > labelsMax) throw invalid("labels", `more than ${labelsMax} labels`);
  const long = labels.find(([key, value]) => key.length > labelMax || value.length > labelMax);
  if (long) throw invalid("labels", `a key or value has more than ${labelMax} characters`);
}

/** Control characters and unpaired surrogates: Postgres, subjects and logs take none of them. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
const unprintable = /[\u0000-\u001f\u007f]|\p{Surrogate}/u;

/** Whether a name may be stored and shown: 1 to 255 characters, none of them a control character. */
export const isName = (name: string): boolean =>
  name.length > 0 && name.length <= queueNameMax && !unprintable.test(name);

/** A free text that Postgres takes, cut to `max` characters. */
export const storable = (text: string, max: number = textMax): string =>
  text.slice(0, max).replaceAll("\u0000", "\ufffd");

/** What a worker says of itself, cleaned and bounded. */
export function sessionFacts(message: Register, transport: TransportKind): SessionFacts {
  return {
    host: storable(message.host),
    pid: message.pid,
    version: storable(message.version),
    sdk: storable(message.sdk),
    labels: Object.fromEntries(
      Object.entries(message.labels).map(([key, value]) => [storable(key, labelMax), storable(value, labelMax)]),
    ),
    transport,
  };
}

function invalid(field: string, description: string): Error {
  return statusError({
    reason: "ARGUMENT_INVALID",
    message: `${field}: ${description}`,
    fieldViolations: [{ field, description }],
  });
}

/** Deadlocks, serialization failures and lost races for a new row end well when they are repeated. */
const passing = new Set(["40P01", "40001", "23505"]);

async function retried<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (tries >= triesMax || !passing.has(sqlState(error) ?? "")) throw error;
    }
  }
}

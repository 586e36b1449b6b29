/** RegistryService: sessions of workers, claims, and what is registered. */
import type {
  Action,
  ConnectRequest,
  ConnectResponse,
  RegistryServiceServer,
  Timestamp,
  Worker,
} from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import type { Intake } from "../pipeline/ports.js";
import { createContractList } from "../registry/contract-list.js";
import type { Registry } from "../registry/registry.js";
import type { Db } from "../store/db.js";
import { type ContractRow, readActions, readContract, readRevisions } from "../store/registry.js";
import { readWorkers, sessionExists, type WorkerRow } from "../store/sessions.js";
import { bidi, unary } from "./calls.js";
import { namespaceCalls } from "./namespace-calls.js";

export interface RegistryServiceOptions {
  db: Db;
  registry: Pick<Registry, "namespaces" | "sessions" | "intervals">;
  intake: Pick<Intake, "claim">;
}

/** Makes the service. */
export function createRegistryService({ db, registry, intake }: RegistryServiceOptions): RegistryServiceServer {
  const { namespaces, sessions, intervals } = registry;
  const contractList = createContractList(db);
  const workersOf = (namespaceId: number): Promise<WorkerRow[]> =>
    readWorkers(db, namespaceId, intervals.sessionTimeoutMs);

  return {
    ...namespaceCalls(db, namespaces),
    connect: bidi(
      (requests: AsyncIterable<ConnectRequest>, send: (response: ConnectResponse) => Promise<void>, context) =>
        sessions.accept({ messages: requests, cancelled: () => context.signal.aborted, send }),
    ),
    claimAttempt: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const { runId, stepId, item, attempt, lease, sessionId } = request;
      if (!(storable(sessionId) && (await sessionExists(db, namespace.id, sessionId)))) {
        throw statusError({ reason: "SESSION_NOT_FOUND", message: "there is no such session: register again" });
      }
      if (![runId, stepId, lease].every(storable) || !runIdForm.test(runId)) {
        return { verdict: { $case: "drop", value: "the attempt has no valid name" } };
      }
      const claimed = await intake.claim({ runId, stepId, item, attempt, lease }, sessionId);
      return "start" in claimed
        ? { verdict: { $case: "start", value: claimed.start } }
        : { verdict: { $case: "drop", value: claimed.drop } };
    }),
    listActions: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const [actions, workers] = await Promise.all([readActions(db, namespace.id), workersOf(namespace.id)]);
      const live = liveness(workers);
      return { actions: actions.map((row) => action(namespace.name, row, live)) };
    }),
    describeAction: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const { method } = request;
      const [row] = storable(method) ? await readActions(db, namespace.id, method) : [];
      if (!row) throw statusError({ reason: "METHOD_NOT_FOUND", message: `there is no action ${shown(method)}` });
      const [contract, revisions, workers] = await Promise.all([
        readContract(db, namespace.id, { fingerprint: row.fingerprint, method }),
        readRevisions(db, namespace.id, method),
        workersOf(namespace.id),
      ]);
      const serving = workers.filter((worker) => methodsOf(worker).has(method));
      return {
        action: action(namespace.name, row, liveness(workers)),
        descriptorSet: Buffer.from(contract?.descriptorSet ?? []),
        workers: serving.map(toWorker),
        revisions: revisions.map((revision) => ({
          number: revision.revision,
          contract: revision.fingerprint,
          createdAt: timestamp(revision.createdAtMs),
        })),
      };
    }),
    listWorkers: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      return { workers: (await workersOf(namespace.id)).map(toWorker) };
    }),
    getContract: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const { contract: fingerprint, method } = request;
      const asked = [fingerprint, method].filter((text) => text !== "");
      const row =
        asked.length > 0 && asked.every(storable)
          ? await readContract(db, namespace.id, {
              ...(fingerprint ? { fingerprint } : {}),
              ...(method ? { method } : {}),
            })
          : undefined;
      if (!row)
        throw statusError({
          reason: "CONTRACT_NOT_FOUND",
          message: `there is no contract ${shown(asked.join(" of "))}`,
        });
      return {
        contract: row.fingerprint,
        method: row.method,
        descriptorSet: Buffer.from(row.descriptorSet),
        inputType: row.inputType,
        outputType: row.outputType,
      };
    }),
    listContracts: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      return contractList.read(namespace.id, request.knownVersion);
    }),
  };
}

const runIdForm = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** Longest name that a request may ask for; anything longer names nothing. */
const nameMax = 512;

/** Whether a text can be compared with what is stored: Postgres takes no NUL. */
const storable = (text: string): boolean => text.length > 0 && text.length <= nameMax && !text.includes("\u0000");

/** A name from outside, made safe to show. */
const shown = (name: string): string => JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name);

interface Live {
  workers: number;
  slots: number;
  servable: boolean;
  taskQueues: Set<string>;
}

/** What the live workers offer, by method. A worker that drains or can't be reached counts as a worker but serves nothing. */
function liveness(workers: readonly WorkerRow[]): Map<string, Live> {
  const live = new Map<string, Live>();
  for (const worker of workers) {
    const takes = worker.assignable && !worker.draining;
    for (const method of methodsOf(worker)) {
      const entry = live.get(method) ?? { workers: 0, slots: 0, servable: false, taskQueues: new Set() };
      live.set(method, entry);
      entry.workers += 1;
      entry.servable ||= takes;
      for (const queue of worker.queues) {
        if (!queue.contracts.some((contract) => methodOf(contract) === method)) continue;
        entry.taskQueues.add(queue.taskQueue);
        if (takes) entry.slots += queue.slots;
      }
    }
  }
  return live;
}

const methodOf = (contract: string): string => contract.slice(0, contract.lastIndexOf("@"));

const methodsOf = (worker: WorkerRow): Set<string> =>
  new Set(worker.queues.flatMap((queue) => queue.contracts.map(methodOf)));

function action(namespace: string, row: ContractRow, live: ReadonlyMap<string, Live>): Action {
  const now = live.get(row.method);
  return {
    namespace,
    method: row.method,
    contract: row.fingerprint,
    revision: row.revision,
    inputType: row.inputType,
    outputType: row.outputType,
    servable: now?.servable ?? false,
    workers: now?.workers ?? 0,
    slots: now?.slots ?? 0,
    description: row.description,
    taskQueues: [...(now?.taskQueues ?? [])].sort(),
  };
}

function toWorker(row: WorkerRow): Worker {
  return {
    sessionId: row.sessionId,
    host: row.host,
    pid: row.pid,
    version: row.version,
    sdk: row.sdk,
    labels: row.labels,
    queues: row.queues.map((queue) => ({
      taskQueue: queue.taskQueue,
      methods: queue.contracts.map(methodOf),
      slots: queue.slots,
      inFlight: queue.slots - queue.free,
    })),
    registeredAt: timestamp(row.registeredAtMs),
    lastBeatAt: timestamp(row.lastBeatAtMs),
    draining: row.draining,
    assignable: row.assignable,
    transport: row.transport,
  };
}

/** An instant in milliseconds since 1970 as a protobuf timestamp. */
const timestamp = (ms: number): Timestamp => ({
  seconds: BigInt(Math.floor(ms / 1000)),
  nanos: Math.floor((ms % 1000) * 1e6),
});

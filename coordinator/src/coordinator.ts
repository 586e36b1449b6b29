/**
 * One coordinator process, put together: database, carrier, registry, engine room, gRPC listener.
 *
 *   start   migrate ─► carrier ─► registry ─► sweeper and refill ─► listener
 *   stop    listener drains ─► sweeper and refill stop, what was taken in commits ─► registry ─► carrier ─► database
 */
import { hostname } from "node:os";
import {
  AssignmentServiceService,
  BulkServiceService,
  ChainServiceService,
  ContractServiceService,
  PayloadServiceService,
  RegistryServiceService,
  RelayServiceService,
  RunServiceService,
  SeenServiceService,
} from "@taskmesh/proto";
import {
  type Carrier,
  type CoordinatorConfig,
  createJetStreamCarrier,
  createLogger,
  createService,
  DbClock,
  formatAddress,
  randomToken,
  type Service,
  serviceGroup,
  sleep,
} from "@taskmesh/runtime";
import type { Contract } from "./contracts/contract.js";
import { createMeters } from "./meters.js";
import { createDurations } from "./pipeline/durations.js";
import { createEngineRoom, type EngineRoom } from "./pipeline/engine-room.js";
import { defaultIntervals } from "./registry/intervals.js";
import { installLaunches } from "./registry/launches.js";
import { createLoop } from "./registry/loop.js";
import { createRegistry, type Registry } from "./registry/registry.js";
import { createAssignmentService } from "./rpc/assignment-service.js";
import { createBulkService } from "./rpc/bulk-service.js";
import { createBulkWork } from "./rpc/bulk-work.js";
import { createChainService } from "./rpc/chain-service.js";
import { createContractService } from "./rpc/contract-service.js";
import { createDurableCalls } from "./rpc/durable-call.js";
import { createHealth } from "./rpc/health.js";
import { createListener, type Listener } from "./rpc/listener.js";
import { createPayloadService } from "./rpc/payload-service.js";
import { addReflection } from "./rpc/reflection.js";
import { createRegistryService } from "./rpc/registry-service.js";
import { createRelayService } from "./rpc/relay-service.js";
import { createRunService } from "./rpc/run-service.js";
import { createSeenService } from "./rpc/seen-service.js";
import type { Database } from "./store/db.js";
import { refuseUnsafe } from "./store/durability.js";
import { dropOldDurations, writeDurations } from "./store/durations.js";
import { migrate } from "./store/migrate.js";
import { Partitions } from "./store/partitions.js";
import { openPostgres } from "./store/postgres.js";
import { readAllContracts } from "./store/registry.js";
import { dropOldReports } from "./store/reports.js";
import { createRunStore } from "./store/run-store.js";

/** What an embedding process brings along instead of servers. */
export interface CoordinatorParts {
  /** Default: Postgres at `databaseUrl`. Closed with the coordinator. */
  database?: Database;
  /** Default: JetStream at `nats`. */
  carrier?: (coordinatorId: string) => Carrier;
  /** No other process can have the database: what is found there is taken over at once. */
  exclusive?: boolean;
  /** What becomes of contracts that break their predecessors, where a namespace says nothing of it; default "refuse". */
  contractGate?: "refuse" | "quarantine" | "allow";
  /** Shorter intervals, for tests. */
  intervals?: Parameters<typeof createRegistry>[0]["intervals"];
}

export interface Coordinator extends Service {
  readonly id: string;
  /** Whether calls can be accepted now: it runs, does not drain, and the database answers. */
  readonly serving: boolean;
  readonly listener: Listener;
  readonly engine: EngineRoom;
  readonly registry: Registry;
  readonly carrier: Carrier;
}

/** How often health asks the database. */
const healthIntervalMs = 1_000;
/** A database that takes longer to answer counts as unreachable. */
const healthPatienceMs = 3_000;
/** How often the partitions of the coming weeks are looked after. */
const partitionIntervalMs = 6 * 3600 * 1000;
/** How long what handlers reported stays after their run has ended. */
const reportsKeptMs = 24 * 3600 * 1000;
const reportsPerDrop = 10_000;
/** How long it is remembered what a callable takes that nobody calls any more. */
const durationsKeptMs = 90 * 24 * 3600 * 1000;
/** Commits in flight at the end. */
const drainMs = 5_000;

const services = [
  "taskmesh.v1.RunService",
  "taskmesh.v1.ChainService",
  "taskmesh.v1.AssignmentService",
  "taskmesh.v1.BulkService",
  "taskmesh.v1.RegistryService",
  "taskmesh.v1.PayloadService",
  "taskmesh.v1.ContractService",
];

/** Makes a coordinator; `start` it. Rejects at start with the reason when the database or the carrier can't be used. */
export function createCoordinator(config: CoordinatorConfig, parts: CoordinatorParts = {}): Coordinator {
  // The first character is a letter and all are safe in a NATS subject.
  const id = `c${randomToken()
    .replace(/[^A-Za-z0-9]/g, "")
    .slice(0, 16)}`;
  const log = createLogger("coordinator");
  const db = parts.database ?? openPostgres({ url: required(config.databaseUrl), connectionsMax: 8 });
  const commits =
    parts.database ?? openPostgres({ url: required(config.databaseUrl), connectionsMax: 1, settings: commitSettings });
  const carrier =
    parts.carrier?.(id) ??
    createJetStreamCarrier({
      coordinatorId: id,
      ...config.nats,
      servers: config.nats?.servers ?? [],
      onWaiting: eachOnce((err) => log.warn({ err }, "NATS can't carry work yet; it is tried until it does")),
    });
  const clock = new DbClock();
  const partitions = new Partitions();
  const beatMs = parts.intervals?.beatMs ?? defaultIntervals.beatMs;
  const durations = createDurations(beatMs, (rows) => writeDurations(db, rows));
  const meters = createMeters(durations.note);
  const health = createHealth(services);
  let stopHealth = new AbortController();

  const registry = createRegistry({
    db,
    carrier,
    coordinatorId: id,
    address: `${hostname()}/${formatAddress(config.grpcAddress)}`,
    intake: () => engine.intake,
    live: () => ({ plans, inputs: engine.inputs }),
    onCoordinatorLapsed: (...lapsed) => engine.recovery.takeOver(...lapsed),
    namespaces: config.namespaces,
    publicUrl: config.publicUrl,
    exclusive: parts.exclusive ?? false,
    contractGate: parts.contractGate ?? "refuse",
    ...(parts.intervals ? { intervals: parts.intervals } : {}),
    log,
  });
  const { contracts, plans } = registry;
  const engine = createEngineRoom({
    commits: createRunStore(commits),
    store: createRunStore(db),
    carrier,
    catalogue: registry.catalogue,
    plans,
    clock,
    partitions,
    coordinatorId: id,
    log,
    meters,
    launcher: registry.launcher,
  });
  const { namespaces } = registry;
  const runDeps = {
    db,
    intake: engine.intake,
    plans,
    notices: engine.notices,
    results: engine.results,
    namespaces,
    contractOf: contracts.byFingerprint,
    now: () => clock.now(),
    draining: () => listener.draining,
  };
  const durable = createDurableCalls({
    ...runDeps,
    carrier,
    namespaceNames: config.namespaces,
    onServices: health.addServices,
    log,
  });
  registry.catalogue.onChange(durable.refresh);

  const bulkWork = createBulkWork({ db, intake: engine.intake, plans, contractOf: contracts.byFingerprint, log });
  const listener = createListener({
    address: config.grpcAddress,
    tls: config.tls,
    tokens: config.tokens,
    log,
    services(server) {
      server.addService(RunServiceService, createRunService(runDeps));
      server.addService(RegistryServiceService, createRegistryService({ db, registry, intake: engine.intake }));
      server.addService(ChainServiceService, createChainService({ db, registry }));
      server.addService(
        ContractServiceService,
        createContractService({ db, registry, live: { plans, inputs: engine.inputs } }),
      );
      server.addService(PayloadServiceService, createPayloadService({ db, namespaces }));
      server.addService(
        RelayServiceService,
        createRelayService({ db, namespaces, carrier, draining: () => server.draining }),
      );
      server.addService(
        AssignmentServiceService,
        createAssignmentService({ db, intake: engine.intake, namespaces, contractOf: runDeps.contractOf }),
      );
      server.addService(BulkServiceService, createBulkService({ ...runDeps, kick: bulkWork.kick }));
      server.addService(SeenServiceService, createSeenService({ db, namespaces }));
      durable.serve(server);
      health.addTo(server.server);
      addReflection(server, {
        defaultNamespace: "default",
        contracts: async (name) => liveContracts((await namespaces.resolve(name)).id),
      });
    },
  });

  /** The newest revision of every callable of a namespace. */
  const liveContracts = async (namespaceId: number): Promise<Contract[]> => {
    const newest = new Map<string, string>();
    for (const { method, fingerprint } of await readAllContracts(db, namespaceId)) {
      if (!newest.has(method)) newest.set(method, fingerprint);
    }
    const found = await Promise.all([...newest.values()].map((one) => contracts.byFingerprint(namespaceId, one)));
    return found.filter((contract) => contract !== undefined);
  };

  let partitionTimer: NodeJS.Timeout | undefined;
  /** Weeks are made ahead, so one that fails is made by a later round or by another coordinator. */
  const renewPartitions = async (): Promise<void> => {
    try {
      await migrate(db);
      await partitions.refresh(db);
      while ((await dropOldReports(db, reportsKeptMs, reportsPerDrop)) === reportsPerDrop);
      await dropOldDurations(db, durationsKeptMs);
    } catch (error) {
      log.warn({ err: error }, "the partitions of the coming weeks could not be made");
    }
  };

  let asked: Promise<boolean> | undefined;
  /** Whether the database answers; sets the clock by the way. One question at a time, however long it takes. */
  const askDatabase = (): Promise<boolean> => {
    const startedAtMs = performance.now();
    asked ??= db
      .query<{ now: number }>("select (extract(epoch from clock_timestamp()) * 1000)::float8 as now")
      .then(
        ([row]) => {
          if (row) clock.observe(row.now);
          meters.asked(performance.now() - startedAtMs);
          return true;
        },
        () => false,
      )
      .finally(() => {
        asked = undefined;
      });
    return asked;
  };
  const watchDatabase = async (signal: AbortSignal): Promise<void> => {
    while (!signal.aborted) {
      const patience = new AbortController();
      // A database that is paused or cut off does not refuse, it is silent.
      const silent = sleep(healthPatienceMs, patience.signal).then(() => false);
      const answers = await Promise.race([askDatabase(), silent]);
      health.setDatabase(answers);
      if (!answers) meters.asked(undefined);
      patience.abort();
      if (partitions.stale) await partitions.refresh(db).catch(() => {}); // Until it succeeds, commits go to the partitioned tables.
      await sleep(healthIntervalMs, signal);
    }
  };

  // Started in this order and stopped in the opposite one, also when one of them can't start.
  const service = serviceGroup("coordinator", [
    createService("database", {
      async start() {
        await refuseUnsafe(db, config.allowUnsafeDatabase ?? false);
        await migrate(db);
        await partitions.refresh(db);
        partitionTimer = setInterval(() => void renewPartitions(), partitionIntervalMs).unref();
        stopHealth = new AbortController();
        void watchDatabase(stopHealth.signal);
      },
      async stop() {
        stopHealth.abort();
        clearInterval(partitionTimer);
        await Promise.all(new Set([db, commits].map((one) => one.close())));
      },
    }),
    createService("carrier", {
      start: (signal) =>
        carrier.start(
          {
            onCompletions: (delivery) => engine.listener.onCompletions(delivery),
            onWiped() {
              // Workers keep what was confirmed for a while, so that it can be told again.
              registry.sessions.republish();
              engine.listener.onWiped();
            },
          },
          signal,
        ),
      stop: () => carrier.stop(),
    }),
    registry,
    createService("launches", { start: () => installLaunches(db, registry.chainSave), stop() {} }),
    createService("engine room", {
      start() {
        engine.start();
        meters.watch({ engine, db, carrier });
      },
      async stop() {
        meters.unwatch();
        await engine.stop(drainMs);
      },
    }),
    bulkWork,
    // As often as beats, which are what estimates begin with.
    createLoop("durations", { everyMs: beatMs, round: durations.flush, log, eager: false }),
    createService("rpc", {
      start: () => listener.start(),
      async stop() {
        health.drain();
        listener.drain();
        engine.notices.notifyAll();
        await registry.sessions.stop();
        await listener.stop();
      },
    }),
  ]);
  return {
    name: service.name,
    start: service.start,
    stop: service.stop,
    get running() {
      return service.running;
    },
    get serving() {
      return service.running && health.serving;
    },
    id,
    listener,
    engine,
    registry,
    carrier,
  };
}

/** A batch is one statement over arrays of unknown length, whose plans must go by index whatever the statistics say. */
const commitSettings = { enable_seqscan: "off", jit: "off", plan_cache_mode: "force_generic_plan" };

function required(url: string | undefined): string {
  if (url === undefined) throw new Error("a coordinator needs DATABASE_URL, or a database of its own");
  return url;
}

/** Passes an error on if its message is not the last one's: what is tried again and again says a thing once. */
function eachOnce(tell: (error: unknown) => void): (error: unknown) => void {
  let last: string | undefined;
  return (error) => {
    const message = error instanceof Error ? error.message : String(error);
    if (message !== last) tell(error);
    last = message;
  };
}

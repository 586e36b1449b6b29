/**
 * The registry of one coordinator: who can be called, who works, who coordinates. Puts the parts together.
 *
 *   namespaces    names to ids
 *   registration  Register messages to contracts, queues, lanes
 *   sessions      the workers that are connected here; lapses: the ones that went silent anywhere
 *   coordinators  who else carries the mesh
 *   catalogue     all of it as the dispatcher needs it, from memory
 *   plans         compiled chains and lone actions
 *   gate          whether a contract may follow another; lineage: which chains use what
 */
import { type Carrier, type Logger, type Service, serviceGroup } from "@taskmesh/runtime";
import type { Intake, Launcher, Plans } from "../pipeline/ports.js";
import { readCoordinatorIds } from "../store/coordinators.js";
import type { Db } from "../store/db.js";
import type { GateMode } from "../store/gates.js";
import { deleteIncompletePayloads } from "../store/payloads.js";
import { createCatalogue, type LiveCatalogue } from "./catalogue.js";
import { type ChainSave, createChainSave } from "./chain-save.js";
import { type ContractCache, createContractCache } from "./contract-cache.js";
import { type Coordinators, createCoordinators } from "./coordinators.js";
import { createDeclaredUpcasters } from "./declared-upcasters.js";
import { createGate, type Gate } from "./gate.js";
import { createHeard } from "./heard.js";
import { defaultIntervals, type RegistryIntervals } from "./intervals.js";
import { createLapses } from "./lapses.js";
import { createLauncher } from "./launcher.js";
import { createLineage, type Lineage } from "./lineage.js";
import { createLoop } from "./loop.js";
import { createNamespaces, type Namespaces } from "./namespaces.js";
import { createOpening } from "./opening.js";
import { createOtherRevisions } from "./other-revisions.js";
import { createPlans } from "./plans.js";
import { createRetention } from "./retention.js";
import { createSessions, type Sessions } from "./sessions.js";
import type { UpcasterLive } from "./upcaster-trial.js";
import { createUpcasts } from "./upcasts.js";

/** Between two searches for payloads whose call broke off. */
const payloadCleanUpMs = 10 * 60_000;

export interface RegistryOptions {
  db: Db;
  carrier: Carrier;
  /** Id of this coordinator process. */
  coordinatorId: string;
  /** gRPC address of this coordinator, for people. */
  address: string;
  /** Asked for when needed, since the pipeline needs the catalogue first. */
  intake: () => Pick<Intake, "bind" | "lose" | "claim">;
  /** What steps of live runs are given, to try upcasters with that workers declare. Default: they are not tried. */
  live?: () => UpcasterLive;
  /** Finish what a lapsed coordinator left in the database before `beforeMs` (effects that are not confirmed). Repeated if it rejects. */
  onCoordinatorLapsed: (id: string, beforeMs: number) => Promise<void>;
  /** Where the gateways are reached from outside. */
  publicUrl?: string;
  /** What becomes of contracts that break their predecessors, in namespaces that say nothing of it; default "refuse". */
  contractGate?: GateMode;
  /** Namespaces that exist besides `default`. */
  namespaces?: readonly string[];
  /** No other process can have this database (embedded mode). Default false. */
  exclusive?: boolean;
  intervals?: Partial<RegistryIntervals>;
  log: Logger;
}

export interface Registry extends Service {
  readonly namespaces: Namespaces;
  readonly catalogue: LiveCatalogue;
  readonly coordinators: Coordinators;
  readonly sessions: Sessions;
  readonly contracts: ContractCache;
  readonly plans: Plans;
  readonly gate: Gate;
  readonly lineage: Lineage;
  readonly chainSave: ChainSave;
  readonly launcher: Launcher;
  readonly intervals: RegistryIntervals;
}

/** Makes the registry. Start it before the pipeline and the rpc services, after the carrier; stop it after the listener. */
export function createRegistry(options: RegistryOptions): Registry {
  const { db, carrier, log } = options;
  const intervals = { ...defaultIntervals, ...options.intervals };
  const namespaces = createNamespaces(db, options.namespaces ?? []);
  const onChange = (): void => {
    void catalogue.refresh().catch((error: unknown) => {
      // What ends with the process changes nothing that anybody would still see.
      if (parts.running) log.warn({ err: error }, "the catalogue is behind");
    });
  };
  const heard = createHeard({ carrier, coordinators: () => readCoordinatorIds(db), log });
  const coordinators = createCoordinators({
    db,
    carrier,
    heard,
    id: options.coordinatorId,
    address: options.address,
    exclusive: options.exclusive ?? false,
    intervals,
    onLapsed: options.onCoordinatorLapsed,
    onChange: () => catalogue.recount(),
    log,
  });
  const contracts = createContractCache(db);
  const catalogue = createCatalogue({
    db,
    carrier,
    intervals,
    coordinators: () => coordinators.live(),
    alsoServes: createOtherRevisions(db, contracts),
    upcasts: createUpcasts(db, contracts, log),
    log,
  });
  const plans = createPlans({ db, contracts, catalogue, publicUrl: options.publicUrl ?? "" });
  const chainSave = createChainSave({ db, contracts, catalogue });
  const launcher = createLauncher({ db, contracts, plans, chainSave });
  const lineage = createLineage({ db, contracts });
  const gate = createGate({ db, contracts, lineage, defaultMode: options.contractGate ?? "refuse" });
  const live = (): UpcasterLive | undefined => options.live?.();
  const upcasters = createDeclaredUpcasters({ db, contracts, live, refresh: () => catalogue.refresh(), log });
  const sessions = createSessions({
    db,
    carrier,
    intake: options.intake,
    heard,
    intervals,
    open: createOpening({ db, carrier, coordinatorId: options.coordinatorId, namespaces, gate, upcasters, intervals }),
    onChange,
    log,
  });
  const lapses = createLapses({ db, intervals, lose: sessions.lose, onChange, log });
  const cleanUp = createLoop("payload clean-up", {
    everyMs: payloadCleanUpMs,
    round: async () => void (await deleteIncompletePayloads(db)),
    log,
    eager: false,
  });
  const retention = createRetention({ db, coordinatorId: options.coordinatorId, log });
  const parts = serviceGroup("registry", [namespaces, coordinators, catalogue, sessions, lapses, cleanUp, retention]);
  return {
    name: parts.name,
    start: () => parts.start(),
    stop: () => parts.stop(),
    get running() {
      return parts.running;
    },
    namespaces,
    catalogue,
    coordinators,
    sessions,
    contracts,
    plans,
    gate,
    lineage,
    chainSave,
    launcher,
    intervals,
  };
}

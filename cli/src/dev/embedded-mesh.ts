/**
 * A whole mesh in one process: PGlite in a folder, the transport in memory, coordinator, gateway and the built-in actions.
 *
 *   folder lock -> ports -> database -> coordinator -> gateway -> built-in actions      started in this order, stopped in the opposite one
 *
 * Workers and callers outside join by gRPC and REST, as they would join any mesh.
 */
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startWorker, type Worker } from "@taskmesh/action-sdk";
import { builtinActions, builtinConfig, builtinDescriptors } from "@taskmesh/actions";
import { type Coordinator, createCoordinator, type Database, openPglite } from "@taskmesh/coordinator";
import { type Gateway, startGateway } from "@taskmesh/gateway";
import {
  type Address,
  type CoordinatorConfig,
  coordinatorConfig,
  createService,
  type Environment,
  formatAddress,
  gatewayConfig,
  MemoryBus,
  readTogether,
  type Service,
  serviceGroup,
  setLogLevel,
} from "@taskmesh/runtime";
import { lockFolder } from "./folder-lock.js";
import { checkFree } from "./free-address.js";

/** Attempts of built-in actions at once: they wait for the network more than they compute. */
const builtinSlots = 20;

export interface EmbeddedMeshOptions {
  /** Where everything is kept; made if it is missing. */
  data: string;
  /** The environment with the options of the command line merged in. */
  env: Environment;
}

export interface EmbeddedMesh extends Service {
  /** Known once it runs. */
  readonly grpcAddress: string;
  readonly url: string;
  readonly builtinActionCount: number;
  readonly stopTimeoutMs: number;
}

/** An address that this machine can dial for one that it listens on. */
const dialable = ({ host, port }: Address): Address => {
  if (host === "0.0.0.0") return { host: "127.0.0.1", port };
  return { host: host === "::" ? "::1" : host, port };
};

/** What the parts share once they run. */
interface Parts {
  unlock?: () => void;
  database?: Database;
  coordinator?: Coordinator;
  gateway?: Gateway;
  workers: Worker[];
  /** Where the coordinator can be dialled. */
  grpc: Address;
}

/**
 * Opens the database in the folder, or makes it. A first start that was killed leaves half a database: it can hold no run yet, since the
 * mark is written before anything is served, so it is made anew.
 */
async function openDatabase(data: string): Promise<Database> {
  const folder = join(data, "postgres");
  const mark = join(data, "postgres.made");
  if (existsSync(folder) && !existsSync(mark)) rmSync(folder, { recursive: true });
  const database = await openPglite(folder);
  writeFileSync(mark, "");
  return database;
}

function coordinating(parts: Parts, config: CoordinatorConfig): Service {
  const bus = new MemoryBus();
  return createService("coordinator", {
    start: async () => {
      const coordinator = createCoordinator(config, {
        ...(parts.database ? { database: parts.database } : {}),
        carrier: (id) => bus.carrier(id),
        exclusive: true, // by the lock of the folder
        contractGate: "allow", // whoever develops changes contracts all day
      });
      parts.coordinator = coordinator;
      await coordinator.start();
      parts.grpc = dialable(coordinator.listener.address);
    },
    stop: () => parts.coordinator?.stop(),
  });
}

/** The built-in actions for every namespace: a worker lives in one. */
function servingBuiltins(parts: Parts, namespaces: readonly string[], env: Environment): Service {
  return createService("built-in actions", {
    start: async (signal) => {
      const address = formatAddress(parts.grpc);
      for (const namespace of namespaces) {
        const own = { ...env, TASKMESH_NAMESPACE: namespace, TASKMESH_ADDRESS: address };
        const worker = await startWorker({
          descriptors: builtinDescriptors,
          actions: builtinActions(builtinConfig(own)),
          namespace,
          address,
          slots: builtinSlots,
          labels: { builtin: "true" },
          handleSignals: false,
          quiet: true,
          ...(parts.coordinator ? { carrier: parts.coordinator.carrier } : {}),
          signal,
        });
        parts.workers.push(worker);
      }
    },
    stop: async () => {
      await Promise.all(parts.workers.splice(0).map((worker) => worker.stop()));
    },
  });
}

/**
 * The mesh, not started yet.
 * @throws ConfigError with every fault of the environment. `start` rejects with a CliError when the folder is in use.
 */
export function createEmbeddedMesh({ data, env }: EmbeddedMeshOptions): EmbeddedMesh {
  const [ownGateway] = readTogether(
    () => gatewayConfig(env),
    () => coordinatorConfig(env, { embedded: true }),
    () => builtinConfig(env),
  );
  const scheme = ownGateway.tls ? "https" : "http";
  const publicUrl = `${scheme}://${formatAddress(dialable(ownGateway.httpAddress))}`;
  const config = coordinatorConfig({ TASKMESH_PUBLIC_URL: publicUrl, ...env }, { embedded: true });
  const builtinActionCount = builtinActions(builtinConfig(env)).length;
  const parts: Parts = { workers: [], grpc: dialable(config.grpcAddress) };
  setLogLevel(config.logLevel);
  const lock = createService("lock", {
    start: () => {
      parts.unlock = lockFolder(data, `REST http://${formatAddress(ownGateway.httpAddress)}`);
    },
    stop: () => parts.unlock?.(),
  });
  const ports = createService("ports", {
    start: async () => {
      for (const address of [config.grpcAddress, ownGateway.httpAddress]) await checkFree(address);
    },
    stop: () => {},
  });
  const database = createService("database", {
    start: async () => {
      parts.database = await openDatabase(data);
    },
    stop: () => parts.database?.close(),
  });
  const gateway = createService("gateway", {
    start: async () => {
      const coordinator = { ...ownGateway.coordinator, addresses: [parts.grpc] };
      parts.gateway = await startGateway({ ...ownGateway, coordinator });
    },
    stop: () => parts.gateway?.stop(),
  });
  const coordinator = coordinating(parts, config);
  const builtins = servingBuiltins(parts, config.namespaces, env);
  const group = serviceGroup("mesh", [lock, ports, database, coordinator, gateway, builtins]);
  return Object.create(group, {
    grpcAddress: { get: () => formatAddress(parts.grpc) },
    url: { get: () => parts.gateway?.url ?? "" },
    builtinActionCount: { value: builtinActionCount },
    stopTimeoutMs: { value: config.stopTimeoutMs },
  }) as EmbeddedMesh;
}

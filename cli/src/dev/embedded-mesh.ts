/**
 * A whole mesh in one process: PGlite in a folder, the transport in memory, coordinator, gateway and the built-in actions.
 *
 *   folder lock -> database -> coordinator -> gateway -> built-in actions      started in this order, stopped in the opposite one
 *
 * Workers and callers outside join by gRPC and REST, as they would join any mesh.
 */
import { join } from "node:path";
import { type AnyAction, startWorker, type Worker } from "@taskmesh/action-sdk";
import { builtinActions, builtinConfig, builtinDescriptors } from "@taskmesh/actions";
import { type Coordinator, createCoordinator, type Database, openPglite } from "@taskmesh/coordinator";
import { type Gateway, startGateway } from "@taskmesh/gateway";
import {
  type Address,
  coordinatorConfig,
  createService,
  type Environment,
  formatAddress,
  gatewayConfig,
  MemoryBus,
  type Service,
  serviceGroup,
  setLogLevel,
} from "@taskmesh/runtime";
import { lockFolder } from "./folder-lock.js";

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

/**
 * The mesh, not started yet.
 * @throws ConfigError with every fault of the environment. `start` rejects with a CliError when the folder is in use.
 */
export function createEmbeddedMesh({ data, env }: EmbeddedMeshOptions): EmbeddedMesh {
  const config = coordinatorConfig(env, { embedded: true });
  const ownGateway = gatewayConfig(env);
  const bus = new MemoryBus();
  const running: { unlock?: () => void; database?: Database; workers: Worker[] } = { workers: [] };
  let coordinator: Coordinator | undefined;
  let gateway: Gateway | undefined;
  let builtinActionCount = 0;
  setLogLevel(config.logLevel);

  const lock = createService("lock", {
    start: () => {
      running.unlock = lockFolder(data, `REST http://${formatAddress(ownGateway.httpAddress)}`);
    },
    stop: () => running.unlock?.(),
  });
  const database = createService("database", {
    start: async () => {
      running.database = await openPglite(join(data, "postgres"));
    },
    stop: () => running.database?.close(),
  });
  const coordinating = createService("coordinator", {
    start: async () => {
      coordinator = createCoordinator(config, {
        ...(running.database ? { database: running.database } : {}),
        carrier: (id) => bus.carrier(id),
        exclusive: true, // by the lock of the folder
        builtins: builtinDescriptors,
      });
      await coordinator.start();
    },
    stop: () => coordinator?.stop(),
  });
  const grpc = () => dialable(coordinator?.listener.address ?? config.grpcAddress);
  const serving = createService("gateway", {
    start: async () => {
      const toCoordinator = { ...ownGateway.coordinator, addresses: [grpc()] };
      gateway = await startGateway({ ...ownGateway, coordinator: toCoordinator });
    },
    stop: () => gateway?.stop(),
  });
  const builtins = createService("built-in actions", {
    start: async (signal) => {
      for (const namespace of config.namespaces) {
        const address = formatAddress(grpc());
        const own = { ...env, TASKMESH_NAMESPACE: namespace, TASKMESH_ADDRESS: address };
        const actions: AnyAction[] = builtinActions(builtinConfig(own));
        builtinActionCount = actions.length;
        const worker = await startWorker({
          descriptors: builtinDescriptors,
          actions,
          namespace,
          address,
          slots: builtinSlots,
          labels: { builtin: "true" },
          handleSignals: false,
          quiet: true,
          ...(coordinator ? { carrier: coordinator.carrier } : {}),
          signal,
        });
        running.workers.push(worker);
      }
    },
    stop: async () => {
      await Promise.all(running.workers.splice(0).map((worker) => worker.stop()));
    },
  });
  const group = serviceGroup("mesh", [lock, database, coordinating, serving, builtins]);
  return Object.create(group, {
    grpcAddress: { get: () => formatAddress(grpc()) },
    url: { get: () => gateway?.url ?? "" },
    builtinActionCount: { get: () => builtinActionCount },
    stopTimeoutMs: { get: () => config.stopTimeoutMs },
  }) as EmbeddedMesh;
}

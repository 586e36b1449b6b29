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
import { type Coordinator, openPglite, startCoordinator } from "@taskmesh/coordinator";
import { type Gateway, startGateway } from "@taskmesh/gateway";
import {
  coordinatorConfig,
  createService,
  type Environment,
  formatAddress,
  gatewayConfig,
  MemoryBus,
  parseAddress,
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
function dialable(address: string): string {
  const { host, port } = parseAddress(address) ?? { host: "127.0.0.1", port: 0 };
  const local = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return formatAddress({ host: local, port });
}

/**
 * The mesh, not started yet.
 * @throws ConfigError with every fault of the environment. `start` rejects with a CliError when the folder is in use.
 */
export function createEmbeddedMesh({ data, env }: EmbeddedMeshOptions): EmbeddedMesh {
  const config = coordinatorConfig(env, { embedded: true });
  const ownGateway = gatewayConfig(env);
  const carrier = new MemoryBus().carrier();
  const running: { unlock?: () => void; db?: Awaited<ReturnType<typeof openPglite>>; workers: Worker[] } = {
    workers: [],
  };
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
      running.db = await openPglite(join(data, "postgres"));
    },
    stop: () => running.db?.close(),
  });
  const coordinating = createService("coordinator", {
    start: async () => {
      coordinator = await startCoordinator(config, { carrier, ...(running.db ? { db: running.db } : {}) });
    },
    stop: () => coordinator?.stop(),
  });
  const grpcAddress = () => dialable(coordinator?.address ?? formatAddress(config.grpcAddress));
  const serving = createService("gateway", {
    start: async () => {
      const address = parseAddress(grpcAddress());
      const coordinators = { ...ownGateway.coordinator, ...(address ? { addresses: [address] } : {}) };
      gateway = await startGateway({ ...ownGateway, coordinator: coordinators });
    },
    stop: () => gateway?.stop(),
  });
  const builtins = createService("built-in actions", {
    start: async (signal) => {
      for (const namespace of config.namespaces) {
        const own = { ...env, TASKMESH_NAMESPACE: namespace, TASKMESH_ADDRESS: grpcAddress() };
        const actions: AnyAction[] = builtinActions(builtinConfig(own));
        builtinActionCount = actions.length;
        const worker = await startWorker({
          descriptors: builtinDescriptors,
          actions,
          namespace,
          address: grpcAddress(),
          slots: builtinSlots,
          labels: { builtin: "true" },
          handleSignals: false,
          quiet: true,
          carrier,
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
    grpcAddress: { get: grpcAddress },
    url: { get: () => gateway?.url ?? "" },
    builtinActionCount: { get: () => builtinActionCount },
    stopTimeoutMs: { get: () => config.stopTimeoutMs },
  }) as EmbeddedMesh;
}

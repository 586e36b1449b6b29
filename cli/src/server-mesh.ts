/**
 * A coordinator, a gateway and a worker of the built-in actions in one process, against Postgres and NATS (`DATABASE_URL`, `NATS_URL`).
 * Several of them side by side share the load; each role also runs alone (coordinator/src/main.ts, gateway/src/main.ts, actions/src/main.ts).
 */
import { startWorker, type Worker } from "@taskmesh/action-sdk";
import { builtinActions, builtinConfig, builtinDescriptors } from "@taskmesh/actions";
import { createCoordinator } from "@taskmesh/coordinator";
import { startGateway } from "@taskmesh/gateway";
import {
  type Address,
  ConfigError,
  coordinatorConfig,
  createHealthServer,
  createLogger,
  createMetricsServer,
  createService,
  type Environment,
  formatAddress,
  gatewayConfig,
  readTogether,
  runService,
  serviceGroup,
  setLogLevel,
  startTelemetry,
} from "@taskmesh/runtime";
import { childEnvironment } from "./config.js";
import { CliError, exitCode, usageError } from "./exit.js";
import type { Output } from "./output.js";

/** Attempts of each built-in service at once. */
const builtinSlots = 20;

/** Where a listener is reached from its own machine. */
const dialable = ({ host, port }: Address): Address => ({
  host: host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host,
  port,
});

function createServerMesh(env: Environment) {
  const [config, gatewaySettings] = readTogether(
    () => coordinatorConfig(env),
    () => gatewayConfig(env),
    () => builtinConfig(env),
  );
  const log = createLogger("mesh");
  setLogLevel(config.logLevel);
  for (const warning of new Set([...config.warnings, ...gatewaySettings.warnings])) log.warn(warning);
  const { tokens, tls, metricsAddress } = config;
  const metrics = createMetricsServer({ tokens, tls, address: metricsAddress, log });
  const coordinator = createCoordinator(config);
  const health = createHealthServer({
    ...(config.healthAddress ? { address: config.healthAddress } : {}),
    ready: async (signal) => coordinator.serving && ((await gateway?.ready(signal)) ?? false),
    log,
  });
  let gateway: Awaited<ReturnType<typeof startGateway>> | undefined;
  let workers: Worker[] = [];
  const rest = createService("gateway", {
    async start() {
      const own = dialable(coordinator.listener.address);
      gateway = await startGateway({
        ...gatewaySettings,
        coordinator: { ...gatewaySettings.coordinator, addresses: [own] },
      });
    },
    stop: () => gateway?.stop(),
  });
  const builtins = createService("built-in actions", {
    async start(signal) {
      const address = formatAddress(dialable(coordinator.listener.address));
      for (const namespace of config.namespaces) {
        const own = { ...env, TASKMESH_NAMESPACE: namespace, TASKMESH_ADDRESS: address };
        const actions = builtinActions(builtinConfig(own));
        const options = {
          descriptors: builtinDescriptors,
          actions,
          namespace,
          address,
          slots: builtinSlots,
          labels: { builtin: "true" },
          healthAddress: "off",
        };
        workers.push(await startWorker({ ...options, handleSignals: false, quiet: true, signal }));
      }
    },
    async stop() {
      await Promise.all(workers.map((worker) => worker.stop()));
      workers = [];
    },
  });
  return {
    service: serviceGroup("mesh", [health, metrics, coordinator, rest, builtins]),
    stopTimeoutMs: config.stopTimeoutMs,
    log,
    addresses: () => ({ grpc: formatAddress(coordinator.listener.address), rest: gateway?.url ?? "" }),
  };
}

/**
 * Runs it until SIGINT or SIGTERM, then stops it in good order.
 * @throws CliError when the configuration or the servers don't allow it to start.
 */
export async function runServerMesh(out: Output): Promise<void> {
  const env = childEnvironment();
  const telemetry = await startTelemetry("taskmesh", env);
  try {
    const mesh = createServerMesh(env);
    await mesh.service.start();
    const { grpc, rest } = mesh.addresses();
    out.document({ grpcAddress: grpc, url: rest, pid: process.pid });
    out.line(
      `${out.colors.green("Taskmesh runs")}\n\n  gRPC  ${grpc}\n  REST  ${rest}\n\nCtrl-C stops it; start it again elsewhere to share the load.`,
    );
    const code = await runService(mesh.service, { log: mesh.log, stopTimeoutMs: mesh.stopTimeoutMs });
    if (code !== 0)
      throw new CliError(exitCode.refused, "the mesh did not stop cleanly; nothing that it had accepted is lost");
  } catch (error) {
    if (error instanceof ConfigError) throw usageError(error.message);
    if (error instanceof CliError) throw error;
    throw new CliError(exitCode.refused, `the mesh could not start: ${(error as Error).message}`, { cause: error });
  } finally {
    await telemetry.stop();
  }
}

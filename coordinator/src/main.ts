/** The coordinator process: configuration, start, wait for a signal, stop. `migrate` as its argument: the schema alone. */
import {
  ConfigError,
  coordinatorConfig,
  createHealthServer,
  createLogger,
  createMetricsServer,
  roleHelp,
  runService,
  serviceGroup,
  setLogLevel,
  startTelemetry,
} from "@taskmesh/runtime";
import { createCoordinator } from "./coordinator.js";
import { boundHeapGrowth } from "./heap.js";
import { migrateOnly } from "./migrate-only.js";

const log = createLogger("coordinator");

/** Runs until SIGTERM or SIGINT; the exit code. */
async function main(env: NodeJS.ProcessEnv = process.env): Promise<number> {
  if (process.argv.includes("--help")) {
    const about = 'A Taskmesh coordinator; with the argument "migrate" it brings the database to its schema and ends.';
    process.stdout.write(roleHelp(about, ["Coordinator", "Tracing"]));
    return 0;
  }
  try {
    if (process.argv[2] === "migrate") return await migrateOnly(env);
    const config = coordinatorConfig(env);
    setLogLevel(config.logLevel);
    for (const warning of config.warnings) log.warn(warning);
    boundHeapGrowth();
    const telemetry = await startTelemetry("taskmesh-coordinator", env);
    const coordinator = createCoordinator(config);
    const { tokens, tls, metricsAddress: address } = config;
    const metrics = createMetricsServer({ tokens, ...(tls ? { tls } : {}), ...(address ? { address } : {}), log });
    const health = createHealthServer({
      ...(config.healthAddress ? { address: config.healthAddress } : {}),
      ready: () => coordinator.serving,
      log,
    });
    const group = serviceGroup("coordinator", [health, metrics, coordinator]);
    const code = await runService(group, { log, stopTimeoutMs: config.stopTimeoutMs });
    await telemetry.stop();
    return code;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 2;
  }
}

process.exitCode = await main();

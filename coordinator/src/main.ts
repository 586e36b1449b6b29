/** The coordinator process: configuration, start, wait for a signal, stop. */
import {
  ConfigError,
  coordinatorConfig,
  createLogger,
  createMetricsServer,
  runService,
  serviceGroup,
  startTelemetry,
} from "@taskmesh/runtime";
import { createCoordinator } from "./coordinator.js";

const log = createLogger("coordinator");

/** Runs until SIGTERM or SIGINT; the exit code. */
async function main(env: NodeJS.ProcessEnv = process.env): Promise<number> {
  try {
    const config = coordinatorConfig(env);
    for (const warning of config.warnings) log.warn(warning);
    const telemetry = await startTelemetry("taskmesh-coordinator", env);
    const coordinator = createCoordinator(config);
    const { tokens, tls, metricsAddress: address } = config;
    const metrics = createMetricsServer({ tokens, ...(tls ? { tls } : {}), ...(address ? { address } : {}), log });
    const group = serviceGroup("coordinator", [metrics, coordinator]);
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

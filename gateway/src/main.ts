/** The gateway as a process of its own: configuration, start, wait for a signal, stop. */
import {
  ConfigError,
  createHealthServer,
  createLogger,
  createService,
  type GatewayConfig,
  gatewayConfig,
  roleHelp,
  runService,
  serviceGroup,
  setLogLevel,
  startTelemetry,
} from "@taskmesh/runtime";
import { type Gateway, startGateway } from "./index.js";

function readConfig(): GatewayConfig | undefined {
  try {
    return gatewayConfig(process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return undefined;
  }
}

async function main(): Promise<number> {
  if (process.argv.includes("--help")) {
    process.stdout.write(roleHelp("A Taskmesh gateway.", ["Gateway", "Tracing"]));
    return 0;
  }
  const config = readConfig();
  if (config === undefined) return 2;
  setLogLevel(config.logLevel);
  const log = createLogger("gateway");
  for (const warning of config.warnings) log.warn(warning);
  const telemetry = await startTelemetry("taskmesh-gateway");
  let gateway: Gateway | undefined;
  const service = createService("gateway", {
    async start() {
      gateway = await startGateway(config, { log });
    },
    async stop() {
      await gateway?.stop();
    },
  });
  const health = createHealthServer({
    ...(config.healthAddress ? { address: config.healthAddress } : {}),
    ready: (signal) => gateway?.ready(signal) ?? false,
    log,
  });
  const group = serviceGroup("gateway", [health, service]);
  const code = await runService(group, { log, stopTimeoutMs: config.stopTimeoutMs });
  await telemetry.stop();
  return code;
}

process.exitCode = await main();

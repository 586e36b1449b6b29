/** What `taskmesh doctor` looks at: this program, its configuration, the servers that it names, the gateway. It changes nothing. */
import { diagnoseServers } from "@taskmesh/coordinator";
import {
  ConfigError,
  type CoordinatorConfig,
  coordinatorConfig,
  coordinatorSettings,
  type Environment,
  type Finding,
  findingsOf,
  readSettings,
} from "@taskmesh/runtime";

/** Node versions before this one get no fixes any more. */
const maintainedNode = 22;
const oldestNode = [20, 20] as const;
const gatewayPatienceMs = 3_000;
/** HTTP tells the time in seconds. */
const gatewaySkewMaxMs = 2_000;

/** Everything that was found, in the order in which it is best put right. Takes a minute at most. */
export async function diagnose(env: Environment): Promise<Finding[]> {
  const configuration = checkConfiguration(env);
  return [
    ...checkNode(process.versions.node),
    ...configuration.findings,
    ...(await diagnoseServers(configuration.servers)),
    ...(await checkGateway(env)),
  ];
}

/** Exported for its test. */
export function checkNode(version: string): Finding[] {
  const { list, add } = findingsOf("node");
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const tooOld = major < oldestNode[0] || (major === oldestNode[0] && minor < oldestNode[1]);
  if (tooOld) add("version", version, { level: "fail", fix: "Install Node 20.20 or newer; 24 is best." });
  else if (major < maintainedNode) {
    add("version", version, { level: "warn", fix: "It works, but gets no security fixes any more: install Node 24." });
  } else add("version", version);
  return list;
}

function checkConfiguration(env: Environment): {
  findings: Finding[];
  servers: Pick<CoordinatorConfig, "databaseUrl" | "nats">;
} {
  const { list, add } = findingsOf("configuration");
  try {
    const config = coordinatorConfig(env);
    const guards = [
      config.tokens.tokens.length > 0 && "tokens",
      config.tls && "TLS",
      config.tls?.clientCa && "client certificates",
    ];
    add("settings", "valid");
    add("guards", guards.filter(Boolean).join(", ") || "none: this machine alone can reach it");
    for (const warning of config.warnings)
      add("settings", warning, { level: "warn", fix: "See docs/guides/configuration.md." });
    return { findings: list, servers: config };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const { variable, problem, fix } of error.faults) add(variable, problem, { level: "fail", fix });
    return { findings: list, servers: readServers(env) };
  }
}

/** The servers of a configuration that has faults elsewhere. */
function readServers(env: Environment): Pick<CoordinatorConfig, "databaseUrl" | "nats"> {
  const { databaseUrl, natsServers, natsCredentials, natsReplicas } = coordinatorSettings;
  const { values } = readSettings({ databaseUrl, natsServers, natsCredentials, natsReplicas }, env);
  const read: Partial<typeof values> = values;
  return {
    ...(read.databaseUrl === undefined ? {} : { databaseUrl: read.databaseUrl }),
    ...(read.natsServers === undefined
      ? {}
      : {
          nats: {
            servers: read.natsServers,
            replicas: read.natsReplicas ?? 1,
            ...(read.natsCredentials ? { credentials: read.natsCredentials } : {}),
          },
        }),
  };
}

/** Asks the gateway that TASKMESH_URL names, if it names one. */
async function checkGateway(env: Environment): Promise<Finding[]> {
  const url = env["TASKMESH_URL"];
  if (!url) return [];
  const { list, add } = findingsOf("gateway");
  try {
    const before = Date.now();
    const answer = await fetch(new URL("/readyz", url), { signal: AbortSignal.timeout(gatewayPatienceMs) });
    const notReady = { level: "fail", fix: "See its log: it reaches no coordinator." } as const;
    add("readiness", `HTTP ${answer.status}`, !answer.ok && notReady);
    const skewMs = Date.parse(answer.headers.get("date") ?? "") - before;
    const fix = "Synchronise the clocks (NTP).";
    const off = Math.abs(skewMs) > gatewaySkewMaxMs && ({ level: "warn", fix } as const);
    if (!Number.isNaN(skewMs)) add("clock against this machine", `${Math.round(skewMs / 1000)} s`, off);
  } catch (error) {
    const found = `can't be reached: ${(error as Error).message}`;
    add("readiness", found, { level: "fail", fix: "Start it, or correct TASKMESH_URL." });
  }
  return list;
}

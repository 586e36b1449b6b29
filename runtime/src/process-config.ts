/**
 * The configuration of each process, read from its settings and checked as a whole.
 *
 * Closed by default: an address that other machines can reach is refused unless a bearer token or client certificates guard it.
 */
import { ConfigError, type ConfigFault, type Environment, misspeltVariables, readSettings } from "./config.js";
import { readPem, type ServerTls, type TokenSource } from "./credentials.js";
import type { LogThreshold } from "./log.js";
import { type Address, formatAddress, isLoopback } from "./setting-kinds.js";
import { allSettings, clientSettings, coordinatorSettings, gatewaySettings, tokenFix } from "./settings.js";

/** A token that guards an address which other machines can reach must not be guessable. */
const publicTokenCharsMin = 16;

/** How to reach a server: what `createChannel` takes. */
export interface ClientConfig {
  addresses: Address[];
  token?: string;
  tls?: { ca?: string; cert?: string; key?: string };
  namespace: string;
}

/** What every server has. */
export interface ServerConfig {
  tls?: ServerTls;
  tokens: TokenSource;
  logLevel: LogThreshold;
  stopTimeoutMs: number;
  /** Absent: no probes are answered. */
  healthAddress?: Address;
  /** What is odd but allowed, for the log. */
  warnings: string[];
}

export interface CoordinatorConfig extends ServerConfig {
  /** Absent in embedded mode. */
  databaseUrl?: string;
  /** Absent in embedded mode. */
  nats?: {
    servers: string[];
    /** As workers reach them, where that differs. */
    workerServers?: string[];
    /** Text of a .creds file. */
    credentials?: string;
    /** Of the account or of one of its signing keys. */
    accountSeed?: string;
    /** Public key of the account, where the seed is a signing key's. */
    accountId?: string;
    /** Copies of the streams; default 1. */
    replicas?: number;
  };
  /** Start on a database that loses what it confirmed. Default false. */
  allowUnsafeDatabase?: boolean;
  grpcAddress: Address;
  /** Where the gateways are reached from outside, without a slash at its end. */
  publicUrl: string;
  /** Absent: no metrics are served. */
  metricsAddress?: Address;
  namespaces: string[];
}

export interface GatewayConfig extends ServerConfig {
  httpAddress: Address;
  coordinator: Omit<ClientConfig, "namespace">;
  namespaces: string[];
}

/**
 * The configuration of a coordinator. `embedded`: database and NATS are brought along, so their variables are not read.
 * @throws ConfigError with every fault.
 */
export function coordinatorConfig(env: Environment, options: { embedded?: boolean } = {}): CoordinatorConfig {
  const { databaseUrl, allowUnsafeDatabase, ...rest } = coordinatorSettings;
  const { natsServers, natsWorkerServers, natsCredentials, natsAccountSeed, natsAccountId, natsReplicas, ...own } =
    rest;
  const nats = { natsServers, natsWorkerServers, natsCredentials, natsAccountSeed, natsAccountId, natsReplicas };
  const outside = { databaseUrl, allowUnsafeDatabase, ...nats };
  const base = readSettings(own, env);
  const stores = options.embedded ? undefined : readSettings(outside, env);
  const { values } = base;
  const server = readServer(values, env);
  const faults = [...base.faults, ...(stores?.faults ?? []), ...server.faults];
  faults.push(...guard(coordinatorSettings.grpcAddress.variable, values.grpcAddress, server.config));
  const metricsAddress = values.metricsAddress === "off" ? undefined : values.metricsAddress;
  faults.push(...guard(coordinatorSettings.metricsAddress.variable, metricsAddress, server.config));
  if (stores) faults.push(...guardNats(stores.values));
  if (faults.length > 0) throw new ConfigError(faults);
  return {
    ...server.config,
    ...(stores ? toStores(stores.values) : {}),
    grpcAddress: values.grpcAddress,
    ...(metricsAddress ? { metricsAddress } : {}),
    namespaces: [...new Set(values.namespaces)],
    publicUrl: values.publicUrl.replace(/\/+$/, ""),
  };
}

/**
 * The configuration of a gateway.
 * @throws ConfigError with every fault.
 */
export function gatewayConfig(env: Environment): GatewayConfig {
  const { values, faults } = readSettings(gatewaySettings, env);
  const server = readServer(values, env);
  faults.push(...server.faults, ...guard(gatewaySettings.httpAddress.variable, values.httpAddress, server.config));
  const pair = { cert: values.coordinatorCert, key: values.coordinatorKey };
  faults.push(...halfPair("TASKMESH_COORDINATOR_TLS_CERT", "TASKMESH_COORDINATOR_TLS_KEY", pair));
  if (faults.length > 0) throw new ConfigError(faults);
  const token = values.coordinatorTokens?.[0] ?? values.tokens?.[0];
  return {
    ...server.config,
    httpAddress: values.httpAddress,
    coordinator: {
      addresses: values.addresses,
      ...(token ? { token } : {}),
      ...clientTls({ ca: values.coordinatorCa, ...pair }),
    },
    namespaces: [...new Set(values.namespaces)],
  };
}

/**
 * How a worker or another client reaches a coordinator.
 * @throws ConfigError with every fault.
 */
export function clientConfig(env: Environment): ClientConfig {
  const { values, faults } = readSettings(clientSettings, env);
  const pair = { cert: values.tlsCert, key: values.tlsKey };
  faults.push(...halfPair("TASKMESH_TLS_CERT", "TASKMESH_TLS_KEY", pair));
  if (faults.length > 0) throw new ConfigError(faults);
  return {
    addresses: values.addresses,
    ...(values.tokens?.[0] ? { token: values.tokens[0] } : {}),
    ...clientTls({ ca: values.tlsCa, ...pair }),
    namespace: values.namespace,
  };
}

function clientTls(paths: { ca?: string | undefined; cert?: string | undefined; key?: string | undefined }): {
  tls?: NonNullable<ClientConfig["tls"]>;
} {
  const { ca, cert, key } = paths;
  // A certificate beside a plain connection means nothing; what turns TLS on is one of these files.
  if (!ca && !cert) return {};
  return {
    tls: {
      ...(ca ? { ca: readPem(ca) } : {}),
      ...(cert && key ? { cert: readPem(cert), key: readPem(key) } : {}),
    },
  };
}

interface ServerValues {
  tokens?: string[] | undefined;
  tlsCert?: string | undefined;
  tlsKey?: string | undefined;
  tlsClientCa?: string | undefined;
  stopTimeoutSeconds: number;
  healthAddress: Address | "off";
  logLevel: LogThreshold;
}

function readServer(values: ServerValues, env: Environment): { config: ServerConfig; faults: ConfigFault[] } {
  const { tlsCert, tlsKey, tlsClientCa } = values;
  const faults = halfPair("TASKMESH_TLS_CERT", "TASKMESH_TLS_KEY", { cert: tlsCert, key: tlsKey });
  if (tlsClientCa && !tlsCert) {
    const fix = "Set TASKMESH_TLS_CERT and TASKMESH_TLS_KEY too.";
    faults.push({ variable: "TASKMESH_TLS_CLIENT_CA", problem: "is set, but TLS is off", fix });
  }
  const path = env["TASKMESH_TOKEN_FILE"]?.trim();
  const config: ServerConfig = {
    tokens: { tokens: values.tokens ?? [], ...(path && values.tokens ? { file: path } : {}) },
    logLevel: values.logLevel,
    stopTimeoutMs: values.stopTimeoutSeconds * 1000,
    ...(values.healthAddress === "off" ? {} : { healthAddress: values.healthAddress }),
    warnings: misspeltVariables(allSettings, env),
  };
  if (tlsCert && tlsKey && faults.length === 0) {
    config.tls = {
      cert: readPem(tlsCert),
      key: readPem(tlsKey),
      ...(tlsClientCa ? { clientCa: readPem(tlsClientCa) } : {}),
    };
  }
  return { config, faults };
}

function halfPair(
  certVariable: string,
  keyVariable: string,
  pair: { cert?: string | undefined; key?: string | undefined },
): ConfigFault[] {
  if (!pair.cert === !pair.key) return [];
  const [set, missing] = pair.cert ? [certVariable, keyVariable] : [keyVariable, certVariable];
  return [{ variable: missing, problem: `is not set, but ${set} is`, fix: "Set both, or neither." }];
}

/** Refuses an address that other machines can reach and nothing guards; warns where a token would travel in the clear. */
export function guard(
  variable: string,
  bound: Address | undefined,
  server: Pick<ServerConfig, "tokens" | "tls" | "warnings">,
): ConfigFault[] {
  if (!bound || isLoopback(bound.host)) return [];
  const shown = formatAddress(bound);
  const fix = "Bind 127.0.0.1, or set TASKMESH_TOKEN_FILE, or TASKMESH_TLS_CERT, _KEY and _CLIENT_CA.";
  if (server.tls?.clientCa) return [];
  if (server.tokens.tokens.length === 0) {
    return [{ variable, problem: `${shown} can be reached from other machines, and nothing guards it`, fix }];
  }
  if (server.tokens.tokens.some((token) => token.length < publicTokenCharsMin)) {
    const problem = `${shown} can be reached from other machines, and a token has fewer than ${publicTokenCharsMin} characters`;
    return [{ variable, problem, fix: tokenFix }];
  }
  if (!server.tls) server.warnings.push(`${variable}: ${shown} is served without TLS; tokens travel in the clear`);
  return [];
}

interface NatsValues {
  natsReplicas: number;
  natsServers: string[];
  natsWorkerServers?: string[] | undefined;
  natsCredentials?: string | undefined;
  natsAccountSeed?: string | undefined;
  natsAccountId?: string | undefined;
}

const toStores = (values: NatsValues & { databaseUrl: string; allowUnsafeDatabase: boolean }) => ({
  databaseUrl: values.databaseUrl,
  allowUnsafeDatabase: values.allowUnsafeDatabase,
  nats: toNats(values),
});

function toNats(values: NatsValues): NonNullable<CoordinatorConfig["nats"]> {
  const { natsServers, natsWorkerServers, natsCredentials, natsAccountSeed, natsAccountId, natsReplicas } = values;
  return {
    servers: natsServers,
    replicas: natsReplicas,
    ...(natsWorkerServers ? { workerServers: natsWorkerServers } : {}),
    ...(natsCredentials ? { credentials: natsCredentials } : {}),
    ...(natsAccountSeed ? { accountSeed: natsAccountSeed } : {}),
    ...(natsAccountId ? { accountId: natsAccountId } : {}),
  };
}

/** A NATS server that workers reach without credentials of their own lets anyone act as a worker: accepted on this machine only. */
function guardNats(nats: Partial<NatsValues>): ConfigFault[] {
  if (nats.natsAccountSeed) {
    if (nats.natsCredentials) return [];
    const problem = "is not set, but NATS_ACCOUNT_SEED is";
    return [
      { variable: "NATS_CREDENTIALS", problem, fix: "Set NATS_CREDENTIALS_FILE to the coordinator's .creds file." },
    ];
  }
  const named = [
    ...(nats.natsServers ?? []).map((server) => ({ variable: "NATS_URL", server })),
    ...(nats.natsWorkerServers ?? []).map((server) => ({ variable: "NATS_WORKER_URL", server })),
  ];
  return named.flatMap(({ variable, server }) => {
    const { hostname, host } = new URL(server);
    if (isLoopback(hostname.replace(/^\[|\]$/g, ""))) return [];
    const problem = `${host} is on another machine, and workers would need no credentials there`;
    const fix = "Run nats-server in operator mode and set NATS_ACCOUNT_SEED_FILE and NATS_CREDENTIALS_FILE.";
    return [{ variable, problem, fix }];
  });
}

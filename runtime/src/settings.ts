/**
 * The settings of each process: variable, form, default and meaning. Everything listens on loopback unless told otherwise;
 * process-config.ts reads the tables and refuses what would be open.
 */

import { type Settings, settingsHelp } from "./config.js";
import { tokenList } from "./credentials.js";
import { type LogThreshold, logLevels } from "./log.js";
import {
  address,
  addressOrOff,
  defaulted,
  file,
  flag,
  integer,
  type Kind,
  list,
  oneOf,
  optional,
  required,
  text,
  url,
} from "./setting-kinds.js";

/** Where a coordinator listens for gRPC unless told otherwise. */
export const defaultGrpcAddress = "127.0.0.1:7400";
/** Where a gateway listens for HTTP unless told otherwise. */
export const defaultHttpAddress = "127.0.0.1:7480";
/** Where a coordinator serves GET /metrics unless told otherwise. */
export const defaultMetricsAddress = "127.0.0.1:7490";
const namespaceName: Kind<string> = {
  form: "name",
  schema: text().schema.refine(
    (name: string) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(name),
    "is no namespace name (1 to 63 lower-case letters, digits and inner hyphens)",
  ) as Kind<string>["schema"],
};

/** How to put a wrong token right. */
export const tokenFix = "Make one with `openssl rand -hex 32`.";
const tokenSetting = { variable: "TASKMESH_TOKEN", secret: true, fix: tokenFix };

const logSettings = {
  logLevel: defaulted<LogThreshold>(
    { variable: "TASKMESH_LOG_LEVEL", doc: "Least severe level that is logged. Logs are JSON lines on stderr." },
    oneOf(logLevels),
    "info",
  ),
};

/** What orchestrators probe; each process that has it answers for itself. */
const healthAddress = defaulted(
  {
    variable: "TASKMESH_HEALTH_ADDRESS",
    doc: "Where GET /livez and GET /readyz are answered for an orchestrator's probes, without TLS and credentials; `off` answers none.",
  },
  addressOrOff(),
  "off",
);

const serverSettings = {
  healthAddress,
  tokens: optional(
    {
      ...tokenSetting,
      doc: "Bearer tokens that callers and workers may use: one a line, any of them is accepted, and the file is read again when it changes.",
    },
    tokenList(),
  ),
  tlsCert: optional(
    {
      variable: "TASKMESH_TLS_CERT",
      doc: "Certificate chain of this process (PEM). With TASKMESH_TLS_KEY it turns TLS on.",
    },
    file(),
  ),
  tlsKey: optional({ variable: "TASKMESH_TLS_KEY", doc: "Private key of the certificate (PEM)." }, file()),
  tlsClientCa: optional(
    {
      variable: "TASKMESH_TLS_CLIENT_CA",
      doc: "Certificate authority of clients (PEM). Every client must then show a certificate of it (mTLS), which also stands for a token.",
    },
    file(),
  ),
  stopTimeoutSeconds: defaulted(
    {
      variable: "TASKMESH_STOP_TIMEOUT_SECONDS",
      doc: "Longest time that a clean stop may take after SIGTERM before the process ends anyway.",
    },
    integer("seconds", 1, 3600),
    "30",
  ),
};

/** What a worker, the command line and a gateway need to reach a server. */
export const clientSettings = {
  addresses: defaulted(
    { variable: "TASKMESH_ADDRESS", doc: "Addresses of the coordinators (gRPC)." },
    list(address()),
    defaultGrpcAddress,
  ),
  tokens: optional({ ...tokenSetting, doc: "Bearer token to show; the first line of the file counts." }, tokenList()),
  tlsCa: optional(
    {
      variable: "TASKMESH_TLS_CA",
      doc: "Certificate authority that the server is checked against (PEM); turns TLS on.",
    },
    file(),
  ),
  tlsCert: optional({ variable: "TASKMESH_TLS_CERT", doc: "Client certificate to show (PEM)." }, file()),
  tlsKey: optional({ variable: "TASKMESH_TLS_KEY", doc: "Private key of the client certificate (PEM)." }, file()),
  namespace: defaulted({ variable: "TASKMESH_NAMESPACE", doc: "Namespace to work in." }, namespaceName, "default"),
};

/** Settings of `npm run mesh`'s coordinator and of every coordinator with servers of its own. */
export const coordinatorSettings = {
  databaseUrl: required(
    {
      variable: "DATABASE_URL",
      secret: true,
      doc: "Postgres 15 or newer, where all state lives.",
      fix: "Set DATABASE_URL=postgres://user:password@host:5432/database (or start the embedded mesh: npx taskmesh dev).",
    },
    url("postgres", "postgresql"),
  ),
  natsServers: required(
    {
      variable: "NATS_URL",
      secret: true,
      doc: "NATS server 2.9 or newer with JetStream, which carries work.",
      fix: "Set NATS_URL=nats://host:4222 (or start the embedded mesh: npx taskmesh dev).",
    },
    list(url("nats", "tls")),
  ),
  natsWorkerServers: optional(
    {
      variable: "NATS_WORKER_URL",
      doc: "NATS servers as workers reach them, if their addresses differ from NATS_URL's.",
    },
    list(url("nats", "tls")),
  ),
  natsCredentials: optional(
    { variable: "NATS_CREDENTIALS", secret: true, doc: "User credentials of the coordinator (a .creds file)." },
    text("text of a .creds file"),
  ),
  natsAccountSeed: optional(
    {
      variable: "NATS_ACCOUNT_SEED",
      secret: true,
      doc: "Seed of the NATS account's signing key: workers then get credentials of at most an hour that reach only their own subjects.",
    },
    text("NKey seed, SA…"),
  ),
  natsAccountId: optional(
    {
      variable: "NATS_ACCOUNT_ID",
      doc: "Public key of the NATS account, needed where NATS_ACCOUNT_SEED is that of a signing key.",
    },
    text("public NKey, A…"),
  ),
  natsReplicas: defaulted(
    {
      variable: "NATS_REPLICAS",
      doc: "Copies of the streams in a NATS cluster: 3 survive the loss of one server. Streams that exist are changed at the start.",
    },
    integer("copies", 1, 5),
    "1",
  ),
  allowUnsafeDatabase: defaulted(
    {
      variable: "TASKMESH_ALLOW_UNSAFE_DATABASE",
      doc: "Starts also on a Postgres that loses commits it has confirmed (fsync, full_page_writes or synchronous_commit off). For throw-away data only.",
    },
    flag(),
    "false",
  ),
  grpcAddress: defaulted(
    { variable: "TASKMESH_GRPC_ADDRESS", doc: "Where gRPC is served: callers, workers, gateways." },
    address(),
    defaultGrpcAddress,
  ),
  metricsAddress: defaulted(
    { variable: "TASKMESH_METRICS_ADDRESS", doc: "Where GET /metrics is served for Prometheus; `off` serves none." },
    addressOrOff(),
    defaultMetricsAddress,
  ),
  namespaces: defaulted(
    { variable: "TASKMESH_NAMESPACES", doc: "Namespaces that exist; missing ones are made at the start." },
    list(namespaceName),
    "default",
  ),
  publicUrl: defaulted(
    {
      variable: "TASKMESH_PUBLIC_URL",
      doc: "Where the gateways are reached by services outside: URLs of callbacks begin with it. Embedded: the gateway's own address.",
    },
    url("http", "https"),
    "http://127.0.0.1:7480",
  ),
  ...serverSettings,
  ...logSettings,
};

/** Settings of a gateway. */
export const gatewaySettings = {
  httpAddress: defaulted(
    { variable: "TASKMESH_HTTP_ADDRESS", doc: "Where the REST API is served." },
    address(),
    defaultHttpAddress,
  ),
  addresses: clientSettings.addresses,
  coordinatorTokens: optional(
    {
      variable: "TASKMESH_COORDINATOR_TOKEN",
      secret: true,
      doc: "Bearer token to show to coordinators; default: the first of TASKMESH_TOKEN.",
    },
    tokenList(),
  ),
  coordinatorCa: optional(
    {
      variable: "TASKMESH_TLS_CA",
      doc: "Certificate authority that coordinators are checked against (PEM); turns TLS to them on.",
    },
    file(),
  ),
  coordinatorCert: optional(
    { variable: "TASKMESH_COORDINATOR_TLS_CERT", doc: "Client certificate to show to coordinators (PEM)." },
    file(),
  ),
  coordinatorKey: optional(
    { variable: "TASKMESH_COORDINATOR_TLS_KEY", doc: "Private key of that certificate (PEM)." },
    file(),
  ),
  namespaces: defaulted(
    { variable: "TASKMESH_NAMESPACES", doc: "Namespaces to serve; the first is the one of requests that name none." },
    list(namespaceName),
    "default",
  ),
  ...serverSettings,
  ...logSettings,
};

/** Variables of the OpenTelemetry standard that are honoured. */
export const telemetrySettings = {
  endpoint: optional(
    { variable: "OTEL_EXPORTER_OTLP_ENDPOINT", doc: "Where spans go (OTLP over HTTP); without it tracing is off." },
    url("http", "https"),
  ),
  tracesEndpoint: optional(
    {
      variable: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
      doc: "The same for spans alone, as the full URL; beats the one above.",
    },
    url("http", "https"),
  ),
  headers: optional(
    { variable: "OTEL_EXPORTER_OTLP_HEADERS", doc: "Headers of the export, such as a collector's key." },
    text("name=value, several with commas between"),
  ),
  serviceName: optional({ variable: "OTEL_SERVICE_NAME", doc: "Name of this process in traces." }, text("name")),
  resource: optional(
    { variable: "OTEL_RESOURCE_ATTRIBUTES", doc: "Further attributes of this process." },
    text("name=value, several with commas between"),
  ),
  sampler: defaulted(
    { variable: "OTEL_TRACES_SAMPLER", doc: "Which traces are recorded." },
    oneOf([
      "always_on",
      "always_off",
      "traceidratio",
      "parentbased_always_on",
      "parentbased_always_off",
      "parentbased_traceidratio",
    ]),
    "parentbased_always_on",
  ),
  samplerArg: optional(
    { variable: "OTEL_TRACES_SAMPLER_ARG", doc: "Share of traces that the ratio samplers record." },
    text("0 to 1"),
  ),
  disabled: defaulted(
    { variable: "OTEL_SDK_DISABLED", doc: "Turns tracing off whatever else is set." },
    oneOf(["true", "false"]),
    "false",
  ),
};

/** Variables that other packages read (action-sdk, actions, cli): here so that they are listed, and not taken for misspelt ones. */
const elsewhere = {
  worker: {
    slots: defaulted(
      { variable: "TASKMESH_SLOTS", doc: "Attempts of one task queue that a worker runs at once." },
      integer("slots", 1, 10_000),
      "10",
    ),
    drainTimeoutSeconds: defaulted(
      {
        variable: "TASKMESH_DRAIN_TIMEOUT_SECONDS",
        doc: "Time that attempts in flight have to end after SIGTERM; then their signals abort, and other workers get them.",
      },
      integer("seconds", 0, 86_400),
      "30",
    ),
    healthAddress,
    metricsAddress: defaulted(
      {
        variable: "TASKMESH_WORKER_METRICS_ADDRESS",
        doc: "Where a worker serves GET /metrics for Prometheus, to whoever shows the worker's own token if it has one; `off` serves none.",
      },
      addressOrOff(),
      "off",
    ),
  },
  builtins: {
    httpAllow: optional(
      {
        variable: "TASKMESH_HTTP_ALLOW",
        doc: "Hosts and networks that are not public and that HTTP actions may reach all the same.",
      },
      list(text("CIDR or host name")),
    ),
  },
  commandLine: {
    url: defaulted(
      { variable: "TASKMESH_URL", doc: "Base URL of the gateway." },
      url("http", "https"),
      `http://${defaultHttpAddress}`,
    ),
  },
};

/** Every table, by the process that reads it. */
export const settingsTables = {
  Coordinator: coordinatorSettings,
  Gateway: gatewaySettings,
  "Workers and the command line": clientSettings,
  "Workers alone": elsewhere.worker,
  "The command line alone": elsewhere.commandLine,
  "Built-in actions": elsewhere.builtins,
  Tracing: telemetrySettings,
} as const satisfies Record<string, Settings>;

/** The `--help` text of a process that reads these tables: every variable with form, unit, default and meaning. */
export function roleHelp(about: string, roles: readonly (keyof typeof settingsTables)[]): string {
  const sections = roles.map((role) => `${role}:\n${settingsHelp(settingsTables[role])}`);
  return `${about} Its settings are environment variables.\n\n${sections.join("\n\n")}\n`;
}

/** All of them. */
export const allSettings: readonly Settings[] = Object.values(settingsTables);

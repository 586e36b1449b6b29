/**
 * Options of a worker: what the program says beats the environment, the environment beats the defaults, and all faults are
 * reported at once, each under the name that the program or the operator used.
 */
import { hostname } from "node:os";
import { TransportKind } from "@taskmesh/proto";
import {
  type Address,
  type Carrier,
  type ClientConfig,
  ConfigError,
  type ConfigFault,
  clientConfig,
  createLogger,
  type Environment,
  guard,
  type Logger,
  readSettings,
  settingsTables,
} from "@taskmesh/runtime";
import { compileChecks } from "./checks.js";
import type { AnyAction } from "./define.js";
import { type Descriptors, parseDescriptors } from "./descriptors.js";
import type { ActionChecks } from "./perform.js";

/** How work may reach a worker: straight from JetStream, or relayed by the coordinator over gRPC. */
export type TransportName = "jetstream" | "relay";

/** Options of `startWorker`. */
export interface WorkerOptions {
  /** The contracts: an encoded google.protobuf.FileDescriptorSet, or the same as base64, as `taskmesh gen` writes it. At most 4 MiB. */
  descriptors: Descriptors;
  /** The actions to serve, at least one. */
  actions: readonly AnyAction[];
  /** `host:port` of a coordinator, or several to choose from. Default: TASKMESH_ADDRESS, else 127.0.0.1:7400. */
  address?: string | readonly string[];
  /** Namespace to work in. Default: TASKMESH_NAMESPACE, else `default`. */
  namespace?: string;
  /** Task queue for every action that names none itself. Default: the full name of the action's service. */
  taskQueue?: string;
  /** Attempts of one task queue that run at once, 1 to 10,000. Default: TASKMESH_SLOTS, else 10. */
  slots?: number;
  /** Shown beside the worker in the catalogue; at most 32. Default: none. */
  labels?: Readonly<Record<string, string>>;
  /** Version of the worker program, shown in the catalogue. Default: empty. */
  version?: string;
  /** Bearer token. Default: TASKMESH_TOKEN, or the file that TASKMESH_TOKEN_FILE names; else none. */
  token?: string;
  /** PEM texts: `ca` checks the coordinator and turns TLS on; `cert` and `key` are shown to it. Default: the files of TASKMESH_TLS_CA, _CERT, _KEY. */
  tls?: { ca?: string; cert?: string; key?: string };
  /** Transports that the worker may use, best first. Default: `["jetstream", "relay"]`. */
  transports?: readonly TransportName[];
  /** `host:port` where GET /metrics is served, or `off`. Default: TASKMESH_WORKER_METRICS_ADDRESS, else `off`. */
  metricsAddress?: string;
  /** Milliseconds that work in flight has to end after SIGTERM, SIGINT or `stop()`. Then its signals abort. Default: TASKMESH_DRAIN_TIMEOUT_SECONDS, else 30,000. */
  drainTimeoutMs?: number;
  /**
   * `host:port` where GET /livez and GET /readyz are answered for an orchestrator's probes, or `off`. Workers of one process that name the
   * same address share it. Default: TASKMESH_HEALTH_ADDRESS, else `off`.
   */
  healthAddress?: string;
  /** Whether SIGTERM and SIGINT drain the worker and then end the process with code 0. Default true. */
  handleSignals?: boolean;
  /** Prints nothing on stdout. Default false: one line per action is printed when the registration holds. */
  quiet?: boolean;
  /** Where the worker logs. Default: JSON lines on stderr. */
  logger?: Logger;
  /** Gives up starting, and stops the worker later, when it aborts. */
  signal?: AbortSignal;
  /** The mesh that this process embeds: work then comes from it directly. Set by the embedded mode, not by programs. */
  carrier?: Carrier;
}

/** One task queue with what it serves. */
export interface QueuePlan {
  taskQueue: string;
  methods: string[];
}

/** An action with what is compiled for it. */
export interface ServedAction {
  action: AnyAction;
  checks: ActionChecks;
  taskQueue: string;
}

/** Options, complete and checked. */
export interface WorkerConfig {
  client: ClientConfig;
  slots: number;
  /** Undefined: no metrics are served. */
  metricsAddress: Address | undefined;
  actions: ReadonlyMap<string, ServedAction>;
  queues: readonly QueuePlan[];
  descriptorSet: Uint8Array;
  transports: readonly TransportKind[];
  labels: Readonly<Record<string, string>>;
  version: string;
  host: string;
  drainTimeoutMs: number;
  /** Absent: no probes are answered. */
  healthAddress: Address | undefined;
  handleSignals: boolean;
  quiet: boolean;
  log: Logger;
  signal: AbortSignal | undefined;
  carrier: Carrier | undefined;
}

/** Completes and checks the options. Throws a ConfigError that lists every fault. */
export function resolveOptions(options: WorkerOptions, env: Environment = process.env): WorkerConfig {
  const faults: ConfigFault[] = [];
  const outside = readOutside(options, env, faults);
  const served = serveActions(options, faults);
  checkNumbers(options, faults);
  if (faults.length > 0 || !outside) throw new ConfigError(faults);
  const { client, slots, drainTimeoutMs, healthAddress, metricsAddress } = outside;
  return {
    client,
    slots,
    ...served,
    transports: options.carrier
      ? [TransportKind.TRANSPORT_KIND_MEMORY]
      : (options.transports ?? ["jetstream", "relay"]).map((name) => transportKinds[name]),
    labels: options.labels ?? {},
    version: options.version ?? "",
    host: hostname(),
    drainTimeoutMs: options.drainTimeoutMs ?? drainTimeoutMs,
    // An embedded worker is part of a process that answers for itself.
    healthAddress: options.carrier ? undefined : healthAddress,
    metricsAddress: options.carrier ? undefined : metricsAddress,
    handleSignals: options.handleSignals ?? true,
    quiet: options.quiet ?? false,
    log: options.logger ?? createLogger("worker"),
    signal: options.signal,
    carrier: options.carrier,
  };
}

const transportKinds: Record<TransportName, TransportKind> = {
  jetstream: TransportKind.TRANSPORT_KIND_JETSTREAM,
  relay: TransportKind.TRANSPORT_KIND_RELAY,
};

const workerSettings = settingsTables["Workers alone"];

/** What may come from the environment. */
interface Outside {
  client: ClientConfig;
  slots: number;
  drainTimeoutMs: number;
  healthAddress: Address | undefined;
  metricsAddress: Address | undefined;
}

/**
 * What the environment may say too. An option is laid over the environment under its variable, so both pass the same checks; a fault
 * is then reported under the option's name.
 */
function readOutside(options: WorkerOptions, env: Environment, faults: ConfigFault[]): Outside | undefined {
  const { address, tls } = options;
  const given: [option: string, variable: string, text: string | undefined][] = [
    ["address", "TASKMESH_ADDRESS", typeof address === "string" ? address : address?.join(",")],
    ["namespace", "TASKMESH_NAMESPACE", options.namespace],
    ["token", "TASKMESH_TOKEN", options.token],
    ["slots", "TASKMESH_SLOTS", options.slots === undefined ? undefined : String(options.slots)],
    ["healthAddress", "TASKMESH_HEALTH_ADDRESS", options.healthAddress],
    ["metricsAddress", "TASKMESH_WORKER_METRICS_ADDRESS", options.metricsAddress],
  ];
  const overlay: Record<string, string | undefined> = { ...env };
  const optionOf = new Map<string, string>();
  for (const [option, variable, text] of given) {
    if (text === undefined) continue;
    overlay[variable] = text;
    delete overlay[`${variable}_FILE`];
    optionOf.set(variable, option);
  }
  if (tls) for (const name of ["CA", "CERT", "KEY"]) delete overlay[`TASKMESH_TLS_${name}`];
  const found: ConfigFault[] = [];
  const client = attemptConfig(overlay, found);
  const worker = readSettings(workerSettings, overlay);
  found.push(...worker.faults);
  if (client && worker.faults.length === 0) found.push(...guardMetrics(worker.values.metricsAddress, client));
  if (tls && !tls.cert !== !tls.key) {
    found.push({ variable: "tls", problem: "has only one of cert and key", fix: "Give both, or neither." });
  }
  for (const fault of found) {
    const option = optionOf.get(fault.variable);
    const { variable, fix } = fault;
    faults.push(option ? { ...fault, variable: option, fix: fix.replace(variable, `the option ${option}`) } : fault);
  }
  if (!client || found.length > 0) return undefined;
  const { slots, drainTimeoutSeconds, healthAddress, metricsAddress } = worker.values;
  return {
    client: tls ? { ...client, tls } : client,
    slots,
    drainTimeoutMs: drainTimeoutSeconds * 1_000,
    healthAddress: healthAddress === "off" ? undefined : healthAddress,
    metricsAddress: metricsAddress === "off" ? undefined : metricsAddress,
  };
}

/** Metrics tell outsiders of the work: who can reach them from elsewhere must show the worker's token. */
function guardMetrics(address: Address | "off", { token }: ClientConfig): ConfigFault[] {
  const { variable } = workerSettings.metricsAddress;
  const served = address === "off" ? undefined : address;
  const faults = guard(variable, served, { tokens: { tokens: token ? [token] : [] }, warnings: [] });
  return faults.map((fault) => ({ ...fault, fix: "Bind 127.0.0.1, or give the worker a token of 32 characters." }));
}

function attemptConfig(env: Environment, faults: ConfigFault[]): ClientConfig | undefined {
  try {
    return clientConfig(env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    faults.push(...error.faults);
    return undefined;
  }
}

function serveActions(
  options: WorkerOptions,
  faults: ConfigFault[],
): Pick<WorkerConfig, "actions" | "queues" | "descriptorSet"> {
  const actions = new Map<string, ServedAction>();
  const queues = new Map<string, QueuePlan>();
  let descriptorSet: Uint8Array = new Uint8Array();
  const fault = (variable: string, problem: string, fix: string): void => void faults.push({ variable, problem, fix });
  const regenerate = "Generate them again with `taskmesh gen`.";
  let registry: ReturnType<typeof parseDescriptors>["registry"] | undefined;
  try {
    ({ registry, bytes: descriptorSet } = parseDescriptors(options.descriptors));
  } catch (error) {
    fault("descriptors", (error as Error).message, regenerate);
  }
  if (options.actions.length === 0) fault("actions", "is empty", "Give at least one action made by defineAction.");
  for (const action of options.actions) {
    const { method } = action;
    if (actions.has(method)) fault("actions", `has ${method} twice`, "Keep one of them.");
    const taskQueue = action.options.taskQueue ?? options.taskQueue ?? action.service;
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(taskQueue)) {
      fault(
        "taskQueue",
        `${JSON.stringify(taskQueue)} is no queue name`,
        "Use letters, digits, dots, dashes, underscores.",
      );
    }
    if (!registry) continue;
    try {
      actions.set(method, { action, checks: compileChecks(registry, method), taskQueue });
    } catch (error) {
      fault("descriptors", (error as Error).message, regenerate);
    }
    checkUpcasters(action, faults);
    const queue = queues.get(taskQueue) ?? { taskQueue, methods: [] };
    queue.methods.push(method);
    queues.set(taskQueue, queue);
  }
  return { actions, queues: [...queues.values()], descriptorSet };
}

function checkUpcasters({ method, options }: AnyAction, faults: ConfigFault[]): void {
  for (const { from } of options.upcasters ?? []) {
    if (/^[0-9a-f]{64}$/.test(from)) continue;
    const problem = `of ${method} have ${JSON.stringify(from)}, which is no fingerprint of a revision`;
    faults.push({
      variable: "upcasters",
      problem,
      fix: "Give the 64 hex digits that `taskmesh actions describe` shows.",
    });
  }
}

function checkNumbers(options: WorkerOptions, faults: ConfigFault[]): void {
  const { drainTimeoutMs, transports } = options;
  if (drainTimeoutMs !== undefined && !(drainTimeoutMs >= 0 && drainTimeoutMs <= 86_400_000)) {
    const fix = "Give milliseconds from 0 to 86,400,000 (a day).";
    faults.push({ variable: "drainTimeoutMs", problem: `${drainTimeoutMs} is out of bounds`, fix });
  }
  if (transports && (transports.length === 0 || transports.some((name) => transportKinds[name] === undefined))) {
    const problem = `${JSON.stringify(transports)} is no list of transports`;
    faults.push({ variable: "transports", problem, fix: 'Give one or both of "jetstream" and "relay".' });
  }
}

/**
 * Turns tracing on if the environment asks for it. The OpenTelemetry SDK is loaded only then: it costs start-up time and memory.
 */
import {
  context,
  DiagLogLevel,
  diag,
  type ProxyTracerProvider,
  propagation,
  type TracerProvider,
  trace,
} from "@opentelemetry/api";
import type { IdGenerator } from "@opentelemetry/sdk-trace-node";
import type { Environment } from "./config.js";
import { createLogger } from "./log.js";
import { setTracing } from "./telemetry.js";

export interface Telemetry {
  /** Sends what is left, at most 5 s, and turns tracing off. Safe to repeat. */
  stop(): Promise<void>;
}

/** Spans that can't be sent are lost rather than keep a process from ending. */
const stopMsMax = 5_000;
/** An unreachable collector is worth a line now and then, not one for each batch. */
const exportWarningMs = 60_000;

let shared: Promise<Telemetry> | undefined;
let users = 0;

/**
 * Starts tracing for a process called `serviceName` (OTEL_SERVICE_NAME beats it). Off without an OTLP endpoint, with
 * OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none. A tracer provider that the program has registered itself is used as it is.
 * Several parts of a process may start it: the first one names it, and it ends with the last `stop`.
 */
export async function startTelemetry(serviceName: string, env: Environment = process.env): Promise<Telemetry> {
  users += 1;
  shared ??= begin(serviceName, env);
  const telemetry = await shared;
  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    users -= 1;
    if (users > 0) return;
    shared = undefined;
    await telemetry.stop();
  };
  return {
    stop() {
      stopped ??= stop();
      return stopped;
    },
  };
}

async function begin(serviceName: string, env: Environment): Promise<Telemetry> {
  if (env["OTEL_SDK_DISABLED"]?.toLowerCase() === "true") return off;
  const own = registeredProvider();
  if (own) {
    setTracing(own);
    return { stop: async () => setTracing(undefined) };
  }
  const endpoint = env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] || env["OTEL_EXPORTER_OTLP_ENDPOINT"];
  if (!endpoint || env["OTEL_TRACES_EXPORTER"]?.toLowerCase() === "none") return off;
  return exportTo(serviceName, env);
}

const off: Telemetry = { stop: async () => {} };

function registeredProvider(): TracerProvider | undefined {
  const provider = trace.getTracerProvider();
  const delegate = "getDelegate" in provider ? (provider as ProxyTracerProvider).getDelegate() : provider;
  return delegate.constructor.name === "NoopTracerProvider" ? undefined : delegate;
}

async function exportTo(serviceName: string, env: Environment): Promise<Telemetry> {
  const [sdk, { OTLPTraceExporter }, resources] = await Promise.all([
    import("@opentelemetry/sdk-trace-node"),
    import("@opentelemetry/exporter-trace-otlp-http"),
    import("@opentelemetry/resources"),
  ]);
  const ids: IdGenerator & { next: string | undefined } = Object.assign(new sdk.RandomIdGenerator(), {
    next: undefined,
  });
  const randomSpanId = ids.generateSpanId;
  ids.generateSpanId = () => ids.next ?? randomSpanId();
  const named = resources.resourceFromAttributes({
    "service.name": env["OTEL_SERVICE_NAME"] || serviceName,
    "service.namespace": "taskmesh",
    "process.pid": process.pid,
  });
  const detected = resources.detectResources({ detectors: [resources.envDetector] });
  const provider = new sdk.NodeTracerProvider({
    // What the operator says beats what we say.
    resource: resources.defaultResource().merge(named).merge(detected),
    idGenerator: ids,
    spanProcessors: [new sdk.BatchSpanProcessor(new OTLPTraceExporter())],
  });
  logExportFailures();
  provider.register();
  setTracing(provider, ids);

  const stop = async (): Promise<void> => {
    setTracing(undefined);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, stopMsMax);
    });
    await Promise.race([provider.shutdown().catch(() => {}), late]);
    clearTimeout(timer);
    trace.disable();
    context.disable();
    propagation.disable();
    diag.disable();
  };
  return { stop };
}

function logExportFailures(): void {
  const log = createLogger("telemetry");
  let lastAt = Number.NEGATIVE_INFINITY;
  const warn = (message: string): void => {
    const at = performance.now();
    if (at - lastAt < exportWarningMs) return;
    lastAt = at;
    log.warn({ detail: message.slice(0, 1000) }, "spans can't be exported");
  };
  const ignore = (): void => {};
  diag.setLogger({ error: warn, warn, info: ignore, debug: ignore, verbose: ignore }, DiagLogLevel.WARN);
}

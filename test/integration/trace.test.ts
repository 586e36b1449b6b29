/**
 * One W3C trace from a REST call through gateway, coordinator, nats-server and worker to the request that the handler makes, spans and
 * links included; and the metrics of all that.
 */
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { defineAction, fail, startWorker, type Worker } from "@taskmesh/action-sdk";
import { type Coordinator, createCoordinator, openPglite } from "@taskmesh/coordinator";
import { type Gateway, startGateway } from "@taskmesh/gateway";
import {
  coordinatorConfig,
  createJetStreamCarrier,
  createLogger,
  formatAddress,
  gatewayConfig,
  setLogLevel,
  startTelemetry,
  type Telemetry,
} from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type NatsFixture, startNats } from "../fixtures/nats.js";
import { PageActionsService, pageDescriptors } from "../fixtures/page-actions.js";

interface SentSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  links?: { traceId: string; spanId: string }[];
  attributes: { key: string; value: { stringValue?: string; intValue?: number } }[];
}

const method = "acme.pages.v1.PageActions/Score";

const spans: SentSpan[] = [];
const outgoing: IncomingHttpHeaders[] = [];
let collector: Server;
let web: Server;
let coordinator: Coordinator;
let gateway: Gateway;
let worker: Worker;
let telemetry: Telemetry;
let nats: NatsFixture;
let pageUrl: string;
/** Attempts of a run that fail before one succeeds. */
let failures = 0;

async function serve(handle: Parameters<typeof createServer>[1] & object): Promise<{ server: Server; url: string }> {
  const server = createServer(handle);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

beforeAll(async () => {
  setLogLevel("silent");
  const sink = await serve((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = JSON.parse(Buffer.concat(chunks).toString());
      for (const { scopeSpans } of body.resourceSpans) for (const scope of scopeSpans) spans.push(...scope.spans);
      response.end("{}");
    });
  });
  collector = sink.server;
  const page = await serve((request, response) => {
    outgoing.push(request.headers);
    response.end("a b c");
  });
  web = page.server;
  pageUrl = page.url;
  nats = await startNats();

  process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink.url;
  telemetry = await startTelemetry("taskmesh-test");
  const env = { TASKMESH_GRPC_ADDRESS: "127.0.0.1:0", TASKMESH_METRICS_ADDRESS: "off" };
  coordinator = createCoordinator(coordinatorConfig(env, { embedded: true }), {
    database: await openPglite(),
    carrier: (coordinatorId) => createJetStreamCarrier({ coordinatorId, servers: [nats.url] }),
  });
  await coordinator.start();
  const address = formatAddress(coordinator.listener.address);
  gateway = await startGateway(gatewayConfig({ TASKMESH_HTTP_ADDRESS: "127.0.0.1:0", TASKMESH_ADDRESS: address }), {
    log: createLogger("gateway", { level: "silent" }),
  });
});

afterAll(async () => {
  await gateway.stop();
  await coordinator.stop();
  await nats.dispose();
  await telemetry.stop();
  delete process.env["OTEL_EXPORTER_OTLP_ENDPOINT"];
  for (const server of [collector, web]) {
    server.closeAllConnections();
    server.close();
  }
});

const serveActions = (transport: "jetstream" | "relay"): Promise<Worker> =>
  startWorker({
    descriptors: pageDescriptors,
    actions: [
      defineAction(PageActionsService.score, async ({ text }, { attempt, trace }) => {
        if (attempt <= failures) throw fail.retryable("TRY_AGAIN", "not yet");
        const answer = await fetch(pageUrl, { headers: trace.headers() });
        return { words: `${text} ${await answer.text()}`.split(" ").length };
      }),
    ],
    address: formatAddress(coordinator.listener.address),
    transports: [transport],
    handleSignals: false,
    quiet: true,
    logger: createLogger("worker", { level: "silent" }),
  });

const call = (headers: Record<string, string>): Promise<Response> =>
  fetch(`${gateway.url}/v1/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ text: "one" }),
  });

const attributeOf = (span: SentSpan, key: string): string | number | undefined => {
  const value = span.attributes.find((one) => one.key === key)?.value;
  return value?.stringValue ?? value?.intValue;
};

describe.each([
  { transport: "jetstream", traceId: "4bf92f3577b34da6a3ce929d0e0e4736" },
  { transport: "relay", traceId: "5bf92f3577b34da6a3ce929d0e0e4737" },
] as const)("a call whose work travels by $transport", ({ transport, traceId }) => {
  beforeAll(async () => {
    worker = await serveActions(transport);
  });
  afterAll(() => worker.stop());

  it("is one trace, in which each attempt is a span and each retry is linked to the attempt before", async () => {
    failures = 1;
    const answer = await call({ traceparent: `00-${traceId}-00f067aa0ba902b7-01` });
    expect(await answer.json()).toEqual({ words: 4 });
    const names = (): string[] => spans.filter((span) => span.traceId === traceId).map(({ name }) => name);
    // The exporter sends every five seconds.
    const expected = [
      "POST /v1/:service/:method",
      "attempt call",
      "attempt call",
      `attempt ${method}`,
      `attempt ${method}`,
      `run ${method}`,
      "taskmesh.v1.RunService/StartRun",
    ];
    await expect.poll(() => names().sort(), { timeout: 30_000 }).toEqual(expect.arrayContaining(expected));

    const own = spans.filter((span) => span.traceId === traceId);
    const byName = (name: string): SentSpan => own.find((span) => span.name === name)!;
    const rest = byName("POST /v1/:service/:method");
    expect(rest.parentSpanId).toBe("00f067aa0ba902b7");
    const start = byName("taskmesh.v1.RunService/StartRun");
    expect(start.parentSpanId).toBe(rest.spanId);

    const attempts = own
      .filter(({ name }) => name === "attempt call")
      .sort((a, b) => Number(attributeOf(a, "taskmesh.attempt")) - Number(attributeOf(b, "taskmesh.attempt")));
    const run = byName(`run ${method}`);
    expect(run.parentSpanId).toBe(start.spanId);
    expect(attempts.map(({ parentSpanId }) => parentSpanId)).toEqual([run.spanId, run.spanId]);
    expect(attempts[1]?.links?.map(({ spanId }) => spanId)).toEqual([attempts[0]?.spanId]);

    const handlers = own.filter(({ name }) => name === `attempt ${method}`);
    expect(handlers.map(({ parentSpanId }) => parentSpanId).sort()).toEqual(
      attempts.map(({ spanId }) => spanId).sort(),
    );
    const last = handlers.find(({ parentSpanId }) => parentSpanId === attempts[1]?.spanId);
    expect(outgoing.at(-1)?.["traceparent"]).toBe(`00-${traceId}-${last?.spanId}-01`);
  });

  it("begins a trace of its own where the caller has none", async () => {
    failures = 0;
    const before = outgoing.length;
    expect((await call({})).status).toBe(200);
    expect(outgoing[before]?.["traceparent"]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    expect(outgoing[before]?.["traceparent"]).not.toContain(traceId);
  });

  it("is counted, with what is live, in Prometheus' format", async () => {
    let text = "";
    const value = (name: string, labels: Record<string, string> = {}): number =>
      text
        .split("\n")
        .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
        .filter((line) => Object.entries(labels).every(([label, is]) => line.includes(`${label}="${is}"`)))
        .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
    const scrape = async (): Promise<void> => {
      text = await (await fetch(`${gateway.url}/metrics`)).text();
    };
    // Figures of the whole mesh are read every ten seconds.
    const workers = async (): Promise<number> => scrape().then(() => value("taskmesh_workers", { transport }));
    await expect.poll(workers, { timeout: 25_000, interval: 250 }).toBe(1);
    expect(value("taskmesh_runs_started_total")).toBeGreaterThanOrEqual(2);
    expect(value("taskmesh_runs_ended_total", { status: "succeeded", action: method })).toBe(
      value("taskmesh_runs_started_total"),
    );
    const about = { action: method, queue: "acme.pages.v1.PageActions" };
    expect(value("taskmesh_retries_total", about)).toBeGreaterThanOrEqual(1);
    expect(value("taskmesh_attempts_total", about)).toBeGreaterThanOrEqual(3);
    expect(value("taskmesh_attempts_ended_total", { ...about, outcome: "failed" })).toBeGreaterThanOrEqual(1);
    expect(value("taskmesh_steps_ended_total", { ...about, status: "succeeded" })).toBeGreaterThanOrEqual(2);
    expect(value("taskmesh_schedule_to_start_seconds_count", about)).toBe(
      value("taskmesh_attempts_ended_total", about),
    );
    expect(value("taskmesh_worker_attempts_total", { action: method })).toBe(value("taskmesh_attempts_total", about));
    expect(value("taskmesh_slots", { queue: about.queue })).toBeGreaterThan(0);
    expect(value("taskmesh_ready_steps")).toBe(0);
    expect(value("taskmesh_commit_seconds_count")).toBeGreaterThan(2);
    expect(value("taskmesh_sweeper_lag_seconds")).toBeLessThan(60);
    expect(value("taskmesh_database_up")).toBe(1);
    expect(value("taskmesh_carrier_up")).toBe(1);
  });
});

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Metadata } from "@grpc/grpc-js";
import { context, trace } from "@opentelemetry/api";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createLogger } from "./log.js";
import { tracing } from "./telemetry.js";
import { startTelemetry, type Telemetry } from "./telemetry-start.js";

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

interface SentSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: { key: string; value: { stringValue?: string } }[];
  links: { traceId: string; spanId: string }[];
  status: { code?: number; message?: string };
}

/** A collector: what was posted to /v1/traces. */
async function collector() {
  const spans: SentSpan[] = [];
  const resources: Record<string, string | undefined>[] = [];
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const body = JSON.parse(Buffer.concat(chunks).toString());
      for (const { resource, scopeSpans } of body.resourceSpans) {
        resources.push(
          Object.fromEntries(
            resource.attributes.map((a: { key: string; value: { stringValue?: string } }) => [
              a.key,
              a.value.stringValue,
            ]),
          ),
        );
        for (const scope of scopeSpans) spans.push(...scope.spans);
      }
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { spans, resources, url, close: () => new Promise((resolve) => server.close(resolve)) };
}

describe("tracing that is off", () => {
  it.each([
    {},
    { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1", OTEL_SDK_DISABLED: "true" },
    { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1", OTEL_TRACES_EXPORTER: "none" },
  ])("makes nothing, and hands a caller's trace on, with %j", async (env) => {
    const telemetry = await startTelemetry("test", env);
    expect(tracing.enabled).toBe(false);
    expect(tracing.extract({ traceparent: parent })).toEqual({ traceparent: parent });
    expect(tracing.announce({ traceparent: parent }, "lease")).toEqual({ traceparent: parent });
    expect(tracing.announce(undefined, "lease")).toBeUndefined();
    expect(tracing.inject()).toBeUndefined();
    expect(tracing.startSpan({ name: "x" })).toBeUndefined();
    tracing.recordSpan({ name: "x", startMs: 0, endMs: 1 });
    await telemetry.stop();
  });
});

describe("tracing", () => {
  let sink: Awaited<ReturnType<typeof collector>>;
  let telemetry: Telemetry;
  const before = { ...process.env };

  beforeEach(async () => {
    sink = await collector();
    process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink.url;
    process.env["OTEL_RESOURCE_ATTRIBUTES"] = "deployment.environment.name=test";
    telemetry = await startTelemetry("taskmesh-test");
  });
  afterEach(async () => {
    await telemetry.stop();
    await sink.close();
    for (const name of [
      "OTEL_EXPORTER_OTLP_ENDPOINT",
      "OTEL_RESOURCE_ATTRIBUTES",
      "OTEL_TRACES_SAMPLER",
      "OTEL_SERVICE_NAME",
    ]) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  });

  /** Stops, which sends everything, and returns it by name. */
  const sent = async (): Promise<Map<string, SentSpan>> => {
    await telemetry.stop();
    return new Map(sink.spans.map((span) => [span.name, span]));
  };

  it("carries one trace from a call over an attempt in another process to what its handler does", async () => {
    const call = tracing.startSpan({
      name: "rpc",
      kind: "server",
      parent: tracing.extract({ traceparent: parent, tracestate: "a=1" }),
    });
    const run = call!.headers;
    call!.end();
    // A coordinator dispatches; the attempt's id is known before its span is recorded, perhaps by another coordinator.
    const attempt = tracing.announce(run, "lease-1");
    expect(tracing.announce(run, "lease-1")).toEqual(attempt);
    // A worker.
    const handler = tracing.startSpan({ name: "handler", kind: "consumer", parent: attempt });
    const outgoing = handler!.run(() => tracing.inject());
    handler!.end("boom");
    handler!.end();
    tracing.recordSpan({
      name: "attempt",
      kind: "producer",
      key: "lease-1",
      parent: run,
      links: [tracing.announce(run, "lease-0"), undefined],
      attributes: { "taskmesh.run.id": "r1" },
      startMs: 1_700_000_000_000,
      endMs: 1_700_000_086_400,
    });
    const spans = await sent();
    expect(new Set(sink.spans.map(({ traceId }) => traceId))).toEqual(new Set(["0af7651916cd43dd8448eb211c80319c"]));
    expect(spans.get("rpc")?.parentSpanId).toBe("b7ad6b7169203331");
    expect(spans.get("attempt")?.parentSpanId).toBe(spans.get("rpc")?.spanId);
    expect(spans.get("handler")?.parentSpanId).toBe(spans.get("attempt")?.spanId);
    expect(outgoing?.["traceparent"]).toBe(`00-0af7651916cd43dd8448eb211c80319c-${spans.get("handler")?.spanId}-01`);
    expect(outgoing?.["tracestate"]).toBe("a=1");
    expect(spans.get("handler")?.status).toMatchObject({ code: 2, message: "boom" });
    expect(spans.get("attempt")).toMatchObject({
      startTimeUnixNano: "1700000000000000000",
      endTimeUnixNano: "1700000086400000000",
      links: [{ spanId: expect.stringMatching(/^[0-9a-f]{16}$/) }],
      attributes: [{ key: "taskmesh.run.id", value: { stringValue: "r1" } }],
    });
    expect(sink.resources[0]).toMatchObject({
      "service.name": "taskmesh-test",
      "service.namespace": "taskmesh",
      "deployment.environment.name": "test",
    });
  });

  it("begins a trace where there is none", async () => {
    const first = tracing.startSpan({ name: "first" });
    const second = tracing.startSpan({ name: "second", parent: first?.headers });
    second?.end();
    first?.end();
    const spans = await sent();
    expect(spans.get("first")?.parentSpanId ?? "").toBe("");
    expect(spans.get("second")).toMatchObject({ traceId: first?.traceId, parentSpanId: spans.get("first")?.spanId });
  });

  it("reads every kind of carrier, and refuses what is malformed or too long", () => {
    const metadata = new Metadata();
    metadata.set("traceparent", parent);
    expect(tracing.extract(metadata)).toEqual({ traceparent: parent });
    expect(tracing.extract(new Map([["traceparent", parent]]))).toEqual({ traceparent: parent });
    expect(tracing.extract(new Headers({ traceparent: parent, baggage: "tenant=a" }))).toEqual({
      traceparent: parent,
      baggage: "tenant=a",
    });
    expect(tracing.extract({ traceparent: [parent, "second"] })).toEqual({ traceparent: parent });
    expect(tracing.extract({ traceparent: parent, baggage: "x=".padEnd(5_000, "y"), tracestate: "a\r\nb" })).toEqual({
      traceparent: parent,
    });
    for (const wrong of [
      "",
      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
      "00-00000000000000000000000000000000-b7ad6b7169203331-01",
      "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
      "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
      `${parent}x`,
    ]) {
      expect(tracing.extract({ traceparent: wrong }), wrong).toBeUndefined();
    }
    expect(tracing.extract({})).toBeUndefined();
    expect(tracing.extract(undefined)).toBeUndefined();
  });

  it("passes baggage on to code under a span", () => {
    const span = tracing.startSpan({ name: "x", parent: { traceparent: parent, baggage: "tenant=a%20b,bad=%,ok=1" } });
    expect(span?.headers["baggage"]).toBe("tenant=a%20b,ok=1");
    expect(span?.run(() => tracing.inject())?.["baggage"]).toBe("tenant=a%20b,ok=1");
    span?.end();
  });

  it("keeps a trace that the caller did not sample unsampled", async () => {
    const unsampled = parent.replace(/01$/, "00");
    const span = tracing.startSpan({ name: "quiet", parent: { traceparent: unsampled } });
    expect(span?.headers["traceparent"]).toMatch(/-00$/);
    expect(tracing.announce(span?.headers, "k")?.["traceparent"]).toMatch(/-00$/);
    span?.end();
    expect((await sent()).size).toBe(0);
  });

  it("puts trace and span into log lines of code under a span, across awaits", async () => {
    const lines: string[] = [];
    const log = createLogger("traced", { level: "info", write: (line) => lines.push(line) });
    const span = tracing.startSpan({ name: "x" });
    await span?.run(async () => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      log.info("inside");
    });
    log.info("outside");
    span?.end();
    expect(JSON.parse(lines[0]!)).toMatchObject({
      trace_id: span?.traceId,
      span_id: expect.stringMatching(/^[0-9a-f]{16}$/),
    });
    expect(JSON.parse(lines[1]!)).not.toHaveProperty("trace_id");
  });

  it("honours the sampler and the service name of the environment", async () => {
    await telemetry.stop();
    process.env["OTEL_TRACES_SAMPLER"] = "always_off";
    process.env["OTEL_SERVICE_NAME"] = "renamed";
    telemetry = await startTelemetry("taskmesh-test");
    tracing.startSpan({ name: "never" })?.end();
    await telemetry.stop();
    delete process.env["OTEL_TRACES_SAMPLER"];
    telemetry = await startTelemetry("taskmesh-test");
    tracing.startSpan({ name: "ever" })?.end();
    expect([...(await sent()).keys()]).toEqual(["ever"]);
    expect(sink.resources[0]?.["service.name"]).toBe("renamed");
  });

  it("is shared by the parts of a process, and ends with the last of them", async () => {
    const second = await startTelemetry("another-part");
    const headers = tracing.announce({ traceparent: parent }, "k");
    tracing.recordSpan({ name: "announced", key: "k", parent: { traceparent: parent }, startMs: 1, endMs: 2 });
    await second.stop();
    await second.stop();
    expect(tracing.enabled).toBe(true);
    expect(headers?.["traceparent"]).toContain((await sent()).get("announced")?.spanId);
    expect(tracing.enabled).toBe(false);
  });

  it("ends although the collector is gone, and can be stopped twice", async () => {
    await sink.close();
    tracing.startSpan({ name: "lost" })?.end();
    await Promise.all([telemetry.stop(), telemetry.stop()]);
    expect(tracing.enabled).toBe(false);
    expect(trace.getSpan(context.active())).toBeUndefined();
  });
});

describe("a program with a tracer provider of its own", () => {
  it("keeps it, and gets the mesh's spans", async () => {
    const { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } = await import(
      "@opentelemetry/sdk-trace-node"
    );
    const exporter = new InMemorySpanExporter();
    const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
    provider.register();
    try {
      const telemetry = await startTelemetry("test", {});
      const span = tracing.startSpan({ name: "handler", parent: { traceparent: parent } });
      span?.run(() => trace.getTracer("user").startSpan("theirs").end());
      span?.end();
      const [theirs, ours] = exporter.getFinishedSpans();
      expect(theirs?.parentSpanContext?.spanId).toBe(ours?.spanContext().spanId);
      expect(ours?.parentSpanContext?.spanId).toBe("b7ad6b7169203331");
      await telemetry.stop();
      expect(tracing.enabled).toBe(false);
    } finally {
      await provider.shutdown();
      trace.disable();
      context.disable();
    }
  });
});

/** One trace from the REST call on: the gateway's span is the child of the caller's and the parent of the coordinator's. */
import { trace } from "@opentelemetry/api";
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import type { Gateway } from "@taskmesh/gateway";
import { startTelemetry, type Telemetry } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  echoMethod,
  type ScriptedCoordinator,
  ScriptedState,
  startScriptedCoordinator,
} from "../fixtures/rest-coordinator.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const traceparent = `00-${traceId}-b7ad6b7169203331-01`;

let coordinator: ScriptedCoordinator;
let gateway: Gateway;
beforeAll(async () => {
  coordinator = await startScriptedCoordinator(new ScriptedState());
  gateway = await startTestGateway([coordinator.port]);
});
afterAll(async () => {
  await gateway.stop();
  coordinator.kill();
});

const along = { traceparent, tracestate: "vendor=1", baggage: "tenant=a" };
const call = () => ask(gateway, `/v1/${echoMethod}`, { body: {}, headers: along });

describe("tracing", () => {
  it("hands the caller's trace on where it is off", async () => {
    await call();
    expect(coordinator.metadata).toMatchObject(along);
  });

  describe("where it is on", () => {
    const exporter = new InMemorySpanExporter();
    const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
    let telemetry: Telemetry;
    beforeAll(async () => {
      trace.setGlobalTracerProvider(provider);
      telemetry = await startTelemetry("taskmesh-gateway", {});
    });
    afterAll(async () => {
      await telemetry.stop();
      trace.disable();
      await provider.shutdown();
    });

    it("makes a span between the caller's and the coordinator's", async () => {
      await call();
      const ended = () => exporter.getFinishedSpans().find(({ name }) => name === "POST /v1/:service/:method");
      while (ended() === undefined) await new Promise(setImmediate);
      const span = ended()!;
      expect(span.spanContext().traceId).toBe(traceId);
      expect(span.parentSpanContext?.spanId).toBe("b7ad6b7169203331");
      expect(coordinator.metadata).toMatchObject({
        ...along,
        traceparent: `00-${traceId}-${span.spanContext().spanId}-01`,
      });
      expect(span.attributes).toMatchObject({ "http.response.status_code": 200 });
    });

    it("names a request by its route, never by its path: who has a callback's token may answer it", async () => {
      const token = "t0k3n-of-a-callback";
      await ask(gateway, `/api/v1/callbacks/${token}?from=${token}`, { body: {} });
      await ask(gateway, `/no/such/${token}`, { body: {} });
      const names = () => exporter.getFinishedSpans().map(({ name }) => name);
      while (!names().some((name) => name.includes("/callbacks/:token")) || !names().includes("POST unknown")) {
        await new Promise(setImmediate);
      }
      for (const { name, attributes } of exporter.getFinishedSpans()) {
        expect(`${name} ${JSON.stringify(attributes)}`).not.toContain(token);
      }
    });
  });
});

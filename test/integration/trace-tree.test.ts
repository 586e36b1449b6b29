/**
 * The trace of a chain with a fan-out, a retry and a sub-chain, rebuilt from what an OTLP collector receives: which span hangs below which,
 * what is linked to what, what goes along, and what must not be there.
 */
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { defineAction, fail } from "@taskmesh/action-sdk";
import { type Gateway, startGateway } from "@taskmesh/gateway";
import { createLogger, formatAddress, gatewayConfig, startTelemetry, type Telemetry } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { type Collector, startCollector, type Tree } from "../fixtures/otlp-collector.js";
import { PageActionsService } from "../fixtures/page-actions.js";
import { waitFor } from "../fixtures/process.js";

const score = "acme.pages.v1.PageActions/Score";
const inner = "acme.pages.v1.Traced/Inner";
const outer = "acme.pages.v1.Traced/Outer";
const cel = (text: string) => ({ kind: { $case: "cel" as const, value: text } });
/** Stands in inputs, outputs, failures, baggage and the token: it may be in no span. */
const secret = "sentinel-3f9c";
const traceId = "6bf92f3577b34da6a3ce929d0e0e4738";
const headers = {
  traceparent: `00-${traceId}-00f067aa0ba902b7-01`,
  tracestate: "vendor=opaque",
  baggage: `tenant=${secret}`,
  authorization: `Bearer ${secret}`,
};

let collector: Collector;
let mesh: InProcessMesh;
let gateway: Gateway;
let telemetry: Telemetry;
let web: Server;
let webUrl: string;
/** What handlers' own requests carried, by text. */
const outgoing = new Map<string, IncomingHttpHeaders>();
const lines: Record<string, unknown>[] = [];

beforeAll(async () => {
  collector = await startCollector();
  web = createServer((request, response) => {
    outgoing.set(request.url!.slice(1), request.headers);
    response.end("a b");
  });
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
  webUrl = `http://127.0.0.1:${(web.address() as AddressInfo).port}`;
  process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url;
  process.env["OTEL_BSP_SCHEDULE_DELAY"] = "100";
  telemetry = await startTelemetry("taskmesh-test");
  mesh = await startInProcessMesh({ on: "servers" });
  const handler = defineAction(PageActionsService.score, async ({ text }, { attempt, trace, log }) => {
    const name = text.replaceAll(/\W/g, "");
    log.info("scoring", { name });
    await fetch(`${webUrl}/${name}${attempt}`, { headers: trace.headers() });
    if (text.startsWith("flaky") && attempt === 1) throw fail.retryable("TRY_AGAIN", `not yet, ${secret}`);
    return { words: text.split(" ").length };
  });
  const write = (line: string): void => void lines.push(JSON.parse(line));
  await mesh.serve([handler], { logger: createLogger("worker", { level: "info", write }), slots: 20 });
  await mesh.putChain({
    contract: { name: inner, input: { text: "string" }, output: { words: "int32" } },
    steps: [{ id: "deep", call: score, input: { text: cel("input.text") } }],
    output: { words: cel("steps.deep.output.words") },
  });
  await mesh.putChain({
    contract: { name: outer, input: { texts: "repeated string" }, output: { words: "int32" } },
    steps: [
      {
        id: "all",
        call: score,
        each: { items: "input.texts" },
        input: { text: cel("each.value") },
        retry: { maxAttempts: 3 },
      },
      { id: "sub", call: inner, input: { text: cel("'sub ' + string(size(steps.all.output))") } },
    ],
    output: { words: cel("steps.sub.output.words") },
  });
  const env = { TASKMESH_HTTP_ADDRESS: "127.0.0.1:0", TASKMESH_ADDRESS: formatAddress(mesh.address) };
  gateway = await startGateway(gatewayConfig(env), { log: createLogger("gateway", { level: "silent" }) });
}, 120_000);

afterAll(async () => {
  await gateway?.stop();
  await mesh?.stop();
  await telemetry?.stop();
  delete process.env["OTEL_EXPORTER_OTLP_ENDPOINT"];
  delete process.env["OTEL_BSP_SCHEDULE_DELAY"];
  await collector?.stop();
  web?.close();
});

describe("the trace of a chain", () => {
  let tree: Tree;

  beforeAll(async () => {
    const answer = await fetch(`${gateway.url}/v1/${outer}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({ texts: [`one ${secret}`, "flaky two", "three"] }),
    });
    expect(await answer.json()).toEqual({ words: 2 });
    // The call, its three rpcs, two runs, six attempts of which five have handlers.
    await waitFor("the spans", () => collector.tree(traceId).spans.length >= 17, 20_000);
    tree = collector.tree(traceId);
  }, 60_000);

  it("is one tree from the call to what handlers ask for, with a span for each attempt", () => {
    const attempt = (step: string, ...below: object[]) => ({ [`attempt ${step}`]: below });
    const handler = { [`attempt ${score}`]: [] };
    const sub = { [`run ${inner}`]: [attempt("deep", handler)] };
    expect(tree.shape("00f067aa0ba902b7")).toEqual([
      {
        "POST /v1/:service/:method": [
          { "taskmesh.v1.RegistryService/GetContract": [] },
          { "taskmesh.v1.RunService/GetResult": [] },
          {
            "taskmesh.v1.RunService/StartRun": [
              {
                [`run ${outer}`]: [...Array.from({ length: 4 }, () => attempt("all", handler)), attempt("sub", sub)],
              },
            ],
          },
        ],
      },
    ]);
  });

  it("has each attempt of each item, the failed one marked, and its retry linked to it", () => {
    const items = tree.spans.filter(({ name }) => name === "attempt all");
    const about = items.map(({ attributes, error }) => [
      attributes["taskmesh.item"],
      attributes["taskmesh.attempt"],
      error,
    ]);
    expect(about.toSorted()).toEqual([
      [0, 1, undefined],
      [1, 1, "TRY_AGAIN"],
      [1, 2, undefined],
      [2, 1, undefined],
    ]);
    const [failed, retry] = [1, 2].map(
      (n) => items.find(({ attributes }) => attributes["taskmesh.item"] === 1 && attributes["taskmesh.attempt"] === n)!,
    );
    expect(retry!.links).toEqual([failed!.spanId]);
    expect(retry!.startNs >= failed!.endNs).toBe(true);
    for (const { links, attributes } of items) if (attributes["taskmesh.attempt"] === 1) expect(links).toEqual([]);
  });

  it("is found by the run's id: every span of a run has it, the sub-chain's run its own", () => {
    const ids = new Set(
      tree.spans.map(({ attributes }) => attributes["taskmesh.run.id"]).filter((id) => id !== undefined),
    );
    expect(ids.size).toBe(2);
    for (const { name, attributes } of tree.spans) {
      const isBorder = name.startsWith("POST ") || /\/Get(Result|Contract)$/.test(name);
      if (!isBorder) expect(attributes["taskmesh.run.id"], name).toMatch(/^[0-9a-f-]{36}$/);
    }
    const run = tree.spans.find(({ name }) => name === `run ${outer}`)!;
    expect(tree.spans.find(({ name }) => name.endsWith("/StartRun"))!.attributes["taskmesh.run.id"]).toBe(
      run.attributes["taskmesh.run.id"],
    );
  });

  it("leaves no span open for longer than it lasts: each ends after its start and is sent once", () => {
    for (const { startNs, endNs, name } of tree.spans) expect(endNs >= startNs, name).toBe(true);
    expect(new Set(tree.spans.map(({ spanId }) => spanId)).size).toBe(tree.spans.length);
  });

  it("goes on in the requests of handlers, with tracestate and baggage", () => {
    expect([...outgoing.keys()].toSorted()).toEqual(
      ["flakytwo1", "flakytwo2", `one${secret.replace("-", "")}1`, "sub31", "three1"].toSorted(),
    );
    for (const [text, sent] of outgoing) {
      expect(sent["tracestate"], text).toBe("vendor=opaque");
      expect(sent["baggage"], text).toBe(`tenant=${secret}`);
      const [, id, span, flags] = String(sent["traceparent"]).split("-");
      expect([id, flags]).toEqual([traceId, "01"]);
      expect(tree.spans.find(({ spanId }) => spanId === span)?.name).toBe(`attempt ${score}`);
    }
  });

  it("is in the worker's log lines, with the run", () => {
    const scoring = lines.filter(({ msg }) => msg === "scoring");
    expect(scoring).toHaveLength(5);
    for (const line of scoring) {
      expect(line).toMatchObject({ trace_id: traceId, method: score, attempt: expect.any(Number) });
      const span = tree.spans.find(({ spanId }) => spanId === line["span_id"]);
      expect(span?.attributes["taskmesh.run.id"]).toBe(line["run_id"]);
    }
  });

  it("has nothing of inputs, outputs, messages of failures, baggage or tokens", () => {
    expect(collector.received.length).toBeGreaterThan(0);
    for (const body of collector.received) expect(body).not.toContain(secret);
  });
});

import { afterEach, describe, expect, it } from "vitest";
import { createLogger } from "./log.js";
import { Counter, Gauge, Histogram, type Label, seriesMax, valuesMax } from "./metric-values.js";
import { declareMetrics, metrics, startMetrics } from "./metrics.js";
import { createMetricsServer, type MetricsServer, type MetricsServerOptions } from "./metrics-server.js";

const name = (label: string): Label => ({ name: label, doc: "A name." });
const status: Label = { name: "status", doc: "How it went.", values: ["ok", "bad"] };

const silent = createLogger("test", { level: "silent" });

describe("the table of instruments", () => {
  it("names each once, with its unit, as Prometheus wants it", () => {
    const all = Object.values(metrics);
    expect(new Set(all.map(({ name }) => name)).size).toBe(all.length);
    for (const metric of all) {
      // Our own, or those of OpenTelemetry's conventions.
      expect(metric.name).toMatch(/^(taskmesh|http_server|rpc_server|nodejs|v8js|process)(_[a-z0-9]+)+$/);
      expect(metric.name, "the exporter adds _total").not.toMatch(/_total$/);
      expect(metric.help).toMatch(/^[A-Z].*\.$/);
      for (const { name, doc } of metric.labels) {
        expect(name).toMatch(/^[a-z_]+$/);
        // Prometheus and Kubernetes put these on every series.
        expect(["job", "instance", "namespace", "pod", "le", "quantile"]).not.toContain(name);
        expect(doc).toMatch(/^[A-Z].*\.$/);
      }
      expect(metric.labels.filter(({ values }) => !values).length, "names that users give").toBeLessThanOrEqual(3);
      if (metric.name.endsWith("_seconds") && metric.kind === "histogram") expect(metric.bounds[0]).toBeLessThan(1);
    }
  });
});

describe("values", () => {
  it("keeps a bounded number of names, and counts the rest under other", () => {
    const counter = new Counter("c", "C.", [name("action"), status]);
    for (let i = 0; i < valuesMax + 500; i += 1) counter.add(1, `a${i}`, i % 2 ? "ok" : "bad");
    const labels: Record<string, unknown>[] = [...counter.series].map(([key, { value }]) => ({
      ...counter.attributesOf(key),
      value,
    }));
    expect(new Set(labels.map((one) => one["action"])).size).toBe(valuesMax + 1);
    // What has few values by nature is kept where names overflow.
    expect(labels).toContainEqual({ action: "other", status: "ok", value: 250 });
    expect(labels).toContainEqual({ action: "other", status: "bad", value: 250 });
    counter.add(1, "a0", "nobody listed this");
    expect(counter.at("a0", "other").value).toBe(1);
  });

  it("keeps a bounded number of series, however names combine", () => {
    const counter = new Counter("c", "C.", [name("a"), name("b"), status]);
    for (let i = 0; i < 100; i += 1) for (let j = 0; j < 100; j += 1) counter.add(1, `a${i}`, `b${j}`, "ok");
    expect(counter.series.size).toBe(seriesMax + 1);
    const total = [...counter.series.values()].reduce((sum, { value }) => sum + value, 0);
    expect(total).toBe(10_000);
    expect(counter.at("other", "other", "ok").value).toBe(10_000 - seriesMax);
  });

  it("finds a series once, and counts on", () => {
    const counter = new Counter("c", "C.", [name("action")]);
    const series = counter.at("x");
    series.add();
    counter.add(2, "x");
    expect(counter.at("x")).toBe(series);
    expect(series.value).toBe(3);
  });

  it("begins at zero where all label values are known", () => {
    expect([...new Counter("c", "C.", [status]).series.keys()]).toEqual(["ok", "bad"]);
    expect(new Counter("c", "C.", [status, name("action")]).series.size).toBe(0);
    expect(new Counter("c", "C.", []).at().value).toBe(0);
  });

  it("forgets series of a gauge that are not there any more", () => {
    const gauge = new Gauge("g", "G.", [name("queue")]);
    gauge.replace([
      { value: 1, labels: ["a"] },
      { value: 2, labels: ["b"] },
    ]);
    gauge.replace([{ value: 3, labels: ["b"] }]);
    expect([...gauge.series].map(([key, { value }]) => [key, value])).toEqual([["b", 3]]);
  });

  it("puts a value that equals a bound below it", () => {
    const histogram = new Histogram("h", "H.", [], [1, 10]);
    for (const value of [0.5, 1, 1.0001, 10, 11]) histogram.record(value);
    expect(histogram.at()).toMatchObject({ buckets: [2, 2, 1], sum: 23.5001, count: 5 });
  });

  it("reads observed gauges when asked, until that is ended", async () => {
    const gauge = new Gauge("g", "G.", []);
    let depth = 1;
    const end = gauge.observe(() => gauge.set(depth));
    const endFailing = gauge.observe(() => Promise.reject(new Error("no database")));
    await gauge.refresh();
    depth = 2;
    end();
    endFailing();
    await gauge.refresh();
    expect(gauge.at().value).toBe(1);
  });
});

describe("the metrics server", () => {
  let server: MetricsServer | undefined;
  const serve = async (options: Partial<MetricsServerOptions> = {}): Promise<string> => {
    server = createMetricsServer({
      address: { host: "127.0.0.1", port: 0 },
      tokens: { tokens: [] },
      log: silent,
      ...options,
    });
    await server.start();
    return `http://127.0.0.1:${server.address?.port}`;
  };
  let undeclare = (): void => {};
  afterEach(async () => {
    undeclare();
    await server?.stop();
  });

  it("serves what was counted, and the process itself", async () => {
    undeclare = declareMetrics("coordinator");
    metrics.runsEnded.add(2, "succeeded", "acme.v1.Chains/Buy", "");
    metrics.stepsEnded.add(1, "failed", 'odd"name\\', "", "q");
    metrics.commitSeconds.record(0.004);
    const answer = await fetch(`${await serve()}/metrics`);
    const text = await answer.text();
    expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(text).toContain('taskmesh_runs_ended_total{status="succeeded",chain="acme.v1.Chains/Buy",action=""} 2\n');
    expect(text).toContain(
      'taskmesh_steps_ended_total{status="failed",action="odd\\"name\\\\",chain="",queue="q"} 1\n',
    );
    expect(text).toContain('taskmesh_commit_seconds_bucket{le="0.005"} 1\n');
    expect(text).toContain('taskmesh_commit_seconds_bucket{le="+Inf"} 1\n');
    expect(text).toMatch(/\nprocess_memory_usage_bytes \d{7,}\n/);
    expect(text).toMatch(/\nnodejs_eventloop_delay_p99_seconds [\d.e-]+\n/);
    expect(text).toContain("taskmesh_conflicts_total 0\n");
    expect(text, "no part of this process is a gateway").not.toContain("http_server");
    for (const line of text.trimEnd().split("\n")) {
      expect(line).toMatch(/^(# (HELP|TYPE) [a-z0-9_]+ .+|[a-z0-9_]+(\{.*\})? [-\d.e+]+|[a-z0-9_]+(\{.*\})? \+Inf)$/);
    }
  });

  it("answers nothing else", async () => {
    const url = await serve();
    expect((await fetch(`${url}/`)).status).toBe(404);
    expect((await fetch(`${url}/metrics`, { method: "POST" })).status).toBe(405);
    expect(await (await fetch(`${url}/metrics`, { method: "HEAD" })).text()).toBe("");
  });

  it("asks for a token where there are any", async () => {
    const url = `${await serve({ tokens: { tokens: ["a-token-for-prometheus"] } })}/metrics`;
    expect((await fetch(url)).status).toBe(401);
    expect((await fetch(url, { headers: { authorization: "Bearer a-token-for-prometheuS" } })).status).toBe(401);
    expect((await fetch(url, { headers: { authorization: "Bearer a-token-for-prometheus" } })).status).toBe(200);
  });

  it("does not keep a process from its work when its address is taken, or when there is none", async () => {
    await serve();
    const second = createMetricsServer({ address: server!.address, tokens: { tokens: [] }, log: silent });
    await second.start();
    expect([second.running, second.address]).toEqual([true, undefined]);
    await second.stop();
    const none = createMetricsServer({ tokens: { tokens: [] }, log: silent });
    await none.start();
    await none.stop();
  });

  it("shares one export between the parts of a process, until the last has stopped", async () => {
    const [first, second] = await Promise.all([startMetrics(), startMetrics()]);
    await first.stop();
    await first.stop();
    expect(await second.render()).toContain("process_uptime_seconds");
    await second.stop();
  });
});

import { afterEach, describe, expect, it } from "vitest";
import { createLogger } from "./log.js";
import { Counter, Gauge, Histogram, seriesMax } from "./metric-values.js";
import { metrics, startMetrics } from "./metrics.js";
import { createMetricsServer, type MetricsServer, type MetricsServerOptions } from "./metrics-server.js";

const silent = createLogger("test", { level: "silent" });

describe("the table of instruments", () => {
  it("names each once, with its unit, as Prometheus wants it", () => {
    const all = Object.values(metrics);
    expect(new Set(all.map(({ name }) => name)).size).toBe(all.length);
    for (const metric of all) {
      expect(metric.name).toMatch(/^taskmesh_[a-z]+(_[a-z]+)*$/);
      expect(metric.name, "the exporter adds _total").not.toMatch(/_total$/);
      expect(metric.help).toMatch(/^[A-Z].*\.$/);
      for (const label of metric.labels) expect(label).toMatch(/^[a-z_]+$/);
      if (metric.name.endsWith("_seconds") && metric.kind === "histogram") expect(metric.bounds[0]).toBeLessThan(1);
    }
  });
});

describe("values", () => {
  it("keeps a bounded number of series and counts the rest together", () => {
    const counter = new Counter("c", "C.", ["a", "b"]);
    for (let i = 0; i < seriesMax + 500; i += 1) counter.add(1, `a${i}`, "b");
    expect(counter.series.size).toBe(seriesMax + 1);
    const total = [...counter.series.values()].reduce((sum, value) => sum + value, 0);
    expect(total).toBe(seriesMax + 500);
    const other = [...counter.series.keys()].at(-1)!;
    expect(counter.attributesOf(other)).toEqual({ a: "other", b: "other" });
  });

  it("puts a value that equals a bound below it", () => {
    const histogram = new Histogram("h", "H.", [], [1, 10]);
    for (const value of [0.5, 1, 1.0001, 10, 11]) histogram.record(value);
    expect(histogram.series.get("")).toEqual({ buckets: [2, 2, 1], sum: 23.5001, count: 5 });
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
    expect(gauge.series.get("")).toBe(1);
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
  afterEach(() => server?.stop());

  it("serves what was counted, and the process itself", async () => {
    metrics.runsEnded.add(2, "SUCCEEDED");
    metrics.stepsEnded.add(1, "FAILED", 'odd"name\\');
    metrics.commitSeconds.record(0.004);
    const answer = await fetch(`${await serve()}/metrics`);
    const text = await answer.text();
    expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    expect(text).toContain('taskmesh_runs_ended_total{status="SUCCEEDED"} 2\n');
    expect(text).toContain('taskmesh_steps_ended_total{status="FAILED",method="odd\\"name\\\\"} 1\n');
    expect(text).toContain('taskmesh_commit_seconds_bucket{le="0.005"} 1\n');
    expect(text).toContain('taskmesh_commit_seconds_bucket{le="+Inf"} 1\n');
    expect(text).toMatch(/taskmesh_process_memory_bytes\{kind="resident"\} \d{7,}/);
    expect(text).toMatch(/taskmesh_event_loop_delay_seconds\{quantile="0\.99"\} [\d.e-]+/);
    expect(text).toContain("taskmesh_runs_started_total 0\n");
    for (const line of text.trimEnd().split("\n")) {
      expect(line).toMatch(/^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{.*\})? [-\d.e+]+|[a-z_]+(\{.*\})? \+Inf)$/);
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
    expect(await second.render()).toContain("taskmesh_runs_started_total");
    await second.stop();
  });
});

/** What a coordinator, a gateway and a worker show to Prometheus while they work: its own checker has nothing to say against it. */
import { metricTables } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chain5, chainMethod } from "../bench/chain.js";
import { allEnded, type Mesh, MeshProcess, startMany, startMesh } from "../fixtures/mesh.js";
import { freePorts } from "../fixtures/ports.js";
import { waitFor } from "../fixtures/process.js";
import { promtool } from "../fixtures/promtool.js";

const runs = 20;
const steps = runs * chain5.steps.length;
const action = chain5.steps[0]!.call;
const queue = action.split("/")[0]!;

let mesh: Mesh;
let gateway: MeshProcess;
let urls: Record<"coordinator" | "gateway" | "worker", string>;

beforeAll(async () => {
  const [coordinatorPort, gatewayPort, workerPort] = await freePorts(3);
  urls = {
    coordinator: `http://127.0.0.1:${coordinatorPort}/metrics`,
    gateway: `http://127.0.0.1:${gatewayPort}/metrics`,
    worker: `http://127.0.0.1:${workerPort}/metrics`,
  };
  mesh = await startMesh({
    coordinatorEnv: { TASKMESH_METRICS_ADDRESS: `127.0.0.1:${coordinatorPort}` },
    workerEnv: { TASKMESH_WORKER_METRICS_ADDRESS: `127.0.0.1:${workerPort}` },
  });
  const address = mesh.addresses.map(({ host, port }) => `${host}:${port}`).join(",");
  gateway = new MeshProcess(
    "gateway",
    "gateway/src/main.ts",
    { TASKMESH_ADDRESS: address, TASKMESH_HTTP_ADDRESS: `127.0.0.1:${gatewayPort}` },
    () =>
      fetch(urls.gateway).then(
        ({ ok }) => ok,
        () => false,
      ),
  );
  await gateway.start();
});
afterAll(async () => {
  await gateway?.kill();
  await mesh?.stop();
});

const scrape = async (role: keyof typeof urls): Promise<string> => (await fetch(urls[role])).text();

/** Sum of the series of that name that have these labels. */
function sum(text: string, name: string, labels: Record<string, string> = {}): number {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  return text
    .split("\n")
    .filter((line) => new RegExp(`^${name}[{ ]`).test(line) && wanted.every((one) => line.includes(one)))
    .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(" "))), 0);
}

describe("metrics of processes at work", () => {
  it("count every run, step and attempt once, by action, chain and queue", async () => {
    await startMany(mesh, runs);
    await allEnded(mesh, runs, 60_000);
    const text = await scrape("coordinator");
    const ofChain = { chain: chainMethod };
    expect(sum(text, "taskmesh_runs_started_total", ofChain)).toBe(runs);
    expect(sum(text, "taskmesh_runs_ended_total", { ...ofChain, status: "succeeded" })).toBe(runs);
    expect(sum(text, "taskmesh_run_seconds_count", ofChain)).toBe(runs);
    const ofSteps = { ...ofChain, action, queue };
    expect(sum(text, "taskmesh_steps_ended_total", { ...ofSteps, status: "succeeded" })).toBe(steps);
    expect(sum(text, "taskmesh_attempts_total", ofSteps)).toBe(steps);
    expect(sum(text, "taskmesh_attempts_ended_total", { ...ofSteps, outcome: "succeeded" })).toBe(steps);
    expect(sum(text, "taskmesh_schedule_to_start_seconds_count", { action, queue })).toBe(steps);
    expect(sum(text, "taskmesh_execution_seconds_count", { action, queue })).toBe(steps);
    expect(sum(text, "taskmesh_starts_total", { outcome: "stored" })).toBe(steps);
    const reported = async (): Promise<boolean> =>
      sum(await scrape("worker"), "taskmesh_worker_attempts_total", { action, outcome: "succeeded" }) === steps;
    await waitFor("the worker's count", reported);
  });

  it("show queues, workers, servers and processes as they are", async () => {
    const settled = async (): Promise<boolean> =>
      sum(await scrape("coordinator"), "taskmesh_slots", { queue, state: "free" }) === 64;
    await waitFor("figures without work", settled, 30_000, 250);
    const text = await scrape("coordinator");
    expect(sum(text, "taskmesh_workers", { transport: "jetstream" })).toBe(1);
    expect(sum(text, "taskmesh_sessions")).toBe(1);
    expect(sum(text, "taskmesh_beats_total")).toBeGreaterThanOrEqual(1);
    expect(text).toContain(`taskmesh_ready_steps{taskmesh_namespace="default",queue="${queue}"} 0\n`);
    expect(sum(text, "taskmesh_coordinators")).toBe(1);
    expect(sum(text, "taskmesh_database_up")).toBe(1);
    expect(sum(text, "taskmesh_database_connections_max")).toBe(200);
    expect(sum(text, "taskmesh_database_size_bytes")).toBeGreaterThan(1_000_000);
    expect(sum(text, "taskmesh_carrier_up")).toBe(1);
    expect(sum(text, "taskmesh_nats_connections", { state: "up" })).toBe(1);
    expect(sum(text, "taskmesh_publish_seconds_count")).toBeGreaterThan(0);
    expect(sum(text, "taskmesh_stream_consumers", { stream: "TASKMESH_START" })).toBe(1);
    expect(sum(await scrape("worker"), "taskmesh_worker_connected")).toBe(1);
  });

  it.each(["coordinator", "gateway", "worker"] as const)(
    "of a %s are clean, and are those of the table",
    async (role) => {
      // The gateway has then answered one.
      await scrape("gateway");
      const text = await scrape(role);
      expect(promtool(["check", "metrics"], text)).toEqual({ clean: true, output: "" });
      const shown = new Set([...text.matchAll(/^# TYPE (\w+)/gm)].map(([, name]) => name!.replace(/_total$/, "")));
      const table = Object.values({ ...metricTables[role], ...metricTables.process });
      expect([...shown].filter((name) => !table.some((metric) => metric.name === name))).toEqual([]);
      // What has no series yet has nothing to show: everything here but what counts failures by name.
      const missing = table.map(({ name }) => name).filter((name) => !shown.has(name));
      expect(missing.filter((name) => name !== "taskmesh_items_ended")).toEqual([]);
      expect(text.length, "a scrape stays small").toBeLessThan(200_000);
    },
  );
});

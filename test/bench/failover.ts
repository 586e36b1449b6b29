/**
 * failover: nodes of a NATS cluster of three, with three copies of each stream, are killed and cut off in turn while runs go through two coordinators
 * and three workers. After each fault: when the cluster had leaders again, when the last silence of the mesh was over, and the same for its slowest worker.
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EventKind, RunServiceClient, StartRunRequest } from "@taskmesh/proto";
import { type Address, createClient, unaryCall } from "@taskmesh/runtime";
import postgres from "postgres";
import { forEach, untilAnswered } from "../fixtures/careful-calls.js";
import { type NatsCluster, type NatsNode, startNatsCluster } from "../fixtures/nats-cluster.js";
import { freePort } from "../fixtures/ports.js";
import { startPostgres } from "../fixtures/postgres.js";
import { ServerProcess, waitFor } from "../fixtures/process.js";
import { chainMethod, putChain5 } from "./chain.js";
import { pad, quantile } from "./load.js";

const coordinators = 2;
const workers = 3;
const runsAtOnce = 500;
/** How long the mesh is looked at after a fault. */
const watchMs = 25_000;
/** Less is no silence: a batch, a busy machine. */
const silenceMs = 1_000;
const patienceMs = 120_000;

interface Fault {
  kind: "killed" | "cut" | "stopped";
  /** What the node led. */
  led: string[];
  atMs: number;
  /** When the other nodes led everything. */
  leadersAtMs: number;
}

interface Mesh {
  cluster: NatsCluster;
  sql: postgres.Sql;
  addresses: Address[];
  /** Files in which workers write when they begin attempts. */
  begun: string[];
  stop(): Promise<void>;
}

export async function benchFailover({ faults }: { faults: number }): Promise<void> {
  const mesh = await startMesh();
  const load = keepBusy(mesh);
  try {
    await waitFor("the first runs to end", async () => (await endedRuns(mesh)) > 20, patienceMs, 100);
    const met: Fault[] = [];
    for (let i = 0; i < faults; i++) {
      const fault = await strike(mesh, i);
      met.push(fault);
      await report(mesh, fault);
    }
    const runs = await load.end();
    await waitFor("every run to end", async () => (await endedRuns(mesh)) >= runs, patienceMs, 250);
    const lines = await Promise.all(met.map((fault) => figuresOf(mesh, fault)));
    const of = (name: "leaders_s" | "resumed_s" | "worker_s", share: number): number =>
      quantile(
        lines.map((line) => line[name]),
        share,
      );
    const [odd] = await mesh.sql<{ n: number }[]>`
      select count(*)::int as n from (select run_id from events where kind = ${EventKind.EVENT_KIND_STEP_SUCCEEDED}
        group by run_id having count(*) <> 5) as counted`;
    const summary = Object.fromEntries(
      (["leaders_s", "resumed_s", "worker_s"] as const).map((name) => [name, { p50: of(name, 0.5), max: of(name, 1) }]),
    );
    console.log(JSON.stringify({ name: "failover summary", faults, runs, odd: odd?.n, ...summary }));
  } finally {
    await load.end().catch(() => {});
    await mesh.stop();
  }
}

/** The node whose loss hurts: it leads, in turn, the stream of starts, that of completions, and the workers' consumer. */
async function victimOf(cluster: NatsCluster, i: number): Promise<{ node: NatsNode; led: string[] }> {
  const wanted = [/^TASKMESH_START$/, /^TASKMESH_DONE$/, /\/lane-/][(i + Math.floor(i / 3)) % 3]!;
  const leads = await Promise.all(cluster.nodes.map(async (node) => ({ node, led: await cluster.ledBy(node) })));
  return leads.find(({ led }) => led.some((group) => wanted.test(group))) ?? leads[0]!;
}

/** Kills, cuts or stops (SIGTERM) a node, waits as long as the mesh is watched, and brings it back. */
async function strike({ cluster }: Mesh, i: number): Promise<Fault> {
  const { node, led } = await victimOf(cluster, i);
  const kind = (["killed", "cut", "stopped"] as const)[i % 3]!;
  const atMs = Date.now();
  if (kind === "cut") node.cut();
  else await node[kind === "killed" ? "kill" : "stop"]();
  await waitFor("new leaders", () => cluster.isLed(node), patienceMs, 50);
  const leadersAtMs = Date.now();
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, atMs + watchMs - leadersAtMs)));
  await (kind === "cut" ? node.heal() : node.start());
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  return { kind, led, atMs, leadersAtMs };
}

const seconds = (ms: number): number => Math.round(ms / 100) / 10;

async function figuresOf(mesh: Mesh, { kind, led, atMs, leadersAtMs }: Fault) {
  // Steps whose start was not under way at the fault: the step before them ended after it.
  const rows = await mesh.sql<{ ms: number }[]>`
    select (extract(epoch from later.at) * 1000)::float8 as ms from events later join events before
      on before.run_id = later.run_id and before.kind = later.kind and before.step = later.step - 1
    where later.kind = ${EventKind.EVENT_KIND_STEP_SUCCEEDED}
      and before.at > ${new Date(atMs)} and later.at < ${new Date(atMs + watchMs)}`;
  const silences = silencesIn(
    rows.map(({ ms }) => ms),
    atMs,
  );
  const each = await Promise.all(
    mesh.begun.map(async (file) => silencesIn((await readFile(file, "utf8")).split("\n").map(Number), atMs)),
  );
  return {
    fault: kind,
    led,
    leaders_s: seconds(leadersAtMs - atMs),
    resumed_s: endOf(silences),
    silences,
    worker_s: Math.max(...each.map(endOf)),
  };
}

/** Prints what one fault did. */
async function report(mesh: Mesh, fault: Fault): Promise<void> {
  console.log(JSON.stringify({ name: "failover", ...(await figuresOf(mesh, fault)) }));
}

/** Silences of the time after the fault, each from when to when in seconds since it. */
function silencesIn(times: readonly number[], atMs: number): [number, number][] {
  const within = times.filter((ms) => ms >= atMs && ms < atMs + watchMs).sort((a, b) => a - b);
  const found: [number, number][] = [];
  let before = atMs;
  for (const ms of [...within, atMs + watchMs]) {
    if (ms - before > silenceMs) found.push([seconds(before - atMs), seconds(ms - atMs)]);
    before = ms;
  }
  return found;
}

/** When the last silence was over; 0: there was none. */
const endOf = (silences: readonly [number, number][]): number => silences.at(-1)?.[1] ?? 0;

async function endedRuns({ sql }: Mesh): Promise<number> {
  const [row] = await sql<{ n: number }[]>`select count(*)::int as n from runs where ended_at is not null`;
  return row?.n ?? 0;
}

/** Starts new runs where old ones have ended, until `end` is called; that answers how many there were. */
function keepBusy(mesh: Mesh): { end(): Promise<number> } {
  const client = createClient(RunServiceClient, { addresses: mesh.addresses });
  let begun = 0;
  let isOver = false;
  const one = (i: number): Promise<unknown> => {
    const input = { $case: "json" as const, value: JSON.stringify({ counter: 0, run: String(i), pad }) };
    const request = { ...StartRunRequest.create(), method: chainMethod, input, idempotencyKey: `run-${i}` };
    return untilAnswered(() => unaryCall(client, client.startRun, request, { deadlineMs: 10_000 }));
  };
  const going = (async () => {
    while (!isOver) {
      const room = runsAtOnce - (begun - (await endedRuns(mesh)));
      const numbers = Array.from({ length: Math.max(0, room) }, (_, i) => begun + i);
      await forEach(numbers, one, 100);
      begun += numbers.length;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    client.close();
    return begun;
  })();
  // Heard by whoever ends it.
  going.catch(() => {});
  return {
    end() {
      isOver = true;
      return going;
    },
  };
}

async function startMesh(): Promise<Mesh> {
  const [cluster, server] = await Promise.all([
    startNatsCluster(),
    startPostgres({ settings: { max_connections: "200" } }),
  ]);
  const databaseUrl = await server.createDatabase();
  const folder = await mkdtemp(join(tmpdir(), "taskmesh-failover-"));
  const addresses: Address[] = [];
  const served: ServerProcess[] = [];
  const common = { ...process.env, TASKMESH_METRICS_ADDRESS: "off", TASKMESH_LOG_LEVEL: "info" };
  for (let i = 0; i < coordinators; i++) {
    const port = await freePort();
    addresses.push({ host: "127.0.0.1", port });
    const program = join(import.meta.dirname, "../../../../coordinator/dist/main.js");
    const env = {
      ...common,
      DATABASE_URL: databaseUrl,
      NATS_URL: cluster.url,
      NATS_REPLICAS: "3",
      TASKMESH_GRPC_ADDRESS: `127.0.0.1:${port}`,
    };
    const child = new ServerProcess(process.execPath, [program], { env });
    await child.ready(`coordinator ${i}`, () => child.output.includes("serving gRPC"), patienceMs);
    served.push(child);
  }
  const all = addresses.map(({ host, port }) => `${host}:${port}`).join(",");
  const begun = Array.from({ length: workers }, (_, i) => join(folder, `worker-${i}`));
  const working: ChildProcess[] = [];
  for (const file of begun) {
    const env = { ...common, TASKMESH_ADDRESS: all, BENCH_BEGUN: file };
    const child = fork(join(import.meta.dirname, "failover-worker.js"), [], { env });
    await new Promise((resolve) => child.once("message", resolve));
    working.push(child);
  }
  await putChain5(addresses[0]!);
  const sql = postgres(databaseUrl, { max: 2, onnotice: () => {} });
  return {
    cluster,
    sql,
    addresses,
    begun,
    async stop() {
      for (const child of working) child.kill("SIGKILL");
      for (const child of served) child.signal("SIGKILL");
      await sql.end({ timeout: 1 });
      await cluster.dispose();
      await server.dispose();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

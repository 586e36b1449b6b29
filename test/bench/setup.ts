/** Servers and processes of the bench: real Postgres with durable commits, JetStream on file, each role a process of its own. */
import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import postgres from "postgres";
import { type NatsFixture, startNats } from "../fixtures/nats.js";
import { freePort } from "../fixtures/ports.js";
import { type PostgresFixture, startPostgres } from "../fixtures/postgres.js";
import { putChain5 } from "./chain.js";
import { type Ask, type LoadResult, stepsPerRun } from "./load.js";
import { openNats } from "./thin-nats.js";

export interface Servers {
  nats: NatsFixture;
  postgres: PostgresFixture;
  databaseUrl: string;
  stop(): Promise<void>;
}

/** Starts both servers. GOMAXPROCS=1 keeps nats-server from competing with itself on two cores. */
export async function startServers(): Promise<Servers> {
  const nats = await startNats({ goMaxProcs: 1 });
  const settings = {
    shared_buffers: "512MB",
    max_wal_size: "4GB",
    checkpoint_timeout: "15min",
    max_connections: "200",
  };
  const server = await startPostgres({ settings });
  const databaseUrl = await server.createDatabase();
  return {
    nats,
    postgres: server,
    databaseUrl,
    async stop() {
      await nats.dispose();
      await server.dispose();
    },
  };
}

/** One program under test: where the load goes in, and the processes that do the work. */
export interface Program {
  name: string;
  pids: Readonly<Record<string, number>>;
  run(ask: Ask): Promise<LoadResult>;
  stop(): Promise<void>;
}

/** Starts a (built) module of this folder as a process and waits until it says that it is ready. */
export async function startProcess(file: string, env: Record<string, string>): Promise<ChildProcess> {
  const child = fork(join(import.meta.dirname, `${file}.js`), [], {
    env: { ...process.env, TASKMESH_LOG_LEVEL: "warn", TASKMESH_METRICS_ADDRESS: "off", ...env },
    execArgv: [...process.execArgv, ...(process.env["BENCH_NODE_ARGS"]?.split(" ") ?? [])],
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  await new Promise<void>((resolve, reject) => {
    child.once("message", () => resolve());
    child.once("exit", (code) => reject(new Error(`${file} ended with ${code} before it was ready`)));
  });
  return child;
}

function ask(child: ChildProcess, request: Ask): Promise<LoadResult> {
  return new Promise((resolve, reject) => {
    const onExit = (): void => reject(new Error("the program under load ended"));
    child.once("exit", onExit);
    child.once("message", (result) => {
      child.off("exit", onExit);
      resolve(result as LoadResult);
    });
    child.send(request);
  });
}

async function end(...children: ChildProcess[]): Promise<void> {
  for (const child of children) {
    const gone = new Promise((resolve) => child.once("exit", resolve));
    if (child.exitCode !== null) continue;
    child.kill("SIGTERM");
    await Promise.race([gone, new Promise((resolve) => setTimeout(resolve, 5_000))]);
    child.kill("SIGKILL");
  }
}

/** The floor program on the servers; `steps`: of each run. */
export async function startFloor(servers: Servers, steps = stepsPerRun): Promise<Program> {
  const sql = postgres(servers.databaseUrl, { max: 1, onnotice: () => {} });
  await sql`create table if not exists floor_results (run bigint, step int, out text, primary key (run, step))`;
  await sql.end();
  const nc = await openNats(servers.nats.url);
  const manager = await jetstreamManager(nc);
  for (const [name, subject, consumer] of [
    ["FLOOR_START", "floor.s.>", "w"],
    ["FLOOR_DONE", "floor.d.>", "c"],
  ] as const) {
    await manager.streams.add({
      name,
      subjects: [subject],
      retention: "limits",
      storage: "file",
      duplicate_window: 1e9,
    });
    await manager.consumers.add(name, {
      durable_name: consumer,
      ack_policy: "explicit",
      max_ack_pending: 20_000,
      ack_wait: 60e9,
    });
  }
  await nc.close();
  const env = { NATS_URL: servers.nats.url, DATABASE_URL: servers.databaseUrl, FLOOR_STEPS: String(steps) };
  const worker = await startProcess("floor-worker", env);
  const coordinator = await startProcess("floor-coordinator", env);
  return {
    name: "floor",
    pids: { coordinator: coordinator.pid ?? 0, worker: worker.pid ?? 0 },
    run: (request) => ask(coordinator, request),
    stop: () => end(worker, coordinator),
  };
}

/** A gRPC client of Count at an address, in a process of its own. */
export async function startCaller(name: string, port: number): Promise<Program> {
  const client = await startProcess("calls-client", { BENCH_ADDRESS: `127.0.0.1:${port}` });
  return { name, pids: { client: client.pid ?? 0 }, run: (request) => ask(client, request), stop: () => end(client) };
}

/** A plain grpc-js server of Count, with a client. */
export async function startDirect(): Promise<Program> {
  const port = await freePort();
  const server = await startProcess("direct-server", { BENCH_ADDRESS: `127.0.0.1:${port}` });
  const caller = await startCaller("direct", port);
  const stop = async (): Promise<void> => {
    await caller.stop();
    await end(server);
  };
  return { ...caller, pids: { ...caller.pids, server: server.pid ?? 0 }, stop };
}

/** So many coordinators on the servers, each with a worker of its own that any of them may give work to; chain5 saved. */
export async function startEngines(servers: Servers, count: number): Promise<Program[]> {
  const engines: Program[] = [];
  for (let i = 0; i < count; i++) engines.push(await startEngine(servers));
  return engines;
}

/** The engine on the servers: one coordinator, one worker, chain5 saved. */
export async function startEngine(servers: Servers): Promise<Program & { grpcPort: number }> {
  const grpcPort = await freePort();
  const address = `127.0.0.1:${grpcPort}`;
  const coordinator = await startProcess("engine-coordinator", {
    NATS_URL: servers.nats.url,
    DATABASE_URL: servers.databaseUrl,
    TASKMESH_GRPC_ADDRESS: address,
  });
  const worker = await startProcess("engine-worker", { TASKMESH_ADDRESS: address });
  await putChain5({ host: "127.0.0.1", port: grpcPort });
  return {
    name: "engine",
    grpcPort,
    pids: { coordinator: coordinator.pid ?? 0, worker: worker.pid ?? 0 },
    run: (request) => ask(coordinator, request),
    stop: () => end(worker, coordinator),
  };
}

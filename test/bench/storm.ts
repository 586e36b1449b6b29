/**
 * storm: thousands of workers, some of them at work, whose coordinator is killed and started again; how long until all of them are back, what it
 * costs, and whether a step needed a second attempt.
 */
import { join } from "node:path";
import { EventKind, RunServiceClient, RunStatus, StartRunRequest } from "@taskmesh/proto";
import { createClient, unaryCall } from "@taskmesh/runtime";
import postgres from "postgres";
import { freePort } from "../fixtures/ports.js";
import { ServerProcess, waitFor } from "../fixtures/process.js";
import { chainMethod, putChain5 } from "./chain.js";
import { pad, stepsPerRun } from "./load.js";
import { rssMb } from "./processes.js";
import { startServers } from "./setup.js";

/** Workers in one process; more would wait for each other rather than for the coordinator. */
const perProcess = 1_000;
const patienceMs = 600_000;
/** Runs that are under way meanwhile. */
const runs = 500;

export interface StormOptions {
  workers: number;
  /** How long each step of the runs takes. */
  stepMs: number;
  /** How long the runs are under way when the coordinator is killed: after a beat (5 s) their attempts are bound. */
  killAfterMs: number;
}

export async function benchStorm({ workers, stepMs, killAfterMs }: StormOptions): Promise<void> {
  const servers = await startServers();
  const sql = postgres(servers.databaseUrl, { max: 1, onnotice: () => {} });
  const port = await freePort();
  const env = {
    ...process.env,
    NATS_URL: servers.nats.url,
    DATABASE_URL: servers.databaseUrl,
    TASKMESH_GRPC_ADDRESS: `127.0.0.1:${port}`,
    TASKMESH_ADDRESS: `127.0.0.1:${port}`,
    TASKMESH_METRICS_ADDRESS: "off",
    TASKMESH_LOG_LEVEL: "info",
  };
  const startCoordinator = async (): Promise<ServerProcess> => {
    const program = join(import.meta.dirname, "../../../../coordinator/dist/main.js");
    const child = new ServerProcess(process.execPath, [program], { env });
    await child.ready("the coordinator", () => child.output.includes("serving gRPC"), 60_000);
    return child;
  };
  const attached = async (not: readonly string[]): Promise<number> => {
    const [row] = await sql<{ n: number }[]>`
      select count(*)::int as n from sessions s join coordinators c on c.id = s.coordinator_id
      where c.id <> all(${not}) and c.last_beat_at > now() - interval '5 seconds' and s.assignable`;
    return row?.n ?? 0;
  };
  let coordinator = await startCoordinator();
  const fleets: ServerProcess[] = [];
  try {
    const startedAt = performance.now();
    for (let left = workers; left > 0; left -= perProcess) {
      const size = String(Math.min(left, perProcess));
      const program = join(import.meta.dirname, "storm-fleet.js");
      const fleet = new ServerProcess(process.execPath, [program], {
        env: { ...env, FLEET: size, DELAY_MS: String(stepMs) },
      });
      fleets.push(fleet);
      await fleet.ready("a fleet", () => fleet.output.includes("is registered"), patienceMs);
    }
    const registered_s = (performance.now() - startedAt) / 1_000;
    const rss = rssMb(coordinator.pid);
    const address = { host: "127.0.0.1", port };
    await putChain5(address);
    await startRuns(address);
    await new Promise((resolve) => setTimeout(resolve, killAfterMs));
    const gone = (await sql<{ id: string }[]>`select id from coordinators`).map(({ id }) => id);
    coordinator.signal("SIGKILL");
    await coordinator.exited();
    coordinator = await startCoordinator();
    const upAt = performance.now();
    await waitFor("every worker to be back", async () => (await attached(gone)) >= workers, patienceMs, 200);
    const back_s = (performance.now() - upAt) / 1_000;
    const ended = "select count(*)::int as n from runs where ended_at is not null";
    await waitFor(
      "every run to end",
      async () => (await sql.unsafe<{ n: number }[]>(ended))[0]?.n === runs,
      patienceMs,
      200,
    );
    const [made] = await sql<{ succeeded: number; attempts: number }[]>`
      select (select count(*)::int from runs where status = ${RunStatus.RUN_STATUS_SUCCEEDED}) as succeeded,
        (select coalesce(sum(attempt), 0)::int from (select max(attempt) as attempt from events where step is not null group by run_id, step) s) as attempts`;
    // What was given up, and why; ids of coordinators are left out.
    const given = await sql<{ why: string; n: number }[]>`
      select regexp_replace(convert_from(body, 'UTF8')::json ->> 'n', 'coordinator \\S+', 'its coordinator') as why, count(*)::int as n
      from events where kind in (${EventKind.EVENT_KIND_ATTEMPT_LOST}, ${EventKind.EVENT_KIND_STEP_DISPATCHED}) and length(body) > 0
      group by why having max(convert_from(body, 'UTF8')::json ->> 'n') is not null`;
    const crashed = [coordinator, ...fleets].filter((one) => one.ended).length;
    const figures = { registered_s: Math.round(registered_s), back_s: Math.round(10 * back_s) / 10, crashed };
    console.log(
      JSON.stringify({
        name: "storm",
        workers,
        step_ms: stepMs,
        kill_after_ms: killAfterMs,
        ...figures,
        runs,
        succeeded: made?.succeeded,
        attempts: made?.attempts,
        steps: runs * stepsPerRun,
        given_up: Object.fromEntries(given.map(({ why, n }) => [why, n])),
        coordinator_mb: { before: rss, after: rssMb(coordinator.pid) },
      }),
    );
  } finally {
    for (const fleet of fleets) fleet.signal("SIGKILL");
    coordinator.signal("SIGKILL");
    await sql.end({ timeout: 1 });
    await servers.stop();
  }
}

/** Starts the runs at the coordinator; they go on by themselves. */
async function startRuns(address: { host: string; port: number }): Promise<void> {
  const client = createClient(RunServiceClient, { addresses: [address] });
  try {
    const one = (_: unknown, i: number): Promise<unknown> => {
      const value = JSON.stringify({ counter: 0, run: String(i), pad });
      const input = { $case: "json" as const, value };
      return unaryCall(client, client.startRun, { ...StartRunRequest.create(), method: chainMethod, input });
    };
    await Promise.all(Array.from({ length: runs }, one));
  } finally {
    client.close();
  }
}

/** What an orchestrator learns of each role, as processes over real servers: alive whatever happens around it, ready when it can serve. */
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type NatsFixture, startNats } from "../fixtures/nats.js";
import { freePorts } from "../fixtures/ports.js";
import { type PostgresFixture, startPostgres } from "../fixtures/postgres.js";
import { ServerProcess, waitFor } from "../fixtures/process.js";

const run = promisify(execFile);
const root = join(import.meta.dirname, "..", "..");
const nodeArgs = ["--import", "tsx", "--conditions=@taskmesh/source"];

let folder: string;
let nats: NatsFixture;
let postgres: PostgresFixture;
let databaseUrl: string;
let ports: number[];
const roles: ServerProcess[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "taskmesh-probes-"));
  [nats, postgres, ports] = await Promise.all([startNats(), startPostgres(), freePorts(5)]);
  databaseUrl = await postgres.createDatabase();
});

afterAll(async () => {
  postgres?.resume();
  for (const role of roles) role.signal("SIGKILL");
  await nats?.dispose();
  await postgres?.dispose();
  await rm(folder, { recursive: true, force: true });
});

function start(file: string, healthPort: number, env: Record<string, string>): ServerProcess {
  const own = { TASKMESH_HEALTH_ADDRESS: `127.0.0.1:${healthPort}`, TASKMESH_METRICS_ADDRESS: "off", ...env };
  const role = new ServerProcess(process.execPath, [...nodeArgs, join(root, file)], {
    cwd: root,
    env: { ...process.env, ...own },
  });
  roles.push(role);
  return role;
}

/** The answers of /livez and /readyz; 0: none. */
async function probe(port: number): Promise<[live: number, ready: number]> {
  const ask = (path: string): Promise<number> =>
    fetch(`http://127.0.0.1:${port}${path}`).then(
      ({ status }) => status,
      () => 0,
    );
  return [await ask("/livez"), await ask("/readyz")];
}

const becomes = (what: string, port: number, live: number, ready: number): Promise<void> =>
  waitFor(what, async () => String(await probe(port)) === String([live, ready]), 60_000);

/** The exit code and the log of a migration. */
async function migrate(url: string): Promise<{ code: number; log: string }> {
  const env = { ...process.env, DATABASE_URL: url };
  const args = [...nodeArgs, join(root, "coordinator/src/main.ts"), "migrate"];
  return run(process.execPath, args, { cwd: root, env }).then(
    ({ stderr }) => ({ code: 0, log: stderr }),
    ({ code, stderr }: { code: number; stderr: string }) => ({ code, log: stderr }),
  );
}

it("the schema can be brought up before any coordinator starts, and again", async () => {
  const [first, unset] = await Promise.all([migrate(databaseUrl), migrate("")]);
  expect(first).toMatchObject({ code: 0, log: expect.stringMatching(/"applied":[1-9]/) });
  expect(unset).toMatchObject({ code: 2, log: expect.stringContaining("DATABASE_URL: is not set") });
  const away = `postgres://127.0.0.1:${ports[4]}/none`;
  const [again, unreachable] = await Promise.all([migrate(databaseUrl), migrate(away)]);
  expect(again).toMatchObject({ code: 0, log: expect.stringContaining('"applied":0') });
  expect(unreachable).toMatchObject({ code: 1, log: expect.stringContaining("could not be migrated") });
});

it("each role is alive from its start on, and ready when it can serve", async () => {
  const [grpc, http, coordinatorHealth, gatewayHealth, workerHealth] = ports as [
    number,
    number,
    number,
    number,
    number,
  ];
  const dial = { TASKMESH_ADDRESS: `127.0.0.1:${grpc}` };
  start("gateway/src/main.ts", gatewayHealth, { ...dial, TASKMESH_HTTP_ADDRESS: `127.0.0.1:${http}` });
  const gate = join(folder, "gate");
  const worker = start("test/fixtures/sdk-worker-main.ts", workerHealth, { ...dial, TEST_GATE: gate });
  await becomes("a gateway without a coordinator", gatewayHealth, 200, 503);
  await becomes("a worker without a coordinator", workerHealth, 200, 503);

  const stores = { DATABASE_URL: databaseUrl, NATS_URL: nats.url };
  const coordinator = start("coordinator/src/main.ts", coordinatorHealth, {
    ...stores,
    TASKMESH_GRPC_ADDRESS: `127.0.0.1:${grpc}`,
  });
  await becomes("the coordinator", coordinatorHealth, 200, 200);
  await becomes("the gateway", gatewayHealth, 200, 200);
  await becomes("the worker", workerHealth, 200, 200);

  // Accepted runs wait for the broker: nothing is refused.
  await nats.stop();
  expect(await probe(coordinatorHealth)).toEqual([200, 200]);
  await nats.start();

  // A database that is silent: no call can be accepted, and no restart would help.
  postgres.pause();
  await becomes("a coordinator without its database", coordinatorHealth, 200, 503);
  await becomes("a gateway whose coordinator is not serving", gatewayHealth, 200, 503);
  postgres.resume();
  await becomes("the coordinator with its database", coordinatorHealth, 200, 200);

  // A drain is not death, and brings no more work.
  const url = `http://127.0.0.1:${http}/v1/acme.pages.v1.PageActions/Score`;
  const headers = { "content-type": "application/json" };
  const answer = fetch(url, { method: "POST", headers, body: JSON.stringify({ text: "hold on" }) });
  await waitFor("the attempt", () => worker.output.includes("running hold"), 60_000);
  worker.signal("SIGTERM");
  await becomes("a worker that drains", workerHealth, 200, 503);
  await writeFile(gate, "");
  expect(await (await answer).json()).toEqual({ words: 2 });
  await worker.exited();
  expect(await probe(workerHealth)).toEqual([0, 0]);
  coordinator.signal("SIGTERM");
  await coordinator.exited();
}, 180_000);

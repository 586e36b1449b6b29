/**
 * SIGTERM to each role while it works: it ends by itself with code 0 and within its bound, and no attempt is spent on it: in the end there was
 * exactly one attempt for each step.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { chainMethod } from "../bench/chain.js";
import { allEnded, endedRuns, judge, type Mesh, MeshProcess, startMany, startMesh } from "../fixtures/mesh.js";
import { freePort } from "../fixtures/ports.js";
import { waitFor } from "../fixtures/process.js";
import { ask } from "../fixtures/rest-gateway.js";

const runs = 400;
const calls = 30;

let mesh: Mesh | undefined;
let gateway: MeshProcess | undefined;
let folder: string | undefined;
afterEach(async () => {
  await gateway?.kill();
  await mesh?.stop();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

async function startGateway(to: Mesh): Promise<{ process: MeshProcess; address: string }> {
  const port = await freePort();
  const addresses = to.addresses.map(({ host, port: grpc }) => `${host}:${grpc}`).join(",");
  const env = { TASKMESH_HTTP_ADDRESS: `127.0.0.1:${port}`, TASKMESH_ADDRESS: addresses };
  const address = `127.0.0.1:${port}`;
  gateway = new MeshProcess("the gateway", "gateway/src/main.ts", env, async () => {
    const answer = await ask({ address }, "/readyz").catch(() => undefined);
    return answer?.status === 200;
  });
  await gateway.start();
  return { process: gateway, address };
}

/** More runs end than had: whoever is left carries on. */
async function goesOn(on: Mesh): Promise<void> {
  const before = await endedRuns(on);
  expect(before, "the load was over too early").toBeLessThan(runs);
  await waitFor("more runs to end", async () => (await endedRuns(on)) > before);
}

it("spends no attempt on the stop of a worker, a coordinator or a gateway, and drops no call", {
  timeout: 200_000,
}, async () => {
  folder = mkdtempSync(join(tmpdir(), "taskmesh-stops-"));
  const ledger = join(folder, "ledger");
  const started = await startMesh({
    coordinators: 2,
    workers: 2,
    workerEnv: { DELAY_MS: "200", SLOTS: "25", LEDGER: ledger },
  });
  mesh = started;
  const rest = await startGateway(started);
  const accepted = startMany(started, runs);
  accepted.catch(() => {});
  await waitFor("the first runs to end", async () => (await endedRuns(started)) > 10, 60_000);

  expect(await started.workers[0]!.terminate()).toBe(0);
  await goesOn(started);
  expect(await started.coordinators[0]!.terminate()).toBe(0);
  await goesOn(started);

  const answers = Promise.all(
    Array.from({ length: calls }, (_, i) => ask(rest, `/v1/${chainMethod}`, { body: { run: String(runs + i) } })),
  );
  const waiting = async (): Promise<boolean> => {
    const [row] = await started.sql<{ n: number }[]>`
      select count(*)::int as n from runs where id not in (select run_id from idempotency_keys where key like 'chain5-%')`;
    return row?.n === calls;
  };
  await waitFor("the calls to have started their runs", waiting, 60_000);
  expect(await rest.process.terminate()).toBe(0);
  // A call whose run is not over is answered with its id: it can be asked for anywhere.
  for (const { status, json } of await answers) {
    if (status === 202) expect(json.runId).toMatch(/^[0-9a-f-]{36}$/);
    else expect([status, json]).toMatchObject([200, { counter: 5 }]);
  }

  const ids = await accepted;
  await allEnded(started, runs + calls, 120_000);
  expect(await judge(started, ids)).toEqual({ runs, succeeded: runs, wrong: 0, oddSteps: 0 });
  const steps = (runs + calls) * 5;
  const attempts = readFileSync(ledger, "utf8").trim().split("\n");
  expect(attempts).toHaveLength(steps);
  expect(new Set(attempts.map((line) => line.split(" ").slice(0, 2).join(" "))).size).toBe(steps);
  const [row] = await started.sql<{ most: number }[]>`select max(attempt)::int as most from events`;
  expect(row?.most).toBe(1);
});

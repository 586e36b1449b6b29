/**
 * A thousand workers whose only coordinator is killed and started again: all come back, none crashes, and what they were doing
 * meanwhile is done, with one attempt for each step.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EventKind } from "@taskmesh/proto";
import { afterEach, expect, it } from "vitest";
import { allEnded, judge, type Mesh, MeshProcess, startMany, startMesh } from "../fixtures/mesh.js";
import { waitFor } from "../fixtures/process.js";

const fleetSize = 1_000;
const runs = 200;
/** Half a minute is usual on two free cores. */
const backMs = 150_000;

let mesh: Mesh | undefined;
let fleet: MeshProcess | undefined;
let folder: string | undefined;
afterEach(async () => {
  await fleet?.kill();
  await mesh?.stop();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

/** Sessions whose stream the coordinator holds that beats and is none of `others`. */
async function attached(on: Mesh, others: readonly string[]): Promise<number> {
  const [row] = await on.sql<{ n: number }[]>`
    select count(*)::int as n from sessions s join coordinators c on c.id = s.coordinator_id
    where c.id <> all(${others}) and c.last_beat_at > now() - interval '5 seconds' and s.assignable`;
  return row?.n ?? 0;
}

it("all come back after a coordinator's restart, and no attempt is lost", {
  timeout: 400_000,
}, async () => {
  folder = mkdtempSync(join(tmpdir(), "taskmesh-storm-"));
  const ledger = join(folder, "ledger");
  const started = await startMesh({ coordinators: 1, workers: 1, workerEnv: { SLOTS: "1" } });
  mesh = started;
  await started.workers[0]!.kill();
  const [address] = started.addresses;
  const env = {
    TASKMESH_ADDRESS: `127.0.0.1:${address!.port}`,
    FLEET: String(fleetSize),
    DELAY_MS: "2000",
    LEDGER: ledger,
  };
  fleet = new MeshProcess(
    "the fleet",
    "test/fixtures/worker-fleet.ts",
    env,
    (output) => output.includes("is registered"),
    120_000,
  );
  await fleet.start();
  const ids = await startMany(started, runs);

  const gone = (await started.sql<{ id: string }[]>`select id from coordinators`).map(({ id }) => id);
  await started.coordinators[0]!.kill();
  await started.coordinators[0]!.start();
  await waitFor("every worker to be back", async () => (await attached(started, gone)) >= fleetSize, backMs, 200);

  await allEnded(started, runs, 120_000);
  expect(await judge(started, ids)).toEqual({ runs, succeeded: runs, wrong: 0, oddSteps: 0 });
  expect(fleet.alive).toBe(true);
  expect(started.coordinators[0]!.alive).toBe(true);
  // Why a second attempt was made, if one was.
  const given = await started.sql`
    select convert_from(body, 'UTF8')::json ->> 'n' as why, count(*)::int as steps, min(at) as first, max(at) as last from events
    where kind in (${EventKind.EVENT_KIND_ATTEMPT_LOST}, ${EventKind.EVENT_KIND_STEP_DISPATCHED})
      and length(body) > 0 and convert_from(body, 'UTF8')::json ->> 'n' is not null group by why`;
  expect(given).toEqual([]);
  const attempts = readFileSync(ledger, "utf8").trim().split("\n");
  expect(attempts).toHaveLength(runs * 5);
  const [row] = await started.sql<{ most: number }[]>`select max(attempt)::int as most from events`;
  expect(row?.most).toBe(1);
});

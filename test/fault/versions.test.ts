/**
 * The coordinator of the last release and the present one over one database and one NATS, as in a rolling upgrade or its rollback: the
 * present one migrates while the old one works, and runs that either accepted finish on either.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { ListRunsRequest, RunServiceClient } from "@taskmesh/proto";
import { createClient, unaryCall } from "@taskmesh/runtime";
import { afterEach, expect, it } from "vitest";
import { allEnded, endedRuns, judge, type Mesh, startMany, startMesh } from "../fixtures/mesh.js";
import { waitFor } from "../fixtures/process.js";
import { type Release, unpackRelease } from "../fixtures/release.js";

const runs = 400;
const migrations = join(import.meta.dirname, "../../coordinator/migrations");

let mesh: Mesh | undefined;
let release: Release | undefined;
const clients: RunServiceClient[] = [];
afterEach(async () => {
  for (const client of clients) client.close();
  await mesh?.stop();
  release?.dispose();
});

const migrated = async (on: Mesh): Promise<number> =>
  (await on.sql<{ n: number }[]>`select count(*)::int as n from drizzle.__drizzle_migrations`)[0]!.n;

/** The mesh as one coordinator's clients see it, once that one answers: after a restart their channel waits before it dials again. */
async function through(on: Mesh, coordinator: number): Promise<Mesh> {
  const client = createClient(RunServiceClient, { addresses: [on.addresses[coordinator]!] });
  clients.push(client);
  const answers = (): Promise<boolean> =>
    unaryCall(client, client.listRuns, ListRunsRequest.fromPartial({ namespace: "default", pageSize: 1 })).then(
      () => true,
      () => false,
    );
  await waitFor(`coordinator ${coordinator} to answer`, answers, 60_000);
  return { ...on, runs: client };
}

/** More runs end than had. */
async function goesOn(on: Mesh): Promise<void> {
  const before = await endedRuns(on);
  expect(before, "the load was over too early").toBeLessThan(2 * runs);
  await waitFor("more runs to end", async () => (await endedRuns(on)) > before, 30_000, 100);
}

it("finish each other's runs, whichever is stopped, killed or put back", { timeout: 300_000 }, async () => {
  const last = unpackRelease();
  release = last;
  const started = await startMesh({
    coordinators: 2,
    workers: 2,
    programs: [last.main],
    hold: [1],
    workerEnv: { DELAY_MS: "100", SLOTS: "30" },
  });
  mesh = started;
  const [old, present] = started.coordinators;
  expect(await migrated(started)).toBe(last.migrations);

  // The old one works while the present one migrates the database that it works on.
  const ofOld = startMany(await through(started, 0), runs);
  ofOld.catch(() => {});
  await goesOn(started);
  await present!.start();
  expect(await migrated(started)).toBe(readdirSync(migrations).filter((name) => name.endsWith(".sql")).length);
  const ofPresent = startMany(await through(started, 1), runs, runs);
  ofPresent.catch(() => {});
  await goesOn(started);
  // Everything of the old one's clients is accepted before it goes, since they know no other address.
  const oldIds = await ofOld;
  await old!.kill();
  await goesOn(started);
  // A rollback: the old one comes back to a schema newer than its own, and the present one leaves.
  await old!.start();
  const ids = [...oldIds, ...(await ofPresent)];
  expect(await present!.terminate()).toBe(0);
  await allEnded(started, 2 * runs, 120_000);
  expect(await judge(await through(started, 0), ids)).toEqual({
    runs: 2 * runs,
    succeeded: 2 * runs,
    wrong: 0,
    oddSteps: 0,
  });
});

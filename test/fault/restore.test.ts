/** The backup and restore of docs/guides/operations.md: Postgres alone comes back, JetStream is lost, and every run of the backup ends. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, expect, it } from "vitest";
import { allEnded, endedRuns, judge, type Mesh, startMany, startMesh } from "../fixtures/mesh.js";
import { postgresBinFolder } from "../fixtures/postgres.js";
import { waitFor } from "../fixtures/process.js";

const run = promisify(execFile);
const runs = 200;

let mesh: Mesh | undefined;
let folder: string | undefined;
afterEach(async () => {
  await mesh?.stop();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

it("every run of a backup ends after its restore, though JetStream is lost", { timeout: 300_000 }, async () => {
  const started = await startMesh({ coordinators: 1, workers: 1, workerEnv: { DELAY_MS: "100", SLOTS: "20" } });
  mesh = started;
  const { databaseUrl, nats, sql } = started;
  folder = mkdtempSync(join(tmpdir(), "taskmesh-backup-"));
  const dump = join(folder, "taskmesh.dump");
  const tool = (name: string, ...args: string[]) => run(join(postgresBinFolder(), name), args, { timeout: 60_000 });

  const ids = await startMany(started, runs);
  await waitFor("some runs to end", async () => (await endedRuns(started)) > 10, 60_000);
  await tool("pg_dump", "-Fc", databaseUrl, "-f", dump);
  const live = runs - (await endedRuns(started));
  expect(live).toBeGreaterThan(0);

  // What comes after the backup: the other runs end, and then everything is lost.
  await allEnded(started, runs, 120_000);
  await started.coordinators[0]!.kill();
  await started.workers[0]!.kill();
  await nats.stop();
  await nats.wipe();
  await nats.start();
  await sql`drop schema public cascade`;
  await sql`drop schema drizzle cascade`;
  await sql`create schema public`;
  await tool("pg_restore", "-d", databaseUrl, "--no-owner", dump);
  expect(await endedRuns(started)).toBeLessThan(runs);

  await started.coordinators[0]!.start();
  await started.workers[0]!.start();
  await allEnded(started, runs, 120_000);
  // Asked for by new connections: the old ones wait before they dial again.
  await waitFor(
    "the results",
    () =>
      judge(started, ids).then(
        ({ succeeded, wrong, oddSteps }) => succeeded === runs && wrong === 0 && oddSteps === 0,
        () => false,
      ),
    60_000,
    500,
  );
});

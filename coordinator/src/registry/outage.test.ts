import { MemoryBus } from "@taskmesh/runtime";
import { afterEach, describe, expect, it } from "vitest";
import { type PostgresFixture, startPostgres } from "../../../test/fixtures/postgres.js";
import type { Database } from "../store/db.js";
import { migrate } from "../store/migrate.js";
import { openPostgres } from "../store/postgres.js";
import { defaultIntervals } from "./intervals.js";
import {
  attemptBeat,
  registration,
  type shortIntervals,
  startTestCoordinator,
  type TestCoordinator,
  TestWorker,
  waitFor,
} from "./registry-fixture.js";

const service = { package: "acme.pages.v1" };

describe("the registry in an outage", () => {
  let postgres: PostgresFixture;
  let db: Database;
  let coordinator: TestCoordinator;

  const start = async (intervals: typeof shortIntervals = {}): Promise<void> => {
    postgres = await startPostgres();
    db = openPostgres({ url: await postgres.createDatabase(), connectionsMax: 4 });
    await migrate(db);
    coordinator = await startTestCoordinator(db, { intervals, bus: new MemoryBus() });
  };
  const listed = async (sessionId: string): Promise<boolean> => {
    const rows = await db.query("select 1 as one from sessions where id = $1::text", [sessionId]);
    return rows.length > 0;
  };
  afterEach(async () => {
    await coordinator.stop();
    await db.close();
    await postgres.dispose();
  });

  it("keeps every session and attempt through a crash of the database that lasts longer than the session time-out", async () => {
    // Long enough that a busy machine alone silences nobody.
    const timeoutMs = 5_000;
    await start({ sessionTimeoutMs: timeoutMs, graceMs: 10_000 });
    const worker = await TestWorker.start(coordinator, registration([service], 4), 30);
    worker.attempts = [attemptBeat("lease1")];
    await waitFor("the binding", () => coordinator.intake.bound.length > 0);
    await postgres.kill();
    const before = worker.stream.replies.length;
    const downAtMs = performance.now();
    await waitFor("more than a session time-out", () => performance.now() - downAtMs > timeoutMs * 1.5, 30_000);
    expect(worker.stream.replies.length).toBeGreaterThan(before);
    await postgres.start();
    const bound = coordinator.intake.bound.length;
    await waitFor("bindings after it", () => coordinator.intake.bound.length > bound + 40, 30_000);
    expect(await listed(worker.sessionId)).toBe(true);
    expect(worker.stream.status).toBeUndefined();
    expect(coordinator.intake.lost).toEqual([]);
    await worker.leave();
  });

  it("refuses registrations while the database is away, as something to try again, and takes them afterwards", async () => {
    await start();
    await postgres.kill();
    await expect(coordinator.connect().register(registration([service]))).rejects.toMatchObject({
      reason: "DATABASE_UNAVAILABLE",
    });
    await postgres.start();
    await waitFor("a registration", () =>
      coordinator
        .connect()
        .register(registration([service]))
        .then(() => true)
        .catch(() => false),
    );
  });

  it("takes a silent worker from the live list within 20 s, with the product's intervals", async () => {
    await start({ ...defaultIntervals });
    const worker = await TestWorker.start(coordinator, registration([service]), 1_000);
    await waitFor("the lane", () => coordinator.registry.catalogue.liveLanes().length === 1);
    await worker.die();
    await waitFor("the lapse", () => coordinator.registry.catalogue.liveLanes().length === 0, 20_000);
    expect(await listed(worker.sessionId)).toBe(false);
  });
});

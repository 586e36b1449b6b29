import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { readDatabaseFigures, readFigures } from "./figures.js";
import { openStore } from "./store-fixture.js";

afterAll(stopDatabases);

describe("figures of the mesh", () => {
  let database: TestDatabase;
  beforeEach(async () => {
    database = await openStore("postgres");
    await database.db.query("delete from ready_steps");
  });
  afterEach(() => database.dispose());

  const wait = (queue: string, count: number, priority = 0, secondsAgo = 60) =>
    database.db.query(
      `insert into ready_steps (run_id, step, item, namespace_id, task_queue, callee, priority, ready_at)
       select gen_random_uuid(), 0, 0, 1, $1::text, 'm@f', $2::smallint, now() - ($3::float8 + i) * interval '1 second'
       from generate_series(1, $4::int) i`,
      [queue, priority, secondsAgo, count],
    );

  it("count each queue that has waiting steps or workers, with its oldest", async () => {
    await wait("a", 3);
    await wait("b", 2, 5);
    await wait("b", 1, 0, 500);
    const { queues } = await readFigures(database.db);
    expect(queues.map(({ queue, ready }) => ({ queue, ready }))).toEqual([
      { queue: "a", ready: 3 },
      { queue: "b", ready: 3 },
    ]);
    expect(queues[0]).toMatchObject({ namespace: "default", slots: 0, freeSlots: 0 });
    expect(Math.round(queues[0]!.oldestSeconds)).toBe(63);
    expect(Math.round(queues[1]!.oldestSeconds)).toBe(501);
  });

  it("are all zero in an empty mesh", async () => {
    expect(await readFigures(database.db)).toEqual({
      queues: [],
      sessions: [],
      runs: [],
      sweeperLagSeconds: 0,
      effectBatches: 0,
      coordinators: 0,
    });
  });

  it("say how the database does", async () => {
    const figures = await readDatabaseFigures(database.db);
    expect(figures!.sizeBytes).toBeGreaterThan(1_000_000);
    expect(figures!.connectionsMax).toBeGreaterThan(0);
    expect(figures!.oldestTransactionSeconds).toBeLessThan(60);
  });
});

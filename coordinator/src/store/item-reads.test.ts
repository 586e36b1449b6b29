import { EventKind, Payload } from "@taskmesh/proto";
import { uuidv7 } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { childSession } from "../engine/children.js";
import { planOf } from "../engine/plan-fixture.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { readLeftChildren } from "./children.js";
import type { Database } from "./db.js";
import { readDoneItems, readItemOutputs } from "./item-reads.js";
import { commit, newRun, openStore, writeOf } from "./store-fixture.js";

afterAll(stopDatabases);

const plan = planOf({ a: {} });

describe.each(["pglite", "postgres"] as const)("reads of items on %s", (kind) => {
  let database: TestDatabase;
  let db: Database;
  let seq = 100;
  beforeEach(async () => {
    database = await openStore(kind);
    db = database.db;
  });
  afterEach(() => database.dispose());

  const store = async (ended = false): Promise<string> => {
    const bench = newRun(plan);
    if (ended) bench.complete("a");
    await commit(db, [{ ...writeOf(bench), expectedVersion: 0 }]);
    return bench.run.id;
  };
  /** A history row about an item of step 3. */
  const happened = (runId: string, event: EventKind, item: number, about: { note?: string; output?: string } = {}) => {
    const payload = about.output && {
      ...Payload.create(),
      data: { $case: "inline" as const, value: Buffer.from(about.output) },
    };
    const body = about.note === undefined ? null : Buffer.from(JSON.stringify({ n: about.note }));
    return db.query(
      `insert into events (run_id, seq, at, kind, step, item, attempt, body, payload)
       values ($1::uuid, $2::int, now(), $3::smallint, 3, $4::int, 1, $5::bytea, $6::bytea)`,
      [runId, seq++, event, item, body, payload ? Buffer.from(Payload.encode(payload).finish()) : null],
    );
  };
  const bind = (runId: string, item: number, lease: string) =>
    db.query(
      `insert into bindings (run_id, step, item, step_id, attempt, lease, session_id, started_at)
       values ($1::uuid, 3, $2::int, 's', 1, $3::text, $4::text, now())`,
      [runId, item, lease, childSession],
    );

  it("find the runs that live though no attempt is them any more, page by page", async () => {
    const parent = await store();
    const [bound, ended, stranger] = [await store(), await store(true), await store()];
    const left = [await store(), await store(), await store()].sort();
    for (const [item, id] of [bound, ended, ...left, uuidv7()].entries())
      await happened(parent, EventKind.EVENT_KIND_CHILD_STARTED, item, { note: id });
    await bind(parent, 0, bound);
    await happened(stranger, EventKind.EVENT_KIND_CHILD_STARTED, 0, { note: stranger });
    const page = (afterChildId: string) => readLeftChildren(db, { runId: parent, step: 3, afterChildId, limit: 2 });
    expect(await page("")).toEqual(left.slice(0, 2));
    expect(await page(left[1]!)).toEqual(left.slice(2));
    expect(await readLeftChildren(db, { runId: parent, step: 4, afterChildId: "", limit: 9 })).toEqual([]);
  });

  it("give outputs in the items' order, and what came last first for those that undo", async () => {
    const runId = await store();
    const done = (item: number) =>
      happened(runId, EventKind.EVENT_KIND_ITEM_SUCCEEDED, item, { note: `k${item}`, output: `out ${item}` });
    await done(9);
    await happened(runId, EventKind.EVENT_KIND_STEP_RETRIED, 0);
    for (const item of [2, 0, 3, 1]) await done(item);
    expect((await readItemOutputs(db, runId, 3)).map(({ item }) => item)).toEqual([0, 1, 2, 3]);
    const page = async (from: number) =>
      (await readDoneItems(db, { runId, step: 3, from, limit: 3 })).map(({ item, key, value }) => [
        item,
        key,
        Buffer.from(value.bytes!).toString(),
      ]);
    expect(await page(0)).toEqual([
      [1, "k1", "out 1"],
      [3, "k3", "out 3"],
      [0, "k0", "out 0"],
    ]);
    expect(await page(3)).toEqual([[2, "k2", "out 2"]]);
  });
});

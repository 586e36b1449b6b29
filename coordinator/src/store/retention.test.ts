import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { planOf } from "../engine/plan-fixture.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { claimChore, holdChore } from "./chores.js";
import { commitBatch } from "./commit.js";
import { type Database, sqlState } from "./db.js";
import { deleteGiven, givenPrefix, storeGiven } from "./given-chains.js";
import { weekMs } from "./partitions.js";
import { createPayloadUses } from "./payload-uses.js";
import { getPayload, putPayload } from "./payloads.js";
import {
  cutAfter,
  makePast,
  nowMs,
  pastPayload,
  pastRun,
  round,
  stored,
  waitFor,
  weeksAgo,
} from "./retention-fixture.js";
import { readEvents } from "./run-reads.js";
import { loadRuns } from "./runs.js";
import { commit, idAt, newRun, openStore, writeOf } from "./store-fixture.js";

afterAll(stopDatabases);

describe.each(["pglite", "postgres"] as const)("retention on %s", (kind) => {
  let database: TestDatabase;
  let db: Database;
  beforeEach(async () => {
    database = await openStore(kind);
    db = database.db;
    await makePast(db, [10, 20]);
  });
  afterEach(() => database.dispose());

  const kept = async (runs: readonly { run: { id: string } }[]): Promise<void> => {
    const ids = runs.map(({ run }) => run.id).sort();
    expect(await stored(db)).toMatchObject({ runs: ids, events: ids, logs: ids });
  };
  const weekOf = (weeks: number): number => Math.floor(weeksAgo(weeks) / weekMs);

  it("drops weeks whose runs are over due, and moves what is live, kept longer or waited for", async () => {
    await pastRun(db, 10);
    await pastRun(db, 20);
    const live = await pastRun(db, 10, { ended: false });
    const slow = await pastRun(db, 20, { namespaceId: 2 });
    const child = await pastRun(db, 10);
    await waitFor(db, live, child);
    const young = await pastRun(db, 1);

    expect(await round(db)).toMatchObject({ runsMoved: 3, runsDeleted: 0 });
    await kept([live, slow, child, young]);
    const { weeks } = await stored(db);
    expect(weeks).not.toContain(`runs_w${weekOf(10)}`);
    expect(weeks).not.toContain(`events_w${weekOf(20)}`);
    expect(weeks).toContain(`runs_w${weekOf(1)}`);
    expect(await round(db)).toMatchObject({ weeksDropped: 0, runsMoved: 0, runsDeleted: 0, rowsDeleted: 0 });
  });

  it("deletes chains given as data when no run can be pinned to them, with what is theirs alone", async () => {
    const give = (name: string, descriptorHash: string) => {
      const method = `${givenPrefix}${name}`;
      const contract = (of: string) => ({
        ...{ method: of, fingerprint: `f ${of}`, inputType: "i", outputType: "o", description: "" },
        ...{ descriptorHash, descriptorSet: new Uint8Array([1]) },
      });
      const step = contract(`${method.replace("/", ".")}.Steps/x`);
      const chain = { namespaceId: 1, name: method, spec: new Uint8Array(1), specHash: name, contract: `f ${method}` };
      return storeGiven(db, { ...chain, pins: {}, edges: [] }, [contract(method), step]);
    };
    const first = await give("Made_1", "own");
    expect(await give("Made_1", "own")).toEqual(first);
    for (const [name, hash] of [
      ["MadeX1", "shared"],
      ["Live", "shared"],
      ["Within", "shared"],
      ["Old", "shared"],
    ] as const)
      await give(name, hash);
    const aged = `update chain_versions v set created_at = now() - interval '30 weeks' from chains c
      where c.id = v.chain_id and c.name <> $1::text`;
    await db.query(aged, [`${givenPrefix}MadeX1`]);
    // Of no week that has a partition, as runs are that were moved out of theirs.
    const runs = ["Live", "Within.each"].map((name) =>
      newRun(planOf({ a: {} }, { method: `${givenPrefix}${name}` }), { id: idAt(weeksAgo(40)) }),
    );
    await commit(
      db,
      runs.map((run) => writeOf(run)),
    );

    const left = async () =>
      (await db.query<{ name: string }>("select name from chains order by name")).map(({ name }) =>
        name.slice(givenPrefix.length),
      );
    const rows = async (table: string) =>
      (await db.query<{ n: number }>(`select count(*)::int as n from ${table}`))[0]!.n;
    expect(await deleteGiven(db, weeksAgo(10))).toBe(2);
    expect(await left()).toEqual(["Live", "MadeX1", "Within"]);
    expect([await rows("contracts"), await rows("chain_versions"), await rows("descriptor_sets")]).toEqual([6, 3, 1]);
    await db.query("delete from runs");
    expect(await deleteGiven(db, weeksAgo(10))).toBe(2);
    expect(await left()).toEqual(["MadeX1"]);
    expect(await deleteGiven(db, weeksAgo(10))).toBe(0);
    expect(await rows("contracts")).toBe(2);
  });

  it("lets runs that were moved go on, and deletes them when their time has come", async () => {
    const live = await pastRun(db, 10, { ended: false });
    const child = await pastRun(db, 10);
    await waitFor(db, live, child);
    await round(db);
    const found = (await loadRuns(db, [live.run.id])).get(live.run.id);
    expect(Buffer.from(found?.run.input.bytes ?? []).toString()).toBe("in");
    live.complete("a", "late");
    expect((await commit(db, [writeOf(live)])).written.size).toBe(1);
    await db.query("delete from bindings");
    expect(await readEvents(db, live.run.id, { afterSeq: 0, limit: 100, payloads: true })).toHaveLength(
      live.records.length,
    );
    // The bench says that the run ended when it was accepted, ten weeks ago.
    expect(await round(db)).toMatchObject({ runsDeleted: 2 });
    await kept([]);
  });

  it("keeps a run to the end of its namespace's retention, and its week until it is over", async () => {
    const old = await pastRun(db, 10);
    const days = Math.ceil((nowMs - old.run.endedAtMs) / (24 * 3600 * 1000));
    await db.query("update namespaces set retention_days = $1::int where id = 1", [days + 1]);
    await round(db);
    await kept([old]);
    await db.query("update namespaces set retention_days = $1::int where id = 1", [days - 8]);
    await round(db);
    await kept([]);
    const last = await pastRun(db, 1);
    await db.query("update namespaces set retention_days = 1 where id = 1");
    await round(db);
    await kept([last]);
  });

  it("empties a week in batches while too many of its runs are kept to be moved", async () => {
    for (let i = 0; i < 3; i++) await pastRun(db, 10);
    const slow = [await pastRun(db, 10, { namespaceId: 2 }), await pastRun(db, 10, { namespaceId: 2 })];
    expect(await round(db, { limits: { movedRunsMax: 1 } })).toMatchObject({ runsMoved: 0, runsDeleted: 3 });
    await kept(slow);
    expect((await stored(db)).weeks).toContain(`runs_w${weekOf(10)}`);
    // Neither a week whose kept runs have long histories: each has more rows than one.
    expect(await round(db, { limits: { movedEventsMax: 1 } })).toMatchObject({ runsMoved: 0 });
    expect((await stored(db)).weeks).toContain(`runs_w${weekOf(10)}`);
    expect(await round(db)).toMatchObject({ runsMoved: 2 });
    await kept(slow);
  });

  it("deletes payloads that no run names any more, and no others", async () => {
    const [gone, carried, fresh] = [await pastPayload(db, 30), await pastPayload(db, 30), await pastPayload(db, 30)];
    await pastRun(db, 20, { input: gone });
    const live = await pastRun(db, 20, { input: carried, ended: false });
    const young = await pastRun(db, 1, { input: fresh });
    // Naming them counted as a use now; these two were named long ago.
    for (const { reference } of [gone, carried]) {
      await db.query("update payloads set used_at = to_timestamp($1::float8 / 1000) where reference = $2::text", [
        weeksAgo(20),
        reference,
      ]);
    }
    const unused = await putPayload(db, 1, Buffer.from("uploaded today"));
    expect(await round(db)).toMatchObject({ payloadsDeleted: 1 });
    expect(await getPayload(db, 1, gone.reference!)).toBeUndefined();
    for (const reference of [carried.reference!, fresh.reference!, unused])
      expect(await getPayload(db, 1, reference)).toBeDefined();
    await kept([live, young]);
  });

  it("counts a use of a payload at most once a day, and again when equal bytes are put", async () => {
    const payload = await pastPayload(db, 30);
    const usedAt = async (): Promise<unknown> =>
      (await db.query("select used_at::text as at from payloads where reference = $1::text", [payload.reference]))[0];
    const before = await usedAt();
    const uses = createPayloadUses(db);
    const bench = await pastRun(db, 1, { input: payload });
    const used = await usedAt();
    expect(used).not.toEqual(before);
    const next = { coordinatorId: "c1", writes: [writeOf(bench)], batchNo: 1, pending: [], confirmed: [] };
    bench.records[0]!.payload = payload;
    await uses({ ...next, writes: [{ ...next.writes[0]!, records: bench.records }] });
    expect(uses({ ...next, writes: [{ ...next.writes[0]!, records: bench.records }] })).toBeUndefined();
    expect(await usedAt()).toEqual(used);
  });

  it("deletes idempotency keys that have expired", async () => {
    await db.query(
      `insert into idempotency_keys (namespace_id, key, request_hash, run_id, expires_at)
        select 1, 'key ' || n, '\\x00'::bytea, gen_random_uuid(), now() + (n - 1) * interval '1 hour' from generate_series(0, 2) n`,
    );
    await round(db);
    expect(await db.query("select key from idempotency_keys order by key")).toEqual([{ key: "key 2" }]);
  });

  it("is done by one coordinator at a time, and by another when that one is gone", async () => {
    expect(await claimChore(db, "retention", "c1", 60_000)).toBe(true);
    expect(await claimChore(db, "retention", "c2", 60_000)).toBe(false);
    expect(await holdChore(db, "retention", "c1", 0)).toBe(true);
    expect(await claimChore(db, "retention", "c2", 60_000)).toBe(true);
    expect(await holdChore(db, "retention", "c1", 60_000)).toBe(false);
  });

  it("makes a commit that names a dropped week fail as one that may be written again", async () => {
    const live = await pastRun(db, 10, { ended: false });
    await round(db);
    live.complete("a", "late");
    const week = weekOf(10);
    const tables = { runs: `runs_w${week}`, events: `events_w${week}` };
    const parts = { coordinatorId: "c1", writes: [writeOf(live)], batchNo: 1_000, pending: [], confirmed: [] };
    const error = await commitBatch(db, { ...parts, tables }).catch((thrown: unknown) => thrown);
    expect(sqlState(error)).toBe("42P01");
    expect((await commitBatch(db, parts)).written.size).toBe(1);
  });
});

describe("a round of retention that is cut off", () => {
  it("loses nothing, and leaves nothing to the next one, wherever it was", async () => {
    const { db } = await openStore("pglite");
    for (let cut = true, statements = 0; cut; statements++) {
      await makePast(db, [10]);
      await pastRun(db, 10);
      const live = await pastRun(db, 10, { ended: false });
      await pastPayload(db, 30);
      cut = await round(cutAfter(db, statements)).then(
        () => false,
        () => true,
      );
      expect((await stored(db)).runs).toContain(live.run.id);
      await round(db);
      const ids = [live.run.id];
      expect(await stored(db)).toMatchObject({ runs: ids, events: ids, logs: ids });
      expect(await db.query("select 1 from payloads")).toEqual([]);
    }
  });
});

describe("retention on Postgres, beside others", () => {
  it("loses no commit, and may run twice at once", async () => {
    const { db, another, dispose } = await openStore("postgres");
    await makePast(db, [10]);
    for (let i = 0; i < 20; i++) await pastRun(db, 10);
    const live = await Promise.all(Array.from({ length: 20 }, () => pastRun(db, 10, { ended: false })));
    const [second, third] = [another(), another()];
    const complete = async (one: (typeof live)[number]): Promise<void> => {
      one.complete("a", "late");
      expect((await commit(third, [writeOf(one)])).written.size).toBe(1);
    };
    const rounds = Promise.all([round(db), round(second)]);
    for (const one of live) await complete(one);
    await rounds;
    await round(db);
    // All have ended by now, as the bench says ten weeks ago.
    expect((await stored(db)).runs).toEqual([]);
    expect((await stored(db)).weeks.filter((name) => name.endsWith(String(Math.floor(weeksAgo(10) / weekMs))))).toEqual(
      [],
    );
    await dispose();
  });

  it("gives up on tables that are busy, until the next round", async () => {
    const { db, another, dispose } = await openStore("postgres");
    await makePast(db, [10]);
    const old = await pastRun(db, 10);
    const other = another();
    await other.transaction(async (tx) => {
      await tx.query("select from runs limit 1");
      expect(await round(db)).toMatchObject({ weeksDropped: 0 });
    });
    expect((await stored(db)).runs).toEqual([old.run.id]);
    await round(db);
    expect((await stored(db)).runs).toEqual([]);
    await dispose();
  });
});

import { EventKind } from "@taskmesh/proto";
import { uuidv7 } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { childSession } from "../engine/children.js";
import { evaluated, planOf, type RunBench, type StepSpec, value } from "../engine/plan-fixture.js";
import { RunStatus, StepStatus } from "../engine/run-state.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { commitBatch } from "./commit.js";
import { type Database, sqlState } from "./db.js";
import { deleteEffectBatch, effectBatchesOf } from "./effect-batches.js";
import { readEvents } from "./run-reads.js";
import { claimDue, findByKey, liveRunIds, loadRuns, storedStates } from "./runs.js";
import { commit, idAt, newRun, openStore, rowsOf, writeOf } from "./store-fixture.js";

afterAll(stopDatabases);

const plan = planOf({ a: { retry: { attemptsMax: 3 } }, b: { needs: ["a"] } });
const hash = Buffer.alloc(32, 1);

describe.each(["pglite", "postgres"] as const)("a commit on %s", (kind) => {
  let database: TestDatabase;
  let db: Database;
  beforeEach(async () => {
    database = await openStore(kind);
    db = database.db;
  });
  afterEach(() => database.dispose());

  const started = async (spec: Record<string, StepSpec> = { a: {} }, options = {}): Promise<RunBench> => {
    const bench = newRun(planOf(spec), options);
    await commit(db, [writeOf(bench)]);
    return bench;
  };

  it("stores a run so that it reads back as it was", async () => {
    const bench = newRun(plan, { labels: { team: 'a "b" {c}' }, priority: -3, trace: { traceparent: "00-1" } });
    const result = await commit(db, [writeOf(bench)]);
    expect([...result.written]).toEqual([bench.run.id]);
    const found = (await loadRuns(db, [bench.run.id, uuidv7()])).get(bench.run.id);
    expect(found).toMatchObject({ method: plan.method, chainVersion: 1, contract: "chain" });
    expect(found?.run.steps).toEqual(bench.run.steps);
    const { labels, priority, trace, wakeupAtMs, lastSeq, version } = bench.run;
    expect(found?.run).toMatchObject({ labels, priority, trace, wakeupAtMs, lastSeq, version, namespace: "default" });
    expect(Buffer.from(found?.run.input.bytes ?? []).toString()).toBe("in");
  });

  it("stores the run of an item, though it is alone, only while the item's attempt names it", async () => {
    const above = await started();
    const parent = { runId: above.run.id, stepId: "a", depth: 1, item: 7 };
    const item = newRun(plan, { parent });
    expect((await commit(db, [writeOf(item)])).written.size).toBe(0);
    await db.query(
      `insert into bindings (run_id, step, item, step_id, attempt, lease, session_id, started_at)
       values ($1::uuid, 0, 7, 'a', 1, $2::text, $3::text, now())`,
      [above.run.id, item.run.id, childSession],
    );
    expect((await commit(db, [writeOf(item)])).written.size).toBe(1);
    expect((await loadRuns(db, [item.run.id])).get(item.run.id)?.run.parent).toEqual(parent);
    item.complete("a");
    await commit(db, [writeOf(item)]);
    expect((await loadRuns(db, [item.run.id])).get(item.run.id)?.run).toMatchObject({ parent, version: 2 });
  });

  it("stores what a step put out beside the run, and reads it back with it", async () => {
    const bench = newRun(plan);
    await commit(db, [writeOf(bench)]);
    bench.complete("a", "output of a");
    await commit(db, [writeOf(bench)]);
    const found = (await loadRuns(db, [bench.run.id])).get(bench.run.id)!;
    expect(Buffer.from(found.run.outputs[0]?.bytes ?? []).toString()).toBe("output of a");
    expect(found.run.outputs[1]).toBeUndefined();
    expect(found.run.version).toBe(2);
  });

  it("answers with the database's clock", async () => {
    const { nowMs } = await commit(db, []);
    const [row] = await db.query<{ now: number }>(
      "select (extract(epoch from clock_timestamp()) * 1000)::float8 as now",
    );
    expect(row!.now - nowMs).toBeGreaterThanOrEqual(0);
    expect(row!.now - nowMs).toBeLessThan(60_000);
  });

  it("of a loser of the compare-and-set writes nothing at all, and winners beside it are written", async () => {
    const loser = await started({ a: {}, b: {} });
    const winner = await started({ a: {}, b: {} });
    loser.room = winner.room = 0;
    for (const bench of [loser, winner]) {
      const turns = [bench.bind("a"), bench.apply({ kind: "lose", report: bench.report("b"), why: "" })];
      bench.last = {
        ...bench.last,
        records: turns.flatMap((t) => t.records),
        effects: turns.flatMap((t) => t.effects),
      };
    }
    const logs = [{ step: 0, item: 0, attempt: 1, lines: Buffer.from("log") }];
    const stale = { ...writeOf(loser), expectedVersion: 7, logs };
    const result = await commit(db, [stale, { ...writeOf(winner), logs }]);
    expect([...result.written]).toEqual([winner.run.id]);
    for (const [table, rows] of [
      ["ready_steps", 1],
      ["bindings", 1],
      ["attempt_logs", 1],
      ["events", 3],
    ] as const) {
      expect(await rowsOf(db, table, winner.run.id), table).toHaveLength(rows);
      expect(await rowsOf(db, table, loser.run.id), table).toHaveLength(table === "events" ? 1 : 0);
    }
    expect((await storedStates(db, [loser.run.id])).get(loser.run.id)?.version).toBe(1);
  });

  it("of a run that does not exist writes nothing", async () => {
    const bench = newRun(plan);
    const result = await commit(db, [{ ...writeOf(bench), expectedVersion: 1 }]);
    expect(result.written.size).toBe(0);
    expect(await rowsOf(db, "events", bench.run.id)).toEqual([]);
  });

  it("starts one run per idempotency key, until the key expires", async () => {
    const key = { key: `k "1" {} \\`, requestHash: hash };
    const [first, second, third] = [newRun(plan), newRun(plan), newRun(plan)];
    await commit(db, [{ ...writeOf(first), idempotency: key }]);
    const free = newRun(plan);
    const taken = await commit(db, [{ ...writeOf(second), idempotency: key }, writeOf(free)]);
    expect([...taken.written]).toEqual([free.run.id]);
    expect(await rowsOf(db, "runs", second.run.id)).toEqual([]);
    expect(await rowsOf(db, "events", second.run.id)).toEqual([]);
    const found = await findByKey(db, 1, key.key);
    expect(found?.runId).toBe(first.run.id);
    expect(Buffer.from(found!.requestHash)).toEqual(hash);
    await db.query("update idempotency_keys set expires_at = now() - interval '1 second'");
    const later = await commit(db, [{ ...writeOf(third), idempotency: key }]);
    expect([...later.written]).toEqual([third.run.id]);
    expect((await findByKey(db, 1, key.key))?.runId).toBe(third.run.id);
  });

  it("leaves in the ready queue what the last event of the batch left there", async () => {
    const bench = await started({ a: {} }, { room: 0 });
    expect(await rowsOf(db, "ready_steps", bench.run.id)).toHaveLength(1);
    const admit = (): ReturnType<RunBench["apply"]> => {
      bench.room = 1;
      return bench.apply({ kind: "admit", step: 0 });
    };
    const lose = (): ReturnType<RunBench["apply"]> => {
      bench.room = 0;
      return bench.apply({ kind: "lose", report: bench.report("a"), why: "" });
    };
    await commit(db, [writeOf(bench, [admit(), lose(), admit()])]);
    expect(await rowsOf(db, "ready_steps", bench.run.id)).toEqual([]);
    // Two places for one step in one statement: the later one counts.
    await commit(db, [writeOf(bench, [lose(), admit(), lose()])]);
    expect(await rowsOf(db, "ready_steps", bench.run.id)).toMatchObject([
      { step: 0, task_queue: "test", callee: "test.v1.TestActions/a@contract-a", claimed_until: null },
    ]);
  });

  it("leaves in the bindings what the last event of the batch left there", async () => {
    const bench = await started();
    await commit(db, [writeOf(bench, [bench.bind("a", "s1"), bench.bind("a", "s2")])]);
    expect(await rowsOf(db, "bindings", bench.run.id)).toMatchObject([{ session_id: "s2", attempt: 1 }]);
    const lose = bench.apply({ kind: "lose", report: bench.report("a"), why: "" });
    await commit(db, [writeOf(bench, [lose, bench.bind("a", "s3")])]);
    expect(await rowsOf(db, "bindings", bench.run.id)).toMatchObject([
      { session_id: "s3", attempt: 2, lease: bench.step("a").lease },
    ]);
    await commit(db, [writeOf(bench, [bench.bind("a", "s4"), bench.complete("a")])]);
    expect(await rowsOf(db, "bindings", bench.run.id)).toEqual([]);
    expect((await rowsOf(db, "runs", bench.run.id))[0]).toMatchObject({ status: RunStatus.RUN_STATUS_SUCCEEDED });
  });

  it("keeps an attempt's first logs", async () => {
    const bench = await started();
    const log = (text: string) => [{ step: 0, item: 0, attempt: 1, lines: Buffer.from(text) }];
    bench.bind("a");
    await commit(db, [{ ...writeOf(bench), logs: log("first") }]);
    bench.complete("a");
    await commit(db, [{ ...writeOf(bench), logs: log("second") }]);
    const rows = await rowsOf(db, "attempt_logs", bench.run.id);
    expect(rows.map(({ lines }) => Buffer.from(lines as Uint8Array).toString())).toEqual(["first"]);
  });

  it("remembers effects that are not done, and forgets them when they are", async () => {
    const bench = newRun(plan);
    const about = { coordinatorId: "cx", writes: [writeOf(bench)], pending: [bench.run.id] };
    await commitBatch(db, { ...about, batchNo: 1, confirmed: [] });
    expect(await effectBatchesOf(db, "cx")).toMatchObject([{ no: 1, runIds: [bench.run.id] }]);
    await commitBatch(db, { coordinatorId: "cx", writes: [], pending: [], batchNo: 0, confirmed: [1, 99] });
    expect(await effectBatchesOf(db, "cx")).toEqual([]);
  });

  it("writes over a batch whose number is used again, and whoever took over the old one does not delete the new", async () => {
    const [first, second] = [newRun(plan), newRun(plan)];
    const commitOf = (bench: typeof first) =>
      commitBatch(db, {
        ...{ coordinatorId: "cy", batchNo: 1, confirmed: [] },
        ...{ writes: [writeOf(bench)], pending: [bench.run.id] },
      });
    await commitOf(first);
    const [taken] = await effectBatchesOf(db, "cy");
    await commitOf(second);
    await deleteEffectBatch(db, "cy", taken!);
    const [left] = await effectBatchesOf(db, "cy");
    expect(left).toMatchObject({ no: 1, runIds: [second.run.id] });
    await deleteEffectBatch(db, "cy", left!);
    expect(await effectBatchesOf(db, "cy")).toEqual([]);
  });

  it("takes bytes, texts and sizes of every kind", async () => {
    const nasty = 'NUL \u0000 lone \ud800 "quoted" {braces}, back\\slash \n ü 🦆';
    const bindInput = () => evaluated(Buffer.from(nasty));
    const bench = newRun(planOf({ a: { bindInput }, b: {} }), { input: value(nasty) });
    const writes = writeOf(bench);
    await commit(db, [{ ...writes, logs: [{ step: 0, item: 0, attempt: 1, lines: Buffer.from([0, 255, 0]) }] }]);
    const failure = { reason: "X", message: nasty, retryable: false, details: [], cause: undefined };
    bench.complete("b", value("").bytes?.length === 0 ? "" : "x");
    const big = Buffer.alloc(6 * 1024 * 1024, 0);
    bench.last.records[0]!.payload = { contract: "c", sizeBytes: big.length, sha256: hash, bytes: big };
    await commit(db, [writeOf(bench)]);
    bench.complete("a", { kind: "failure", failure });
    await commit(db, [writeOf(bench)]);
    const events = await readEvents(db, bench.run.id, { afterSeq: 0, limit: 100, payloads: true });
    expect(Buffer.from(events[0]?.payload?.bytes ?? [])).toEqual(Buffer.from(nasty));
    expect(events.find(({ kind }) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED)?.payload?.bytes).toHaveLength(
      big.length,
    );
    expect(events.find(({ kind }) => kind === EventKind.EVENT_KIND_ATTEMPT_FAILED)?.body.failure?.message).toBe(nasty);
    const found = (await loadRuns(db, [bench.run.id])).get(bench.run.id);
    expect(found?.run.failure?.cause?.message).toBe(nasty);
  });

  it.each([
    ["a NUL in a label", { labels: { x: "a\u0000b" } }],
    ["a priority that is no smallint", { priority: 1e6 }],
    ["a deadline after the end of time", { timeoutMs: 1e300 }],
  ])("refuses %s, says so, and writes nothing of the batch", async (_, options) => {
    const [poison, stranger] = [newRun(plan, options), newRun(plan)];
    const error = await commit(db, [writeOf(poison), writeOf(stranger)]).catch((e: unknown) => e);
    expect(sqlState(error)).toMatch(/^22/);
    expect(await rowsOf(db, "runs", stranger.run.id)).toEqual([]);
    expect((await commit(db, [writeOf(stranger)])).written.size).toBe(1);
  });

  it("takes a run whose id is of no week that has a partition", async () => {
    const old = newRun(plan, { id: idAt(1_000) });
    const far = newRun(plan, { id: idAt(Date.now() + 10 * 365 * 24 * 3600 * 1000) });
    expect((await commit(db, [writeOf(old), writeOf(far)])).written.size).toBe(2);
    for (const bench of [old, far]) {
      bench.complete("a");
      expect((await commit(db, [writeOf(bench)])).written.size).toBe(1);
      expect(await rowsOf(db, "events", bench.run.id)).toHaveLength(2);
    }
    const rows = await db.query("select id from runs_default where id = any($1::text::uuid[])", [
      `{${old.run.id},${far.run.id}}`,
    ]);
    expect(rows).toHaveLength(2);
  });

  it("in any order of two coordinators applies each run's events once, without a deadlock that reaches anybody", {
    timeout: 120_000,
  }, async () => {
    const other = database.another();
    const shared = Array.from({ length: 20 }, () => newRun(plan));
    await commit(
      db,
      shared.map((bench) => writeOf(bench)),
    );
    const ids = shared.map(({ run }) => run.id);
    let wins = 0;
    const round = async (on: Database, reversed: boolean): Promise<void> => {
      const loaded = await loadRuns(on, reversed ? [...ids].reverse() : ids);
      const writes = [...loaded.values()].map(({ run, ...pinned }) => {
        const record = { seq: run.lastSeq + 1, kind: EventKind.EVENT_KIND_STEP_READY, step: 0, attempt: 1, moves: [] };
        const next = { ...run, lastSeq: run.lastSeq + 1 };
        return { run: next, expectedVersion: run.version, ...pinned, records: [record], effects: [], logs: [] };
      });
      const { written } = await commit(on, writes);
      wins += written.size;
    };
    for (let n = 0; n < 200; n++) await Promise.all([round(db, false), round(other, n % 2 === 0)]);
    const after = await loadRuns(db, ids);
    const versions = [...after.values()].map(({ run }) => run.version);
    expect(versions.reduce((sum, version) => sum + version - 1, 0)).toBe(wins);
    expect(wins).toBeGreaterThanOrEqual(200 * ids.length);
    for (const id of ids) {
      const { run } = after.get(id)!;
      const events = await readEvents(db, id, { afterSeq: 0, limit: 1_000, payloads: false });
      expect(events.map(({ seq }) => seq)).toEqual(Array.from({ length: run.lastSeq }, (__, at) => at + 1));
    }
  });
});

describe.each(["pglite", "postgres"] as const)("the sweeper's reads on %s", (kind) => {
  let database: TestDatabase;
  beforeEach(async () => {
    database = await openStore(kind);
  });
  afterEach(() => database.dispose());

  it("claim each due run once, push it, and leave ended ones alone", async () => {
    const { db } = database;
    await db.query("delete from runs");
    const benches = Array.from({ length: 6 }, () => newRun(plan, { timeoutMs: 1, nowMs: Date.now() - 1_000 }));
    benches[5]!.apply({ kind: "cancel", reason: "" });
    benches[5]!.complete("a");
    expect(benches[5]!.step("a").status).toBe(StepStatus.STEP_STATUS_CANCELLED);
    await commit(
      db,
      benches.map((bench) => writeOf(bench)),
    );
    const [one, two] = await Promise.all([claimDue(db, 3, 60_000), claimDue(database.another(), 3, 60_000)]);
    const claimed = [...one, ...two, ...(await claimDue(db, 10, 60_000))];
    expect(claimed.sort()).toEqual(
      benches
        .slice(0, 5)
        .map(({ run }) => run.id)
        .sort(),
    );
    expect(await claimDue(db, 10, 60_000)).toEqual([]);
  });

  it("page through the live runs by id", async () => {
    const { db } = database;
    await db.query("delete from runs");
    const benches = Array.from({ length: 5 }, () => newRun(plan));
    await commit(
      db,
      benches.map((bench) => writeOf(bench)),
    );
    const ids = benches.map(({ run }) => run.id).sort();
    const first = await liveRunIds(db, "00000000-0000-0000-0000-000000000000", 3);
    expect(first).toEqual(ids.slice(0, 3));
    expect(await liveRunIds(db, first.at(-1)!, 3)).toEqual(ids.slice(3));
  });
});

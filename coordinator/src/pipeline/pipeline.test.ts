/** The pipeline over a real Postgres and the memory transport: what it promises when all is well, and when values or callers are bad. */
import { EventKind } from "@taskmesh/proto";
import { MemoryBus, uuidv7 } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { waitFor } from "../../../test/fixtures/process.js";
import { evaluated, planOf, value } from "../engine/plan-fixture.js";
import { RunStatus, StepStatus } from "../engine/run-state.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { effectBatchesOf } from "../store/effect-batches.js";
import { openStore } from "../store/store-fixture.js";
import { allEnded, historyOf, openRoom, openWorker, type Room, stored, urlOf } from "./room-fixture.js";
import { queueWorkMax } from "./work.js";

afterAll(stopDatabases);

const chain = planOf({ a: {}, b: { needs: ["a"] }, c: { needs: ["a"] }, d: { needs: ["b", "c"] } });
const single = planOf({ a: {} }, { method: "test.v1.Chains/Single" });
const retried = planOf({ a: { retry: { attemptsMax: 3, initialMs: 20 } } }, { method: "test.v1.Chains/Retried" });
const quick = planOf({ a: { scheduleToStartMs: 50 } }, { method: "test.v1.Chains/Quick" });
const parallel = planOf(
  { a: {}, b: {}, poison: { needs: ["a"], taskQueue: "no\u0000queue" } },
  { method: "test.v1.Chains/Poison" },
);
const throwing = planOf(
  {
    a: {
      checkOutput: () => {
        throw new Error("a bug in a plan");
      },
    },
  },
  { method: "test.v1.Chains/Throwing" },
);
const large = planOf(
  { a: {}, b: { needs: ["a"], bindInput: () => evaluated(new Uint8Array(1)) } },
  { method: "test.v1.Chains/Large" },
);
const plans = [chain, single, retried, quick, parallel, throwing, large];
const noSuchLease = { stepId: "a", item: 0, attempt: 1, lease: "none" };
const failing = { reason: "BROKEN", message: "no", retryable: true, details: [], cause: undefined };

describe("the pipeline", () => {
  let database: TestDatabase;
  let url: string;
  let bus: MemoryBus;
  const rooms: Room[] = [];
  const open = async (more: Partial<Parameters<typeof openRoom>[0]> = {}): Promise<Room> => {
    const room = await openRoom({ url, plans, bus, ...more });
    rooms.push(room);
    return room;
  };
  const reportOf = async (runId: string, stepId = "a") => {
    const { run, ...pinned } = await stored(database.db, runId);
    const index = plans.find(({ method }) => method === pinned.method)!.steps.findIndex(({ id }) => id === stepId);
    const { attempt, lease } = run.steps[index]!;
    return { stepId, item: 0, attempt, lease };
  };
  const succeed = async (room: Room, runId: string, stepId = "a", output = value("ok")) =>
    room.submit(runId, {
      kind: "complete",
      report: await reportOf(runId, stepId),
      outcome: { kind: "output", value: output },
      executionMs: 1,
      session: "s1",
    });

  beforeEach(async () => {
    database = await openStore("postgres");
    url = await urlOf(database.db);
    bus = new MemoryBus();
  });
  afterEach(async () => {
    for (const room of rooms.splice(0)) {
      await room.stop(2_000);
      await room.close();
    }
    await database.dispose();
  });

  it("carries runs from start to end, each step once", async () => {
    const room = await open();
    const worker = await openWorker(bus, ({ stepId }) => `out of ${stepId}`);
    const runIds = await Promise.all(Array.from({ length: 200 }, () => room.startRun(chain)));
    await allEnded(database.db, runIds);
    expect(worker.starts).toHaveLength(800);
    for (const runId of runIds) {
      const events = await historyOf(database.db, runId);
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, at) => at + 1));
      expect(events.filter(({ kind }) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED)).toHaveLength(4);
      expect(events.at(-1)?.body.runStatus).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    }
    expect(room.dispatched()).toBe(0);
    // Group commit: what comes while a batch commits goes together.
    expect(room.counts.work).toBeGreaterThan(4 * room.counts.batches);
  });

  it("answers a start when the run is stored, and not before", async () => {
    const room = await open();
    await Promise.all(
      Array.from({ length: 50 }, async () => {
        const runId = await room.startRun(single);
        expect((await stored(database.db, runId)).run.version).toBeGreaterThanOrEqual(1);
      }),
    );
  });

  it("gives every caller of one idempotency key the same run, and refuses the key for other input", async () => {
    const room = await open();
    const start = (input = "in") =>
      room.intake.startRun(
        room.command(single, {
          idempotencyKey: "k",
          input: { ...value(input), sha256: Buffer.from(input.padEnd(32)) },
        }),
      );
    const answers = await Promise.all(Array.from({ length: 20 }, () => start()));
    expect(new Set(answers.map(({ runId }) => runId)).size).toBe(1);
    expect(answers.filter(({ existing }) => !existing)).toHaveLength(1);
    await expect(start("other")).rejects.toMatchObject({ reason: "IDEMPOTENCY_KEY_REUSED" });
  });

  it("forgets effects once they are done", async () => {
    const room = await open();
    await openWorker(bus, () => "ok");
    const runIds = await Promise.all(Array.from({ length: 20 }, () => room.startRun(chain)));
    await allEnded(database.db, runIds);
    await waitFor(
      "all effects to be confirmed",
      async () => (await effectBatchesOf(database.db, room.id)).length === 0,
    );
  });

  it("refuses a value that can't be stored, alone, and strangers in its batch go on", async () => {
    const room = await open();
    const good = Array.from({ length: 30 }, () => room.startRun(single));
    const bad = room.startRun(single, { labels: { x: "a\u0000" } });
    const more = Array.from({ length: 30 }, () => room.startRun(single));
    await expect(bad).rejects.toMatchObject({ reason: "ARGUMENT_INVALID" });
    const runIds = await Promise.all([...good, ...more]);
    expect(new Set(runIds).size).toBe(60);
  });

  it("fails the attempt whose result leads to a value that can't be stored, and no other of its run", async () => {
    const room = await open();
    const runId = await room.startRun(parallel);
    room.window = 0;
    const [a, b] = [await reportOf(runId, "a"), await reportOf(runId, "b")];
    const complete = (report: typeof a) =>
      room.submit(runId, {
        kind: "complete",
        report,
        outcome: { kind: "output", value: value("ok") },
        executionMs: 1,
        session: "s1",
      });
    const settled = await Promise.all([complete(b), complete(a)]);
    expect(settled.map(({ verdict }) => verdict)).toEqual(["changed", "changed"]);
    const { run } = await stored(database.db, runId);
    expect(run.steps.map(({ status }) => status)).toEqual([
      StepStatus.STEP_STATUS_FAILED,
      StepStatus.STEP_STATUS_SUCCEEDED,
      StepStatus.STEP_STATUS_CANCELLED,
    ]);
    expect(run.failure?.reason).toBe("DATA_ERROR");
  });

  it("fails only the event that makes the engine throw", async () => {
    const room = await open();
    const [bad, good] = [await room.startRun(throwing), await room.startRun(single)];
    const [failed, done] = await Promise.allSettled([succeed(room, bad), succeed(room, good)]);
    expect(failed).toMatchObject({ status: "rejected", reason: { reason: "INTERNAL" } });
    expect(done).toMatchObject({ status: "fulfilled", value: { verdict: "changed" } });
    await expect(room.intake.cancelRun(1, bad, "")).resolves.toBe("changed");
  });

  it("takes a run id that is none for an unknown run, and strangers in its batch go on", async () => {
    const room = await open();
    const runId = await room.startRun(single);
    const [odd, unknown, done] = await Promise.all([
      room.submit("{},'", { kind: "wake" }),
      room.submit(uuidv7(), { kind: "wake" }),
      succeed(room, runId),
    ]);
    expect([odd.verdict, unknown.verdict, done.verdict]).toEqual(["unknown-run", "unknown-run", "changed"]);
  });

  it("hides a run from strangers of another namespace", async () => {
    const room = await open();
    const runId = await room.startRun(single);
    await expect(room.intake.cancelRun(2, runId, "")).rejects.toMatchObject({ reason: "RUN_NOT_FOUND" });
    await room.intake.cancelRun(1, runId, "");
    await room.intake.cancelRun(1, runId, "again");
  });

  it("answers every event of a batch whose runs don't fit into the cache together", { timeout: 120_000 }, async () => {
    const room = await open();
    const input = value("x".repeat(128 * 1024));
    const runIds: string[] = [];
    // Together more than the 64 MiB that the cache holds.
    for (let n = 0; n < 10; n++)
      runIds.push(...(await Promise.all(Array.from({ length: 60 }, () => room.startRun(large, { input })))));
    const settled = await Promise.all(runIds.map((runId) => room.submit(runId, { kind: "wake" })));
    expect(settled.filter(({ verdict }) => verdict !== "changed")).toEqual([]);
  });

  it("refuses new runs while too much waits, and still ends what it took in", { timeout: 120_000 }, async () => {
    const room = await open({ window: 0 });
    const first = await room.startRun(single);
    // Events are always taken: they are of runs that were accepted.
    const events = Array.from({ length: queueWorkMax }, () =>
      room.submit(first, {
        kind: "complete",
        report: noSuchLease,
        outcome: { kind: "cancelled", message: "" },
        executionMs: 0,
        session: "",
      }),
    );
    await expect(room.startRun(single)).rejects.toMatchObject({ reason: "OVERLOADED" });
    const settled = await Promise.all(events);
    expect(settled.every(({ verdict }) => verdict === "unchanged")).toBe(true);
    await expect(room.startRun(single)).resolves.toBeTypeOf("string");
  });

  it("takes no new runs while it drains, and commits what it has", async () => {
    const room = await open();
    const taken = room.startRun(single);
    const drained = room.pipeline.drain(5_000);
    await expect(room.startRun(single)).rejects.toMatchObject({ reason: "DRAINING" });
    await drained;
    expect((await stored(database.db, await taken)).run.version).toBe(1);
  });

  it("applies a run's events once though two coordinators get all of them", async () => {
    const [one, two] = [await open({ id: "one" }), await open({ id: "two" })];
    const runIds = await Promise.all(Array.from({ length: 30 }, () => one.startRun(chain)));
    for (const step of ["a", "b", "c", "d"]) {
      const results = await Promise.all(
        runIds.flatMap((runId) => [succeed(one, runId, step), succeed(two, runId, step)]),
      );
      expect(results.filter(({ verdict }) => verdict === "changed")).toHaveLength(runIds.length);
    }
    for (const runId of runIds) {
      const events = await historyOf(database.db, runId);
      expect(events.filter(({ kind }) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED)).toHaveLength(4);
      expect((await stored(database.db, runId)).run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    }
  });

  it("decides on a fresh read before it drops what a cached run refuses", async () => {
    const [one, two] = [await open({ id: "one" }), await open({ id: "two" })];
    const runId = await one.startRun(retried);
    const report = await reportOf(runId);
    await two.submit(runId, { kind: "redispatch", report, why: "" });
    // What `one` has in its cache knows nothing of the new lease.
    expect(await succeed(one, runId)).toMatchObject({ verdict: "changed" });
    expect((await stored(database.db, runId)).run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("tells a beat that its attempt just timed out", async () => {
    const beating = planOf(
      { a: { heartbeatMs: 1_000, retry: { attemptsMax: 2, initialMs: 60_000 } } },
      { method: single.method },
    );
    const room = await open({ plans: [beating] });
    const runId = await room.startRun(beating);
    const { run } = await stored(database.db, runId);
    const { attempt, lease } = run.steps[0]!;
    const ref = { runId, stepId: "a", item: 0, attempt, lease };
    expect(await room.intake.bind(ref, "s1", Date.now(), 0)).toBe("current");
    expect(await room.intake.bind(ref, "s1", Date.now(), 1_001)).toBe("stale");
  });

  it("stores what a beat's handler asks for beyond its limit, once however often beats repeat it", async () => {
    const room = await open();
    const runId = await room.startRun(single);
    const ref = { runId, ...(await reportOf(runId)) };
    const versions: number[] = [];
    for (const askedMs of [0, 7_200_000, 7_200_000, 7_000_000]) {
      expect(await room.intake.bind(ref, "s1", Date.now(), 0, undefined, askedMs)).toBe("current");
      versions.push((await stored(database.db, runId)).run.version);
    }
    const [before, ...after] = versions as [number, ...number[]];
    expect(after).toEqual(after.map(() => before + 1));
    expect((await stored(database.db, runId)).run.steps[0]).toMatchObject({ extendedMs: 7_200_000 });
  });

  it("gives a redelivered start to the one that claims it first", async () => {
    const room = await open();
    const runId = await room.startRun(single);
    const ref = { runId, ...(await reportOf(runId)) };
    const [first, second] = await Promise.all([room.intake.claim(ref, "s1"), room.intake.claim(ref, "s2")]);
    expect(first).toMatchObject({ start: { runId, stepId: "a", attempt: 2 } });
    expect(second).toEqual({ drop: "the lease was superseded" });
  });

  it("never has more under way than the window, and takes the more urgent from the ready queue first", async () => {
    const room = await open({ window: 2 });
    room.start();
    const ends: (() => void)[] = [];
    let most = 0;
    let running = 0;
    const order: string[] = [];
    await openWorker(bus, async ({ runId }) => {
      order.push(runId);
      running += 1;
      most = Math.max(most, running);
      await new Promise<void>((resolve) => ends.push(resolve));
      running -= 1;
      return "ok";
    });
    const first = await Promise.all([room.startRun(single), room.startRun(single)]);
    const low = await Promise.all(Array.from({ length: 3 }, () => room.startRun(single, { priority: 1 })));
    const high = await Promise.all(Array.from({ length: 3 }, () => room.startRun(single, { priority: 9 })));
    await waitFor("the window to fill", () => running === 2);
    for (let n = 0; n < 8; n++) {
      await waitFor("an attempt to run", () => ends.length > 0);
      ends.shift()?.();
    }
    await allEnded(database.db, [...first, ...low, ...high]);
    expect(most).toBe(2);
    expect(order.slice(2, 5).sort()).toEqual([...high].sort());
    expect(order.slice(5).sort()).toEqual([...low].sort());
    // Places are given back right after the commit that others can already see.
    await waitFor("every place to be given back", () => room.dispatched() === 0);
  });

  it("sends what waited for a worker when one comes", async () => {
    const room = await open({ window: 0 });
    room.start();
    const runId = await room.startRun(chain);
    expect((await stored(database.db, runId)).run.steps[0]?.status).toBe(StepStatus.STEP_STATUS_READY);
    await openWorker(bus, () => "ok");
    room.window = 10;
    room.laneChanged();
    await allEnded(database.db, [runId]);
  });

  it("wakes runs for retries and deadlines, for as long as it lives", async () => {
    const room = await open();
    room.start();
    const runIds = await Promise.all([
      ...Array.from({ length: 20 }, () => room.startRun(quick)),
      ...Array.from({ length: 20 }, () => room.startRun(single, { timeoutMs: 30 })),
    ]);
    const tried = await room.startRun(retried);
    for (let attempt = 1; attempt <= 3; attempt++) {
      await waitFor("the next attempt", async () => (await reportOf(tried)).attempt === attempt);
      const report = await reportOf(tried);
      await room.submit(tried, {
        kind: "complete",
        report,
        outcome: { kind: "failure", failure: failing },
        executionMs: 1,
        session: "s1",
      });
    }
    await allEnded(database.db, [...runIds, tried]);
    // Again, since a sweeper that was told of something due while it looked must not stop.
    const later = await Promise.all(Array.from({ length: 20 }, () => room.startRun(quick)));
    await allEnded(database.db, later);
    expect((await stored(database.db, runIds[0]!)).run.failure?.reason).toBe("SCHEDULE_TO_START_TIMEOUT");
    expect((await stored(database.db, runIds[39]!)).run.status).toBe(RunStatus.RUN_STATUS_EXPIRED);
  });

  it("takes over what a lapsed coordinator committed and did not do", async () => {
    const lapsed = await open({ id: "lapsed", bus: new MemoryBus() });
    const runIds = await Promise.all(Array.from({ length: 10 }, () => lapsed.startRun(chain)));
    const before = await effectBatchesOf(database.db, "lapsed");
    expect(before.flatMap((batch) => batch.runIds).sort()).toEqual([...runIds].sort());
    await lapsed.close();
    const survivor = await open({ id: "survivor" });
    const worker = await openWorker(bus, () => "ok");
    await survivor.recovery.takeOver("lapsed");
    await allEnded(database.db, runIds);
    expect(await effectBatchesOf(database.db, "lapsed")).toEqual([]);
    expect(worker.starts.filter(({ stepId }) => stepId === "a")).toHaveLength(runIds.length);
  });

  it("takes over only what was dispatched before the adoption: its runs went on meanwhile", async () => {
    const room = await open();
    const runId = await room.startRun(chain);
    const attempts = async () => (await stored(database.db, runId)).run.steps.map(({ attempt }) => attempt);
    const [first] = (await stored(database.db, runId)).run.steps;
    const adoptedAtMs = first!.attemptAtMs + 1;
    const leave = () =>
      database.db.query(
        "insert into effect_batches (coordinator_id, no, run_ids) values ('lapsed', 1, array[$1::uuid])",
        [runId],
      );
    await waitFor("a later instant", async () => {
      const [now] = await database.db.query<{ ms: number }>(
        "select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms",
      );
      return now!.ms > adoptedAtMs + 100;
    });
    await succeed(room, runId);
    await leave();
    await room.recovery.takeOver("lapsed", adoptedAtMs);
    expect(await attempts()).toEqual([1, 1, 1, 0]);
    await leave();
    await room.recovery.takeOver("lapsed");
    expect(await attempts(), "had it been the lapsed one's").toEqual([1, 2, 2, 0]);
  });

  it("sends a start again whose lane has lost its workers, and leaves one alone that may only wait", async () => {
    const room = await open();
    room.start();
    const runId = await room.startRun(single);
    await waitFor("the start to be out", () => bus.depth === 1);
    expect(await room.audit.round(0), "a lane without free slots").toBe(0);
    room.window = 0;
    expect(await room.audit.round(0), "a lane without workers").toBe(1);
    room.window = 1_000;
    room.laneChanged();
    await openWorker(bus, () => "ok");
    await allEnded(database.db, [runId]);
    const { run } = await stored(database.db, runId);
    expect(run).toMatchObject({ status: RunStatus.RUN_STATUS_SUCCEEDED, steps: [{ attempt: 2, lost: 0 }] });
    await room.stop(1_000);
  });

  it("sends starts again that the carrier lost", async () => {
    const room = await open();
    const runIds = await Promise.all(Array.from({ length: 10 }, () => room.startRun(chain)));
    await waitFor("the starts to be out", () => bus.depth === 10);
    await openWorker(new MemoryBus(), () => "ok");
    bus.wipe();
    await openWorker(bus, () => "ok");
    await allEnded(database.db, runIds);
  });
});

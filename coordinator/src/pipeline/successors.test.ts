/** Runs that take the place of others, on a real Postgres: never neither, never both, whatever races or breaks. */
import { EventKind } from "@taskmesh/proto";
import { MemoryBus } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { FaultProxy } from "../../../test/fixtures/fault-proxy.js";
import { planOf } from "../engine/plan-fixture.js";
import { isFinal, RunStatus, StepStatus } from "../engine/run-state.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { findCustomId, readSuccessors } from "../store/custom-ids.js";
import { openStore } from "../store/store-fixture.js";
import type { CustomId, MadeFrom } from "./ports.js";
import { historyOf, openRoom, type Room, stored } from "./room-fixture.js";

afterAll(stopDatabases);

const chain = planOf({ a: {}, b: { needs: ["a"] } }, { brokenTtlMs: 600_000 });
const { RUN_STATUS_CANCELLED, RUN_STATUS_BROKEN, RUN_STATUS_RUNNING } = RunStatus;

describe("a run in the place of another", () => {
  let database: TestDatabase;
  let proxy: FaultProxy;
  let rooms: [Room, Room];

  beforeEach(async () => {
    database = await openStore("postgres");
    const [row] = await database.db.query<{ name: string; port: number }>(
      "select current_database()::text as name, current_setting('port')::int as port",
    );
    const { name, port } = row!;
    proxy = await FaultProxy.open({ port });
    const urlOn = (at: number): string => `postgres://postgres@127.0.0.1:${at}/${name}`;
    const bus = new MemoryBus();
    rooms = [
      await openRoom({ url: urlOn(port), commitsUrl: urlOn(proxy.port), plans: [chain], bus }),
      await openRoom({ url: urlOn(port), plans: [chain], bus, id: "room2" }),
    ];
  }, 60_000);
  afterEach(async () => {
    proxy.heal();
    for (const room of rooms) {
      await room.stop(2_000);
      await room.close();
    }
    await proxy.close();
    await database.dispose();
  }, 60_000);

  const from = (runId: string, more: Partial<MadeFrom> = {}): MadeFrom => ({
    ...{ runId, kind: "clone", stepId: "", terminate: true, hash: "h", by: "ann", reason: "" },
    ...more,
  });
  const make = (room: Room, about: MadeFrom) => room.intake.startRun(room.command(chain, { from: about }));
  const statusOf = async (runId: string): Promise<RunStatus> => (await stored(database.db, runId)).run.status;
  /** Breaks a run at b. */
  const broken = async (room: Room): Promise<string> => {
    const runId = await room.startRun(chain);
    for (const stepId of ["a", "b"]) {
      const { run } = await stored(database.db, runId);
      const { attempt, lease } = run.steps[stepId === "a" ? 0 : 1]!;
      const report = { stepId, item: 0, attempt, lease };
      const failure = { reason: "NO", message: "no", retryable: false, details: [], cause: undefined };
      const bytes = Buffer.from("of a");
      const value = { contract: "c", sizeBytes: bytes.length, sha256: Buffer.alloc(32), bytes };
      const outcome = stepId === "a" ? ({ kind: "output", value } as const) : ({ kind: "failure", failure } as const);
      await room.submit(runId, { kind: "complete", report, outcome, executionMs: 1, session: "s1" });
    }
    expect(await statusOf(runId)).toBe(RUN_STATUS_BROKEN);
    return runId;
  };

  it("is one, however many ask at once at two coordinators", { timeout: 60_000 }, async () => {
    const runId = await rooms[0].startRun(chain);
    const made = await Promise.all(Array.from({ length: 24 }, (_, at) => make(rooms[at % 2]!, from(runId))));
    expect(new Set(made.map((one) => one.runId)).size).toBe(1);
    expect(made.filter(({ existing }) => !existing)).toHaveLength(1);
    expect(await statusOf(runId)).toBe(RUN_STATUS_CANCELLED);
    expect(await readSuccessors(database.db, runId, 10)).toEqual([made[0]!.runId]);
    const next = await stored(database.db, made[0]!.runId);
    expect(next.run).toMatchObject({ status: RUN_STATUS_RUNNING, origin: { runId, kind: "clone" } });
    const other = make(rooms[1], from(runId, { hash: "another" }));
    await expect(other).rejects.toMatchObject({ reason: "RUN_ENDED" });
  });

  it("goes on from a broken run with its results, which ends in the same commit", { timeout: 60_000 }, async () => {
    const runId = await broken(rooms[0]);
    const about = from(runId, { kind: "restart", stepId: "b", reason: "it is open" });
    const made = await make(rooms[1], about);
    expect(await make(rooms[0], about)).toEqual({ runId: made.runId, existing: true });
    const old = (await stored(database.db, runId)).run;
    expect(old).toMatchObject({ status: RUN_STATUS_CANCELLED, successor: { runId: made.runId } });
    const next = (await stored(database.db, made.runId)).run;
    expect(next.steps.map(({ status }) => status)).toEqual([
      StepStatus.STEP_STATUS_SUCCEEDED,
      StepStatus.STEP_STATUS_DISPATCHED,
    ]);
    expect(Buffer.from(next.outputs[0]!.bytes!).toString()).toBe("of a");
    const events = await historyOf(database.db, made.runId);
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, at) => at + 1));
    expect(events[0]!.body).toMatchObject({ by: "ann", note: "it is open" });
    expect(events.find(({ kind }) => kind === EventKind.EVENT_KIND_STEP_REUSED)?.body.other).toBe(runId);
    expect(await database.db.query("select 1 from broken_runs")).toHaveLength(0);
    await expect(make(rooms[0], from(made.runId, { kind: "restart", stepId: "b" }))).rejects.toMatchObject({
      reason: "RUN_UNDER_WAY",
    });
  });

  it("is stored with the end of the other or not at all, wherever the connection is cut", {
    timeout: 180_000,
  }, async () => {
    for (let round = 0; round < 8; round++) {
      const runIds = await Promise.all(Array.from({ length: 4 }, () => rooms[1].startRun(chain)));
      const direction = round % 2 === 0 ? "up" : "down";
      proxy.cutAfter(1 + ((round * 397) % (direction === "up" ? 9_000 : 300)), direction);
      const made = await Promise.all(runIds.map((runId) => make(rooms[0], from(runId, { hash: `${round}` }))));
      for (const [at, runId] of runIds.entries()) {
        expect(await statusOf(runId)).toBe(RUN_STATUS_CANCELLED);
        expect(await readSuccessors(database.db, runId, 10)).toEqual([made[at]!.runId]);
        expect(await statusOf(made[at]!.runId)).toBe(RUN_STATUS_RUNNING);
      }
    }
    expect(proxy.accepted).toBeGreaterThan(3);
    const [count] = await database.db.query<{ live: number }>(
      "select count(*)::int as live from runs where ended_at is null",
    );
    expect(count?.live).toBe(32);
  });

  describe("under an id of the caller's choice", () => {
    const named = (room: Room, more: Partial<CustomId> = {}, key?: string) => {
      const customId: CustomId = { name: "order 7", conflict: "fail", reuse: "allow", ...more };
      const about = key === undefined ? { customId } : { customId, idempotencyKey: key };
      return room.intake.startRun(room.command(chain, about));
    };
    const live = () => database.db.query<{ id: string }>("select id::text as id from runs where ended_at is null");
    const end = (runId: string) =>
      rooms[0].intake.operate(1, runId, { kind: "operate", operation: { kind: "terminate" }, by: "", reason: "" });

    it("is one of many that ask at once; the others are refused, or use it", { timeout: 60_000 }, async () => {
      const all = await Promise.allSettled(Array.from({ length: 30 }, (_, at) => named(rooms[at % 2]!)));
      const won = all.filter((one) => one.status === "fulfilled");
      expect(won).toHaveLength(1);
      const { runId } = won[0]!.value;
      const lost = all.filter((one) => one.status === "rejected");
      expect(lost.every(({ reason }) => reason.reason === "CUSTOM_ID_TAKEN")).toBe(true);
      expect(await named(rooms[1], { conflict: "use" })).toEqual({ runId, existing: true });
      expect((await stored(database.db, runId)).run.customId).toBe("order 7");
      expect(await live()).toEqual([{ id: runId }]);
    });

    it("ends the one that has it, and there is always exactly one", { timeout: 60_000 }, async () => {
      await named(rooms[0]);
      const asks = Array.from({ length: 8 }, (_, at) => named(rooms[at % 2]!, { conflict: "terminate" }));
      const made = await Promise.allSettled(asks);
      const ids = made.flatMap((one) => (one.status === "fulfilled" ? [one.value.runId] : []));
      expect(ids.length).toBeGreaterThan(0);
      const [left, ...more] = await live();
      expect(more).toEqual([]);
      expect(ids).toContain(left!.id);
      expect((await findCustomId(database.db, 1, "order 7"))?.runId).toBe(left!.id);
      for (const id of ids.filter((one) => one !== left!.id)) expect(await statusOf(id)).toBe(RUN_STATUS_CANCELLED);
    });

    it("is given again when its run has ended, as the policy allows", { timeout: 60_000 }, async () => {
      const first = await named(rooms[0], {}, "key");
      expect(await named(rooms[1], {}, "key"), "the same key").toEqual({ runId: first.runId, existing: true });
      await end(first.runId);
      await expect(named(rooms[0], { reuse: "reject" })).rejects.toMatchObject({ reason: "CUSTOM_ID_USED" });
      const second = await named(rooms[1], { reuse: "if-failed" });
      expect(second.existing).toBe(false);
      expect(isFinal(await statusOf(second.runId))).toBe(false);
      await expect(named(rooms[0])).rejects.toMatchObject({ reason: "CUSTOM_ID_TAKEN" });
      // What goes on in its place has its id.
      const clone = await make(rooms[0], from(second.runId));
      expect((await findCustomId(database.db, 1, "order 7"))?.runId).toBe(clone.runId);
    });

    it("is won for itself by a start whose answer was lost", { timeout: 120_000 }, async () => {
      for (let round = 0; round < 10; round++) {
        proxy.cutAfter(1 + ((round * 397) % (round % 2 === 0 ? 5_000 : 200)), round % 2 === 0 ? "up" : "down");
        const { runId, existing } = await named(rooms[0], { name: `n${round}` });
        expect(existing).toBe(false);
        expect((await findCustomId(database.db, 1, `n${round}`))?.runId).toBe(runId);
      }
      expect(await live()).toHaveLength(10);
    });
  });
});

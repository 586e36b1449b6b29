/** Commits whose answer never comes: nothing of them is applied twice, and nothing is lost, whether they happened, did not, or happen later. */
import { EventKind } from "@taskmesh/proto";
import { MemoryBus } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { FaultProxy } from "../../../test/fixtures/fault-proxy.js";
import { waitFor } from "../../../test/fixtures/process.js";
import { planOf } from "../engine/plan-fixture.js";
import { RunStatus } from "../engine/run-state.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { effectBatchesOf } from "../store/effect-batches.js";
import { openStore } from "../store/store-fixture.js";
import { allEnded, historyOf, openRoom, openWorker, type Room, stored } from "./room-fixture.js";

afterAll(stopDatabases);

const chain = planOf({ a: {}, b: { needs: ["a"] }, c: { needs: ["b"] } });

describe("a commit of unknown outcome", () => {
  let database: TestDatabase;
  let proxy: FaultProxy;
  let room: Room;
  let bus: MemoryBus;

  beforeEach(async () => {
    database = await openStore("postgres");
    const [row] = await database.db.query<{ name: string; port: number }>(
      "select current_database()::text as name, current_setting('port')::int as port",
    );
    const { name, port } = row!;
    proxy = await FaultProxy.open({ port });
    bus = new MemoryBus();
    const urlOn = (at: number): string => `postgres://postgres@127.0.0.1:${at}/${name}`;
    room = await openRoom({ url: urlOn(port), commitsUrl: urlOn(proxy.port), plans: [chain], bus });
    room.start();
  });
  afterEach(async () => {
    proxy.heal();
    await room.stop(2_000);
    await room.close();
    await proxy.close();
    await database.dispose();
  });

  /** Every run succeeded, with each step's result recorded once, and nothing is left to be done. */
  const judge = async (runIds: readonly string[]): Promise<void> => {
    await allEnded(database.db, runIds, 60_000);
    for (const runId of runIds) {
      expect((await stored(database.db, runId)).run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
      const events = await historyOf(database.db, runId);
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, at) => at + 1));
      expect(events.filter(({ kind }) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED)).toHaveLength(3);
    }
    const [count] = await database.db.query<{ runs: number }>("select count(*)::int as runs from runs");
    expect(count?.runs).toBe(runIds.length);
    await waitFor(
      "all effects to be confirmed",
      async () => (await effectBatchesOf(database.db, room.id)).length === 0,
    );
    expect(room.dispatched()).toBe(0);
  };

  it.each(["up", "down"] as const)(
    "loses and doubles nothing when the connection is cut anywhere, %s",
    {
      timeout: 180_000,
    },
    async (direction) => {
      await openWorker(bus, () => "ok");
      const runIds: string[] = [];
      for (let round = 0; round < 25; round++) {
        // From before the statement to after its answer.
        proxy.cutAfter(1 + ((round * 397) % (direction === "up" ? 20_000 : 400)), direction);
        runIds.push(...(await Promise.all(Array.from({ length: 10 }, () => room.startRun(chain)))));
      }
      proxy.heal();
      await judge(runIds);
      expect(proxy.accepted).toBeGreaterThan(10);
    },
  );

  /** Lets a statement that the coordinator gives up happen only after the coordinator has looked for it. */
  const landsLater = async (submit: () => Promise<unknown>): Promise<void> => {
    const connections = proxy.accepted;
    let submitted: Promise<unknown> | undefined;
    await database.db.transaction(async (tx) => {
      await tx.query("lock table runs in share mode");
      submitted = submit();
      const blocked = async (count: number): Promise<boolean> => {
        const rows = await tx.query("select 1 from pg_locks where relation = 'runs'::regclass and not granted");
        return rows.length >= count;
      };
      await waitFor("the commit to be held up", () => blocked(1));
      proxy.cut();
      await waitFor("the second try to be held up too", () => blocked(2));
    });
    expect(proxy.accepted).toBeGreaterThan(connections);
    await submitted;
  };

  it("that lands after it was looked for starts its run once, and its starts go out", async () => {
    await openWorker(bus, () => "ok");
    let runId = "";
    await landsLater(async () => {
      runId = await room.startRun(chain);
    });
    await judge([runId]);
  });

  it("that lands after it was looked for wins its idempotency key for itself", async () => {
    await openWorker(bus, () => "ok");
    let answer: { runId: string; existing: boolean } | undefined;
    await landsLater(async () => {
      answer = await room.intake.startRun(room.command(chain, { idempotencyKey: "key" }));
    });
    expect(answer?.existing).toBe(false);
    await judge([answer!.runId]);
  });

  it("that lands after it was looked for has the steps sent that it began", async () => {
    const held: (() => void)[] = [];
    await openWorker(bus, async ({ stepId }) => {
      if (stepId === "a") await new Promise<void>((resolve) => held.push(resolve));
      return "ok";
    });
    const runId = await room.startRun(chain);
    await waitFor("the first step to run", () => held.length === 1);
    await landsLater(async () => held[0]!());
    await judge([runId]);
  });
});

/** Bulk operations through the death of the coordinator that works on one. */
import { BulkKind, EventKind, RunFilter, StartBulkOperationRequest } from "@taskmesh/proto";
import { createLogger, MemoryBus, status, statusError, uuidv7 } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { waitFor } from "../../../test/fixtures/process.js";
import { planOf } from "../engine/plan-fixture.js";
import { historyOf, openRoom, type Room, urlOf } from "../pipeline/room-fixture.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { insertBulk, readBulk } from "../store/bulk-operations.js";
import { openStore } from "../store/store-fixture.js";
import { type BulkWorkDeps, createBulkWork } from "./bulk-work.js";

afterAll(stopDatabases);

const plan = planOf({ work: {} }, { method: "test.v1.Chains/Bulk" });
const plans = { current: async () => plan, pinned: async () => plan };
const runs = 230;
const log = createLogger("test", { level: "silent" });

describe("a bulk operation", () => {
  let database: TestDatabase;
  let room: Room;
  let runIds: string[];

  beforeEach(async () => {
    database = await openStore("postgres");
    room = await openRoom({ url: await urlOf(database.db), plans: [plan], bus: new MemoryBus() });
    runIds = await Promise.all(Array.from({ length: runs }, () => room.startRun(plan)));
  }, 60_000);
  afterEach(async () => {
    await room.stop(2_000);
    await room.close();
    await database.dispose();
  });

  const begin = async (kind: BulkKind): Promise<string> => {
    const id = uuidv7();
    const filter = RunFilter.fromPartial({ method: plan.method });
    const request = StartBulkOperationRequest.encode(StartBulkOperationRequest.fromPartial({ filter, kind })).finish();
    await insertBulk(database.db, { id, namespaceId: 1, request, lastId: uuidv7(Date.now() + 1_000) });
    return id;
  };
  const workWith = (intake: BulkWorkDeps["intake"]) =>
    createBulkWork({ db: database.db, intake, log, plans, contractOf: async () => undefined });
  const read = async (id: string) => (await readBulk(database.db, 1, id))!;

  it.each([
    ["paused", BulkKind.BULK_KIND_PAUSE, EventKind.EVENT_KIND_RUN_PAUSED],
    ["cancelled", BulkKind.BULK_KIND_CANCEL, EventKind.EVENT_KIND_CANCEL_REQUESTED],
  ])(
    "has every run %s once, though the coordinator dies amid a page",
    { timeout: 60_000 },
    async (_name, kind, event) => {
      const id = await begin(kind);
      let left = 150;
      const { intake } = room;
      /** What it did reached the database; of the rest, nobody heard. */
      const dying = <T>(act: () => Promise<T>): Promise<T> => {
        if (left === 0) throw statusError({ code: status.UNAVAILABLE, reason: "OVERLOADED", message: "it dies" });
        left -= 1;
        return act();
      };
      const first = workWith({
        operate: async (...args) => dying(() => intake.operate(...args)),
        cancelRun: async (...args) => dying(() => intake.cancelRun(...args)),
        startRun: async (...args) => dying(() => intake.startRun(...args)),
      });
      await first.start();
      first.kick();
      await waitFor("the first page", async () => (await read(id)).changed === 100 && left === 0, 20_000);
      await first.stop();
      await database.db.query("update bulk_operations set claimed_until = now() - interval '1 second'", []);
      const second = workWith(intake);
      await second.start();
      second.kick();
      await waitFor("the operation to end", async () => (await read(id)).endedAtMs > 0, 30_000);
      await second.stop();
      expect(await read(id)).toMatchObject({ changed: runs, unchanged: 0, failed: 0, lastFailure: "" });
      for (const runId of runIds) {
        const found = (await historyOf(database.db, runId)).filter((one) => one.kind === event);
        expect(found).toHaveLength(1);
      }
    },
  );
});

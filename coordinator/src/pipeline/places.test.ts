/** Places in a lane's window over two coordinators. */
import { MemoryBus } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { planOf } from "../engine/plan-fixture.js";
import { RunStatus } from "../engine/run-state.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { openStore } from "../store/store-fixture.js";
import { allEnded, openRoom, openWorker, type Room, stored, urlOf } from "./room-fixture.js";

afterAll(stopDatabases);

const plan = planOf({ only: {} });

describe("a place in a lane", () => {
  let database: TestDatabase;
  let bus: MemoryBus;
  let rooms: Room[];

  beforeEach(async () => {
    database = await openStore("postgres");
    const url = await urlOf(database.db);
    bus = new MemoryBus();
    rooms = [];
    for (const id of ["room1", "room2"]) rooms.push(await openRoom({ url, plans: [plan], bus, id, window: 1 }));
  });
  afterEach(async () => {
    for (const room of rooms) {
      await room.stop(2_000);
      await room.close();
    }
    await database.dispose();
  });

  it("is given back when another coordinator ended its attempt, and one whose attempt goes on is not", async () => {
    const [one, two] = rooms as [Room, Room];
    const held = await one.startRun(plan);
    const waiting = await one.startRun(plan);
    expect(await one.audit.returnPlaces(0)).toBe(0);
    await two.intake.cancelRun(1, held, "no longer wanted");
    const { attempt, lease } = (await stored(database.db, held)).run.steps[0]!;
    await two.submit(held, {
      kind: "complete",
      report: { stepId: "only", item: 0, attempt, lease },
      outcome: { kind: "cancelled", message: "" },
      executionMs: 1,
      session: "s1",
    });
    expect((await stored(database.db, held)).run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(await one.audit.returnPlaces(60_000), "too young to be looked at").toBe(0);
    expect(await one.audit.returnPlaces(0)).toBe(1);
    one.start();
    await openWorker(bus, () => "ok");
    await allEnded(database.db, [held, waiting]);
  });
});

/** Messages through the pipeline: what one coordinator kept another hands over; starts that bring a message with them. */
import { isStatusError, MemoryBus } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { planOf, value } from "../engine/plan-fixture.js";
import { RunStatus, StepStatus } from "../engine/run-state.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { openStore } from "../store/store-fixture.js";
import { openRoom, type Room, stored, urlOf } from "./room-fixture.js";

afterAll(stopDatabases);

const wait = { kind: "signal" as const, mailbox: "signal:go" };
const plan = planOf({ first: {}, ask: { needs: ["first"], wait }, again: { needs: ["ask"], wait } });
const asking = planOf({ ask: { wait } }, { method: "test.v1.Chains/Asking" });
const sent = (content: string, key = "") => ({ mailbox: "signal:go", name: "go", key, value: value(content) });
const reasonOf = (error: unknown): string => (isStatusError(error) ? error.reason : String(error));

describe("messages", () => {
  let database: TestDatabase;
  let rooms: Room[];

  beforeEach(async () => {
    database = await openStore("postgres");
    const url = await urlOf(database.db);
    const bus = new MemoryBus();
    rooms = [];
    for (const id of ["room1", "room2"]) rooms.push(await openRoom({ url, plans: [plan, asking], bus, id }));
  });
  afterEach(async () => {
    for (const room of rooms) {
      await room.stop(2_000);
      await room.close();
    }
    await database.dispose();
  });

  it("are kept with their value, which any coordinator hands to the step that waits later", async () => {
    const [one, two] = rooms as [Room, Room];
    const runId = await one.startRun(plan);
    expect(await one.intake.send(1, runId, sent("first", "k1"))).toEqual({ delivered: false, existing: false });
    expect(await one.intake.send(1, runId, sent("second", "k2"))).toEqual({ delivered: false, existing: false });
    expect(await two.intake.send(1, runId, sent("first", "k1"))).toEqual({ delivered: false, existing: true });
    const { attempt, lease } = (await stored(database.db, runId)).run.steps[0]!;
    await two.submit(runId, {
      kind: "complete",
      report: { stepId: "first", item: 0, attempt, lease },
      outcome: { kind: "output", value: value("ok") },
      executionMs: 1,
      session: "s1",
    });
    const { run } = await stored(database.db, runId);
    expect(run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(run.outputs.map((output) => Buffer.from(output!.bytes!).toString())).toEqual(["ok", "first", "second"]);
    // Room one's cached run is older than that: its refusal is decided on a fresh read.
    expect(await one.intake.send(1, runId, sent("x")).catch(reasonOf)).toBe("RUN_ENDED");
  });

  it("end the step that waits, once, and are refused for runs of others", async () => {
    const [one, two] = rooms as [Room, Room];
    const runId = await one.startRun(plan);
    expect(await two.intake.send(2, runId, sent("x")).catch(reasonOf)).toBe("RUN_NOT_FOUND");
    const nobody = { ...sent("x"), mailbox: "signal:other" };
    expect(await two.intake.send(1, runId, nobody).catch(reasonOf)).toBe("SIGNAL_UNKNOWN");
    await one.intake.cancelRun(1, runId, "enough");
    expect(await two.intake.send(1, runId, sent("x")).catch(reasonOf)).toBe("SIGNAL_NOT_AWAITED");
  });

  it("come with a start in its first commit, and reach the run that the key had started", async () => {
    const [one, two] = rooms as [Room, Room];
    const command = { idempotencyKey: "k" };
    const runId = await one.startRun(plan, { ...command, message: sent("with", "m1") });
    expect((await stored(database.db, runId)).run.messages?.kept.map(({ key }) => key)).toEqual(["m1"]);
    const again = await two.intake.startRun(two.command(plan, { ...command, message: sent("later", "m2") }));
    expect(again).toEqual({ runId, existing: true });
    expect((await stored(database.db, runId)).run.messages?.keys).toEqual(["m1", "m2"]);

    const ended = await one.startRun(asking, { message: sent("at once") });
    const { run } = await stored(database.db, ended);
    expect([run.status, run.steps[0]!.status]).toEqual([
      RunStatus.RUN_STATUS_SUCCEEDED,
      StepStatus.STEP_STATUS_SUCCEEDED,
    ]);
    const refused = { ...sent("x"), mailbox: "signal:other" };
    expect(await one.startRun(asking, { message: refused }).catch(reasonOf)).toBe("SIGNAL_UNKNOWN");
  });
});

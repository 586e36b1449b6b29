/** Sub-chains through crashes: whatever a dead coordinator had committed and not done is done once, and nothing begins that nobody waits for. */
import { EventKind } from "@taskmesh/proto";
import { MemoryBus, uuidv7 } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { waitFor } from "../../../test/fixtures/process.js";
import { planOf, type RunBench, value } from "../engine/plan-fixture.js";
import { RunStatus, StepStatus } from "../engine/run-state.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { commitBatch } from "../store/commit.js";
import { effectBatchesOf } from "../store/effect-batches.js";
import { commit, newRun, openStore, writeOf } from "../store/store-fixture.js";
import { allEnded, historyOf, openRoom, openWorker, type Room, stored, urlOf } from "./room-fixture.js";

afterAll(stopDatabases);

const method = "test.v1.Chains/Child";
const child = planOf({ work: {} }, { method });
const parent = planOf(
  { sub: { method, child: { onParentClose: "cancel" } }, after: { needs: ["sub"] } },
  { method: "test.v1.Chains/Parent" },
);

describe("runs that steps start", () => {
  let database: TestDatabase;
  let room: Room;
  let bus: MemoryBus;
  let starts: { runId: string }[];

  beforeEach(async () => {
    database = await openStore("postgres");
    bus = new MemoryBus();
    const url = await urlOf(database.db);
    room = await openRoom({ url, plans: [parent, child], bus });
    ({ starts } = await openWorker(bus, () => "ok"));
  });
  afterEach(async () => {
    await room.stop(2_000);
    await room.close();
    await database.dispose();
  });

  /** Commits the bench's last event as a coordinator does that dies right after it. */
  const commitAndDie = async (bench: RunBench): Promise<void> => {
    const write = writeOf(bench);
    const about = { coordinatorId: "dead", batchNo: write.run.lastSeq, pending: [write.run.id], confirmed: [] };
    const { written } = await commitBatch(database.db, { ...about, writes: [write] });
    if (written.has(write.run.id)) write.run.version += 1;
  };
  const newParent = (): RunBench => {
    const bench = newRun(parent);
    // The bench counts its ids; the database wants real ones.
    const childId = uuidv7();
    bench.step("sub").lease = childId;
    for (const effect of bench.last.effects) {
      if (effect.kind === "bind") effect.lease = childId;
      if (effect.kind === "start-child") effect.childId = childId;
    }
    return bench;
  };
  const childRuns = () =>
    database.db.query<{ id: string }>("select id::text as id from runs where method = $1", [method]);

  it("begin, end and let their parents go on", async () => {
    const runId = await room.startRun(parent);
    await allEnded(database.db, [runId]);
    expect((await stored(database.db, runId)).run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await childRuns()).toHaveLength(1);
    expect(await database.db.query("select from bindings")).toEqual([]);
  });

  it("begin once though the coordinator died before the start, and though two take over", async () => {
    const bench = newParent();
    await commitAndDie(bench);
    await Promise.all([room.recovery.takeOver("dead"), room.recovery.takeOver("dead")]);
    await allEnded(database.db, [bench.run.id]);
    expect((await stored(database.db, bench.run.id)).run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await childRuns()).toEqual([{ id: bench.step("sub").lease }]);
    expect(await effectBatchesOf(database.db, "dead")).toEqual([]);
  });

  it("begin once though one coordinator starts them three times at once", async () => {
    const bench = newParent();
    await commit(database.db, [writeOf(bench)]);
    const again = { kind: "redispatch" as const, why: "three at once" };
    await Promise.all([1, 2, 3].map(() => room.submit(bench.run.id, again)));
    await allEnded(database.db, [bench.run.id]);
    expect(await childRuns()).toHaveLength(1);
    // Each was confirmed: nothing is left to be taken over.
    await waitFor("the batches", async () => (await effectBatchesOf(database.db, room.id)).length === 0);
  });

  it("are heard though the coordinator died before it told their parent", async () => {
    const bench = newParent();
    await commit(database.db, [writeOf(bench)]);
    const ref = { runId: bench.run.id, stepId: "sub", depth: 1 };
    const below = newRun(child, { id: bench.step("sub").lease, parent: ref });
    await commit(database.db, [writeOf(below)]);
    below.complete("work");
    await commitAndDie(below);
    await room.recovery.takeOver("dead");
    await allEnded(database.db, [bench.run.id]);
    const { run } = await stored(database.db, bench.run.id);
    expect(run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(run.outputs[0]?.bytes).toEqual(Buffer.from("output"));
    const kinds = (await historyOf(database.db, bench.run.id)).map(({ kind, step }) => `${step} ${EventKind[kind]}`);
    expect(kinds.filter((kind) => kind === "0 EVENT_KIND_STEP_SUCCEEDED")).toHaveLength(1);
  });

  it("are found by the audit where they never began, or their end was told to nobody", async () => {
    const lost = newParent();
    const untold = newParent();
    await commit(database.db, [writeOf(lost)]);
    await commit(database.db, [writeOf(untold)]);
    const ref = { runId: untold.run.id, stepId: "sub", depth: 1 };
    const below = newRun(child, { id: untold.step("sub").lease, parent: ref });
    await commit(database.db, [writeOf(below)]);
    below.complete("work");
    await commit(database.db, [writeOf(below)]);
    expect(await room.audit.round(-60_000)).toBe(2);
    await allEnded(database.db, [lost.run.id, untold.run.id]);
    expect(await room.audit.round(-60_000)).toBe(0);
  });

  it("never begin once their step has let go of them", async () => {
    const bench = newParent();
    await commit(database.db, [writeOf(bench)]);
    const { lease } = bench.step("sub");
    bench.wakeAt(bench.run.deadlineAtMs);
    await commit(database.db, [writeOf(bench)]);
    const ref = { runId: bench.run.id, stepId: "sub", depth: 1 };
    const late = newRun(child, { id: lease, parent: ref });
    expect((await commit(database.db, [writeOf(late)])).written.size).toBe(0);
    expect(await childRuns()).toEqual([]);
    expect(starts).toEqual([]);
  });

  it("are asked to stop though the coordinator died before it asked", async () => {
    const bench = newParent();
    await commit(database.db, [writeOf(bench)]);
    const { lease } = bench.step("sub");
    const held = newRun(child, { id: lease, parent: { runId: bench.run.id, stepId: "sub", depth: 1 }, room: 0 });
    await commit(database.db, [writeOf(held)]);
    bench.wakeAt(bench.run.deadlineAtMs);
    await commitAndDie(bench);
    expect((await stored(database.db, bench.run.id)).run.steps[0]?.status).toBe(StepStatus.STEP_STATUS_CANCELLED);
    await room.recovery.takeOver("dead");
    await allEnded(database.db, [lease]);
    expect((await stored(database.db, lease)).run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
  });

  it("fail their step where their output is not what it is pinned to", async () => {
    const orphan = planOf(
      { sub: { method, child: { onParentClose: "cancel" }, checkOutput: () => "not as agreed" } },
      { method: "test.v1.Chains/Parent" },
    );
    const runId = (await room.intake.startRun({ ...room.command(orphan), input: value("in") })).runId;
    await allEnded(database.db, [runId]);
    expect((await stored(database.db, runId)).run.failure?.reason).toBe("OUTPUT_INVALID");
  });
});

/** Sub-chains through crashes: whatever a dead coordinator had committed and not done is done once, and nothing begins that nobody waits for. */
import { EventKind } from "@taskmesh/proto";
import { MemoryBus, uuidv7 } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { waitFor } from "../../../test/fixtures/process.js";
import { evaluated, planOf, type RunBench, value } from "../engine/plan-fixture.js";
import { RunStatus, StepStatus, timeoutGraceMs } from "../engine/run-state.js";
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

/** One item after the other, whose failures are no harm. */
const fan = planOf(
  {
    sub: {
      method,
      child: { onParentClose: "cancel" },
      startToCloseMs: 1_000,
      each: {
        ...{ kind: "list", parallelMax: 1, toleratedCount: 0, toleratedShare: 1 },
        open: () => evaluated({ total: 0, items: [] }),
      },
    },
  },
  { method: "test.v1.Chains/Fan" },
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
    room = await openRoom({ url, plans: [parent, child, fan], bus });
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

  describe("for items", () => {
    /** Commits the bench's last event, with real ids for the runs that it begins; answers those. */
    const commitItems = async (bench: RunBench, dies: boolean): Promise<string[]> => {
      const begun: string[] = [];
      for (const effect of bench.last.effects) {
        if (effect.kind !== "start-child") continue;
        const id = uuidv7();
        const state = bench.run.items!.get(0)!.get(effect.item!)!;
        for (const other of bench.last.effects)
          if (other.kind === "bind" && other.lease === effect.childId) other.lease = id;
        for (const record of bench.last.records) if (record.note === effect.childId) record.note = id;
        state.lease = id;
        effect.childId = id;
        begun.push(id);
      }
      const items = new Map((bench.last.items ?? []).map((change) => [`${change.step}/${change.item}`, change]));
      const write = { ...writeOf(bench), items };
      const pending = dies ? [bench.run.id] : [];
      const about = { coordinatorId: "dead", batchNo: bench.run.lastSeq, pending, confirmed: [] };
      await commitBatch(database.db, { ...about, writes: [write] });
      bench.run.version += 1;
      return begun;
    };
    /** A fan-out over two items, the first of which runs, held up. */
    const begin = async (): Promise<{ bench: RunBench; first: string }> => {
      const bench = newRun(fan);
      await commit(database.db, [writeOf(bench)]);
      const items = [{ input: value("one") }, { input: value("two") }];
      bench.apply({ kind: "evaluated", stepId: "sub", evaluation: { kind: "items", from: 0, total: 2, items } });
      const [first] = await commitItems(bench, false);
      const held = newRun(child, { id: first!, parent: { runId: bench.run.id, stepId: "sub", depth: 1 }, room: 0 });
      await commit(database.db, [writeOf(held)]);
      return { bench, first: first! };
    };

    it("are asked to stop though the coordinator died before it asked, and their run has ended", async () => {
      const { bench, first } = await begin();
      bench.wakeAt(bench.run.deadlineAtMs);
      await commitItems(bench, true);
      await room.recovery.takeOver("dead");
      await allEnded(database.db, [first]);
      expect((await stored(database.db, first)).run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
      expect(await effectBatchesOf(database.db, "dead")).toEqual([]);
    });

    it("are asked to stop, and begun, though it died between two items", async () => {
      const { bench, first } = await begin();
      bench.wakeAt(bench.nowMs + 1_000 + timeoutGraceMs);
      const [second] = await commitItems(bench, true);
      await room.recovery.takeOver("dead");
      await allEnded(database.db, [bench.run.id, first, second!]);
      const statuses = [first, second!, bench.run.id].map(async (id) => (await stored(database.db, id)).run.status);
      const { RUN_STATUS_CANCELLED, RUN_STATUS_SUCCEEDED } = RunStatus;
      expect(await Promise.all(statuses)).toEqual([RUN_STATUS_CANCELLED, RUN_STATUS_SUCCEEDED, RUN_STATUS_SUCCEEDED]);
      expect(await childRuns()).toHaveLength(2);
      expect((await stored(database.db, second!)).run.parent).toMatchObject({ stepId: "sub", item: 1 });
    });
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

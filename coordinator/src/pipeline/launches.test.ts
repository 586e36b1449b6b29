/** Launches and answers through crashes: what a dead coordinator had committed and not done is done once, by whoever takes over. */
import { MemoryBus, uuidv7 } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { planOf, type RunBench, value } from "../engine/plan-fixture.js";
import type { ParentRef } from "../engine/run-state.js";
import { RunStatus, StepStatus } from "../engine/run-state.js";
import { meshFailure } from "../engine/turn.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import { commitBatch } from "../store/commit.js";
import { effectBatchesOf } from "../store/effect-batches.js";
import { commit, newRun, openStore, writeOf } from "../store/store-fixture.js";
import type { Launcher } from "./ports.js";
import { allEnded, openRoom, openWorker, type Room, stored, urlOf } from "./room-fixture.js";

afterAll(stopDatabases);

const method = "test.v1.Chains/Launched";
const child = planOf(
  { fast: {}, tell: { wait: { kind: "respond" }, needs: ["fast"] }, slow: { needs: ["tell"] } },
  { method },
);
const parent = planOf(
  { run: { method: "launch", child: { onParentClose: "cancel", launches: "chain" } }, after: { needs: ["run"] } },
  { method: "test.v1.Chains/Parent" },
);
const caller = planOf({ run: { method, child: { onParentClose: "cancel" } } }, { method: "test.v1.Chains/Caller" });

describe("what a step launches", () => {
  let database: TestDatabase;
  let room: Room;
  let detached = false;
  let refused = false;
  let prepared = 0;
  const launcher: Launcher = {
    read: async (_namespaceId, kind) => ({ kind, method, input: {}, labels: { by: "launch" }, detached }),
    async prepare() {
      prepared += 1;
      return refused
        ? { failure: meshFailure("CHAIN_INVALID", "it is none", false) }
        : { plan: child, input: value("given") };
    },
    answer: async (_namespaceId, _runId, output) => value(`answer: ${Buffer.from(output?.bytes ?? []).toString()}`),
  };

  beforeEach(async () => {
    [detached, refused, prepared] = [false, false, 0];
    database = await openStore("postgres");
    const bus = new MemoryBus();
    room = await openRoom({ url: await urlOf(database.db), plans: [parent, child, caller], bus, launcher });
    // The slow half never ends by itself.
    await openWorker(bus, ({ stepId }) => (stepId === "slow" ? new Promise<string>(() => {}) : "ok"));
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
  const newParent = (plan = parent): RunBench => {
    const bench = newRun(plan);
    // The bench counts its ids; the database wants real ones.
    const childId = uuidv7();
    bench.step("run").lease = childId;
    for (const effect of bench.last.effects) {
      if (effect.kind === "bind") effect.lease = childId;
      if (effect.kind === "start-child") effect.childId = childId;
    }
    return bench;
  };
  const below = (bench: RunBench, more: Partial<ParentRef> = {}): RunBench =>
    newRun(child, {
      id: bench.step("run").lease,
      parent: { runId: bench.run.id, stepId: "run", depth: 1, ...more },
    });
  const outputOf = async (runId: string) =>
    Buffer.from((await stored(database.db, runId)).run.outputs[0]?.bytes ?? []).toString();

  it("begins once though the coordinator died before the start, and two take over", async () => {
    const bench = newParent();
    await commitAndDie(bench);
    await Promise.all([room.recovery.takeOver("dead"), room.recovery.takeOver("dead")]);
    await allEnded(database.db, [bench.run.id]);
    const { run } = await stored(database.db, bench.step("run").lease);
    expect(run.parent).toEqual({ runId: bench.run.id, stepId: "run", depth: 1, launched: true });
    expect(run.labels).toEqual({ by: "launch" });
    expect(await outputOf(bench.run.id)).toBe("answer: input of tell");
    expect(await effectBatchesOf(database.db, "dead")).toEqual([]);
  });

  it("lets its step end once it has begun, where it is detached, though the coordinator died before it said so", async () => {
    detached = true;
    const bench = newParent();
    await commitAndDie(bench);
    await commit(database.db, [writeOf(below(bench, { launched: true }))]);
    await room.recovery.takeOver("dead");
    await allEnded(database.db, [bench.run.id]);
    expect(prepared).toBe(0);
    expect(await outputOf(bench.run.id)).toBe("answer: ");
    expect((await stored(database.db, bench.step("run").lease)).run.endedAtMs).toBe(0);
  });

  it("lets its step end as one that began, where it is detached, though its own failure is told first", async () => {
    const bench = newParent();
    await commit(database.db, [writeOf(bench)]);
    const run = below(bench, { launched: true, detached: true });
    run.fail("fast", "BROKEN", false);
    await commitAndDie({ ...run, last: { ...run.last, records: run.records } });
    await room.recovery.takeOver("dead");
    await allEnded(database.db, [bench.run.id]);
    expect((await stored(database.db, run.run.id)).run).toMatchObject({
      status: RunStatus.RUN_STATUS_FAILED,
      parent: { launched: true, detached: true },
    });
    expect((await stored(database.db, bench.run.id)).run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await outputOf(bench.run.id)).toBe("answer: ");
  });

  it("fails its step for good where it can never be", async () => {
    refused = true;
    const runId = await room.startRun(parent);
    await allEnded(database.db, [runId]);
    const { run } = await stored(database.db, runId);
    expect(run.failure).toMatchObject({ reason: "CHAIN_INVALID", message: 'step "run": it is none', retryable: false });
    expect(run.steps[0]).toMatchObject({ attempt: 1, status: StepStatus.STEP_STATUS_FAILED });
  });

  it.each([true, false])(
    "has answered though the coordinator died before it told the parent (launched: %s)",
    async (launched) => {
      const bench = newParent(launched ? parent : caller);
      await commit(database.db, [writeOf(bench)]);
      const run = below(bench, launched ? { launched: true } : {});
      await commit(database.db, [writeOf(run)]);
      run.complete("fast");
      await commitAndDie(run);
      await room.recovery.takeOver("dead");
      await allEnded(database.db, [bench.run.id]);
      expect(await outputOf(bench.run.id)).toBe(launched ? "answer: input of tell" : "input of tell");
      expect((await stored(database.db, run.run.id)).run.status).toBe(RunStatus.RUN_STATUS_RUNNING);
    },
  );

  it("has answered though it failed before its parent heard of it", async () => {
    const bench = newParent(caller);
    await commit(database.db, [writeOf(bench)]);
    const run = below(bench);
    await commit(database.db, [writeOf(run)]);
    run.complete("fast");
    await commit(database.db, [writeOf(run)]);
    run.fail("slow", "BROKEN", false);
    await commitAndDie(run);
    await room.recovery.takeOver("dead");
    await allEnded(database.db, [bench.run.id]);
    expect((await stored(database.db, bench.run.id)).run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await outputOf(bench.run.id)).toBe("input of tell");
  });
});

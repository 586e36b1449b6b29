/** Undoing fan-outs, and undoing by chains. */
import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { evaluated, failure, planOf, type RunBench, type StepSpec, startMs, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import type { Evaluation } from "./run-event.js";
import { RunStatus, StepStatus } from "./run-state.js";

const { RUN_STATUS_FAILED, RUN_STATUS_RUNNING, RUN_STATUS_SUCCEEDED } = RunStatus;
const undoMs = 90_000;

const each = (parallelMax: number, toleratedShare = 0): StepSpec => ({
  each: {
    kind: "list",
    parallelMax,
    toleratedCount: 0,
    toleratedShare,
    open: () => evaluated({ total: 0, items: [] }),
  },
});

/** A fan-out `a` and a step `pay` behind it; `ua` undoes the fan-out. */
const saga = (more: StepSpec = {}, undo: StepSpec = {}) =>
  planOf({
    a: { ...each(9), ...more, undo: 2 },
    pay: { needs: ["a"] },
    ua: { ...each(1, 1), undoes: 0, scheduleToCloseMs: undoMs, ...undo },
  });

const items = (total: number, from = 0, count = total - from): Evaluation => ({
  kind: "items",
  from,
  total,
  items: Array.from({ length: count }, (_, n) => ({ key: `${from + n}`, input: value(`input ${from + n}`) })),
});

const open = (bench: RunBench, stepId: string, evaluation: Evaluation) =>
  bench.apply({ kind: "evaluated", stepId, evaluation });

function complete(bench: RunBench, stepId: string, item: number, reason?: string): void {
  const index = bench.plan.steps.findIndex(({ id }) => id === stepId);
  const { attempt, lease } = bench.run.items!.get(index)!.get(item)!;
  const outcome = reason ? { kind: "failure" as const, failure: failure(reason, false) } : `out ${item}`;
  bench.complete(stepId, outcome, { stepId, item, attempt, lease });
}

function begun(total = 3): RunBench {
  const bench = startRun(saga());
  open(bench, "a", items(total));
  return bench;
}

const sent = (bench: RunBench) => bench.effectsOf("dispatch").map(({ step, item }) => [step.id, item]);

describe("a fan-out that is undone", () => {
  it("has its items undone one at a time, as the pipeline names them, before the run ends", () => {
    const bench = begun();
    for (const item of [1, 0, 2]) complete(bench, "a", item);
    bench.fail("pay", "DECLINED", false);
    expect(bench.step("ua").status).toBe(StepStatus.STEP_STATUS_WAITING);
    expect(bench.effectsOf("evaluate")).toEqual([{ kind: "evaluate", stepId: "ua" }]);
    open(bench, "ua", items(3));
    expect(sent(bench)).toEqual([["ua", 0]]);
    complete(bench, "ua", 0);
    expect(sent(bench)).toEqual([["ua", 1]]);
    for (const item of [1, 2]) complete(bench, "ua", item);
    expect(bench.kinds()).toEqual([
      EventKind.EVENT_KIND_ITEM_SUCCEEDED,
      EventKind.EVENT_KIND_STEP_SUCCEEDED,
      EventKind.EVENT_KIND_RUN_ENDED,
    ]);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "DECLINED" } });
    expect(bench.run.undo).toBeUndefined();
  });

  it("has what succeeded undone though the step failed, or was stopped under way", () => {
    const bench = begun();
    complete(bench, "a", 1);
    complete(bench, "a", 0, "NO_ROOM");
    expect(bench.run).toMatchObject({ status: RUN_STATUS_RUNNING, done: [0], undo: { status: RUN_STATUS_FAILED } });
    open(bench, "ua", items(1));
    complete(bench, "ua", 0);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "NO_ROOM" } });

    const cancelled = begun();
    complete(cancelled, "a", 2);
    cancelled.apply({ kind: "cancel", reason: "enough" });
    cancelled.wakeAt(startMs + 20_000);
    expect(cancelled.run).toMatchObject({ done: [0], undo: { status: RunStatus.RUN_STATUS_CANCELLED } });
  });

  it("has nothing undone of which nothing succeeded, or that goes well", () => {
    const failed = begun();
    complete(failed, "a", 0, "NO_ROOM");
    expect(failed.run).toMatchObject({ status: RUN_STATUS_FAILED });
    const empty = begun(0);
    empty.fail("pay", "DECLINED", false);
    expect(empty.run).toMatchObject({ status: RUN_STATUS_FAILED });
    const well = begun();
    for (const item of [1, 0, 2]) complete(well, "a", item);
    well.complete("pay");
    expect(well.run.status).toBe(RUN_STATUS_SUCCEEDED);
  });

  it("goes on behind an item that can't be undone, and reports how many could not", () => {
    const bench = begun();
    for (const item of [0, 1, 2]) complete(bench, "a", item);
    bench.fail("pay", "DECLINED", false);
    open(bench, "ua", items(3));
    complete(bench, "ua", 0, "NO_ANSWER");
    complete(bench, "ua", 1);
    complete(bench, "ua", 2);
    expect(bench.run).toMatchObject({
      status: RUN_STATUS_FAILED,
      failure: { reason: "DECLINED", message: expect.stringContaining("compensation failed in 1 of 1") as string },
      undo: { failures: [{ step: 2, failure: { reason: "ITEMS_FAILED" } }] },
    });
    expect(bench.run.undo!.failures[0]!.failure.message).toBe("1 of 3 items could not be undone");
  });

  it("takes its place among other undos by when the fan-out ended", () => {
    const steps = {
      a: { ...each(9), undo: 3 },
      b: { undo: 4 },
      pay: {},
      ua: { ...each(1, 1), undoes: 0 },
      ub: { undoes: 1 },
    };
    const bench = startRun(planOf(steps));
    open(bench, "a", items(2));
    complete(bench, "a", 0);
    bench.nowMs += 10;
    bench.complete("b");
    bench.nowMs += 10;
    bench.fail("pay", "DECLINED", false);
    expect(bench.run.done).toEqual([1, 0]);
    expect(bench.step("ua").status).toBe(StepStatus.STEP_STATUS_WAITING);
    expect(bench.step("ub").status).toBe(StepStatus.STEP_STATUS_PENDING);
  });

  it("is looked at again where the next items to undo do not come, and goes on from what is stored", () => {
    const bench = begun(2);
    for (const item of [0, 1]) complete(bench, "a", item);
    bench.fail("pay", "DECLINED", false);
    open(bench, "ua", items(2, 0, 1));
    complete(bench, "ua", 0);
    expect(bench.step("ua").each).toMatchObject({ opening: true, next: 1 });
    expect(bench.run.wakeupAtMs).toBeGreaterThan(0);
    expect(bench.run.wakeupAtMs).toBeLessThanOrEqual(bench.nowMs + undoMs);
    expect(decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs)).toMatchObject({ done: [0] });
    bench.wakeAt(bench.run.wakeupAtMs);
    expect(bench.effectsOf("evaluate")).toEqual([{ kind: "evaluate", stepId: "ua" }]);
    open(bench, "ua", items(2, 1));
    complete(bench, "ua", 1);
    expect(bench.run.status).toBe(RUN_STATUS_FAILED);
  });
});

describe("an undo that calls a chain", () => {
  const plan = () =>
    planOf(
      {
        a: { undo: 2 },
        pay: { needs: ["a"] },
        ua: { undoes: 0, child: { onParentClose: "cancel" }, scheduleToCloseMs: undoMs, startToCloseMs: 1_000_000 },
      },
      { runTimeoutMs: 10_000 },
    );

  function undoing(): RunBench {
    const bench = startRun(plan());
    bench.complete("a");
    bench.nowMs += 9_000;
    bench.fail("pay", "DECLINED", false);
    return bench;
  }

  const end = (bench: RunBench, status: RunStatus, childId = bench.step("ua").lease) =>
    bench.apply({
      kind: "child-ended",
      stepId: "ua",
      childId,
      status,
      ...(status === RUN_STATUS_SUCCEEDED ? { output: value("undone") } : { failure: failure("NO_ANSWER") }),
    });

  it("gives it the time of the undo, whatever is left of the run's", () => {
    const bench = undoing();
    expect(bench.effectsOf("start-child")).toMatchObject([{ step: { id: "ua" }, deadlineAtMs: bench.nowMs + undoMs }]);
    bench.wakeAt(startMs + 20_000);
    expect(bench.run.status).toBe(RUN_STATUS_RUNNING);
    end(bench, RUN_STATUS_SUCCEEDED);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "DECLINED" } });
  });

  it("reports its failure beside the run's, also after the run's deadline", () => {
    const bench = undoing();
    bench.nowMs = startMs + 20_000;
    end(bench, RUN_STATUS_FAILED);
    expect(bench.run).toMatchObject({
      status: RUN_STATUS_FAILED,
      failure: { reason: "DECLINED" },
      undo: { failures: [{ step: 2, failure: { reason: "NO_ANSWER" } }] },
    });
  });

  it("starts it again where it may never have begun, and stops it when the run is terminated", () => {
    const bench = undoing();
    const { lease } = bench.step("ua");
    bench.apply({ kind: "redispatch", why: "lapsed" });
    expect(bench.effectsOf("start-child")).toMatchObject([{ childId: lease, again: true }]);
    bench.apply({ kind: "operate", operation: { kind: "terminate" }, by: "", reason: "" });
    expect(bench.effectsOf("cancel-child")).toMatchObject([{ childId: lease }]);
  });
});

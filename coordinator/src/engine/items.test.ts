import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { evaluated, failure, noRetry, planOf, type StepSpec, startRun, value } from "./plan-fixture.js";
import { decodeItem, decodeRunState, encodeItem, encodeRunState } from "./run-codec.js";
import type { Evaluation, Report } from "./run-event.js";
import { lateMax, RunStatus, StepStatus, timeoutGraceMs } from "./run-state.js";

const each = (more: Partial<NonNullable<StepSpec["each"]>> = {}): StepSpec => ({
  each: {
    kind: "list",
    parallelMax: 500,
    toleratedCount: 0,
    toleratedShare: 0,
    open: () => evaluated({ total: 0, items: [] }),
    ...more,
  },
});

const inputs = (from: number, count: number, total: number): Evaluation => ({
  kind: "items",
  from,
  total,
  items: Array.from({ length: count }, (_, n) => ({ input: value(`input ${from + n}`) })),
});

type Bench = ReturnType<typeof startRun>;
const begin = (specs: Record<string, StepSpec>, total: number, options: Parameters<typeof startRun>[1] = {}): Bench => {
  const bench = startRun(planOf(specs), options);
  bench.apply({ kind: "evaluated", stepId: "a", evaluation: inputs(0, Math.min(500, total), total) });
  return bench;
};
const itemOf = (bench: Bench, item: number) => bench.run.items?.get(0)?.get(item);
const reportOf = (bench: Bench, item: number): Report => {
  const { attempt, lease } = itemOf(bench, item)!;
  return { stepId: "a", item, attempt, lease };
};
const done = (bench: Bench, item: number, report = reportOf(bench, item)) => bench.complete("a", `out ${item}`, report);
const fail = (bench: Bench, item: number, retryable = true) =>
  bench.complete("a", { kind: "failure", failure: failure("BROKEN", retryable) }, reportOf(bench, item));
const dispatched = (bench: Bench) => bench.effectsOf("dispatch").map((effect) => effect.item);

describe("a fan-out", () => {
  it("opens, runs and ends with all its items, in one step that others read", () => {
    const bench = begin({ a: each(), b: { needs: ["a"] } }, 3);
    expect(dispatched(bench)).toEqual([0, 1, 2]);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RUNNING);
    for (const item of [2, 0]) done(bench, item);
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_PENDING);
    done(bench, 1);
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_ITEM_SUCCEEDED, EventKind.EVENT_KIND_STEP_SUCCEEDED]);
    expect(bench.run.outputs[0]).toMatchObject({ reference: "items/0", sizeBytes: 15 });
    expect(bench.run.items).toBeUndefined();
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    bench.complete("b");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("over nothing succeeds at once", () => {
    const bench = begin({ a: each() }, 0);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("keeps at most max_parallel items under way, in order, and asks for more when few wait", () => {
    const bench = begin({ a: each({ parallelMax: 2 }) }, 1_000);
    expect(dispatched(bench)).toEqual([0, 1]);
    expect(bench.effectsOf("evaluate")).toEqual([]);
    for (let item = 0; item < 499; item++) {
      done(bench, item);
      expect(bench.run.items?.get(0)?.size).toBe(500 - item - 1);
    }
    expect(bench.effects.filter(({ kind }) => kind === "evaluate")).toHaveLength(2);
    expect(bench.step("a").each).toMatchObject({ next: 500, started: 500, opening: true, succeeded: 499 });
    bench.apply({ kind: "evaluated", stepId: "a", evaluation: inputs(500, 500, 1_000) });
    expect(dispatched(bench)).toEqual([500]);
    const again = bench.apply({ kind: "evaluated", stepId: "a", evaluation: inputs(500, 500, 1_000) });
    expect(again).toMatchObject({ verdict: "unchanged", why: "not-ready" });
  });

  it("keeps its header of one size, whatever the number of items", () => {
    const few = begin({ a: each({ parallelMax: 2 }) }, 10);
    const many = begin({ a: each({ parallelMax: 2 }) }, 99_999);
    expect(encodeRunState(many.run).length - encodeRunState(few.run).length).toBeLessThan(20);
  });

  it("is stored as header and rows, and goes on from them", () => {
    const bench = begin({ a: each() }, 2);
    const { run } = bench;
    const state = decodeRunState(encodeRunState(run), run.acceptedAtMs);
    expect(state.steps).toEqual(run.steps);
    for (const item of run.items!.get(0)!.values())
      expect(decodeItem(encodeItem(item, run.acceptedAtMs), run.acceptedAtMs, item.input)).toEqual(item);
    expect(bench.last.items).toEqual([
      { step: 0, item: 0, opened: true },
      { step: 0, item: 1, opened: true },
    ]);
    done(bench, 0);
    expect(bench.last.items).toEqual([{ step: 0, item: 0, opened: false }]);
  });

  it("hears each item's current lease only, and each result once", () => {
    const bench = begin({ a: each() }, 2);
    const report = reportOf(bench, 0);
    const before = bench.run;
    expect(bench.complete("a", "x", { ...report, lease: "forged" })).toMatchObject({ why: "none" });
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_COMPLETION_LATE]);
    for (let n = 0; n < lateMax; n++) bench.complete("a", "x", { ...report, lease: "forged" });
    expect(bench.last).toMatchObject({ verdict: "unchanged", why: "stale-lease" });
    expect(itemOf(bench, 0)!.lease).toBe(before.items!.get(0)!.get(0)!.lease);
    done(bench, 0);
    expect(bench.complete("a", "again", report)).toMatchObject({ verdict: "unchanged", why: "duplicate" });
    expect(bench.complete("a", "x", { ...report, item: 7 })).toMatchObject({ why: "unknown-step" });
    expect(bench.step("a").each).toMatchObject({ succeeded: 1 });
  });

  it("retries each item by itself", () => {
    const bench = begin({ a: { ...each(), retry: { ...noRetry, attemptsMax: 2 } } }, 2);
    fail(bench, 1);
    expect(itemOf(bench, 1)).toMatchObject({ status: StepStatus.STEP_STATUS_RETRYING, failures: 1 });
    expect(bench.run.wakeupAtMs).toBe(itemOf(bench, 1)!.retryAtMs);
    bench.wakeAt(itemOf(bench, 1)!.retryAtMs);
    expect(dispatched(bench)).toEqual([1]);
    expect(itemOf(bench, 1)).toMatchObject({ attempt: 2 });
    fail(bench, 1);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_FAILED, failure: { reason: "BROKEN" } });
    expect(bench.places.size).toBe(0);
  });

  it("tolerates as many failures as it says, by count or by share", () => {
    const specs = { a: each({ toleratedCount: 1, toleratedShare: 0.5 }) };
    const bench = begin(specs, 4);
    fail(bench, 0);
    fail(bench, 1);
    for (const item of [2, 3]) done(bench, item);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    const other = begin(specs, 4);
    for (const item of [0, 1, 2]) fail(other, item);
    expect(other.run).toMatchObject({
      status: RunStatus.RUN_STATUS_FAILED,
      failure: { reason: "ITEMS_FAILED", cause: { reason: "ITEMS_FAILED", cause: { reason: "BROKEN" } } },
    });
    expect(other.run.items).toBeUndefined();
  });

  it("fails the items whose input has a mistake, and only them", () => {
    const bench = startRun(planOf({ a: each({ toleratedCount: 1 }) }));
    const items = [{ input: failure("EXPRESSION_FAILED", false) }, { input: value("fine") }];
    bench.apply({ kind: "evaluated", stepId: "a", evaluation: { kind: "items", from: 0, total: 2, items } });
    expect(dispatched(bench)).toEqual([1]);
    done(bench, 1);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("queues items without room, and starts one when it is admitted", () => {
    const bench = begin({ a: each() }, 3, { room: 1 });
    expect(bench.effectsOf("enqueue").map(({ item }) => item)).toEqual([1, 2]);
    done(bench, 0);
    expect(bench.apply({ kind: "admit", step: 0, item: 2 }).verdict).toBe("changed");
    expect(bench.effectsOf("dequeue").map(({ item }) => item)).toEqual([2]);
    expect(dispatched(bench)).toEqual([2]);
    expect(bench.apply({ kind: "admit", step: 0, item: 0 })).toMatchObject({ verdict: "unchanged" });
  });

  it("binds, loses and claims attempts per item", () => {
    const bench = begin({ a: each() }, 2);
    const report = reportOf(bench, 1);
    bench.apply({ kind: "bind", report, session: "s1", startedAtMs: bench.nowMs, sinceReportMs: 0 });
    expect(bench.effectsOf("bind")).toMatchObject([{ item: 1, lease: report.lease }]);
    bench.apply({ kind: "lose", report, why: "its session lapsed" });
    expect(bench.effectsOf("unbind")).toMatchObject([{ item: 1 }]);
    expect(dispatched(bench)).toEqual([1]);
    bench.apply({ kind: "claim", report: reportOf(bench, 0), session: "s2" });
    expect(bench.effectsOf("dispatch")).toMatchObject([{ item: 0, claimed: true, attempt: 2 }]);
    expect(itemOf(bench, 0)).toMatchObject({ status: StepStatus.STEP_STATUS_RUNNING, session: "s2" });
  });

  it("lets the item run on whose handler asks for more time, and no other", () => {
    const bench = begin({ a: { ...each(), startToCloseMs: 1_000, retry: { attemptsMax: 2 } } }, 2);
    for (const item of [0, 1]) {
      const asked = item === 1 ? { startToCloseMs: 20_000 } : {};
      const about = { session: "s1", startedAtMs: bench.nowMs, sinceReportMs: 0, ...asked };
      bench.apply({ kind: "bind", report: reportOf(bench, item), ...about });
    }
    bench.wakeAt(bench.nowMs + 1_000 + timeoutGraceMs);
    expect(itemOf(bench, 0)?.status).toBe(StepStatus.STEP_STATUS_RETRYING);
    expect(itemOf(bench, 1)?.status).toBe(StepStatus.STEP_STATUS_RUNNING);
  });

  it("sends lost starts again by lease or by age, and asks again for inputs that never came", () => {
    const bench = begin({ a: each({ parallelMax: 2 }) }, 1_000);
    const { lease } = reportOf(bench, 1);
    const report = { stepId: "a", item: 0, attempt: 0, lease };
    bench.apply({ kind: "redispatch", report, why: "lost" });
    expect(dispatched(bench)).toEqual([1]);
    expect(itemOf(bench, 1)!.lease).not.toBe(lease);
    for (let item = 0; item < 300; item++) done(bench, item);
    bench.nowMs += 1_000;
    bench.apply({ kind: "redispatch", beforeMs: bench.nowMs, why: "wiped" });
    expect(dispatched(bench)).toEqual([300, 301]);
    expect(bench.effectsOf("evaluate")).toEqual([{ kind: "evaluate", stepId: "a" }]);
  });

  it("after a cancel starts nothing, waits for what runs, and ends cancelled", () => {
    const bench = begin({ a: each({ parallelMax: 2 }) }, 10);
    bench.apply({ kind: "cancel", reason: "enough" });
    expect([...bench.run.items!.get(0)!.entries()].map(([item]) => item)).toEqual([0, 1]);
    done(bench, 0);
    expect(dispatched(bench)).toEqual([]);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_RUNNING);
    done(bench, 1);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(bench.step("a").each).toMatchObject({ succeeded: 0 });
  });

  it("ends with its run's deadline, and nothing of it is left", () => {
    const bench = begin({ a: each() }, 5, { timeoutMs: 1_000 });
    bench.apply({ kind: "bind", report: reportOf(bench, 3), session: "s", startedAtMs: bench.nowMs, sinceReportMs: 0 });
    bench.wakeAt(bench.run.deadlineAtMs);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_EXPIRED });
    expect(bench.run.items).toBeUndefined();
    expect(bench.places.size).toBe(0);
    expect(bench.last.items).toHaveLength(5);
  });
});

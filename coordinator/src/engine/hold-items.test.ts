/** Fan-outs and children of runs that are held, break, or go on behind a failure. */
import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import type { ChainPlan } from "./plan.js";
import { evaluated, failure, planOf, type RunBench, type StepSpec, startRun, value } from "./plan-fixture.js";
import type { Evaluation, Operation } from "./run-event.js";
import { RunStatus, StepStatus } from "./run-state.js";

const ttlMs = 60_000;

const fanOut = (more: StepSpec = {}): StepSpec => ({
  each: {
    kind: "list",
    parallelMax: 2,
    toleratedCount: 0,
    toleratedShare: 0,
    open: () => evaluated({ total: 0, items: [] }),
  },
  ...more,
});

const items = (total: number, from = 0): Evaluation => ({
  kind: "items",
  from,
  total,
  items: Array.from({ length: total - from }, (_, n) => ({ input: value(`input ${from + n}`) })),
});

function begin(plan: ChainPlan, total: number, options: Parameters<typeof startRun>[1] = {}): RunBench {
  const bench = startRun(plan, options);
  bench.apply({ kind: "evaluated", stepId: "a", evaluation: items(total) });
  return bench;
}
const ask = (bench: RunBench, operation: Operation) =>
  bench.apply({ kind: "operate", operation, by: "ann", reason: "because" });
const itemOf = (bench: RunBench, item: number) => bench.run.items?.get(0)?.get(item);
const reportOf = (bench: RunBench, item: number) => {
  const { attempt, lease } = itemOf(bench, item)!;
  return { stepId: "a", item, attempt, lease };
};
const done = (bench: RunBench, item: number) => bench.complete("a", `out ${item}`, reportOf(bench, item));
const fail = (bench: RunBench, item: number) =>
  bench.complete("a", { kind: "failure", failure: failure("BROKEN", true) }, reportOf(bench, item));
const sent = (bench: RunBench) => bench.effectsOf("dispatch").map(({ item }) => item);

describe("a fan-out that has failed while it opened its next items", () => {
  it.each([
    ["broke its run", {}, RunStatus.RUN_STATUS_BROKEN],
    ["was caught", { catches: [{ reasons: [] }] }, RunStatus.RUN_STATUS_RUNNING],
  ])("and %s opens none of them", (_what, more, status) => {
    const bench = startRun(planOf({ a: fanOut(more), b: {} }, { brokenTtlMs: ttlMs }));
    const some = { ...items(2), total: 9 } as Evaluation;
    bench.apply({ kind: "evaluated", stepId: "a", evaluation: some });
    expect(bench.effectsOf("evaluate")).toHaveLength(1);
    fail(bench, 0);
    expect([bench.run.status, bench.step("a").status]).toEqual([status, StepStatus.STEP_STATUS_FAILED]);
    const before = bench.run;
    expect(bench.apply({ kind: "evaluated", stepId: "a", evaluation: items(9, 2) }).why).toBe("not-ready");
    expect(bench.run).toEqual(before);
  });
});

describe("a fan-out of a paused run", () => {
  it("lets items that run end, begins none, and goes on when it is resumed", () => {
    const bench = begin(planOf({ a: fanOut() }), 4);
    expect(sent(bench)).toEqual([0, 1]);
    ask(bench, { kind: "pause" });
    done(bench, 0);
    done(bench, 1);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_PAUSED);
    expect(sent(bench)).toEqual([]);
    ask(bench, { kind: "resume" });
    expect(sent(bench)).toEqual([2, 3]);
    done(bench, 2);
    done(bench, 3);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("takes its items out of the ready queue, and puts them back", () => {
    const bench = begin(planOf({ a: fanOut() }), 3, { room: 1 });
    expect(bench.effectsOf("enqueue").map(({ item }) => item)).toEqual([1]);
    ask(bench, { kind: "pause" });
    expect(bench.effectsOf("dequeue").map(({ item }) => item)).toEqual([1]);
    expect(bench.apply({ kind: "admit", step: 0, item: 1 }).why).toBe("not-ready");
    ask(bench, { kind: "resume" });
    expect(bench.effectsOf("enqueue").map(({ item }) => item)).toEqual([1]);
  });

  it("keeps what is to be retried, lost or opened until it is resumed", () => {
    const bench = begin(planOf({ a: fanOut({ retry: { attemptsMax: 3 } }) }), 2);
    bench.apply({ kind: "bind", report: reportOf(bench, 1), session: "s", startedAtMs: bench.nowMs, sinceReportMs: 0 });
    ask(bench, { kind: "pause" });
    fail(bench, 0);
    bench.apply({ kind: "lose", report: reportOf(bench, 1), why: "gone" });
    bench.wakeAt(bench.nowMs + 10_000);
    expect(sent(bench)).toEqual([]);
    expect([itemOf(bench, 0)?.status, itemOf(bench, 1)?.status]).toEqual([
      StepStatus.STEP_STATUS_RETRYING,
      StepStatus.STEP_STATUS_READY,
    ]);
    ask(bench, { kind: "resume" });
    expect(sent(bench)).toEqual([1]);
    expect(bench.run.wakeupAtMs, "the retry is due").toBeLessThanOrEqual(bench.nowMs);
    bench.wakeAt(bench.nowMs);
    expect(sent(bench)).toEqual([0]);
  });

  it("opens items whose inputs came meanwhile, and starts them when it is resumed", () => {
    const bench = startRun(planOf({ a: fanOut() }));
    ask(bench, { kind: "pause" });
    bench.apply({ kind: "evaluated", stepId: "a", evaluation: items(2) });
    expect(sent(bench)).toEqual([]);
    expect(itemOf(bench, 0)?.status).toBe(StepStatus.STEP_STATUS_PENDING);
    ask(bench, { kind: "resume" });
    expect(sent(bench)).toEqual([0, 1]);
  });

  it("is judged all the same: its last item may end it, or too many failures", () => {
    const succeeding = begin(planOf({ a: fanOut(), b: { needs: ["a"] } }), 1);
    ask(succeeding, { kind: "pause" });
    done(succeeding, 0);
    expect(succeeding.step("a").status).toBe(StepStatus.STEP_STATUS_SUCCEEDED);
    expect(succeeding.step("b").status).toBe(StepStatus.STEP_STATUS_PENDING);
    const failing = begin(planOf({ a: fanOut() }), 3);
    ask(failing, { kind: "pause" });
    fail(failing, 0);
    expect(failing.run.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(failing.run.items).toBeUndefined();
  });
});

describe("a fan-out that failed", () => {
  it("is caught as a whole, after its own tolerance and retries", () => {
    const bench = begin(planOf({ a: fanOut({ catches: [{ reasons: ["BROKEN"] }] }), b: { needs: ["a"] } }), 3);
    fail(bench, 1);
    const { EVENT_KIND_ATTEMPT_FAILED, EVENT_KIND_ITEM_FAILED, EVENT_KIND_STEP_CAUGHT } = EventKind;
    expect(bench.kinds()).toEqual([EVENT_KIND_ATTEMPT_FAILED, EVENT_KIND_ITEM_FAILED, EVENT_KIND_STEP_CAUGHT]);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_FAILED);
    expect(bench.run.items).toBeUndefined();
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    bench.complete("b");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("breaks its run, and begins anew when an operator retries it", () => {
    const bench = begin(planOf({ a: fanOut() }, { brokenTtlMs: ttlMs }), 2);
    const old = reportOf(bench, 1);
    fail(bench, 0);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_BROKEN, broken: { steps: [0] } });
    expect(bench.places.size, "no item keeps a place").toBe(0);
    ask(bench, { kind: "retry", steps: [] });
    expect(bench.effectsOf("evaluate")).toEqual([{ kind: "evaluate", stepId: "a" }]);
    bench.apply({ kind: "evaluated", stepId: "a", evaluation: items(2) });
    expect(sent(bench)).toEqual([0, 1]);
    bench.complete("a", "late", old);
    expect(bench.step("a").each).toMatchObject({ succeeded: 0, failed: 0 });
    done(bench, 0);
    done(bench, 1);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("lets the items of another one wait while its run is BROKEN, and their limits with them", () => {
    const limits = { retry: { attemptsMax: 2 }, scheduleToCloseMs: 30_000 };
    const bench = begin(planOf({ a: fanOut(limits), b: {} }, { brokenTtlMs: ttlMs }), 3);
    fail(bench, 0);
    bench.fail("b", "BROKEN", false);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_BROKEN);
    done(bench, 1);
    expect(sent(bench)).toEqual([]);
    bench.nowMs += 50_000;
    ask(bench, { kind: "retry", steps: ["b"] });
    expect(sent(bench)).toEqual([2, undefined]);
    bench.wakeAt(bench.nowMs);
    expect(itemOf(bench, 0)?.status, "its time stood still").toBe(StepStatus.STEP_STATUS_DISPATCHED);
  });
});

describe("a child that breaks", () => {
  const parent = { runId: "parent", stepId: "s", depth: 1 };
  const plan = planOf({ a: {} }, { brokenTtlMs: 10 * ttlMs });

  it("waits no longer than what its parent gave it", () => {
    const bench = startRun(plan, { parent, deadlineAtMs: 1_700_000_020_000 });
    bench.fail("a", "BROKEN", false);
    expect(bench.run.broken?.untilMs).toBe(1_700_000_020_000);
    bench.wakeAt(1_700_000_020_000);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_FAILED, failure: { reason: "BROKEN" } });
    expect(bench.effectsOf("tell-parent")).toHaveLength(1);
  });

  it("gains no time by being mended", () => {
    const bench = startRun(plan, { parent, deadlineAtMs: 1_700_000_020_000 });
    bench.fail("a", "BROKEN", false);
    bench.nowMs += 5_000;
    ask(bench, { kind: "retry", steps: [] });
    expect(bench.run.deadlineAtMs).toBe(1_700_000_020_000);
  });

  it("ends when its parent asks it to stop", () => {
    const bench = startRun(plan, { parent });
    bench.fail("a", "BROKEN", false);
    bench.apply({ kind: "cancel", reason: "the parent ended" });
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(bench.effectsOf("tell-parent")).toHaveLength(1);
  });
});

describe("a run that starts later", () => {
  const startAtMs = 1_700_000_060_000;

  it("and is paused meanwhile starts neither before its instant nor before it is resumed", () => {
    const bench = startRun(planOf({ a: {} }), { startAtMs });
    ask(bench, { kind: "pause" });
    ask(bench, { kind: "resume" });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_PENDING);
    ask(bench, { kind: "pause" });
    bench.wakeAt(startAtMs);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_PENDING);
    ask(bench, { kind: "resume" });
    bench.wakeAt(startAtMs);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
  });
});

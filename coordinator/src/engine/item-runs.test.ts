/** Fan-outs whose items are runs. */
import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { depthMax } from "./children.js";
import { evaluated, failure, planOf, type RunBench, type StepSpec, startMs, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import { cancelGraceMs, RunStatus, StepStatus } from "./run-state.js";

const { RUN_STATUS_SUCCEEDED, RUN_STATUS_FAILED, RUN_STATUS_CANCELLED, RUN_STATUS_EXPIRED } = RunStatus;
type Close = "cancel" | "abandon" | "wait";

const spec = (onParentClose: Close = "cancel", more: Partial<NonNullable<StepSpec["each"]>> = {}): StepSpec => ({
  child: { onParentClose },
  each: {
    kind: "list",
    parallelMax: 2,
    toleratedCount: 0,
    toleratedShare: 0,
    open: () => evaluated({ total: 0, items: [] }),
    ...more,
  },
});

function begin(specs: Record<string, StepSpec>, total: number, options: Parameters<typeof startRun>[1] = {}): RunBench {
  const bench = startRun(planOf(specs, { runTimeoutMs: 50_000 }), options);
  const items = Array.from({ length: total }, (_, n) => ({ input: value(`input ${n}`) }));
  bench.apply({ kind: "evaluated", stepId: "a", evaluation: { kind: "items", from: 0, total, items } });
  return bench;
}

const itemOf = (bench: RunBench, item: number) => bench.run.items?.get(0)?.get(item);
const started = (bench: RunBench) => bench.effectsOf("start-child").map(({ item }) => item);
const stopped = (bench: RunBench) => bench.effectsOf("cancel-child").map(({ childId }) => childId);

function end(bench: RunBench, item: number, status = RUN_STATUS_SUCCEEDED, childId = itemOf(bench, item)!.lease) {
  const how = status === RUN_STATUS_SUCCEEDED ? { output: value(`out ${item}`) } : { failure: failure("JAMMED") };
  return bench.apply({ kind: "child-ended", stepId: "a", item, childId, status, ...how });
}

describe("a fan-out over runs", () => {
  it("starts a run for each item, in order and at most max_parallel at once", () => {
    const bench = begin({ a: spec(), b: { needs: ["a"] } }, 3);
    expect(started(bench)).toEqual([0, 1]);
    expect(bench.effectsOf("bind").map(({ item, lease }) => [item, lease])).toEqual([
      [0, itemOf(bench, 0)!.lease],
      [1, itemOf(bench, 1)!.lease],
    ]);
    expect(bench.effectsOf("dispatch")).toEqual([]);
    end(bench, 1);
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_ITEM_SUCCEEDED, EventKind.EVENT_KIND_CHILD_STARTED]);
    expect(started(bench)).toEqual([2]);
    for (const item of [2, 0]) end(bench, item);
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_SUCCEEDED, each: { succeeded: 3 } });
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
  });

  it("hears the run of an item's current attempt, once", () => {
    const bench = begin({ a: { ...spec(), retry: { attemptsMax: 2 } } }, 2);
    const first = itemOf(bench, 0)!.lease;
    expect(end(bench, 1, RUN_STATUS_SUCCEEDED, first).why).toBe("stale-lease");
    end(bench, 0, RUN_STATUS_FAILED);
    expect(itemOf(bench, 0)!.status).toBe(StepStatus.STEP_STATUS_RETRYING);
    expect(end(bench, 0, RUN_STATUS_SUCCEEDED, first).why).toBe("duplicate");
    bench.wakeAt(startMs + 100);
    expect(end(bench, 0, RUN_STATUS_SUCCEEDED, first).why).toBe("stale-lease");
    const second = itemOf(bench, 0)!.lease;
    end(bench, 0);
    expect(end(bench, 0, RUN_STATUS_SUCCEEDED, second).why).toBe("duplicate");
    expect(end(bench, 9, RUN_STATUS_SUCCEEDED, second).why).toBe("unknown-step");
  });

  it("does not hear workers, whoever knows the id of the run", () => {
    const bench = begin({ a: spec() }, 1);
    const { attempt, lease } = itemOf(bench, 0)!;
    expect(bench.complete("a", "ok", { stepId: "a", item: 0, attempt, lease }).why).toBe("stale-lease");
  });

  it("stops the runs that are under way when too many have failed", () => {
    const bench = begin({ a: spec("cancel", { parallelMax: 3 }) }, 3);
    const others = [1, 2].map((item) => itemOf(bench, item)!.lease);
    end(bench, 0, RUN_STATUS_FAILED);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "JAMMED" } });
    expect(stopped(bench)).toEqual(others);
  });

  it("goes on without items that failed, as far as that is tolerated", () => {
    const bench = begin({ a: spec("cancel", { toleratedCount: 1 }) }, 2);
    end(bench, 0, RUN_STATUS_FAILED);
    end(bench, 1);
    expect(bench.run.status).toBe(RUN_STATUS_SUCCEEDED);
  });

  it("fails once, however many items are too deep", () => {
    const parent = { runId: "above", stepId: "s", depth: depthMax };
    const tolerant = begin({ a: spec("cancel", { toleratedShare: 1 }) }, 5, { parent });
    expect(tolerant.run.status).toBe(RUN_STATUS_SUCCEEDED);
    const strict = begin({ a: spec() }, 5, { parent });
    expect(strict.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "DEPTH_EXCEEDED" } });
  });

  it("asks the runs to stop at a cancel, and ends with the last of them", () => {
    const bench = begin({ a: spec() }, 3);
    const leases = [0, 1].map((item) => itemOf(bench, item)!.lease);
    bench.apply({ kind: "cancel", reason: "enough" });
    expect(stopped(bench)).toEqual(leases);
    expect(itemOf(bench, 2)).toBeUndefined();
    end(bench, 0, RUN_STATUS_CANCELLED);
    expect(started(bench)).toEqual([]);
    end(bench, 1);
    expect(bench.run.status).toBe(RUN_STATUS_CANCELLED);
    expect(bench.step("a").each).toMatchObject({ succeeded: 0 });
  });

  it("lets abandoned runs go at a cancel", () => {
    const bench = begin({ a: spec("abandon") }, 2);
    bench.apply({ kind: "cancel", reason: "enough" });
    expect(stopped(bench)).toEqual([]);
    expect(bench.run.status).toBe(RUN_STATUS_CANCELLED);
  });

  it("waits for runs that it may not end before, and begins no others", () => {
    const bench = begin({ a: spec("wait"), b: {} }, 3);
    bench.fail("b", "BROKEN", false);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_RUNNING, closing: { status: RUN_STATUS_FAILED } });
    end(bench, 0);
    expect(started(bench)).toEqual([]);
    const late = { kind: "items" as const, from: 3, total: 9, items: [{ input: value("more") }] };
    expect(bench.apply({ kind: "evaluated", stepId: "a", evaluation: late }).why).toBe("not-ready");
    end(bench, 1, RUN_STATUS_FAILED);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "BROKEN" } });
  });

  it("waits for them after a cancel's grace too, but not beyond its deadline", () => {
    const bench = begin({ a: spec("wait") }, 1);
    bench.apply({ kind: "cancel", reason: "enough" });
    bench.wakeAt(startMs + cancelGraceMs);
    expect(bench.run.closing?.status).toBe(RUN_STATUS_CANCELLED);
    bench.wakeAt(startMs + 50_000);
    expect(bench.run.status).toBe(RUN_STATUS_CANCELLED);
  });

  it("expires with a run whose deadline was its own", () => {
    const bench = begin({ a: spec("cancel", { toleratedShare: 1 }) }, 2);
    bench.nowMs = startMs + 50_000;
    end(bench, 0, RUN_STATUS_EXPIRED);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_EXPIRED, failure: { reason: "RUN_EXPIRED" } });
  });

  it("starts again what may never have begun, and has those asked to stop whose items are over", () => {
    const bench = begin({ a: spec() }, 2);
    end(bench, 0);
    bench.apply({ kind: "redispatch", why: "lapsed", beforeMs: bench.nowMs });
    expect(bench.effectsOf("start-child")).toMatchObject([{ item: 1, childId: itemOf(bench, 1)!.lease, again: true }]);
    expect(bench.effectsOf("settle-children")).toMatchObject([{ step: { id: "a" } }]);
    bench.apply({ kind: "redispatch", why: "wiped", startsOnly: true });
    expect(bench.last.why).toBe("not-due");
    const report = { stepId: "a", item: 1, attempt: 1, lease: itemOf(bench, 1)!.lease };
    bench.apply({ kind: "redispatch", report, why: "audit" });
    expect(started(bench)).toEqual([1]);
    expect(bench.effectsOf("settle-children")).toEqual([]);
  });

  it("says in its state which item a run stands for", () => {
    const parent = { runId: "above", stepId: "s", depth: 1, item: 7 };
    const { run } = startRun(planOf({ a: {} }), { parent });
    expect(decodeRunState(encodeRunState(run), run.acceptedAtMs).parent).toEqual(parent);
  });
});

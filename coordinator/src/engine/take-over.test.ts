import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import type { ChainPlan } from "./plan.js";
import { planOf, type RunBench, type StepSpec, startMs, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import { RunStatus, StepStatus } from "./run-state.js";
import { type TakeOver, takeOver } from "./take-over.js";

const { STEP_STATUS_SUCCEEDED, STEP_STATUS_DISPATCHED, STEP_STATUS_PENDING, STEP_STATUS_SKIPPED } = StepStatus;
const steps: Record<string, StepSpec> = { a: {}, b: { needs: ["a"] }, c: { needs: ["b"] }, d: { needs: ["c"] } };
const line = planOf(steps, { brokenTtlMs: 60_000 });

/** A run of the line that broke at c. */
function brokenAtC(plan = line): RunBench {
  const bench = startRun(plan);
  bench.complete("a", "of a");
  bench.complete("b", "of b");
  bench.fail("c", "NO", false);
  expect(bench.run.status).toBe(RunStatus.RUN_STATUS_BROKEN);
  return bench;
}

function take(bench: RunBench, stepId: string, plan: ChainPlan = bench.plan): TakeOver {
  const found = takeOver(bench.run, bench.plan, plan, stepId);
  if ("unfit" in found) throw new Error(JSON.stringify(found.unfit));
  return found.taken;
}
const problems = (bench: RunBench, stepId: string, plan: ChainPlan = bench.plan): string[] => {
  const found = takeOver(bench.run, bench.plan, plan, stepId);
  return "unfit" in found ? found.unfit.map((one) => `${one.stepId}: ${one.problem}`) : [];
};
const begin = (bench: RunBench, stepId: string, plan: ChainPlan = bench.plan): RunBench =>
  startRun(plan, {
    origin: { runId: bench.run.id, kind: "restart", stepId },
    takeOver: take(bench, stepId, plan),
    nowMs: startMs + 5_000,
  });
const ids = (bench: RunBench, status: StepStatus): string[] =>
  bench.plan.steps.filter(({ index }) => bench.run.steps[index]!.status === status).map(({ id }) => id);

describe("a restart", () => {
  it("keeps what was done before the step, and begins with the step", () => {
    const next = begin(brokenAtC(), "c");
    expect(ids(next, STEP_STATUS_SUCCEEDED)).toEqual(["a", "b"]);
    expect(ids(next, STEP_STATUS_DISPATCHED)).toEqual(["c"]);
    expect(next.effectsOf("dispatch").map(({ step }) => step.id)).toEqual(["c"]);
    expect(next.run.outputs[1]).toEqual(value("of b"));
    const reused = next.records.filter(({ kind }) => kind === EventKind.EVENT_KIND_STEP_REUSED);
    expect(reused).toMatchObject([
      { step: 0, other: "run", payload: value("of a") },
      { step: 1, other: "run", payload: value("of b") },
    ]);
    expect(next.records.map(({ seq }) => seq)).toEqual(next.records.map((_, at) => at + 1));
    next.complete("c");
    next.complete("d");
    expect(next.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("does an earlier step anew with all behind it, and everything without a step", () => {
    expect(ids(begin(brokenAtC(), "b"), STEP_STATUS_SUCCEEDED)).toEqual(["a"]);
    const whole = begin(brokenAtC(), "");
    expect(ids(whole, STEP_STATUS_SUCCEEDED)).toEqual([]);
    expect(ids(whole, STEP_STATUS_DISPATCHED)).toEqual(["a"]);
  });

  it.each([
    [
      "that succeeded",
      (bench: RunBench) => {
        for (const id of ["a", "b", "c", "d"]) bench.complete(id, `of ${id}`);
      },
    ],
    [
      "that was cancelled",
      (bench: RunBench) => {
        for (const id of ["a", "b"]) bench.complete(id, `of ${id}`);
        bench.apply({ kind: "operate", operation: { kind: "terminate" }, by: "", reason: "" });
      },
    ],
    [
      "that expired",
      (bench: RunBench) => {
        for (const id of ["a", "b"]) bench.complete(id, `of ${id}`);
        bench.wakeAt(bench.run.deadlineAtMs);
      },
    ],
    [
      "that failed",
      (bench: RunBench) => {
        for (const id of ["a", "b"]) bench.complete(id, `of ${id}`);
        bench.fail("c", "NO", false);
      },
    ],
  ])("goes on from a run %s", (_name, live) => {
    const bench = startRun(planOf(steps));
    live(bench);
    expect(bench.run.endedAtMs).toBeGreaterThan(0);
    const next = begin(bench, "c");
    expect(ids(next, STEP_STATUS_SUCCEEDED)).toEqual(["a", "b"]);
    expect(ids(next, STEP_STATUS_DISPATCHED)).toEqual(["c"]);
  });

  it("does what another branch had not done, and keeps what it had", () => {
    const fork = planOf({ a: {}, b: { needs: ["a"] }, x: {}, y: { needs: ["x"] } }, { brokenTtlMs: 60_000 });
    const bench = startRun(fork);
    bench.complete("a", "of a");
    bench.complete("x", "of x");
    bench.fail("b", "NO", false);
    const next = begin(bench, "b");
    expect(ids(next, STEP_STATUS_SUCCEEDED)).toEqual(["a", "x"]);
    expect(ids(next, STEP_STATUS_DISPATCHED)).toEqual(["b", "y"]);
  });

  it("keeps skipped steps, caught failures and lost races that the run went on behind", () => {
    const plan = planOf(
      {
        off: { condition: () => ({ kind: "value", value: false }), mayBeUnset: true },
        tried: { catches: [{ reasons: [] }] },
        fast: { race: { join: 4, end: 2 } },
        slow: { race: { join: 4, end: 3 } },
        first: { needs: ["fast", "slow"], join: { of: [2, 3], cancelsOthers: true } },
        last: { needs: ["off", "tried", "first"] },
      },
      { brokenTtlMs: 60_000 },
    );
    const bench = startRun(plan);
    bench.fail("tried", "NO", false);
    bench.complete("fast", "won");
    bench.complete("first", "of first");
    bench.fail("last", "NO", false);
    const next = begin(bench, "last");
    expect(ids(next, STEP_STATUS_SKIPPED)).toEqual(["off"]);
    expect(ids(next, StepStatus.STEP_STATUS_FAILED)).toEqual(["tried"]);
    expect(ids(next, StepStatus.STEP_STATUS_CANCELLED)).toEqual(["slow"]);
    expect(ids(next, STEP_STATUS_DISPATCHED)).toEqual(["last"]);
    expect(next.step("first").via).toBe(2);
    const accepted = next.records.find(({ kind }) => kind === EventKind.EVENT_KIND_RUN_ACCEPTED);
    expect(accepted?.moves.map(({ step }) => plan.steps[step]!.id)).toEqual(["off", "tried", "slow"]);
  });

  it("hands over the items of a fan-out by their rows", () => {
    const each = {
      kind: "list",
      parallelMax: 2,
      toleratedCount: 1,
      toleratedShare: 0,
      open: () => ({ kind: "deferred" as const }),
    } as const;
    const plan = planOf({ many: { each }, last: { needs: ["many"] } }, { brokenTtlMs: 60_000 });
    const bench = startRun(plan);
    const items = [0, 1, 2].map(() => ({ input: value("x") }));
    bench.apply({ kind: "evaluated", stepId: "many", evaluation: { kind: "items", from: 0, total: 3, items } });
    const done = (item: number, outcome: "ok" | "bad"): void => {
      const { attempt, lease } = bench.run.items!.get(0)!.get(item)!;
      bench.complete("many", outcome, { stepId: "many", item, attempt, lease });
    };
    done(0, "ok");
    done(1, "bad");
    done(2, "ok");
    bench.fail("last", "NO", false);
    const next = begin(bench, "last");
    const [copy] = next.effects.filter((effect) => effect.kind === "copy-items");
    expect(copy).toMatchObject({ runId: "run", from: 0, step: 0, afterSeq: 2, items: 3 });
    expect(next.step("many").each).toMatchObject({ total: 3, succeeded: 2, failed: 1 });
    expect(next.run.lastSeq).toBeGreaterThanOrEqual(5);
    const decoded = decodeRunState(encodeRunState(next.run), next.run.acceptedAtMs);
    expect(decoded.steps[0]!.each).toMatchObject({ total: 3 });
    expect(decoded.origin).toEqual({ runId: "run", kind: "restart", stepId: "last" });
  });
});

describe("compensation and a restart", () => {
  const undoing = (brokenTtlMs?: number) =>
    planOf(
      { a: { undo: 3 }, b: { needs: ["a"] }, c: { needs: ["b"] }, undo: { undoes: 0, scheduleToCloseMs: 60_000 } },
      brokenTtlMs === undefined ? {} : { brokenTtlMs },
    );

  it("hands what is to be undone from a broken run to the new one", () => {
    const bench = startRun(undoing(60_000));
    bench.complete("a", "of a");
    bench.fail("b", "NO", false);
    const next = begin(bench, "b");
    expect(next.run.done).toEqual([0]);
    next.apply({ kind: "cancel", reason: "enough" });
    next.complete("b", { kind: "cancelled", message: "" });
    expect(next.step("undo").status).toBe(STEP_STATUS_DISPATCHED);
  });

  it("is refused where what was done would never be undone", () => {
    const bench = startRun(undoing(60_000));
    bench.complete("a", "of a");
    bench.fail("b", "NO", false);
    expect(problems(bench, "a")).toEqual([expect.stringMatching(/^a: has done something that would never be undone/)]);
  });

  it("is refused where a result was undone, and not from that step on", () => {
    const bench = startRun(undoing());
    bench.complete("a", "of a");
    bench.fail("b", "NO", false);
    bench.complete("undo");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(problems(bench, "b")).toEqual([expect.stringMatching(/^a: its work was undone/)]);
    const next = begin(bench, "a");
    expect(ids(next, STEP_STATUS_PENDING)).toEqual(["b", "c", "undo"]);
    expect(next.run.done).toBeUndefined();
  });

  it("leaves what a run that succeeded has done to that run", () => {
    const bench = startRun(undoing());
    for (const id of ["a", "b", "c"]) bench.complete(id, `of ${id}`);
    expect(begin(bench, "b").run.done).toBeUndefined();
  });
});

describe("a restart with the newest version", () => {
  const second = (specs: Record<string, StepSpec>) => planOf(specs, { version: 2, brokenTtlMs: 60_000 });

  it("goes on with the steps that it has by now", () => {
    const plan = second({ z: { needs: ["d"] }, d: { needs: ["c"] }, c: { needs: ["b"] }, b: { needs: ["a"] }, a: {} });
    const next = begin(brokenAtC(), "c", plan);
    expect(ids(next, STEP_STATUS_SUCCEEDED)).toEqual(["b", "a"]);
    expect(next.run.outputs[4]).toEqual(value("of a"));
    expect(ids(next, STEP_STATUS_DISPATCHED)).toEqual(["c"]);
  });

  it.each([
    [
      "a step that calls something else",
      { ...steps, b: { needs: ["a"], method: "test.v1.TestActions/Other" } },
      /^b: is another step/,
    ],
    [
      "a new step before a result",
      { ...steps, n: {}, b: { needs: ["a", "n"] } },
      /^b: comes behind "n", which has no result/,
    ],
    [
      "a contract that the output breaks",
      { ...steps, b: { needs: ["a"], contract: "newer", checkOutput: () => "it lacks a field" } },
      /^b: its output breaks the contract .* it lacks a field$/,
    ],
  ])("is refused for %s", (_name, specs, message) => {
    expect(problems(brokenAtC(), "c", second(specs))).toEqual([expect.stringMatching(message)]);
  });

  it("takes an output that passes the newer contract, and none that is too large to be looked at", () => {
    const plan = second({ ...steps, b: { needs: ["a"], contract: "newer" } });
    expect(problems(brokenAtC(), "c", plan)).toEqual([]);
    const bench = brokenAtC();
    const { bytes: _, ...large } = value("of b");
    bench.run.outputs[1] = { ...large, reference: "f00" };
    expect(problems(bench, "c", plan)).toEqual([expect.stringMatching(/^b: .* too large to be checked/)]);
  });
});

describe("a run that is replaced", () => {
  const replace = (bench: RunBench, terminate: boolean) =>
    bench.apply({
      kind: "operate",
      operation: { kind: "replace", successor: "next", hash: "h", terminate },
      by: "ann",
      reason: "wrong input",
    });

  it("ends at once, undoes nothing and names the run that goes on", () => {
    const bench = brokenAtC();
    replace(bench, true);
    expect(bench.run).toMatchObject({
      status: RunStatus.RUN_STATUS_CANCELLED,
      successor: { runId: "next", hash: "h" },
      failure: { reason: "TERMINATED", message: "run next goes on in its place: wrong input" },
    });
    expect(bench.last.records[0]).toMatchObject({ kind: EventKind.EVENT_KIND_RUN_REPLACED, other: "next", by: "ann" });
    expect(decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs).successor).toEqual({
      runId: "next",
      hash: "h",
    });
  });

  it("is cancelled with its grace, once", () => {
    const bench = startRun(planOf({ a: {} }));
    replace(bench, false);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_RUNNING);
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_RUN_REPLACED, EventKind.EVENT_KIND_CANCEL_REQUESTED]);
    expect(replace(bench, false).why).toBe("cancelling");
    bench.complete("a", { kind: "cancelled", message: "" });
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
  });
});

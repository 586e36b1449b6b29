import { RunStatus } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { planOf, startMs, startRun } from "../engine/plan-fixture.js";
import { estimate, withEstimates } from "./estimates.js";
import { percentOf, toRunProgress } from "./run-progress.js";

const plan = planOf({ a: {}, b: {} });

/** Both steps run, since `startMs`. */
function running() {
  const bench = startRun(plan);
  bench.bind("a");
  bench.bind("b");
  return bench;
}

const usualOf = (ms: number) => new Map(plan.steps.map(({ method }) => [method, ms]));

describe("an estimate", () => {
  it("is in proportion to the usual time, then grows ever slower, and never reaches 100", () => {
    expect([0, 1_000, 5_000, 10_000, 20_000].map((ms) => estimate(ms, 10_000))).toEqual([0, 9, 45, 90, 94]);
    let before = 0;
    for (let ms = 0; ms < 1e9; ms = ms * 1.3 + 10) {
      const now = estimate(ms, 10_000);
      expect(now).toBeGreaterThanOrEqual(before);
      before = now;
    }
    expect(before).toBeLessThan(100);
    expect(estimate(-5, 10_000)).toBe(0);
    expect(estimate(5, 0)).toBeLessThan(100);
  });

  it("stands where nobody reports, is marked, and moves the run", () => {
    const { run } = running();
    const reported = new Map([[0, { percent: 10, message: "slow", estimated: false }]]);
    const current = withEstimates(run.steps, plan, reported, { usual: usualOf(10_000), nowMs: startMs + 5_000 });
    expect(current.get(0)).toEqual({ percent: 10, message: "slow", estimated: false });
    expect(current.get(1)).toEqual({ percent: 45, message: "", estimated: true });
    expect(toRunProgress(run.steps, plan, current)).toMatchObject({ percent: 27.5, estimated: true });
    expect(toRunProgress(run.steps, plan, reported)).toMatchObject({ percent: 5, estimated: false });
  });

  it("is given to no step that does not run", () => {
    const bench = startRun(plan);
    bench.bind("a");
    bench.complete("a");
    const none = withEstimates(bench.run.steps, plan, new Map(), { usual: usualOf(10_000), nowMs: startMs + 5_000 });
    expect(none.size).toBe(0);
  });
});

describe("the progress of a run", () => {
  it("is 100 at its end and not before, whatever its handlers say", () => {
    const bench = running();
    const done = { percent: 100, message: "", estimated: false };
    const all = new Map([
      [0, done],
      [1, done],
    ]);
    expect(percentOf(bench.run.steps, plan, all, false)).toBe(99.9);
    bench.complete("a");
    bench.complete("b");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(percentOf(bench.run.steps, plan, new Map(), true)).toBe(100);
  });
});

import { metrics } from "@taskmesh/runtime";
import { beforeEach, describe, expect, it } from "vitest";
import type { ChainPlan } from "./engine/plan.js";
import { evaluated, planOf, type RunBench, startRun } from "./engine/plan-fixture.js";
import { countDraft } from "./plan-meters.js";

/** Each test's chain has a name of its own, and with it series of its own. */
let number = 0;
let plan: ChainPlan;
let chain: string;

const chainOf = (specs: Parameters<typeof planOf>[0]): RunBench => {
  chain = `acme.v1.Chains/C${++number}`;
  plan = { ...planOf(specs), method: chain };
  return startRun(plan);
};

/** Counts everything that the run's events led to. */
function count({ run, records, effects }: RunBench): void {
  const { version, contract } = plan;
  const write = { run, expectedVersion: 0, method: chain, chainVersion: version, contract, records, effects, logs: [] };
  countDraft({ plan, write, taken: [], work: [] });
}

type Metric = { series: ReadonlyMap<string, { value: number }>; attributesOf(key: string): Record<string, string> };

/** The series of this chain, by status or outcome. */
function by(metric: Metric, label: string): Record<string, number> {
  const rows = [...metric.series].map(([key, { value }]) => ({ labels: metric.attributesOf(key), value }));
  const own = rows.filter(({ labels, value }) => labels["chain"] === chain && value > 0);
  const sums: Record<string, number> = {};
  for (const { labels, value } of own) sums[labels[label]!] = (sums[labels[label]!] ?? 0) + value;
  return sums;
}

describe("what is counted of a run", () => {
  let bench: RunBench;
  beforeEach(() => {
    bench = chainOf({ a: { retry: { attemptsMax: 3 } }, b: { needs: ["a"] } });
  });

  it("is each run, step and attempt once, under the names of its chain, actions and queues", () => {
    bench.complete("a");
    bench.complete("b");
    count(bench);
    expect(by(metrics.runsStarted, "chain")).toEqual({ [chain]: 1 });
    expect(by(metrics.runsEnded, "status")).toEqual({ succeeded: 1 });
    expect(by(metrics.stepsEnded, "status")).toEqual({ succeeded: 2 });
    expect(by(metrics.stepsEnded, "action")).toEqual({ [plan.steps[0]!.method]: 1, [plan.steps[1]!.method]: 1 });
    expect(by(metrics.stepsEnded, "queue")).toEqual({ [plan.steps[0]!.taskQueue]: 2 });
    expect(by(metrics.attempts, "chain")).toEqual({ [chain]: 2 });
    expect(by(metrics.attemptsEnded, "outcome")).toEqual({ succeeded: 2 });
    expect(by(metrics.retries, "chain")).toEqual({});
  });

  it("tells failed, lost and timed out attempts apart, and counts what follows them as retries", () => {
    bench.fail("a");
    bench.wakeAt(bench.step("a").retryAtMs);
    bench.bind("a");
    bench.apply({ kind: "lose", report: bench.report("a"), why: "its worker went silent" });
    bench.complete("a");
    count(bench);
    expect(by(metrics.attemptsEnded, "outcome")).toEqual({ failed: 1, lost: 1, succeeded: 1 });
    expect(by(metrics.retries, "action")).toEqual({ [plan.steps[0]!.method]: 2 });
    // b is under way.
    expect(by(metrics.attempts, "chain")).toEqual({ [chain]: 4 });
    expect(by(metrics.stepsEnded, "status")).toEqual({ succeeded: 1 });
  });

  it("has the steps that never ran: cancelled with their run, or skipped", () => {
    bench.fail("a", "BROKEN", false);
    count(bench);
    expect(by(metrics.stepsEnded, "status")).toEqual({ failed: 1, cancelled: 1 });
    expect(by(metrics.runsEnded, "status")).toEqual({ failed: 1 });

    bench = chainOf({ a: { condition: () => evaluated(false) }, b: {} });
    bench.complete("b");
    count(bench);
    expect(by(metrics.stepsEnded, "status")).toEqual({ skipped: 1, succeeded: 1 });
  });

  it("measures handlers, and how long attempts waited for them", () => {
    const { method, taskQueue } = plan.steps[0]!;
    const wait = metrics.scheduleToStart.at(method, taskQueue);
    const run = metrics.execution.at(method, taskQueue);
    const before = [wait.sum, run.sum, wait.count, run.count];
    // Became ready at the start, reported 205 ms later that its handler ran for 5 ms.
    bench.nowMs += 205;
    bench.complete("a");
    count(bench);
    const spent = [wait.sum, run.sum, wait.count, run.count].map((now, index) => now - before[index]!);
    expect(spent.map((value) => Math.round(value * 1_000) / 1_000)).toEqual([0.2, 0.005, 1, 1]);
  });

  it("counts a late completion, and ends nothing by it", () => {
    const late = bench.report("a");
    bench.bind("a");
    bench.apply({ kind: "lose", report: late, why: "its worker went silent" });
    const before = metrics.completionsLate.at().value;
    bench.complete("a", "ok", late);
    count(bench);
    expect(metrics.completionsLate.at().value - before).toBe(1);
    expect(by(metrics.attemptsEnded, "outcome")).toEqual({ lost: 1 });
  });

  it("names a run of a lone action by the action", () => {
    plan = { ...planOf({ call: {} }), version: 0, method: `acme.v1.Actions/A${++number}` };
    bench = startRun(plan);
    bench.complete("call");
    chain = "";
    count(bench);
    expect(metrics.runsStarted.at("", plan.method).value).toBe(1);
    expect(metrics.runsEnded.at("succeeded", "", plan.method).value).toBe(1);
  });
});

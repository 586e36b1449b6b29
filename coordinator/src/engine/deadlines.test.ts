import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { nextWakeupAtMs } from "./deadlines.js";
import { evaluated, planOf, type StepSpec, startMs, startRun } from "./plan-fixture.js";
import { cancelGraceMs, RunStatus, StepStatus, timeoutGraceMs } from "./run-state.js";

const expired = StepStatus.STEP_STATUS_EXPIRED;

describe("schedule_to_start", () => {
  const plan = planOf({ a: { scheduleToStartMs: 1_000, retry: { attemptsMax: 5 } } });

  it.each([
    ["in the ready queue", 0],
    ["in a lane", 1],
  ])("expires a step that waits %s, and not a millisecond before, whatever retries are left", (_, room) => {
    const bench = startRun(plan, { room });
    expect(bench.run.wakeupAtMs).toBe(startMs + 1_000);
    bench.wakeAt(startMs + 999);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_RUNNING);
    bench.wakeAt(startMs + 1_000);
    expect(bench.step("a").status).toBe(expired);
    expect(bench.run.failure?.cause?.reason).toBe("SCHEDULE_TO_START_TIMEOUT");
    expect(bench.places.size).toBe(0);
  });

  it("goes on counting when a step moves from the ready queue to a lane", () => {
    const bench = startRun(plan, { room: 0 });
    bench.nowMs = startMs + 900;
    bench.room = 1;
    bench.apply({ kind: "admit", step: 0 });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    bench.wakeAt(startMs + 1_000);
    expect(bench.step("a").status).toBe(expired);
  });

  it("ends when a worker is known to run the attempt", () => {
    const bench = startRun(plan);
    bench.bind("a");
    bench.wakeAt(startMs + 1_000);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RUNNING);
  });

  it.each([
    ["after a failed attempt", 1],
    ["after a lost one that finds no room", 0],
  ])("counts anew %s", (_, room) => {
    const bench = startRun(plan);
    bench.bind("a");
    bench.nowMs = startMs + 5_000;
    bench.room = room;
    if (room === 0) bench.apply({ kind: "lose", report: bench.report("a"), why: "" });
    else bench.fail("a");
    bench.wakeAt(startMs + 5_100);
    expect(bench.step("a").status).not.toBe(expired);
    bench.wakeAt(startMs + 6_100);
    expect(bench.step("a").status).toBe(expired);
  });
});

describe("start_to_close", () => {
  const plan = planOf({ a: { startToCloseMs: 1_000, retry: { attemptsMax: 2 } } });
  const limit = 1_000 + timeoutGraceMs;

  it("fails an attempt that its worker did not end in time, after a grace for the worker's own report; retries go on", () => {
    const bench = startRun(plan);
    bench.bind("a");
    bench.wakeAt(startMs + limit - 1);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RUNNING);
    bench.wakeAt(startMs + limit);
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_RETRYING, failures: 1 });
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT]);
    expect(bench.effectsOf("unbind")).toHaveLength(1);
  });

  it("counts from the handler's start, not from the beat that told it", () => {
    const bench = startRun(plan);
    bench.nowMs = startMs + 4_000;
    bench.bind("a", "s1", startMs + 1_000);
    bench.wakeAt(startMs + 1_000 + limit);
    expect(bench.step("a").failures).toBe(1);
  });

  it("never begins before the attempt or after the beat, whatever a worker's clock says", () => {
    const early = startRun(plan);
    early.bind("a", "s1", 5);
    expect(early.step("a").startedAtMs).toBe(startMs);
    const late = startRun(plan);
    late.bind("a", "s1", startMs + 9e9);
    expect(late.step("a").startedAtMs).toBe(startMs);
  });

  it("does not run while nobody is known to run the attempt", () => {
    const bench = startRun(plan);
    bench.wakeAt(startMs + limit);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
  });

  it("records what the worker reports after it as late, and not as a result", () => {
    const bench = startRun(plan);
    const report = bench.report("a");
    bench.bind("a");
    bench.wakeAt(startMs + limit);
    bench.complete("a", "ok", report);
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_COMPLETION_LATE]);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RETRYING);
  });
});

describe("a start_to_close that the handler has extended", () => {
  const spec = { startToCloseMs: 1_000, retry: { attemptsMax: 3 } };
  const limit = 1_000 + timeoutGraceMs;
  const extended = (more: StepSpec = {}, run: Parameters<typeof startRun>[1] = {}) => {
    const bench = startRun(planOf({ a: { ...spec, ...more } }), run);
    bench.bind("a", "s1", startMs, 0, 20_000);
    return bench;
  };

  it("ends the attempt when what was asked for is over, after the grace, and says how long that was", () => {
    const bench = extended();
    expect(bench.last.verdict).toBe("changed");
    bench.wakeAt(startMs + limit);
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_RUNNING, failures: 0 });
    expect(bench.run.wakeupAtMs).toBe(startMs + 20_000 + timeoutGraceMs);
    bench.wakeAt(startMs + 20_000 + timeoutGraceMs);
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_RETRYING, failures: 1 });
    expect(bench.last.records[0]?.failure).toMatchObject({
      reason: "START_TO_CLOSE_TIMEOUT",
      message: expect.stringContaining("20000 ms"),
    });
  });

  it("is stored once however often beats repeat it, grows, and never shrinks", () => {
    const bench = extended();
    for (const said of [20_000, 500, 5_000, undefined]) {
      expect(bench.bind("a", "s1", startMs, 0, said)).toMatchObject({ verdict: "unchanged", why: "already-bound" });
    }
    expect(bench.bind("a", "s1", startMs, 0, 30_000)).toMatchObject({ verdict: "changed", records: [], effects: [] });
    expect(bench.step("a").extendedMs).toBe(30_000);
    const plain = startRun(planOf({ a: spec }));
    plain.bind("a", "s1", startMs, 0, 1_000);
    expect(plain.step("a")).not.toHaveProperty("extendedMs");
  });

  it("moves neither schedule_to_close nor the run's deadline", () => {
    const step = extended({ scheduleToCloseMs: 8_000 });
    step.wakeAt(startMs + 8_000);
    expect(step.step("a").status).toBe(expired);
    const run = extended({}, { timeoutMs: 9_000 });
    run.wakeAt(startMs + 8_999);
    expect(run.step("a").status).toBe(StepStatus.STEP_STATUS_RUNNING);
    run.wakeAt(startMs + 9_000);
    expect(run.run.status).toBe(RunStatus.RUN_STATUS_EXPIRED);
  });

  it("is the attempt's alone: a retry, a lost attempt's next and another holder begin with the plan's", () => {
    const retried = extended();
    retried.fail("a");
    retried.wakeAt(retried.run.wakeupAtMs);
    const lost = extended();
    lost.apply({ kind: "lose", report: lost.report("a"), why: "" });
    const other = extended();
    for (const bench of [retried, lost, other]) {
      bench.bind("a", "s2");
      expect(bench.step("a")).not.toHaveProperty("extendedMs");
      bench.wakeAt(bench.nowMs + limit);
      expect(bench.kinds()).toContain(EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT);
    }
  });
});

describe("heartbeat", () => {
  const plan = planOf({ a: { heartbeatMs: 1_000, retry: { attemptsMax: 2 } } });

  it("fails an attempt whose handler says nothing for longer than its limit, and not for as long", () => {
    const bench = startRun(plan);
    bench.bind("a", "s1", startMs, 1_000);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RUNNING);
    bench.bind("a", "s1", startMs, 1_001);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RETRYING);
    expect(bench.last.records[0]?.failure).toMatchObject({ reason: "HEARTBEAT_TIMEOUT", retryable: true });
  });

  it("does not matter for a step without the limit", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.bind("a", "s1", startMs, 1e9);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RUNNING);
  });
});

describe("schedule_to_close", () => {
  const plan = planOf({ a: { scheduleToCloseMs: 1_000, retry: { attemptsMax: 9, initialMs: 700 } } });

  it("expires a running step, and not a millisecond before", () => {
    const bench = startRun(plan);
    bench.bind("a");
    bench.wakeAt(startMs + 999);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RUNNING);
    bench.wakeAt(startMs + 1_000);
    expect(bench.step("a").status).toBe(expired);
    expect(bench.run.failure?.cause?.reason).toBe("SCHEDULE_TO_CLOSE_TIMEOUT");
  });

  it("counts over all attempts, and also while a retry waits", () => {
    const bench = startRun(plan);
    bench.fail("a");
    bench.wakeAt(startMs + 700);
    bench.fail("a");
    expect(bench.run.wakeupAtMs).toBe(startMs + 1_000);
    bench.wakeAt(startMs + 999);
    expect(bench.run.wakeupAtMs).toBe(startMs + 1_000);
    bench.wakeAt(startMs + 1_000);
    expect(bench.step("a").status).toBe(expired);
  });

  it("covers an evaluation that never answers", () => {
    const bench = startRun(planOf({ a: { scheduleToCloseMs: 1_000, bindInput: () => ({ kind: "deferred" }) } }));
    bench.wakeAt(startMs + 1_000);
    expect(bench.step("a").status).toBe(expired);
  });
});

describe("a run's deadline", () => {
  it("expires the run with all that is under way, and not a millisecond before", () => {
    const bench = startRun(planOf({ a: {}, b: { needs: ["a"] } }), { timeoutMs: 1_000 });
    bench.wakeAt(startMs + 999);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_RUNNING);
    bench.wakeAt(startMs + 1_000);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_EXPIRED, failure: { reason: "RUN_EXPIRED" } });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_CANCELLED);
    expect(bench.places.size).toBe(0);
  });

  it.each([
    ["a chain's", 1],
    ["a lone action's", 0],
  ])("expires %s run when an attempt fails after it, before the sweeper has looked", (_, version) => {
    const plan = { ...planOf({ a: {} }), version, brokenTtlMs: 60_000 };
    const bench = startRun(plan, { timeoutMs: 1_000 });
    bench.bind("a");
    bench.nowMs = startMs + 1_000;
    bench.fail("a", "RUN_EXPIRED", false);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_EXPIRED, failure: { reason: "RUN_EXPIRED" } });
    expect(bench.places.size).toBe(0);
  });

  it("is not over a millisecond before it, and a result that is there counts after it too", () => {
    const failed = startRun({ ...planOf({ a: {} }), version: 0 }, { timeoutMs: 1_000 });
    failed.nowMs = startMs + 999;
    failed.fail("a", "TOO_BAD", false);
    expect(failed.run).toMatchObject({ status: RunStatus.RUN_STATUS_FAILED, failure: { reason: "TOO_BAD" } });
    const late = startRun(planOf({ a: {} }), { timeoutMs: 1_000 });
    late.nowMs = startMs + 1_000;
    late.complete("a");
    expect(late.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("covers an output that is never evaluated", () => {
    const bench = startRun(planOf({ a: {} }, { bindOutput: () => ({ kind: "deferred" }) }), { timeoutMs: 1_000 });
    bench.complete("a");
    bench.wakeAt(startMs + 1_000);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_EXPIRED);
  });

  it("does not turn an accepted cancel into an expiry", () => {
    const bench = startRun(planOf({ a: {} }), { timeoutMs: cancelGraceMs - 1 });
    bench.apply({ kind: "cancel", reason: "enough" });
    bench.wakeAt(startMs + cancelGraceMs - 1);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_CANCELLED, failure: { message: "enough" } });
  });
});

describe("the next wake-up", () => {
  it("is the earliest of all that can be due", () => {
    const bench = startRun(planOf({ a: { scheduleToStartMs: 500 }, b: { scheduleToStartMs: 300 } }));
    expect(nextWakeupAtMs(bench.run, bench.plan)).toBe(startMs + 300);
  });

  it("is stored earlier at once, but later only when the sweeper has looked", () => {
    const bench = startRun(planOf({ a: { scheduleToStartMs: 500 }, b: { needs: ["a"], scheduleToStartMs: 100 } }));
    bench.nowMs = startMs + 10;
    bench.complete("a");
    expect(bench.run.wakeupAtMs).toBe(startMs + 110);
    bench.bind("b");
    expect(bench.run.wakeupAtMs).toBe(startMs + 110);
    bench.wakeAt(startMs + 110);
    expect(bench.run.wakeupAtMs).toBe(startMs + 10 + 60_000 + timeoutGraceMs);
  });

  it("is the end of the grace after a cancel, whatever limits of steps are due before", () => {
    const bench = startRun(planOf({ a: { scheduleToStartMs: 500 } }));
    bench.apply({ kind: "cancel", reason: "" });
    bench.wakeAt(startMs + 500);
    expect(bench.run.wakeupAtMs).toBe(startMs + cancelGraceMs);
  });

  it("is none when the run has ended", () => {
    const bench = startRun(planOf({ a: { condition: () => evaluated(false) } }));
    expect(nextWakeupAtMs(bench.run, bench.plan)).toBe(0);
  });
});

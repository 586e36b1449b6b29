import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { planOf, startMs, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import { RunStatus, StepStatus, unstartedMsMax } from "./run-state.js";
import { deadlineOf } from "./run-time.js";

const startAtMs = startMs + 60_000;

describe("a run that starts at an instant", () => {
  it("starts nothing before, and has its whole time from then", () => {
    const bench = startRun(planOf({ a: {} }), { startAtMs, timeoutMs: 5_000 });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_PENDING);
    expect(bench.run).toMatchObject({ wakeupAtMs: startAtMs, deadlineAtMs: startAtMs + 5_000, startAtMs });
    expect(decodeRunState(encodeRunState(bench.run), startMs).startAtMs).toBe(startAtMs);
    bench.wakeAt(startAtMs - 1);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_PENDING);
    bench.wakeAt(startAtMs);
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_RUN_STARTED]);
    expect(bench.effectsOf("dispatch")).toHaveLength(1);
    expect(bench.run.startAtMs).toBeUndefined();
    bench.complete("a");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("starts at once when the instant has passed, and never after a cancel", () => {
    const late = startRun(planOf({ a: {} }), { startAtMs: startMs });
    expect(late.run.startAtMs).toBeUndefined();
    expect(late.step("a").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    const cancelled = startRun(planOf({ a: {} }), { startAtMs });
    cancelled.apply({ kind: "cancel", reason: "enough" });
    expect(cancelled.run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
  });

  it("keeps messages that come before", () => {
    const wait = { kind: "signal" as const, mailbox: "m" };
    const bench = startRun(planOf({ ask: { wait } }), { startAtMs });
    bench.apply({ kind: "message", mailbox: "m", name: "m", key: "", value: value("early") });
    expect(bench.step("ask").status).toBe(StepStatus.STEP_STATUS_PENDING);
    bench.wakeAt(startAtMs);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });
});

describe("a run whose time counts from its first start", () => {
  const plan = planOf({ a: {}, b: { needs: ["a"] } }, { timedFromStart: true, runTimeoutMs: 10_000 });

  it("has its deadline from when a worker is seen to run a step; the first one counts", () => {
    const bench = startRun(plan);
    expect(bench.run.deadlineAtMs).toBe(startMs + unstartedMsMax);
    bench.nowMs = startMs + 3_600_000;
    bench.bind("a");
    const startedAtMs = startMs + 3_600_000;
    expect(bench.run).toMatchObject({ deadlineAtMs: startedAtMs + 10_000, timed: { startedAtMs } });
    // What is read of the row has the column's deadline, which stays as it was.
    const { timed } = decodeRunState(encodeRunState(bench.run), startMs);
    expect(deadlineOf(startMs + unstartedMsMax, timed)).toBe(bench.run.deadlineAtMs);
    bench.nowMs += 5_000;
    bench.complete("a");
    expect(bench.run.deadlineAtMs).toBe(startedAtMs + 10_000);
    expect(bench.run.wakeupAtMs).toBeLessThanOrEqual(bench.run.deadlineAtMs);
    bench.wakeAt(startedAtMs + 10_000);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_EXPIRED);
  });

  it("has it from a success that no beat told of, and from a wait", () => {
    const bench = startRun(plan);
    bench.nowMs = startMs + 50;
    bench.complete("a");
    expect(bench.run.deadlineAtMs).toBe(startMs + 50 + 10_000);
    const wait = { kind: "signal" as const, mailbox: "m" };
    const waiting = startRun(planOf({ ask: { wait } }, { timedFromStart: true, runTimeoutMs: 10_000 }));
    expect(waiting.run.deadlineAtMs).toBe(startMs + 10_000);
  });

  it("ends though no worker ever comes", () => {
    const bench = startRun(plan, { room: 0 });
    bench.wakeAt(startMs + unstartedMsMax);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_EXPIRED);
  });
});

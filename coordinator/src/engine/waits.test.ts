import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import type { WaitPlan } from "./plan.js";
import { evaluated, planOf, startMs, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import { RunStatus, StepStatus } from "./run-state.js";

const timer = (ms: number): WaitPlan => ({ kind: "timer", endsAtMs: (_input, readyAtMs) => readyAtMs + ms });

describe("a step that waits for an instant", () => {
  it("is WAITING until then, without a lease or a place, and the run's wake-up is the instant", () => {
    const bench = startRun(planOf({ pause: { wait: timer(60_000) }, after: { needs: ["pause"] } }));
    expect(bench.step("pause")).toMatchObject({ status: StepStatus.STEP_STATUS_WAITING, attempt: 0, lease: "" });
    expect(bench.run.wakeupAtMs).toBe(startMs + 60_000);
    expect(bench.effects).toEqual([]);
    expect(bench.places.size).toBe(0);

    bench.wakeAt(startMs + 59_999);
    expect(bench.step("pause").status).toBe(StepStatus.STEP_STATUS_WAITING);
    bench.wakeAt(startMs + 60_000);
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_STEP_SUCCEEDED]);
    expect(bench.step("pause")).toMatchObject({
      status: StepStatus.STEP_STATUS_SUCCEEDED,
      endedAtMs: startMs + 60_000,
    });
    expect(bench.effectsOf("dispatch").map(({ step }) => step.id)).toEqual(["after"]);
  });

  it("counts from when it became ready, not from the run's start", () => {
    const bench = startRun(planOf({ first: {}, pause: { needs: ["first"], wait: timer(1_000) } }));
    bench.nowMs = startMs + 5_000;
    bench.complete("first");
    expect(bench.step("pause").wait).toEqual({ endsAtMs: startMs + 6_000 });
  });

  it("is over at once when the instant has passed, and what needs it starts in the same turn", () => {
    const bench = startRun(
      planOf({ a: { wait: timer(0) }, b: { needs: ["a"], wait: timer(-5) }, c: { needs: ["b"] } }),
    );
    expect(bench.effectsOf("dispatch").map(({ step }) => step.id)).toEqual(["c"]);
    bench.complete("c");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("is skipped like any other step", () => {
    const bench = startRun(
      planOf({ pause: { condition: () => evaluated(false), wait: timer(60_000) }, after: { needs: ["pause"] } }),
    );
    expect(bench.step("pause").status).toBe(StepStatus.STEP_STATUS_SKIPPED);
    expect(bench.step("after").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
  });

  it("begins when its input was evaluated off the engine, and is not evaluated again by a redispatch", () => {
    const deferred = () => ({ kind: "deferred" as const });
    const bench = startRun(planOf({ pause: { wait: timer(1_000), bindInput: deferred } }));
    expect(bench.effectsOf("evaluate")).toHaveLength(1);
    expect(bench.step("pause").wait).toBeUndefined();
    const input = { ...value("x"), reference: "p1" };
    bench.apply({ kind: "evaluated", stepId: "pause", evaluation: { kind: "value", value: input } });
    expect(bench.step("pause").wait).toEqual({ endsAtMs: startMs + 1_000 });
    expect(bench.apply({ kind: "redispatch", why: "wiped" }).verdict).toBe("unchanged");
    const again = bench.apply({ kind: "evaluated", stepId: "pause", evaluation: { kind: "value", value: input } });
    expect(again.why).toBe("not-ready");
  });

  it("ends with its run: by a cancel, or by the run's deadline when that is earlier", () => {
    const cancelled = startRun(planOf({ pause: { wait: timer(60_000) } }));
    cancelled.apply({ kind: "cancel", reason: "enough" });
    expect(cancelled.step("pause")).toMatchObject({ status: StepStatus.STEP_STATUS_CANCELLED });
    expect(cancelled.step("pause").wait).toBeUndefined();

    const expired = startRun(planOf({ pause: { wait: timer(60_000) } }), { timeoutMs: 1_000 });
    expired.wakeAt(startMs + 1_000);
    expect(expired.run.status).toBe(RunStatus.RUN_STATUS_EXPIRED);
  });

  it("survives being stored and read, and costs other steps no byte", () => {
    const bench = startRun(planOf({ pause: { wait: timer(60_000) }, call: {} }));
    const text = encodeRunState(bench.run);
    expect(decodeRunState(text, bench.run.acceptedAtMs).steps).toEqual(bench.run.steps);
    const plain = startRun(planOf({ call: {} }));
    expect(encodeRunState(plain.run)).toContain(JSON.stringify([3, 1, "lease-1", 1, 1]));
  });
});

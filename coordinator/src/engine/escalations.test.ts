import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import type { WaitPlan } from "./plan.js";
import { planOf, type StepSpec, startMs, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import { RunStatus, StepStatus } from "./run-state.js";

const human: WaitPlan = {
  kind: "human",
  read: (_input, level) => ({ title: "t", instructions: "", assignees: [`level ${level}`], groups: [] }),
  escalations: [
    { afterMs: 1_000, handsOver: true },
    { afterMs: 5_000, handsOver: false },
  ],
};
const steps = (more: Record<string, StepSpec> = {}) => ({
  ask: { wait: human, scheduleToCloseMs: 10_000 },
  page: { needs: ["ask"], escalation: { of: 0, level: 2 } },
  after: { needs: ["ask"] },
  ...more,
});
const person = (name: string, act: "claim" | "complete") => ({
  kind: "assignment" as const,
  stepId: "ask",
  person: name,
  act: act === "claim" ? { kind: act } : { kind: act, value: value("form") },
});

describe("an assignment that nobody completes", () => {
  it("is handed over at its instant, not a millisecond before, and whoever had claimed it has it no more", () => {
    const bench = startRun(planOf(steps()));
    expect(bench.effectsOf("assign").map(({ terms }) => terms.assignees)).toEqual([["level 0"]]);
    expect(bench.run.wakeupAtMs).toBe(startMs + 1_000);
    bench.apply(person("ada", "claim"));
    bench.wakeAt(startMs + 999);
    expect(bench.step("ask").level).toBeUndefined();
    bench.wakeAt(startMs + 1_000);
    expect(bench.step("ask")).toMatchObject({
      level: 1,
      status: StepStatus.STEP_STATUS_WAITING,
      wait: { endsAtMs: 0 },
    });
    expect(bench.step("ask").wait?.claimedBy).toBeUndefined();
    expect(bench.effectsOf("assign").map(({ terms }) => terms.assignees)).toEqual([["level 1"]]);
    expect(bench.effectsOf("give-back")).toHaveLength(1);
    expect(bench.last.records).toMatchObject([{ kind: EventKind.EVENT_KIND_ASSIGNMENT_ESCALATED, note: "1" }]);
    expect(bench.run.wakeupAtMs).toBe(startMs + 5_000);
    bench.apply(person("bob", "complete"));
    expect(bench.step("ask").status).toBe(StepStatus.STEP_STATUS_SUCCEEDED);
  });

  it("lets further steps begin while it stays open, which is stored", () => {
    const bench = startRun(planOf(steps()));
    bench.wakeAt(startMs + 1_000);
    bench.apply(person("bob", "claim"));
    bench.wakeAt(startMs + 5_000);
    expect(bench.step("page").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    expect(bench.step("after").status).toBe(StepStatus.STEP_STATUS_PENDING);
    expect(bench.step("ask").wait?.claimedBy).toBe("bob");
    expect(bench.effectsOf("assign")).toEqual([]);
    const stored = decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs);
    expect(stored.steps[0]).toEqual(bench.step("ask"));
    bench.complete("page");
    bench.apply(person("bob", "complete"));
    bench.complete("after");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("skips the steps of escalations that did not happen", () => {
    const bench = startRun(planOf(steps({ behind: { needs: ["page"] } })));
    bench.apply(person("ada", "complete"));
    expect(bench.step("page").status).toBe(StepStatus.STEP_STATUS_SKIPPED);
    expect(bench.step("behind").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    bench.wakeAt(startMs + 5_000);
    expect(bench.step("ask").level).toBeUndefined();
  });

  it("catches up one by one after a pause of everybody, and expires in the end", () => {
    const bench = startRun(planOf(steps()));
    bench.wakeAt(startMs + 6_000);
    expect(bench.step("ask").level).toBe(1);
    bench.wakeAt(startMs + 6_000);
    expect(bench.step("ask").level).toBe(2);
    expect(bench.run.wakeupAtMs).toBe(startMs + 10_000);
    bench.wakeAt(startMs + 10_000);
    expect(bench.step("ask").status).toBe(StepStatus.STEP_STATUS_EXPIRED);
    expect(bench.run.failure?.reason).toBe("SCHEDULE_TO_CLOSE_TIMEOUT");
  });

  it("waits with a run that is paused", () => {
    const bench = startRun(planOf(steps()));
    const operate = (kind: "pause" | "resume") =>
      bench.apply({ kind: "operate", operation: { kind }, by: "", reason: "" });
    operate("pause");
    bench.wakeAt(startMs + 2_000);
    expect(bench.step("ask").level).toBeUndefined();
    operate("resume");
    bench.wakeAt(startMs + 2_000);
    expect(bench.step("ask").level).toBe(1);
  });
});

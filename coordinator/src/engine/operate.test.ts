import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { planOf, type RunBench, type StepSpec, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import type { OperateEvent, Operation } from "./run-event.js";
import { RunStatus, StepStatus } from "./run-state.js";

const { RUN_STATUS_RUNNING, RUN_STATUS_PAUSED, RUN_STATUS_BROKEN, RUN_STATUS_FAILED } = RunStatus;
const { STEP_STATUS_PENDING, STEP_STATUS_READY, STEP_STATUS_DISPATCHED, STEP_STATUS_SUCCEEDED } = StepStatus;
const ttlMs = 60_000;

/** A step, one behind it, and a third on its own. */
const trio = (a: StepSpec = {}, c: StepSpec = {}) => planOf({ a, b: { needs: ["a"] }, c }, { brokenTtlMs: ttlMs });

function ask(bench: RunBench, operation: Operation, more: Partial<OperateEvent> = {}) {
  return bench.apply({ kind: "operate", operation, by: "ann", reason: "because", ...more });
}
const ended = (bench: RunBench) => bench.records.filter(({ kind }) => kind === EventKind.EVENT_KIND_RUN_ENDED).length;

describe("a paused run", () => {
  it("starts nothing new, lets what runs end, and goes on when it is resumed", () => {
    const bench = startRun(trio());
    ask(bench, { kind: "pause" });
    expect(bench.run.status).toBe(RUN_STATUS_PAUSED);
    expect(bench.last.records).toMatchObject([{ kind: EventKind.EVENT_KIND_RUN_PAUSED, by: "ann", note: "because" }]);
    bench.complete("a");
    expect(bench.step("a").status).toBe(STEP_STATUS_SUCCEEDED);
    expect(bench.step("b").status).toBe(STEP_STATUS_PENDING);
    ask(bench, { kind: "resume" });
    expect(bench.step("b").status).toBe(STEP_STATUS_DISPATCHED);
    bench.complete("b");
    bench.complete("c");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("takes its steps out of the ready queue, and puts them back", () => {
    const bench = startRun(trio(), { room: 0 });
    expect(bench.effectsOf("enqueue")).toHaveLength(2);
    ask(bench, { kind: "pause" });
    expect(bench.effectsOf("dequeue").map(({ step }) => step.id)).toEqual(["a", "c"]);
    expect(bench.apply({ kind: "admit", step: 0 }).why).toBe("not-ready");
    ask(bench, { kind: "resume" });
    expect(bench.effectsOf("enqueue").map(({ step }) => step.id)).toEqual(["a", "c"]);
  });

  it("does not send a lost or failed attempt again before it is resumed", () => {
    const bench = startRun(trio({ retry: { attemptsMax: 3 } }));
    ask(bench, { kind: "pause" });
    bench.fail("a");
    bench.bind("c");
    bench.apply({ kind: "lose", report: bench.report("c"), why: "gone" });
    expect(bench.step("c").status).toBe(STEP_STATUS_READY);
    bench.wakeAt(bench.nowMs + 10_000);
    expect(bench.effectsOf("dispatch")).toEqual([]);
    ask(bench, { kind: "resume" });
    expect(bench.step("c").status).toBe(STEP_STATUS_DISPATCHED);
    bench.wakeAt(bench.nowMs);
    expect(bench.step("a").status).toBe(STEP_STATUS_DISPATCHED);
  });

  it("expires at its deadline all the same", () => {
    const bench = startRun(trio());
    ask(bench, { kind: "pause" });
    bench.wakeAt(bench.run.deadlineAtMs);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_EXPIRED);
  });

  it("can be cancelled, and pausing it again changes nothing", () => {
    const bench = startRun(trio());
    ask(bench, { kind: "pause" });
    expect(ask(bench, { kind: "pause" }).why).toBe("already");
    bench.apply({ kind: "cancel", reason: "enough" });
    expect(bench.run.status).toBe(RUN_STATUS_RUNNING);
    expect(ask(bench, { kind: "pause" }).why).toBe("cancelling");
    bench.wakeAt(bench.nowMs + 20_000);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
  });
});

describe("a run that is terminated", () => {
  it("ends at once, CANCELLED, and gives up every lease", () => {
    const bench = startRun(trio());
    ask(bench, { kind: "terminate" });
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(bench.run.failure).toMatchObject({ reason: "TERMINATED", message: "because" });
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_RUN_TERMINATED, EventKind.EVENT_KIND_RUN_ENDED]);
    expect(bench.places.size).toBe(0);
  });
});

describe("a run that is changed", () => {
  it("has the new priority where its steps wait, and the labels as set and removed", () => {
    const bench = startRun(trio(), { room: 0, labels: { x: "1", y: "2" } });
    ask(bench, { kind: "update", priority: 7, setLabels: { z: "3" }, removeLabels: ["x"] });
    expect(bench.run).toMatchObject({ priority: 7, labels: { y: "2", z: "3" } });
    expect(bench.effectsOf("enqueue").map(({ priority }) => priority)).toEqual([7, 7]);
    expect(bench.effectsOf("columns")).toHaveLength(1);
  });
});

describe("a run that breaks", () => {
  const broken = (a: StepSpec = {}, c: StepSpec = {}): RunBench => {
    const bench = startRun(trio(a, c));
    bench.fail("a", "NO_MONEY", false);
    return bench;
  };

  it("waits for an operator instead of failing, and is listed with the reason", () => {
    const bench = broken();
    expect(bench.run.status).toBe(RUN_STATUS_BROKEN);
    expect(bench.run.broken).toEqual({ sinceMs: bench.nowMs, untilMs: bench.nowMs + ttlMs, steps: [0] });
    expect(bench.run.failure?.reason).toBe("NO_MONEY");
    expect(bench.effectsOf("broken")).toMatchObject([{ reason: "NO_MONEY" }]);
    expect(ended(bench)).toBe(0);
    const stored = decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs);
    expect(stored.broken).toEqual(bench.run.broken);
    bench.complete("c");
    expect(bench.step("c").status).toBe(STEP_STATUS_SUCCEEDED);
    expect(bench.run.status).toBe(RUN_STATUS_BROKEN);
  });

  it("goes on when its step is retried, with the count of attempts kept and the old lease dead", () => {
    const bench = broken();
    const old = bench.report("a");
    bench.nowMs += 30_000;
    const { deadlineAtMs } = bench.run;
    ask(bench, { kind: "retry", steps: [] });
    expect(bench.run.status).toBe(RUN_STATUS_RUNNING);
    expect(bench.run.failure).toBeUndefined();
    expect(bench.effectsOf("mended")).toHaveLength(1);
    expect(bench.run.deadlineAtMs, "the time that it stood is not its own").toBe(deadlineAtMs + 30_000);
    expect(bench.step("a")).toMatchObject({ status: STEP_STATUS_DISPATCHED, attempt: 2, failures: 0 });
    bench.complete("a", "late", old);
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_COMPLETION_LATE]);
    for (const id of ["a", "b", "c"]) bench.complete(id);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("uses the input that an operator gives, also in later attempts", () => {
    const bench = broken({ retry: { attemptsMax: 2 } });
    const { bytes: _, ...input } = { ...value("edited"), reference: "p1" };
    ask(bench, { kind: "retry", steps: ["a"], input });
    expect(bench.effectsOf("dispatch")[0]?.input).toEqual(input);
    bench.fail("a");
    bench.wakeAt(bench.step("a").retryAtMs);
    expect(bench.effectsOf("dispatch")[0]?.input).toEqual(input);
  });

  it("goes on behind a step that is skipped with an output", () => {
    const bench = broken();
    ask(bench, { kind: "skip", step: "a", output: value("by hand") });
    expect(bench.last.records[0]).toMatchObject({ kind: EventKind.EVENT_KIND_STEP_OVERRIDDEN, by: "ann" });
    expect(bench.run.outputs[0]).toEqual(value("by hand"));
    expect(bench.step("b").status).toBe(STEP_STATUS_DISPATCHED);
  });

  it("lets a step be skipped without an output only where nobody relies on it", () => {
    expect(ask(broken(), { kind: "skip", step: "a" }).why).toBe("output-needed");
    const bench = broken({ mayBeUnset: true });
    ask(bench, { kind: "skip", step: "a" });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_SKIPPED);
    expect(bench.step("b").status).toBe(STEP_STATUS_DISPATCHED);
  });

  it("is never half mended", () => {
    const bench = broken();
    bench.fail("c", "LATE", false);
    expect(bench.run.broken?.steps).toEqual([0, 2]);
    expect(bench.run.failure?.reason, "the first counts").toBe("NO_MONEY");
    ask(bench, { kind: "retry", steps: ["a"] });
    expect(bench.run.status).toBe(RUN_STATUS_BROKEN);
    expect(bench.effectsOf("dispatch")).toEqual([]);
    const { steps } = decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs);
    expect(steps[0]).toMatchObject({ status: STEP_STATUS_PENDING, attempt: 1 });
    ask(bench, { kind: "retry", steps: ["c"] });
    expect(bench.effectsOf("dispatch").map(({ step, attempt }) => [step.id, attempt])).toEqual([
      ["a", 2],
      ["c", 2],
    ]);
  });

  it("can break again at once, by the same expression", () => {
    const error = { reason: "EXPRESSION_FAILED" as const, message: "no" };
    const bench = startRun(trio({ bindInput: () => ({ kind: "failed", error }) }));
    expect(bench.run.status).toBe(RUN_STATUS_BROKEN);
    ask(bench, { kind: "retry", steps: [] });
    expect(bench.run.status).toBe(RUN_STATUS_BROKEN);
    expect(bench.run.broken?.steps).toEqual([0]);
  });

  it("fails by what broke it when nobody comes in time, whatever its own deadline was", () => {
    const bench = startRun({ ...trio(), runTimeoutMs: 1_000 });
    bench.fail("a", "NO_MONEY", false);
    bench.wakeAt(bench.nowMs + 2_000);
    expect(bench.run.status).toBe(RUN_STATUS_BROKEN);
    bench.wakeAt(bench.run.broken!.untilMs);
    expect(bench.run.status).toBe(RUN_STATUS_FAILED);
    expect(bench.run.failure?.reason).toBe("NO_MONEY");
    expect(bench.effectsOf("mended")).toHaveLength(1);
  });

  it("refuses what makes no sense", () => {
    const bench = broken();
    expect(ask(bench, { kind: "retry", steps: ["c"] }).why).toBe("step-not-broken");
    expect(ask(bench, { kind: "retry", steps: ["x"] }).why).toBe("unknown-step");
    expect(ask(startRun(trio()), { kind: "retry", steps: [] }).why).toBe("not-broken");
  });

  it("takes each bulk operation once", () => {
    const bench = broken();
    ask(bench, { kind: "retry", steps: [] }, { id: "bulk-1" });
    bench.fail("a", "NO_MONEY", false);
    expect(bench.run.status).toBe(RUN_STATUS_BROKEN);
    expect(ask(bench, { kind: "retry", steps: [] }, { id: "bulk-1" }).why).toBe("applied");
    expect(decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs).operation).toBe("bulk-1");
  });

  it("is paused again if it was", () => {
    const bench = startRun(trio());
    ask(bench, { kind: "pause" });
    bench.fail("a", "NO_MONEY", false);
    expect(bench.run.status).toBe(RUN_STATUS_BROKEN);
    ask(bench, { kind: "retry", steps: [] });
    expect(bench.run.status).toBe(RUN_STATUS_PAUSED);
    expect(bench.step("a").status).toBe(STEP_STATUS_PENDING);
    ask(bench, { kind: "resume" });
    expect(bench.step("a").status).toBe(STEP_STATUS_DISPATCHED);
  });
});

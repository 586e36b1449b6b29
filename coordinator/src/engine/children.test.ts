import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { childSession, depthMax } from "./children.js";
import { failure, planOf, type RunBench, startMs, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import { cancelGraceMs, RunStatus, StepStatus } from "./run-state.js";

const { RUN_STATUS_SUCCEEDED, RUN_STATUS_FAILED, RUN_STATUS_CANCELLED, RUN_STATUS_EXPIRED } = RunStatus;
const child = (onParentClose: "cancel" | "abandon" | "wait" = "cancel") => ({ child: { onParentClose } });
const cancel = { kind: "cancel", reason: "enough" } as const;

/** How the step's newest child ends. */
const end = (bench: RunBench, id: string, status = RUN_STATUS_SUCCEEDED, childId = bench.step(id).lease) =>
  bench.apply({
    kind: "child-ended",
    stepId: id,
    childId,
    status,
    ...(status === RUN_STATUS_SUCCEEDED ? { output: value("ok") } : { failure: failure("OUT_OF_PAPER") }),
  });

describe("a step that calls a chain", () => {
  it("starts a run under the id that its commit stores, and names it in a binding", () => {
    const bench = startRun(planOf({ a: child() }), { priority: 7 });
    const { lease } = bench.step("a");
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_RUNNING, attempt: 1 });
    expect(bench.effectsOf("start-child")).toMatchObject([{ childId: lease, depth: 1, again: false, attempt: 1 }]);
    expect(bench.effectsOf("bind")).toMatchObject([{ lease, session: childSession }]);
    expect(bench.effectsOf("dispatch")).toEqual([]);
    expect(bench.places.size).toBe(0);
  });

  it("takes the child's output as its own and goes on", () => {
    const bench = startRun(planOf({ a: child(), b: { needs: ["a"] } }));
    end(bench, "a");
    expect(bench.run.outputs[0]).toEqual(value("ok"));
    expect(bench.effectsOf("unbind")).toHaveLength(1);
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
  });

  it("gives the child no more time than the run, the attempt and the step have", () => {
    const deadline = (more: object, runTimeoutMs = 50_000) =>
      startRun(planOf({ a: { ...child(), ...more } }, { runTimeoutMs })).effectsOf("start-child")[0]!.deadlineAtMs;
    expect(deadline({})).toBe(startMs + 50_000);
    expect(deadline({ startToCloseMs: 20_000 })).toBe(startMs + 20_000);
    expect(deadline({ startToCloseMs: 20_000, scheduleToCloseMs: 10_000 })).toBe(startMs + 10_000);
  });

  it("fails with the child's reason and the chain of causes, and so does its run", () => {
    const bench = startRun(planOf({ a: child() }));
    end(bench, "a", RUN_STATUS_FAILED);
    const { failure: failed, status } = bench.run;
    expect(status).toBe(RUN_STATUS_FAILED);
    expect(failed?.reason).toBe("OUT_OF_PAPER");
    expect(failed?.message).toContain("OUT_OF_PAPER happened");
    expect(failed?.cause?.cause?.message).toBe("OUT_OF_PAPER happened");
  });

  it("is retried with a new child, where it says so", () => {
    const bench = startRun(planOf({ a: { ...child(), retry: { attemptsMax: 2 } } }));
    const first = bench.step("a").lease;
    end(bench, "a", RUN_STATUS_EXPIRED);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RETRYING);
    bench.wakeAt(startMs + 100);
    const second = bench.step("a").lease;
    expect(second).not.toBe(first);
    expect(bench.effectsOf("start-child")).toMatchObject([{ childId: second, attempt: 2 }]);
    expect(end(bench, "a", RUN_STATUS_SUCCEEDED, first).why).toBe("stale-lease");
    end(bench, "a");
    expect(bench.run.status).toBe(RUN_STATUS_SUCCEEDED);
  });

  it("expires with its child where the deadline was the run's own", () => {
    const bench = startRun(planOf({ a: child() }, { runTimeoutMs: 50_000 }));
    bench.nowMs = startMs + 50_000;
    end(bench, "a", RUN_STATUS_EXPIRED);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_EXPIRED, failure: { reason: "RUN_EXPIRED" } });
  });

  it("does not retry what somebody cancelled", () => {
    const bench = startRun(planOf({ a: { ...child(), retry: { attemptsMax: 5 } } }));
    end(bench, "a", RUN_STATUS_CANCELLED);
    expect(bench.run.status).toBe(RUN_STATUS_FAILED);
  });

  it("hears the end of its child once, and nothing from workers that know its id", () => {
    const bench = startRun(planOf({ a: child(), b: {} }));
    const { lease } = bench.step("a");
    for (const kind of ["complete", "bind", "lose", "claim"] as const) {
      const report = { stepId: "a", item: 0, attempt: 1, lease };
      const about = { session: "s", outcome: { kind: "output", value: value("x") }, executionMs: 1, why: "" } as const;
      const more = { startedAtMs: 0, sinceReportMs: 0 };
      expect(bench.apply({ kind, report, ...about, ...more } as never).verdict, kind).toBe("unchanged");
    }
    end(bench, "a");
    expect(end(bench, "a", RUN_STATUS_SUCCEEDED, lease)).toMatchObject({ verdict: "unchanged", why: "duplicate" });
  });

  it("refuses a child's output that breaks the contract that its step is pinned to", () => {
    const bench = startRun(planOf({ a: child() }));
    const output = value("bad");
    bench.apply({
      kind: "child-ended",
      stepId: "a",
      childId: bench.step("a").lease,
      status: RUN_STATUS_SUCCEEDED,
      output,
    });
    expect(bench.run.failure?.reason).toBe("OUTPUT_INVALID");
  });

  it("starts nothing below the deepest level, and says why", () => {
    const above = (depth: number) => ({ parent: { runId: "p", stepId: "a", depth } });
    expect(startRun(planOf({ a: child() }), above(depthMax - 1)).effectsOf("start-child")).toHaveLength(1);
    const bench = startRun(planOf({ a: child() }), above(depthMax));
    expect(bench.run.failure?.reason).toBe("DEPTH_EXCEEDED");
    expect(bench.effectsOf("start-child")).toEqual([]);
  });

  it("starts its child again under the same id where the start may be lost, and never after a cancel", () => {
    const bench = startRun(planOf({ a: child() }));
    const { lease } = bench.step("a");
    bench.apply({ kind: "redispatch", why: "" });
    expect(bench.effectsOf("start-child")).toMatchObject([{ childId: lease, again: true }]);
    expect(bench.step("a").attempt).toBe(1);
    expect(bench.apply({ kind: "redispatch", why: "", startsOnly: true }).verdict).toBe("unchanged");
    bench.apply(cancel);
    bench.apply({ kind: "redispatch", why: "" });
    expect(bench.effectsOf("start-child")).toEqual([]);
    expect(bench.effectsOf("cancel-child")).toMatchObject([{ childId: lease }]);
  });

  it("asks its child to stop when its time is over", () => {
    const bench = startRun(planOf({ a: { ...child(), scheduleToCloseMs: 1_000 } }));
    const { lease } = bench.step("a");
    bench.wakeAt(startMs + 1_000);
    expect(bench.effectsOf("cancel-child")).toMatchObject([{ childId: lease }]);
    expect(bench.run.failure?.reason).toBe("SCHEDULE_TO_CLOSE_TIMEOUT");
  });
});

describe("a run that was started by a step", () => {
  it("tells its parent how it ended", () => {
    const bench = startRun(planOf({ a: {} }), { parent: { runId: "p", stepId: "x", depth: 1 } });
    bench.complete("a");
    expect(bench.effectsOf("tell-parent")).toMatchObject([{ output: { sizeBytes: 6 } }]);
  });

  it("keeps its parent, and how it closes, in its stored state", () => {
    const bench = startRun(planOf({ a: child("wait"), b: {} }), { parent: { runId: "p", stepId: "x", depth: 3 } });
    bench.fail("b");
    const { parent, closing } = decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs);
    expect(parent).toEqual({ runId: "p", stepId: "x", depth: 3 });
    expect(closing).toEqual(bench.run.closing);
    expect(closing?.failure?.reason).toBe("BROKEN");
  });
});

describe("when a parent closes before its child", () => {
  const failing = (close: Parameters<typeof child>[0]) => {
    const bench = startRun(planOf({ a: child(close), b: {} }));
    bench.fail("b");
    return bench;
  };

  it("CANCEL asks the child to stop and does not wait for it", () => {
    const bench = failing("cancel");
    expect(bench.run.status).toBe(RUN_STATUS_FAILED);
    expect(bench.effectsOf("cancel-child")).toMatchObject([{ childId: bench.step("a").lease }]);
  });

  it("ABANDON lets the child go on", () => {
    const bench = failing("abandon");
    expect(bench.run.status).toBe(RUN_STATUS_FAILED);
    expect(bench.effectsOf("cancel-child")).toEqual([]);
  });

  it.each([RUN_STATUS_SUCCEEDED, RUN_STATUS_FAILED])(
    "WAIT ends the parent after the child, as was decided (%s)",
    (how) => {
      const bench = failing("wait");
      expect(bench.run.status).toBe(RunStatus.RUN_STATUS_RUNNING);
      expect(bench.kinds()).toContain(EventKind.EVENT_KIND_RUN_CLOSING);
      expect(bench.apply(cancel).verdict).toBe("unchanged");
      expect(bench.effectsOf("cancel-child")).toEqual([]);
      end(bench, "a", how);
      expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "BROKEN" } });
    },
  );

  it("WAIT waits until the run's deadline at most", () => {
    const bench = failing("wait");
    expect(bench.run.wakeupAtMs).toBeLessThanOrEqual(bench.run.deadlineAtMs);
    bench.wakeAt(bench.run.deadlineAtMs - 1);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_RUNNING);
    bench.wakeAt(bench.run.deadlineAtMs);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "BROKEN" } });
  });

  it.each([
    ["cancel", 1],
    ["abandon", 0],
    ["wait", 0],
  ] as const)("a cancel reaches children that close by %s", (close, cancels) => {
    const bench = startRun(planOf({ a: child(close), b: { needs: ["a"] } }));
    bench.apply(cancel);
    expect(bench.effectsOf("cancel-child")).toHaveLength(cancels);
    if (close === "abandon") expect(bench.run.status).toBe(RUN_STATUS_CANCELLED);
    else {
      if (close === "wait") bench.wakeAt(startMs + cancelGraceMs);
      expect(bench.run.status).toBe(RunStatus.RUN_STATUS_RUNNING);
      end(bench, "a", close === "wait" ? RUN_STATUS_SUCCEEDED : RUN_STATUS_CANCELLED);
      expect(bench.run.status).toBe(RUN_STATUS_CANCELLED);
    }
  });
});

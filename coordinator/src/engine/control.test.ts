import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { planOf, startMs, startRun } from "./plan-fixture.js";
import { cancelGraceMs, RunStatus, StepStatus } from "./run-state.js";

const cancel = { kind: "cancel", reason: "enough" } as const;

describe("a cancel", () => {
  it("stops what is not under way at once, and lets attempts clean up", () => {
    const plan = planOf({ a: {}, queued: {}, retrying: { retry: { attemptsMax: 2 } }, later: { needs: ["a"] } });
    const bench = startRun(plan);
    bench.fail("retrying");
    bench.apply({ kind: "redispatch", why: "", beforeMs: 0 });
    bench.room = 0;
    bench.apply({ kind: "lose", report: bench.report("queued"), why: "" });
    bench.apply(cancel);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_RUNNING, wakeupAtMs: startMs + 100 });
    expect(bench.run.cancel?.graceUntilMs).toBe(startMs + cancelGraceMs);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    for (const id of ["queued", "retrying", "later"])
      expect(bench.step(id).status, id).toBe(StepStatus.STEP_STATUS_CANCELLED);
    expect(bench.effectsOf("dequeue").map(({ step }) => step.id)).toEqual(["queued"]);
  });

  it("ends the run at once when nothing is under way", () => {
    const bench = startRun(planOf({ a: {} }), { room: 0 });
    bench.apply(cancel);
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_CANCELLED, failure: { message: "enough" } });
  });

  it.each(["output", "failure", "cancelled"] as const)(
    "records an attempt's %s in grace as cancelled, never as success",
    (kind) => {
      const bench = startRun(planOf({ a: { retry: { attemptsMax: 5 } }, b: { needs: ["a"] } }));
      bench.bind("a");
      bench.apply(cancel);
      if (kind === "output") bench.complete("a");
      else if (kind === "failure") bench.fail("a");
      else bench.complete("a", { kind, message: "stopped" });
      expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_CANCELLED);
      expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_STEP_CANCELLED, EventKind.EVENT_KIND_RUN_ENDED]);
      expect(bench.run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
      expect(bench.run.outputs[0]).toBeUndefined();
      expect(bench.places.size).toBe(0);
    },
  );

  it("ends the run when the grace is over, and not a millisecond before", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.apply(cancel);
    bench.wakeAt(startMs + cancelGraceMs - 1);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_RUNNING);
    bench.wakeAt(startMs + cancelGraceMs);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(bench.places.size).toBe(0);
  });

  it("that comes twice changes nothing, nor does it lengthen the grace", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.apply(cancel);
    bench.nowMs += 5_000;
    expect(bench.apply({ ...cancel, reason: "again" })).toMatchObject({ verdict: "unchanged", why: "cancelling" });
    expect(bench.run.cancel).toEqual({ reason: "enough", graceUntilMs: startMs + cancelGraceMs });
  });

  // E6 over everything that could start work.
  it("keeps anything new from being sent", () => {
    const bench = startRun(planOf({ a: {}, slow: { startToCloseMs: 1 }, e: { exclusive: true } }));
    bench.bind("slow");
    bench.apply(cancel);
    bench.apply({ kind: "redispatch", why: "" });
    bench.apply({ kind: "redispatch", report: bench.report("a"), why: "" });
    bench.apply({ kind: "claim", report: bench.report("a"), session: "s" });
    expect(bench.last).toMatchObject({ verdict: "unchanged", why: "cancelling" });
    bench.apply({ kind: "claim", report: bench.report("e"), session: "s" });
    bench.wakeAt(startMs + 9_000);
    bench.apply({ kind: "lose", report: bench.report("a"), why: "" });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_CANCELLED);
    const after = bench.effects.slice(3);
    expect(after.filter(({ kind }) => kind === "dispatch" || kind === "enqueue" || kind === "evaluate")).toEqual([]);
  });

  it("is told to the worker that beats, which still holds its attempt", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.apply(cancel);
    bench.bind("a");
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RUNNING);
    expect(bench.bind("a")).toMatchObject({ verdict: "unchanged", why: "cancelling" });
  });

  it("drops evaluations that are under way", () => {
    const bench = startRun(planOf({ a: { bindInput: () => ({ kind: "deferred" }) }, b: {} }));
    bench.apply(cancel);
    const evaluation = { kind: "skip" as const };
    expect(bench.apply({ kind: "evaluated", stepId: "a", evaluation })).toMatchObject({ verdict: "unchanged" });
  });
});

describe("the ready queue", () => {
  it("takes a step that finds no room, with its own priority or else the run's", () => {
    const bench = startRun(planOf({ a: {}, b: { priority: 9 } }), { room: 0, priority: 3 });
    expect(bench.effectsOf("enqueue").map(({ priority, atMs }) => [priority, atMs])).toEqual([
      [3, startMs],
      [9, startMs],
    ]);
  });

  it("gives a step up when a lane has room for it, and keeps it otherwise", () => {
    const bench = startRun(planOf({ a: {} }), { room: 0 });
    expect(bench.apply({ kind: "admit", step: 0 })).toMatchObject({ verdict: "unchanged", why: "no-room" });
    bench.room = 1;
    bench.apply({ kind: "admit", step: 0 });
    expect(bench.effectsOf("dequeue")).toHaveLength(1);
    expect(bench.effectsOf("dispatch")).toHaveLength(1);
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_DISPATCHED, attempt: 1 });
  });

  it("admits no step that does not wait in it", () => {
    const bench = startRun(planOf({ a: {}, b: { needs: ["a"] } }));
    expect(bench.apply({ kind: "admit", step: 0 }).why).toBe("not-ready");
    expect(bench.apply({ kind: "admit", step: 1 }).why).toBe("not-ready");
    expect(bench.apply({ kind: "admit", step: 5 }).why).toBe("unknown-step");
  });
});

describe("a start that may be lost", () => {
  it("is sent again as a new attempt under a new lease, in the place of the old one, and is no loss", () => {
    const bench = startRun(planOf({ a: {} }));
    const before = bench.report("a");
    bench.nowMs += 10;
    bench.apply({ kind: "redispatch", report: before, why: "unknown outcome" });
    expect(bench.step("a")).toMatchObject({ attempt: 2, lost: 0, failures: 0 });
    expect(bench.effectsOf("free")).toEqual([{ kind: "free", lease: before.lease }]);
    expect(bench.effectsOf("dispatch")).toMatchObject([{ attempt: 2, lease: bench.step("a").lease }]);
    expect(bench.apply({ kind: "redispatch", report: before, why: "" })).toMatchObject({ why: "not-due" });
  });

  it("is left alone when its attempt is bound", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.bind("a");
    expect(bench.apply({ kind: "redispatch", why: "" })).toMatchObject({ verdict: "unchanged", why: "not-due" });
  });

  it("is sent again only if it was sent before the given instant", () => {
    const bench = startRun(planOf({ a: {} }));
    expect(bench.apply({ kind: "redispatch", beforeMs: startMs, why: "" }).verdict).toBe("unchanged");
    expect(bench.apply({ kind: "redispatch", beforeMs: startMs + 1, why: "" }).verdict).toBe("changed");
  });

  it("waits in the ready queue where no lane has room", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.room = 0;
    bench.apply({ kind: "redispatch", why: "" });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_READY);
    expect(bench.places.size).toBe(0);
  });

  it("asks again for evaluations that may be lost, of steps and of the output", () => {
    const later = () => ({ kind: "deferred" }) as const;
    const step = startRun(planOf({ a: { bindInput: later } }));
    step.apply({ kind: "redispatch", why: "" });
    expect(step.effectsOf("evaluate")).toEqual([{ kind: "evaluate", stepId: "a" }]);
    const output = startRun(planOf({}, { bindOutput: later }));
    output.apply({ kind: "redispatch", why: "" });
    expect(output.effectsOf("evaluate")).toEqual([{ kind: "evaluate", stepId: "" }]);
  });
});

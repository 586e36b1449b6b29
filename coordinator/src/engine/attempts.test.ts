import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { failure, planOf, startMs, startRun } from "./plan-fixture.js";
import type { RunEvent } from "./run-event.js";
import { lateMax, lostMax, RunStatus, StepStatus } from "./run-state.js";

const twoTries = planOf({ a: { retry: { attemptsMax: 2 } } });
const lose = (bench: ReturnType<typeof startRun>) =>
  bench.apply({ kind: "lose", report: bench.report("a"), why: "its session lapsed" });
const claim = (bench: ReturnType<typeof startRun>, report = bench.report("a"), session = "s2") =>
  bench.apply({ kind: "claim", report, session });

describe("a report", () => {
  // E2 over every kind of report.
  it("without the current lease changes no step", () => {
    const bench = startRun(planOf({ a: {} }));
    const wrong = { ...bench.report("a"), lease: "forged", attempt: 7 };
    const events: RunEvent[] = [
      {
        kind: "complete",
        report: wrong,
        outcome: { kind: "failure", failure: failure("X") },
        executionMs: 0,
        session: "",
      },
      { kind: "bind", report: wrong, session: "s", startedAtMs: startMs, sinceReportMs: 1e9 },
      { kind: "lose", report: wrong, why: "" },
      { kind: "claim", report: wrong, session: "s" },
    ];
    const before = bench.run;
    for (const event of events) {
      expect(bench.apply(event), event.kind).toMatchObject({ verdict: "unchanged", why: "stale-lease" });
      expect(bench.run, event.kind).toBe(before);
    }
  });

  it("about a step or an item that does not exist changes nothing", () => {
    const bench = startRun(planOf({ a: {} }));
    for (const report of [
      { ...bench.report("a"), stepId: "z" },
      { ...bench.report("a"), item: 1 },
    ])
      expect(bench.complete("a", "ok", report)).toMatchObject({ verdict: "unchanged", why: "unknown-step" });
  });

  it("that comes twice counts once", () => {
    const bench = startRun(planOf({ a: {}, b: {} }));
    const report = bench.report("a");
    bench.complete("a", "ok", report);
    expect(bench.complete("a", "ok", report)).toMatchObject({ verdict: "unchanged", why: "duplicate" });
    expect(bench.complete("a", { kind: "failure", failure: failure("X") }, report).why).toBe("duplicate");
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_SUCCEEDED);
  });

  it("of a superseded attempt is kept as late, up to a bound, and never as a result", () => {
    const bench = startRun(twoTries);
    const old = bench.report("a");
    lose(bench);
    for (let n = 1; n <= lateMax; n++) {
      bench.complete("a", "late", old);
      expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_COMPLETION_LATE]);
    }
    expect(bench.complete("a", "late", old)).toMatchObject({ verdict: "unchanged", why: "stale-lease" });
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_DISPATCHED, late: lateMax });
    expect(bench.run.outputs[0]).toBeUndefined();
  });

  it("of an attempt that never was is dropped", () => {
    const bench = startRun(twoTries);
    for (const attempt of [0, -1, 2])
      expect(bench.complete("a", "x", { ...bench.report("a"), lease: "L", attempt }).why).toBe("stale-lease");
  });

  it("of a lost attempt is late although its step waits for room", () => {
    const bench = startRun(twoTries);
    const old = bench.report("a");
    bench.room = 0;
    lose(bench);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_READY);
    bench.complete("a", "late", old);
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_COMPLETION_LATE]);
  });
});

describe("an output", () => {
  it("ends the step, frees its place and its binding", () => {
    const bench = startRun(planOf({ a: {}, b: {} }));
    bench.bind("a");
    const { lease } = bench.step("a");
    bench.complete("a");
    expect(bench.effectsOf("free")).toEqual([{ kind: "free", lease }]);
    expect(bench.effectsOf("unbind")).toHaveLength(1);
    expect(bench.last.records[0]).toMatchObject({ attempt: 1, session: "s1", executionMs: 5 });
  });

  it("that is not valid is recorded as a failure that no retry cures", () => {
    const bench = startRun(twoTries);
    bench.complete("a", "bad");
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_FAILED);
    expect(bench.run.failure?.cause).toMatchObject({ reason: "OUTPUT_INVALID", message: "it is bad" });
    expect(bench.records.some(({ kind }) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED)).toBe(false);
  });
});

describe("a failed attempt", () => {
  it("is followed by another when its delay is over, and not a millisecond before", () => {
    const bench = startRun(twoTries);
    bench.fail("a");
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_RETRYING, retryAtMs: startMs + 100 });
    expect(bench.places.size).toBe(0);
    bench.wakeAt(startMs + 99);
    expect(bench.effectsOf("dispatch")).toEqual([]);
    bench.wakeAt(startMs + 100);
    expect(bench.effectsOf("dispatch")[0]).toMatchObject({ attempt: 2, lease: bench.step("a").lease });
  });

  it("that was the last fails the step and the run, with the cause told to the caller", () => {
    const bench = startRun(twoTries);
    bench.fail("a");
    bench.wakeAt(startMs + 100);
    bench.fail("a", "SECOND");
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_FAILED, failures: 2 });
    expect(bench.run).toMatchObject({
      status: RunStatus.RUN_STATUS_FAILED,
      failure: {
        reason: "SECOND",
        retryable: false,
        message: 'step "a": SECOND happened',
        cause: { reason: "SECOND" },
      },
    });
  });

  it("of a lone action passes its failure on as it is", () => {
    const bench = startRun(planOf({ call: {} }, { version: 0 }));
    bench.fail("call");
    expect(bench.run.failure).toEqual(failure("BROKEN"));
  });

  it("that its worker stopped by itself may be tried again", () => {
    const bench = startRun(twoTries);
    bench.complete("a", { kind: "cancelled", message: "" });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RETRYING);
    expect(bench.last.records[0]?.failure).toMatchObject({ reason: "DRAINED", retryable: true });
  });
});

describe("a binding", () => {
  it("is written once for as many beats as list the attempt", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.bind("a");
    expect(bench.effectsOf("bind")).toMatchObject([{ session: "s1", attempt: 1, startedAtMs: startMs }]);
    expect(bench.bind("a")).toMatchObject({ verdict: "unchanged", why: "already-bound" });
  });

  it("follows the attempt to the session under which its worker came back", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.bind("a", "s1");
    bench.bind("a", "s2");
    expect(bench.step("a")).toMatchObject({ session: "s2", attempt: 1 });
    expect(bench.effectsOf("bind")).toHaveLength(1);
  });
});

describe("a lost attempt", () => {
  it("is followed at once by another with a new lease, and costs no retry", () => {
    const bench = startRun(twoTries);
    bench.bind("a");
    const before = bench.report("a");
    lose(bench);
    expect(bench.step("a")).toMatchObject({ attempt: 2, lost: 1, failures: 0, session: "" });
    expect(bench.step("a").lease).not.toBe(before.lease);
    expect(bench.effectsOf("unbind")).toHaveLength(1);
    expect(bench.places).toEqual(new Set([bench.step("a").lease]));
  });

  it("fails the step when more were lost than may be: a step that kills workers must end", () => {
    const bench = startRun(twoTries);
    for (let n = 0; n < lostMax; n++) lose(bench);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    lose(bench);
    expect(bench.run.failure?.cause?.reason).toBe("ATTEMPTS_LOST");
    expect(bench.places.size).toBe(0);
  });

  it("waits in the ready queue where no lane has room", () => {
    const bench = startRun(twoTries);
    bench.room = 0;
    lose(bench);
    expect(bench.effectsOf("enqueue")).toHaveLength(1);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_READY);
  });
});

describe("a start that was delivered again", () => {
  it("runs as a new attempt, held by its claimer, and needs no place in a lane", () => {
    const bench = startRun(twoTries);
    const before = bench.report("a");
    claim(bench);
    expect(bench.step("a")).toMatchObject({
      status: StepStatus.STEP_STATUS_RUNNING,
      attempt: 2,
      session: "s2",
      lost: 1,
    });
    expect(bench.effectsOf("dispatch")).toMatchObject([{ claimed: true, attempt: 2, lease: bench.step("a").lease }]);
    expect(bench.effectsOf("free")).toEqual([{ kind: "free", lease: before.lease }]);
    expect(bench.effectsOf("bind")).toHaveLength(1);
  });

  it("is given to one claimer only", () => {
    const bench = startRun(twoTries);
    const before = bench.report("a");
    claim(bench, before, "s2");
    expect(claim(bench, before, "s3")).toMatchObject({ verdict: "unchanged", why: "stale-lease" });
    expect(bench.step("a").session).toBe("s2");
  });

  it("is dropped when a session is known to run it, and when the step is over", () => {
    const bound = startRun(twoTries);
    bound.bind("a");
    expect(claim(bound)).toMatchObject({ verdict: "unchanged", why: "already-bound" });
    const over = startRun(planOf({ a: {}, b: {} }));
    over.complete("a");
    expect(claim(over)).toMatchObject({ verdict: "unchanged", why: "duplicate" });
  });

  it("counts as lost, and ends the step with the last that may be", () => {
    const bench = startRun(twoTries);
    for (let n = 0; n < lostMax; n++) lose(bench);
    claim(bench);
    expect(bench.run.failure?.cause?.reason).toBe("ATTEMPTS_LOST");
    expect(bench.effectsOf("dispatch")).toEqual([]);
  });
});

describe("an exclusive action", () => {
  const plan = planOf({ a: { exclusive: true } });

  it("is claimed under the lease that it was sent with, and that is no loss", () => {
    const bench = startRun(plan);
    const before = bench.report("a");
    claim(bench);
    expect(bench.step("a")).toMatchObject({
      status: StepStatus.STEP_STATUS_RUNNING,
      attempt: 1,
      lost: 0,
      session: "s2",
    });
    expect(bench.report("a")).toEqual(before);
    expect(bench.effectsOf("dispatch")).toMatchObject([{ claimed: true, lease: before.lease }]);
    expect(bench.places.size).toBe(1);
  });

  it("is given to the first claimer alone", () => {
    const bench = startRun(plan);
    const before = bench.report("a");
    claim(bench, before, "s2");
    expect(claim(bench, before, "s3")).toMatchObject({ verdict: "unchanged", why: "already-bound" });
    expect(claim(bench, before, "s2")).toMatchObject({ verdict: "unchanged", why: "already-bound" });
  });
});

describe("a checkpoint", () => {
  const resumes = (bench: ReturnType<typeof startRun>) => bench.effectsOf("dispatch").map((effect) => effect.resume);

  it("is looked for by every attempt after the one that reported it, and by none before", () => {
    const bench = startRun(planOf({ a: { retry: { attemptsMax: 3 } } }));
    bench.fail("a");
    bench.wakeAt(bench.step("a").retryAtMs);
    expect(resumes(bench)).toEqual([undefined]);
    const report = bench.report("a");
    bench.bind("a");
    const again = { kind: "bind" as const, report, session: "s1", startedAtMs: startMs, sinceReportMs: 0 };
    expect(bench.apply({ ...again, checkpointed: true })).toMatchObject({ verdict: "changed", records: [] });
    expect(bench.apply({ ...again, checkpointed: true })).toMatchObject({ why: "already-bound" });
    bench.fail("a");
    bench.wakeAt(bench.step("a").retryAtMs);
    expect(resumes(bench)).toEqual([true]);
  });

  it("may come with the report of the failure", () => {
    const bench = startRun(planOf({ a: { retry: { attemptsMax: 2 } } }));
    const outcome = { kind: "failure" as const, failure: failure("BROKEN") };
    const report = bench.report("a");
    bench.apply({ kind: "complete", report, outcome, executionMs: 1, session: "s1", checkpointed: true });
    bench.wakeAt(bench.step("a").retryAtMs);
    expect(resumes(bench)).toEqual([true]);
  });
});

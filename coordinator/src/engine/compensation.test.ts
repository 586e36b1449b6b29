import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import type { ChainPlan, Scope } from "./plan.js";
import { evaluated, failure, planOf, type RunBench, type StepSpec, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import type { Operation } from "./run-event.js";
import { RunStatus, StepStatus } from "./run-state.js";

const { RUN_STATUS_FAILED, RUN_STATUS_CANCELLED, RUN_STATUS_EXPIRED, RUN_STATUS_SUCCEEDED, RUN_STATUS_RUNNING } =
  RunStatus;
const hourMs = 3_600_000;

/** A chain of these steps; the undo of `x` is `ux`. */
function chainOf(
  specs: Record<string, StepSpec>,
  undos: Record<string, StepSpec>,
  more: Partial<ChainPlan> = {},
): ChainPlan {
  const ids = Object.keys(specs);
  const undone = Object.keys(undos);
  const own = Object.entries(specs).map(([id, spec]) => {
    const at = undone.indexOf(id);
    return [id, at < 0 ? spec : { ...spec, undo: ids.length + at }] as const;
  });
  const behind = undone.map((id) => {
    const undo = { needs: [id], undoes: ids.indexOf(id), scheduleToCloseMs: hourMs, ...undos[id] };
    return [`u${id}`, undo] as const;
  });
  return planOf(Object.fromEntries([...own, ...behind]), more);
}

/** Two bookings one behind the other, and a payment; the bookings can be undone. */
const saga = (undos: Record<string, StepSpec> = { a: {}, b: {} }, more: Partial<ChainPlan> = {}) =>
  chainOf({ a: {}, b: { needs: ["a"] }, pay: { needs: ["b"] } }, undos, more);

const ask = (bench: RunBench, operation: Operation) =>
  bench.apply({ kind: "operate", operation, by: "ann", reason: "because" });
const sent = (bench: RunBench): string[] => bench.effectsOf("dispatch").map(({ step }) => step.id);
const reload = (bench: RunBench) => decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs);

function bookAndFail(bench: RunBench): void {
  bench.complete("a");
  bench.complete("b");
  bench.fail("pay", "DECLINED", false);
}

describe("a run that fails", () => {
  it("undoes what it has done, the newest first, one at a time, and ends with its own failure", () => {
    const bench = startRun(saga());
    bookAndFail(bench);
    expect(bench.kinds().slice(-2)).toEqual([EventKind.EVENT_KIND_STEP_FAILED, EventKind.EVENT_KIND_RUN_COMPENSATING]);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_RUNNING, undo: { status: RUN_STATUS_FAILED } });
    expect(sent(bench)).toEqual(["ub"]);
    bench.complete("ub");
    expect(sent(bench)).toEqual(["ua"]);
    bench.complete("ua");
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_STEP_SUCCEEDED, EventKind.EVENT_KIND_RUN_ENDED]);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "DECLINED" } });
    expect(bench.run.undo).toBeUndefined();
    expect(bench.places.size).toBe(0);
  });

  it("undoes only what has succeeded, in the order in which it did", () => {
    const plan = chainOf({ a: {}, b: {}, c: {}, pay: {} }, { a: {}, b: {}, c: {} });
    const bench = startRun(plan);
    bench.complete("b");
    bench.complete("a");
    bench.fail("pay", "DECLINED", false);
    expect(bench.step("c").status).toBe(StepStatus.STEP_STATUS_CANCELLED);
    expect(sent(bench)).toEqual(["ua"]);
    bench.complete("ua");
    expect(sent(bench)).toEqual(["ub"]);
    bench.complete("ub");
    expect(bench.run.status).toBe(RUN_STATUS_FAILED);
    expect(bench.step("uc").status).toBe(StepStatus.STEP_STATUS_PENDING);
  });

  it("gives undos the outputs, and why the run ends", () => {
    let seen: Scope | undefined;
    const bindInput: StepSpec["bindInput"] = (scope) => {
      seen = scope;
      return evaluated(new Uint8Array([1]));
    };
    const bench = startRun(saga({ a: { bindInput } }));
    bench.complete("a", "code of a");
    bench.fail("b", "DECLINED", false);
    expect(new TextDecoder().decode(seen?.outputs[0]?.bytes)).toBe("code of a");
    expect(seen?.error?.reason).toBe("DECLINED");
  });

  it("undoes nothing of a step that a rule or an operator stood in for", () => {
    const catches = [{ reasons: [], bindOutput: () => evaluated(new Uint8Array([7])) }];
    const plan = chainOf(
      { a: { catches }, b: {}, pay: { needs: ["a", "b"] } },
      { a: {}, b: {} },
      { brokenTtlMs: 1_000 },
    );
    const bench = startRun(plan);
    bench.fail("a", "NO_ROOM", false);
    bench.fail("b", "NO_ROOM", false);
    ask(bench, { kind: "skip", step: "b", output: value("by hand") });
    bench.fail("pay", "DECLINED", false);
    bench.wakeAt(bench.nowMs + 1_000);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "DECLINED" } });
  });

  it("undoes nothing when it succeeds, and ends as any other", () => {
    const bench = startRun(saga());
    for (const id of ["a", "b", "pay"]) bench.complete(id);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_SUCCEEDED });
    expect(bench.run.done).toBeUndefined();
  });

  it("undoes after the time that a BROKEN one waited", () => {
    const bench = startRun(saga(undefined, { brokenTtlMs: 60_000 }));
    bookAndFail(bench);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_BROKEN);
    bench.wakeAt(bench.nowMs + 60_000);
    expect(sent(bench)).toEqual(["ub"]);
    expect(bench.run.status).toBe(RUN_STATUS_RUNNING);
  });
});

describe("a run that is cancelled or expires", () => {
  it("undoes behind the grace of what was under way, and records their success", () => {
    const bench = startRun(saga());
    bench.complete("a");
    bench.apply({ kind: "cancel", reason: "changed my mind" });
    expect(sent(bench)).toEqual([]);
    bench.complete("b", { kind: "cancelled", message: "" });
    expect(sent(bench)).toEqual(["ua"]);
    expect(bench.apply({ kind: "cancel", reason: "again" })).toMatchObject({ verdict: "unchanged", why: "cancelling" });
    bench.bind("ua");
    bench.complete("ua");
    expect(bench.step("ua").status).toBe(StepStatus.STEP_STATUS_SUCCEEDED);
    expect(bench.run).toMatchObject({ status: RUN_STATUS_CANCELLED, failure: { message: "changed my mind" } });
  });

  it("has time for its undos behind its deadline, and no more than each may take", () => {
    const bench = startRun(saga({ a: {}, b: {} }, { runTimeoutMs: 10_000 }));
    bench.complete("a");
    bench.complete("b");
    bench.wakeAt(bench.nowMs + 10_000);
    expect(sent(bench)).toEqual(["ub"]);
    const begunAtMs = bench.nowMs;
    expect(bench.run.wakeupAtMs).toBe(begunAtMs + hourMs);
    bench.wakeAt(begunAtMs + hourMs);
    expect(bench.step("ub").status).toBe(StepStatus.STEP_STATUS_EXPIRED);
    expect(sent(bench)).toEqual(["ua"]);
    bench.complete("ua");
    expect(bench.run).toMatchObject({ status: RUN_STATUS_EXPIRED, failure: { reason: "RUN_EXPIRED" } });
    expect(bench.run.failure?.message).toContain('compensation failed in 1 of 2: "ub" (SCHEDULE_TO_CLOSE_TIMEOUT)');
  });

  it("undoes nothing when it is terminated, and stops undoing", () => {
    const before = startRun(saga());
    before.complete("a");
    ask(before, { kind: "terminate" });
    expect(before.run.status).toBe(RUN_STATUS_CANCELLED);
    const amid = startRun(saga());
    bookAndFail(amid);
    ask(amid, { kind: "terminate" });
    expect(amid.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "DECLINED" } });
    expect(amid.run.undo?.failures.map(({ step, failure: own }) => [step, own.reason])).toEqual([
      [3, "TERMINATED"],
      [4, "TERMINATED"],
    ]);
    expect(amid.places.size).toBe(0);
  });

  it("waits for children that are to end first, and undoes those that succeeded", () => {
    const child = { child: { onParentClose: "wait" as const } };
    const bench = startRun(chainOf({ a: child, pay: {} }, { a: {} }));
    bench.fail("pay", "DECLINED", false);
    expect(bench.kinds()).toContain(EventKind.EVENT_KIND_RUN_CLOSING);
    const { lease: childId } = bench.step("a");
    bench.apply({ kind: "child-ended", stepId: "a", childId, status: RUN_STATUS_SUCCEEDED, output: value("ok") });
    expect(sent(bench)).toEqual(["ua"]);
    bench.complete("ua");
    expect(bench.run).toMatchObject({ status: RUN_STATUS_FAILED, failure: { reason: "DECLINED" } });
  });
});

describe("an undo", () => {
  it("is retried by its own policy, and lost attempts are given again", () => {
    const bench = startRun(saga({ b: { retry: { attemptsMax: 2 } } }));
    bookAndFail(bench);
    bench.bind("ub");
    bench.apply({ kind: "lose", report: bench.report("ub"), why: "gone" });
    expect(sent(bench)).toEqual(["ub"]);
    bench.fail("ub");
    expect(bench.step("ub").status).toBe(StepStatus.STEP_STATUS_RETRYING);
    bench.wakeAt(bench.step("ub").retryAtMs);
    bench.complete("ub");
    expect(bench.run.status).toBe(RUN_STATUS_FAILED);
    expect(bench.run.undo).toBeUndefined();
  });

  it("that fails is reported beside the run's failure, and the others go on", () => {
    const error = { reason: "EXPRESSION_FAILED" as const, message: "no" };
    const bench = startRun(saga({ a: {}, b: { bindInput: () => ({ kind: "failed", error }) } }));
    bookAndFail(bench);
    expect(sent(bench)).toEqual(["ua"]);
    bench.fail("ua", "NO_ANSWER", false);
    expect(bench.run.failure).toMatchObject({ reason: "DECLINED" });
    expect(bench.run.undo?.failures.map(({ failure: own }) => own.reason)).toEqual(["EXPRESSION_FAILED", "NO_ANSWER"]);
    expect(reload(bench).undo).toEqual(bench.run.undo);
  });

  it("waits for room like any step, and is sent again when its start was lost", () => {
    const bench = startRun(saga());
    bench.complete("a");
    bench.complete("b");
    bench.fail("pay", "DECLINED", false);
    bench.room = 0;
    bench.apply({ kind: "redispatch", why: "wiped" });
    expect(bench.effectsOf("enqueue").map(({ step }) => step.id)).toEqual(["ub"]);
    bench.room = 1;
    bench.apply({ kind: "admit", step: 4 });
    expect(sent(bench)).toEqual(["ub"]);
  });

  it("survives a reload between any two events", () => {
    const bench = startRun(saga());
    const steps = [() => bench.complete("a"), () => bench.complete("b"), () => bench.fail("pay", "DECLINED", false)];
    for (const step of [...steps, () => bench.complete("ub"), () => bench.complete("ua")]) {
      step();
      bench.run = { ...bench.run, ...reload(bench) };
    }
    expect(bench.run.status).toBe(RUN_STATUS_FAILED);
    expect(bench.effects.filter(({ kind }) => kind === "dispatch")).toHaveLength(5);
  });

  it("can't be paused, cancelled, or begun by anything else", () => {
    const bench = startRun(saga());
    expect(bench.apply({ kind: "admit", step: 3 }).why).toBe("not-ready");
    bookAndFail(bench);
    expect(ask(bench, { kind: "pause" }).why).toBe("cancelling");
    expect(bench.run.undo?.failure).toEqual({
      ...failure("DECLINED", false),
      message: 'step "pay": DECLINED happened',
      cause: failure("DECLINED", false),
    });
  });
});

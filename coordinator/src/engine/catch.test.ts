import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import type { CatchPlan, Scope } from "./plan.js";
import { evaluated, failure, planOf, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import { RunStatus, StepStatus } from "./run-state.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const { EVENT_KIND_ATTEMPT_FAILED, EVENT_KIND_STEP_CAUGHT } = EventKind;

/** Two steps, the second behind the first, which has these rules. */
const chainOf = (catches: CatchPlan[], more = {}) => planOf({ a: { catches, ...more }, b: { needs: ["a"] } });

describe("a failure that a rule catches", () => {
  it("leaves the step without an output and lets the run go on", () => {
    const bench = startRun(chainOf([{ reasons: [] }]));
    bench.fail("a", "NOT_FOUND", false);
    expect(bench.kinds()).toEqual([EVENT_KIND_ATTEMPT_FAILED, EVENT_KIND_STEP_CAUGHT]);
    expect(bench.last.records[1]).toMatchObject({ failure: { reason: "NOT_FOUND" } });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_FAILED);
    expect(bench.run.outputs[0]).toBeUndefined();
    bench.complete("b");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("gives the step the rule's value, made of the failure", () => {
    let seen: Scope | undefined;
    const bindOutput = (scope: Scope) => {
      seen = scope;
      return evaluated(bytes("instead"));
    };
    const bench = startRun(chainOf([{ reasons: ["NOT_FOUND"], bindOutput }]));
    bench.fail("a", "NOT_FOUND", false);
    expect(seen?.error).toEqual(failure("NOT_FOUND", false));
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_SUCCEEDED);
    expect(bench.run.outputs[0]).toMatchObject({ contract: "contract-a", bytes: bytes("instead") });
    expect(bench.last.records.at(-1)?.payload?.bytes).toEqual(bytes("instead"));
  });

  it("is caught after the last attempt, not before", () => {
    const bench = startRun(chainOf([{ reasons: [] }], { retry: { attemptsMax: 2 } }));
    bench.fail("a");
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_RETRYING);
    bench.wakeAt(bench.step("a").retryAtMs);
    bench.fail("a");
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_FAILED);
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
  });

  it("goes to the first rule that names its reason", () => {
    const rule = (name: string, ...reasons: string[]): CatchPlan => ({
      reasons,
      bindOutput: () => evaluated(bytes(name)),
    });
    const bench = startRun(chainOf([rule("one", "X"), rule("two", "X", "Y"), rule("any")]));
    bench.fail("a", "Y", false);
    expect(bench.run.outputs[0]?.bytes).toEqual(bytes("two"));
  });

  it("fails the run where no rule names its reason", () => {
    const bench = startRun(chainOf([{ reasons: ["X"] }]));
    bench.fail("a", "Y", false);
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(bench.run.failure?.reason).toBe("Y");
  });

  it("may be a time-out", () => {
    const rules = [{ reasons: ["SCHEDULE_TO_CLOSE_TIMEOUT"] }];
    const bench = startRun(chainOf(rules, { scheduleToCloseMs: 1_000 }));
    bench.wakeAt(bench.nowMs + 1_000);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_EXPIRED);
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
  });

  it("may be that of an input, a thousand times in a row", () => {
    const names = Array.from({ length: 1_000 }, (_, n) => `s${n}`);
    const error = { reason: "EXPRESSION_FAILED" as const, message: "no" };
    const bindInput = () => ({ kind: "failed" as const, error });
    const steps = names.map((name, n) => {
      const needs = n === 0 ? [] : [names[n - 1]!];
      return [name, { needs, bindInput, catches: [{ reasons: [] }] }] as const;
    });
    const bench = startRun(planOf(Object.fromEntries(steps)));
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });
});

describe("a fallback that is evaluated off the engine", () => {
  const deferred = [{ reasons: [], bindOutput: () => ({ kind: "deferred" as const }) }];

  it("is waited for, outlives the step's own limits, and is stored with the failure", () => {
    const bench = startRun(chainOf(deferred, { scheduleToCloseMs: 1_000 }));
    bench.wakeAt(bench.nowMs + 1_000);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_WAITING);
    expect(bench.effectsOf("evaluate")).toEqual([{ kind: "evaluate", stepId: "a" }]);
    const { catching } = decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs);
    expect(catching?.[0]?.reason).toBe("SCHEDULE_TO_CLOSE_TIMEOUT");
    bench.wakeAt(bench.nowMs + 1_000);
    expect(bench.kinds()).toEqual([]);
    bench.apply({ kind: "evaluated", stepId: "a", evaluation: { kind: "value", value: value("late") } });
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_SUCCEEDED);
    expect(bench.run.catching).toBeUndefined();
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
  });

  it("fails the step, with the first failure as its cause, if it goes wrong", () => {
    const bench = startRun(chainOf(deferred));
    bench.fail("a", "NOT_FOUND", false);
    bench.apply({
      kind: "evaluated",
      stepId: "a",
      evaluation: { kind: "failed", failure: failure("EXPRESSION_FAILED") },
    });
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(bench.run.failure).toMatchObject({
      reason: "EXPRESSION_FAILED",
      cause: { reason: "EXPRESSION_FAILED", cause: { reason: "NOT_FOUND" } },
    });
  });
});

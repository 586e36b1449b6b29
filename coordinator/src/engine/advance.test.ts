import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import type { Scope } from "./plan.js";
import { evaluated, planOf, startMs, startRun } from "./plan-fixture.js";
import type { RunEvent } from "./run-event.js";
import { RunStatus, StepStatus } from "./run-state.js";

const text = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes);
const failed = { kind: "failed", error: { reason: "EXPRESSION_FAILED", message: "division by zero" } } as const;
const deferred = { kind: "deferred" } as const;
const stored = { contract: "c", sizeBytes: 3, sha256: new Uint8Array(32), reference: "p1" };

describe("a run's start", () => {
  it("dispatches the steps that need nothing, and no others, in the commit that accepts it", () => {
    const bench = startRun(planOf({ a: {}, b: { needs: ["a"] }, c: {} }));
    expect(bench.effectsOf("dispatch").map(({ step, attempt }) => [step.id, attempt])).toEqual([
      ["a", 1],
      ["c", 1],
    ]);
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_PENDING);
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_RUN_ACCEPTED]);
  });

  it("gives each attempt a lease of its own", () => {
    const bench = startRun(planOf({ a: {}, b: {} }));
    expect(bench.step("a").lease).not.toBe(bench.step("b").lease);
  });

  it("has the caller's deadline, or else the plan's", () => {
    const plan = planOf({ a: {} }, { runTimeoutMs: 10_000 });
    expect(startRun(plan).run.deadlineAtMs).toBe(startMs + 10_000);
    expect(startRun(plan, { timeoutMs: 7 }).run.deadlineAtMs).toBe(startMs + 7);
  });

  it("ends at once when there is nothing to do", () => {
    const bench = startRun(planOf({}));
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_SUCCEEDED, wakeupAtMs: 0, endedAtMs: startMs });
  });
});

describe("a run's way", () => {
  it("starts a join when the last of its needs is over, and not before", () => {
    const bench = startRun(planOf({ a: {}, b: {}, join: { needs: ["a", "b"] } }));
    bench.complete("a");
    expect(bench.effectsOf("dispatch")).toEqual([]);
    bench.complete("b");
    expect(bench.effectsOf("dispatch").map(({ step }) => step.id)).toEqual(["join"]);
  });

  it("binds a step's input to what its needs put out", () => {
    const seen: Scope[] = [];
    const bindInput = (scope: Scope) => {
      seen.push(scope);
      return evaluated(new Uint8Array([1, 2]));
    };
    const bench = startRun(planOf({ a: {}, b: { needs: ["a"], bindInput } }));
    bench.complete("a", "from a");
    expect(text(seen[0]?.outputs[0]?.bytes)).toBe("from a");
    expect(text(seen[0]?.input.bytes)).toBe("in");
    expect(bench.effectsOf("dispatch")[0]?.input).toMatchObject({ contract: "contract-b", sizeBytes: 2 });
  });

  it("succeeds with its output when all steps are over", () => {
    const plan = planOf(
      { a: {} },
      { bindOutput: ({ outputs }) => evaluated(Uint8Array.from(outputs[0]?.bytes ?? [])) },
    );
    const bench = startRun(plan);
    bench.complete("a", "result");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(text(bench.last.records.at(-1)?.payload?.bytes)).toBe("result");
    expect(bench.last.records.at(-1)?.payload?.contract).toBe("chain-output");
    expect(bench.effectsOf("ended")).toHaveLength(1);
  });

  it("numbers its history without gaps", () => {
    const bench = startRun(planOf({ a: { retry: { attemptsMax: 2 } }, b: { needs: ["a"] } }));
    bench.fail("a");
    bench.wakeAt(startMs + 100);
    bench.bind("a");
    bench.complete("a");
    bench.complete("b");
    expect(bench.records.map(({ seq }) => seq)).toEqual(bench.records.map((_, at) => at + 1));
    expect(bench.run.lastSeq).toBe(bench.records.length);
  });

  it("never writes to the run that came in", () => {
    const bench = startRun(planOf({ a: {}, b: { needs: ["a"] } }));
    const before = structuredClone(bench.run);
    const given = bench.run;
    bench.complete("a");
    expect(given).toEqual(before);
  });

  it("keeps its own time when the mesh's clock steps back", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.nowMs = startMs - 5_000;
    bench.complete("a");
    expect(bench.run.endedAtMs).toBe(startMs);
  });
});

describe("a condition", () => {
  it("that is false skips the step, and what needs only skipped steps still runs", () => {
    const bench = startRun(
      planOf({ a: { condition: () => evaluated(false) }, b: { needs: ["a"] }, c: { needs: ["a", "b"] } }),
    );
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_SKIPPED);
    expect(bench.effectsOf("dispatch").map(({ step }) => step.id)).toEqual(["b"]);
    bench.complete("b");
    expect(bench.effectsOf("dispatch").map(({ step }) => step.id)).toEqual(["c"]);
  });

  it("that is false all along a chain ends the run in the turn that accepts it", () => {
    const no = { condition: () => evaluated(false) };
    const bench = startRun(planOf({ a: no, b: { ...no, needs: ["a"] }, c: { ...no, needs: ["b"] } }));
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(bench.records[0]?.moves).toHaveLength(3);
  });

  it("that can't be computed fails the step and the run, for good", () => {
    const bench = startRun(planOf({ a: { condition: () => failed }, b: {} }));
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_FAILED });
    expect(bench.run.failure).toMatchObject({ reason: "EXPRESSION_FAILED", retryable: false });
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_CANCELLED);
  });

  it("that is costly is evaluated elsewhere, and its answer starts or skips the step", () => {
    const plan = planOf({ a: { condition: () => deferred }, b: { needs: ["a"] } });
    const started = startRun(plan);
    expect(started.step("a").status).toBe(StepStatus.STEP_STATUS_WAITING);
    expect(started.effectsOf("evaluate")).toEqual([{ kind: "evaluate", stepId: "a" }]);
    started.apply({ kind: "evaluated", stepId: "a", evaluation: { kind: "value", value: stored } });
    expect(started.effectsOf("dispatch")[0]?.input).toEqual(stored);
    const skipped = startRun(plan);
    skipped.apply({ kind: "evaluated", stepId: "a", evaluation: { kind: "skip" } });
    expect(skipped.step("a").status).toBe(StepStatus.STEP_STATUS_SKIPPED);
    expect(skipped.effectsOf("dispatch").map(({ step }) => step.id)).toEqual(["b"]);
  });
});

describe("an input", () => {
  it("that can't be computed fails the step and the run", () => {
    const bench = startRun(planOf({ a: {}, b: { needs: ["a"], bindInput: () => failed } }));
    bench.complete("a");
    expect(bench.step("b").status).toBe(StepStatus.STEP_STATUS_FAILED);
    expect(bench.run.failure?.message).toBe('step "b": division by zero');
  });

  it("above the inline bound is stored before it travels, and one at the bound is not", () => {
    const big = (size: number) => startRun(planOf({ a: { bindInput: () => evaluated(new Uint8Array(size)) } }));
    expect(big(128 * 1024).step("a").status).toBe(StepStatus.STEP_STATUS_DISPATCHED);
    const bench = big(128 * 1024 + 1);
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_WAITING);
    expect(bench.effectsOf("evaluate")).toHaveLength(1);
  });

  it("that was stored serves all later attempts without another evaluation", () => {
    const bench = startRun(planOf({ a: { bindInput: () => deferred, retry: { attemptsMax: 2 } } }));
    bench.apply({ kind: "evaluated", stepId: "a", evaluation: { kind: "value", value: stored } });
    bench.fail("a");
    bench.wakeAt(startMs + 100);
    expect(bench.effectsOf("dispatch")[0]).toMatchObject({ attempt: 2, input: stored });
    expect(bench.effectsOf("evaluate")).toEqual([]);
  });

  it("whose evaluation failed fails the step, whose answer comes twice counts once", () => {
    const plan = planOf({ a: { bindInput: () => deferred } });
    const wrong = startRun(plan);
    const evaluation = {
      kind: "failed",
      failure: { ...failed.error, retryable: false, details: [], cause: undefined },
    };
    wrong.apply({ kind: "evaluated", stepId: "a", evaluation } as RunEvent);
    expect(wrong.run.status).toBe(RunStatus.RUN_STATUS_FAILED);
    const twice = startRun(plan);
    const answer: RunEvent = { kind: "evaluated", stepId: "a", evaluation: { kind: "value", value: stored } };
    twice.apply(answer);
    expect(twice.apply(answer)).toMatchObject({ verdict: "unchanged", why: "not-ready" });
    expect(twice.apply({ ...answer, stepId: "x" })).toMatchObject({ verdict: "unchanged", why: "unknown-step" });
  });
});

describe("an output", () => {
  it("that can't be computed fails the run", () => {
    const bench = startRun(planOf({ a: {} }, { bindOutput: () => failed }));
    bench.complete("a");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(bench.run.failure).toMatchObject({ reason: "EXPRESSION_FAILED" });
  });

  it.each([
    ["is costly", { bindOutput: () => deferred }],
    ["is large", { bindOutput: () => evaluated(new Uint8Array(128 * 1024 + 1)) }],
  ])("that %s is evaluated elsewhere before the run ends", (_, overrides) => {
    const bench = startRun(planOf({ a: {} }, overrides));
    bench.complete("a");
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_RUNNING, evaluatingOutput: true });
    expect(bench.effectsOf("evaluate")).toEqual([{ kind: "evaluate", stepId: "" }]);
    bench.apply({ kind: "evaluated", stepId: "", evaluation: { kind: "value", value: stored } });
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_SUCCEEDED, evaluatingOutput: false });
    expect(bench.last.records.at(-1)?.payload).toEqual(stored);
  });

  it("is heard only while it is waited for", () => {
    const bench = startRun(planOf({ a: {} }));
    const evaluation = { kind: "value" as const, value: stored };
    expect(bench.apply({ kind: "evaluated", stepId: "", evaluation })).toMatchObject({ why: "not-ready" });
  });
});

describe("an ended run", () => {
  const ended = () => {
    const bench = startRun(planOf({ a: {}, b: {} }));
    const report = bench.report("b");
    bench.fail("a", "BROKEN", false);
    return { bench, report };
  };

  it("has ended all its steps, and holds no place, wake-up or queue place", () => {
    const bench = startRun(planOf({ a: {}, b: {}, c: { needs: ["a"] } }), { room: 1 });
    bench.fail("a", "BROKEN", false);
    expect(bench.run.steps.map(({ status }) => status)).toEqual([
      StepStatus.STEP_STATUS_FAILED,
      StepStatus.STEP_STATUS_CANCELLED,
      StepStatus.STEP_STATUS_CANCELLED,
    ]);
    expect(bench.effectsOf("dequeue").map(({ step }) => step.id)).toEqual(["b"]);
    expect(bench.places.size).toBe(0);
    expect(bench.run.wakeupAtMs).toBe(0);
  });

  // E4 over every kind of event.
  it("accepts nothing", () => {
    const { bench, report } = ended();
    const events: RunEvent[] = [
      { kind: "complete", report, outcome: { kind: "cancelled", message: "" }, executionMs: 0, session: "" },
      { kind: "bind", report, session: "s", startedAtMs: startMs, sinceReportMs: 0 },
      { kind: "lose", report, why: "" },
      { kind: "claim", report, session: "s" },
      { kind: "redispatch", why: "" },
      { kind: "redispatch", report, why: "" },
      { kind: "admit", step: 1 },
      { kind: "evaluated", stepId: "b", evaluation: { kind: "skip" } },
      { kind: "evaluated", stepId: "", evaluation: { kind: "skip" } },
      { kind: "cancel", reason: "" },
      { kind: "wake" },
    ];
    const before = bench.run;
    for (const event of events) {
      expect(bench.apply(event), event.kind).toMatchObject({ verdict: "unchanged", why: "run-ended" });
      expect(bench.run, event.kind).toBe(before);
      expect(bench.last.records.length + bench.last.effects.length, event.kind).toBe(0);
    }
  });
});

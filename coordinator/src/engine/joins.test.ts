import { EventKind } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { evaluated, planOf, type StepSpec, startMs, startRun, value } from "./plan-fixture.js";
import { decodeRunState, encodeRunState } from "./run-codec.js";
import { RunStatus, StepStatus } from "./run-state.js";

const { STEP_STATUS_CANCELLED, STEP_STATUS_FAILED, STEP_STATUS_DISPATCHED, STEP_STATUS_PENDING } = StepStatus;
const seen: string[] = [];

/** a1 to a2, b1 to b2, and c, which joins a2 and b2. */
function joined(cancelsOthers: boolean, more: Record<string, StepSpec> = {}) {
  const c: StepSpec = {
    needs: ["a2", "b2"],
    join: { of: [1, 3], cancelsOthers },
    bindInput: (scope) => {
      seen.push(scope.outputs.map((output) => (output ? "x" : "-")).join(""));
      return evaluated(new Uint8Array(1));
    },
  };
  const race = (end: number) => (cancelsOthers ? { race: { join: 4, end } } : {});
  const steps: Record<string, StepSpec> = {
    a1: race(1),
    a2: { needs: ["a1"], ...race(1) },
    b1: race(3),
    b2: { needs: ["b1"], ...race(3) },
    c,
  };
  for (const [id, spec] of Object.entries(more)) steps[id] = { ...steps[id], ...spec };
  return startRun(planOf(steps));
}

describe("a join of any", () => {
  it("begins with the first that succeeds, and sees that one alone, then and later", () => {
    const bench = joined(false, { c: { retry: { attemptsMax: 2 } } });
    bench.complete("b1");
    bench.complete("b2");
    expect(bench.step("c")).toMatchObject({ status: STEP_STATUS_DISPATCHED, via: 3 });
    expect(seen.at(-1)).toBe("--xx-");
    expect(bench.step("a1").status).toBe(STEP_STATUS_DISPATCHED);
    bench.complete("a1");
    bench.complete("a2");
    bench.fail("c");
    bench.wakeAt(startMs + 1_000);
    expect(bench.step("c").attempt).toBe(2);
    expect(seen.at(-1)).toBe("x-xx-");
    expect(decodeRunState(encodeRunState(bench.run), startMs).steps[4]).toEqual(bench.step("c"));
    bench.complete("c");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("begins with none when all were skipped", () => {
    const skipped = { condition: () => evaluated(false) };
    const bench = joined(false, { a1: skipped, a2: skipped, b1: skipped, b2: skipped });
    expect(bench.step("c").via).toBeUndefined();
    expect(bench.step("c").status).toBe(STEP_STATUS_DISPATCHED);
  });
});

describe("a race", () => {
  it("cancels what only the other branches are for", () => {
    const bench = joined(true);
    bench.complete("a1");
    bench.complete("a2");
    expect(bench.step("c").via).toBe(1);
    for (const id of ["b1", "b2"]) expect(bench.step(id).status, id).toBe(STEP_STATUS_CANCELLED);
    expect(bench.effectsOf("free")).toHaveLength(2);
    bench.complete("c");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("leaves what somebody else needs", () => {
    const bench = joined(true, { other: { needs: ["b1"] } });
    bench.complete("a1");
    bench.complete("a2");
    expect(bench.step("b2").status).toBe(STEP_STATUS_CANCELLED);
    expect(bench.step("b1").status).toBe(STEP_STATUS_DISPATCHED);
    bench.complete("b1");
    expect(bench.step("other").status).toBe(STEP_STATUS_DISPATCHED);
  });

  it("goes on when one branch fails, and fails with the last", () => {
    const bench = joined(true);
    bench.fail("a1");
    expect(bench.kinds()).toContain(EventKind.EVENT_KIND_STEP_FAILED);
    expect(bench.step("a1").status).toBe(STEP_STATUS_FAILED);
    expect(bench.step("a2").status).toBe(STEP_STATUS_CANCELLED);
    expect(bench.step("c").status).toBe(STEP_STATUS_PENDING);
    bench.complete("b1");
    bench.fail("b2", "LAST");
    expect(bench.run).toMatchObject({ status: RunStatus.RUN_STATUS_FAILED, failure: { reason: "LAST" } });
  });

  it("fails where one branch failed and the other was skipped", () => {
    const bench = joined(true, { b2: { condition: () => evaluated(false) } });
    bench.fail("a1");
    bench.complete("b1");
    expect(bench.run.failure?.reason).toBe("BRANCHES_FAILED");
  });

  it("is won by a branch that comes after a failed one", () => {
    const bench = joined(true);
    bench.fail("b1");
    bench.complete("a1");
    bench.complete("a2");
    bench.complete("c");
    expect(bench.run.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });
});

describe("a step that repeats", () => {
  const polling = (rounds: number, more: StepSpec = {}) => {
    let asked = 0;
    const until = (scope: { outputs: readonly unknown[] }) => {
      expect(scope.outputs[0]).toBeDefined();
      return evaluated(++asked >= rounds);
    };
    return startRun(planOf({ a: { repeat: { until, delayMs: 500, roundsMax: 3 }, ...more }, b: { needs: ["a"] } }));
  };

  it("calls again after the delay, and not a millisecond before", () => {
    const bench = polling(2);
    bench.complete("a");
    expect(bench.kinds()).toEqual([EventKind.EVENT_KIND_STEP_ROUND]);
    expect(bench.step("a")).toMatchObject({ status: StepStatus.STEP_STATUS_RETRYING, rounds: 1 });
    expect(decodeRunState(encodeRunState(bench.run), startMs).steps[0]).toEqual(bench.step("a"));
    bench.wakeAt(startMs + 499);
    expect(bench.step("a").attempt).toBe(1);
    bench.wakeAt(startMs + 500);
    expect(bench.step("a")).toMatchObject({ status: STEP_STATUS_DISPATCHED, attempt: 2 });
    bench.complete("a", "second");
    expect(bench.run.outputs[0]).toEqual(value("second"));
    expect(bench.step("b").status).toBe(STEP_STATUS_DISPATCHED);
  });

  it("gives each round the whole retry policy", () => {
    const bench = polling(2, { retry: { attemptsMax: 2 } });
    bench.fail("a");
    bench.wakeAt(startMs + 100);
    bench.complete("a");
    expect(bench.step("a").failures).toBe(0);
    bench.wakeAt(startMs + 600);
    bench.fail("a");
    bench.wakeAt(startMs + 700);
    bench.complete("a");
    expect(bench.step("a").status).toBe(StepStatus.STEP_STATUS_SUCCEEDED);
  });

  it("fails after its last round", () => {
    const bench = polling(9);
    for (const at of [500, 1_000]) {
      bench.complete("a");
      bench.wakeAt(startMs + at);
    }
    bench.complete("a");
    expect(bench.run.failure?.reason).toBe("ROUNDS_EXHAUSTED");
  });

  it("hears the report of an earlier round no more", () => {
    const bench = polling(2);
    const first = bench.report("a");
    bench.complete("a");
    expect(bench.complete("a", "late", first).why).toBe("duplicate");
    bench.wakeAt(startMs + 500);
    bench.complete("a", "late", first);
    expect(bench.step("a").status).toBe(STEP_STATUS_DISPATCHED);
  });
});

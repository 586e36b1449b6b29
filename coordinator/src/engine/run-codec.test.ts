import { describe, expect, it } from "vitest";
import { failure, planOf, startMs, startRun } from "./plan-fixture.js";
import { decodeItem, decodeRunState, encodeItem, encodeRunState } from "./run-codec.js";

const stored = { contract: "c", sizeBytes: 3, sha256: Buffer.alloc(32, 7), reference: "p1" };

describe("the stored state of a run", () => {
  it("gives back every field of every step", () => {
    const more = { c: { needs: ["a"] }, d: { retry: { attemptsMax: 3, initialMs: 50 } } };
    const bench = startRun(planOf({ a: {}, b: { bindInput: () => ({ kind: "deferred" }) }, ...more }));
    const first = bench.report("a");
    bench.bind("a");
    bench.apply({ kind: "lose", report: first, why: "its worker went silent" });
    bench.complete("a", "ok", first);
    bench.bind("a");
    bench.fail("d");
    bench.apply({ kind: "evaluated", stepId: "b", evaluation: { kind: "value", value: stored } });
    const { nowMs, steps, evaluatingOutput } = bench.run;
    expect(decodeRunState(encodeRunState(bench.run), bench.run.acceptedAtMs)).toEqual({
      nowMs,
      steps,
      evaluatingOutput,
    });
    expect(steps[1]?.input).toEqual(stored);
    // Fields that are still nothing would be given back by anything.
    expect(steps[0]).toMatchObject({ attempt: 2, lost: 1, late: 1, session: "s1", startedAtMs: expect.any(Number) });
    expect(steps[3]).toMatchObject({ failures: 1, retryAtMs: bench.nowMs + 50 });
  });

  it("gives back a cancel, a failure with its cause and details, a trace, and an output under evaluation", () => {
    const bench = startRun(planOf({ a: {} }), { trace: { traceparent: "00-1" } });
    const details = [{ typeUrl: "type.googleapis.com/x.Y", value: Buffer.from([1, 255]) }];
    const run = {
      ...bench.run,
      evaluatingOutput: true,
      cancel: { reason: 'a \u0000 \ud800 "reason"', graceUntilMs: startMs },
      failure: { ...failure("OUTER"), details, cause: failure("INNER") },
    };
    const { cancel, failure: failed, trace, evaluatingOutput } = run;
    expect(decodeRunState(encodeRunState(run), run.acceptedAtMs)).toMatchObject({
      cancel,
      trace,
      evaluatingOutput,
      failure: failed,
    });
  });

  it("costs next to nothing for a step that has not begun", () => {
    const bench = startRun(planOf({ a: {}, b: { needs: ["a"] } }));
    expect(JSON.parse(encodeRunState(bench.run)).steps[1]).toBe(0);
  });

  it("is JSON without a word too many, at whatever a step has come to", () => {
    const bench = startRun(planOf({ a: { retry: { attemptsMax: 3 } }, b: { needs: ["a"] }, c: { needs: ["b"] } }));
    const says = (): void => {
      const text = encodeRunState(bench.run);
      expect(JSON.stringify(JSON.parse(text))).toBe(text);
      for (const row of JSON.parse(text).steps) expect(row === 0 || ![0, ""].includes(row.at(-1)), text).toBe(true);
      expect(decodeRunState(text, bench.run.acceptedAtMs).steps).toEqual(bench.run.steps);
    };
    says();
    bench.nowMs += 5;
    bench.fail("a");
    says();
    bench.wakeAt(startMs + 5_000);
    bench.complete("a");
    says();
    bench.bind("b", 'a "quoted" session');
    says();
    bench.complete("b");
    says();
    bench.bind("c");
    says();
    bench.apply({ kind: "cancel", reason: "" });
    says();
  });

  it("reads a row that ends early: what is left out is nothing", () => {
    const [step] = decodeRunState(`{"now":1,"steps":[[3,1,"L",1,501]]}`, startMs).steps;
    expect(step).toMatchObject({ attempt: 1, lease: "L", readyAtMs: startMs, attemptAtMs: startMs + 500, late: 0 });
    expect(step).toMatchObject({ session: "", startedAtMs: 0, endedAtMs: 0, retryAtMs: 0 });
    expect(step).not.toHaveProperty("input");
  });

  it("keeps what a handler has asked for beyond its limit, of steps and of items, behind all that older rows have", () => {
    const bench = startRun(planOf({ a: { retry: { attemptsMax: 2 } }, b: {} }));
    bench.bind("a", "s1", startMs, 0, 90_000);
    bench.bind("b");
    const text = encodeRunState(bench.run);
    const [row, plain] = JSON.parse(text).steps;
    expect([row.length, row.at(-1)]).toEqual([17, 90_000]);
    expect(plain.length).toBe(8);
    expect(decodeRunState(text, bench.run.acceptedAtMs).steps).toEqual(bench.run.steps);
    const [step] = bench.run.steps;
    expect(decodeItem(encodeItem(step!, startMs), startMs, undefined)).toEqual(step);
    const older = JSON.stringify({ now: 1, steps: [row.slice(0, 16)] });
    const { extendedMs: _, ...rest } = step!;
    expect(decodeRunState(older, bench.run.acceptedAtMs).steps).toEqual([rest]);
  });

  it("refuses an input that is not stored elsewhere", () => {
    const bench = startRun(planOf({ a: {} }));
    bench.run.steps[0]!.input = { ...stored, reference: undefined } as never;
    expect(() => encodeRunState(bench.run)).toThrow("must be a reference");
  });
});

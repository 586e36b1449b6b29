import { describe, expect, it } from "vitest";
import { AttemptContext, type AttemptFacts } from "./context.js";
import { AttemptAborted, overdue } from "./errors.js";

const facts: AttemptFacts = {
  attempt: 2,
  lease: "L",
  runId: "r",
  stepId: "s",
  item: 0,
  method: "a.B/C",
  namespace: "n",
  deadlineAtMs: Number.POSITIVE_INFINITY,
};
const context = (more: Partial<AttemptFacts> = {}) => new AttemptContext({ ...facts, ...more }, {});

describe("the context of an attempt", () => {
  it("can be destructured", () => {
    const { signal, log, progress, heartbeat, remainingMs, trace } = context();
    log.info("hi");
    progress(5, "five");
    heartbeat();
    expect(signal.aborted).toBe(false);
    expect(remainingMs()).toBe(Number.POSITIVE_INFINITY);
    expect(trace.headers()).toEqual({});
  });

  it("has one idempotency key over all attempts, with the item of a fan-out", () => {
    expect(context({ attempt: 1 }).idempotencyKey).toBe("r/s");
    expect(context({ attempt: 9, lease: "other" }).idempotencyKey).toBe("r/s");
    expect(context({ item: 7 }).idempotencyKey).toBe("r/s/7");
  });

  it("knows its deadline and what is left of it", () => {
    const bounded = context({ deadlineAtMs: performance.now() + 60_000 });
    expect(bounded.remainingMs()).toBeGreaterThan(50_000);
    expect(bounded.deadline!.getTime()).toBeGreaterThan(Date.now() + 50_000);
    expect(context({ deadlineAtMs: performance.now() - 1 }).remainingMs()).toBe(0);
    expect(context().deadline).toBeUndefined();
  });

  it("aborts with a typed reason, whether the signal was asked for before or after", () => {
    const early = context();
    const { signal } = early;
    early.abort("TIMED_OUT");
    expect(signal.reason).toBeInstanceOf(AttemptAborted);
    expect((signal.reason as AttemptAborted).code).toBe("TIMED_OUT");
    const late = context();
    late.abort("CANCELLED");
    expect((late.signal.reason as AttemptAborted).code).toBe("CANCELLED");
  });

  it("keeps the first reason, but a lost lease replaces any", () => {
    const one = context();
    one.abort("CANCELLED");
    one.abort("TIMED_OUT");
    expect(one.abortCode).toBe("CANCELLED");
    one.abort("LEASE_LOST");
    expect(one.abortCode).toBe("LEASE_LOST");
  });

  it("bounds progress and keeps the newest", () => {
    const one = context();
    one.progress(-5);
    expect(one.reported).toEqual({ percent: 0, message: "" });
    one.progress(Number.NaN, "m".repeat(10_000));
    expect(one.reported?.percent).toBe(0);
    expect(Buffer.byteLength(one.reported!.message)).toBeLessThanOrEqual(1_024);
    one.progress(150, "done");
    expect(one.reported).toEqual({ percent: 100, message: "done" });
  });
});

describe("more time for an attempt", () => {
  const soon = (ms: number) => performance.now() + ms;

  it("moves the deadline at once, counts as a report, and never takes time away", () => {
    const one = context({ deadlineAtMs: soon(1_000) });
    const { extendTimeout, remainingMs } = one;
    expect([one.extendedMs, one.endsWithRun]).toEqual([0, false]);
    extendTimeout(500);
    expect(one.extendedMs).toBe(0);
    extendTimeout(60_000);
    expect(remainingMs()).toBeGreaterThan(30_000);
    expect(one.deadline!.getTime()).toBeGreaterThan(Date.now() + 30_000);
    expect(one.extendedMs).toBeGreaterThanOrEqual(60_000);
    const [deadlineAtMs, asked] = [one.deadlineAtMs, one.extendedMs];
    extendTimeout(10);
    expect([one.deadlineAtMs, one.extendedMs]).toEqual([deadlineAtMs, asked]);
  });

  it("does not move the run's deadline, which then is the one that ends the attempt", () => {
    const runEndsAtMs = soon(30_000);
    const one = context({ deadlineAtMs: soon(1_000), runEndsAtMs });
    one.extendTimeout(60_000);
    expect([one.deadlineAtMs, one.endsWithRun]).toEqual([runEndsAtMs, true]);
    expect(overdue(one, runEndsAtMs - 1)).toBeUndefined();
    expect(overdue(one, runEndsAtMs + 1_000)).toBe("RUN_EXPIRED");
  });

  it("is nothing to an attempt without a limit, and comes too late for one that was told to stop", () => {
    const unbounded = context();
    unbounded.extendTimeout(5);
    expect([unbounded.remainingMs(), unbounded.extendedMs]).toEqual([Number.POSITIVE_INFINITY, 0]);
    const over = context({ deadlineAtMs: soon(-1) });
    over.abort("TIMED_OUT");
    over.extendTimeout(60_000);
    expect([over.remainingMs(), over.extendedMs, over.abortCode]).toEqual([0, 0, "TIMED_OUT"]);
  });

  it.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 32, "5" as never])("refuses %s", (ms) => {
    const one = context({ deadlineAtMs: soon(1_000) });
    const before = one.deadlineAtMs;
    expect(() => one.extendTimeout(ms)).toThrow(RangeError);
    expect(() => one.extendTimeout(ms)).toThrow(String(ms));
    expect([one.deadlineAtMs, one.extendedMs]).toEqual([before, 0]);
  });
});

describe("checkpoints", () => {
  const codec = {
    encode: (text: string) => ({ finish: () => new Uint8Array(Buffer.from(text)) }),
    decode: (bytes: Uint8Array) => Buffer.from(bytes).toString(),
  };

  it("are read by the type that they were kept under, the newest first", () => {
    const earlier = { typeUrl: "type.googleapis.com/a.v1.Cursor", value: Buffer.from("page 3") };
    const facts = { attempt: 2, lease: "l", runId: "r", stepId: "s", item: 0, method: "m", namespace: "n" };
    const one = new AttemptContext({ ...facts, deadlineAtMs: Number.POSITIVE_INFINITY, checkpoint: earlier }, {});
    const { loadCheckpoint, saveCheckpoint } = one;
    expect(loadCheckpoint("a.v1.Cursor", codec)).toBe("page 3");
    expect(loadCheckpoint("a.v1.Other", codec)).toBeUndefined();
    expect(one.checkpoint).toBeUndefined();
    saveCheckpoint("a.v1.Cursor", codec, "page 4");
    expect(loadCheckpoint("a.v1.Cursor", codec)).toBe("page 4");
    expect(() => saveCheckpoint("a.v1.Cursor", codec, "x".repeat(17_000))).toThrow(RangeError);
    expect(one.checkpoint?.value.toString()).toBe("page 4");
  });
});

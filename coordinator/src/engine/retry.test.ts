import { describe, expect, it } from "vitest";
import { failure, noRetry } from "./plan-fixture.js";
import { nextRetryAtMs, retryDelayMs } from "./retry.js";

const exponential = {
  ...noRetry,
  kind: "exponential" as const,
  initialMs: 100,
  factor: 2,
  capMs: 1_000,
  attemptsMax: 9,
};
const at = { failures: 1, readyAtMs: 0, nowMs: 1_000, random: 0 };

describe("a retry's delay", () => {
  it("stays the same where it is fixed", () => {
    expect([1, 2, 9].map((failures) => retryDelayMs(noRetry, failures, 0))).toEqual([100, 100, 100]);
  });

  it("grows by its increment where it is linear, up to the cap", () => {
    const plan = { ...noRetry, kind: "linear" as const, incrementMs: 50, capMs: 180 };
    expect([1, 2, 3].map((failures) => retryDelayMs(plan, failures, 0))).toEqual([100, 150, 180]);
  });

  it("grows by its factor where it is exponential, up to the cap", () => {
    expect([1, 2, 4, 5, 2_000].map((n) => retryDelayMs(exponential, n, 0))).toEqual([100, 200, 800, 1_000, 1_000]);
  });

  it("of nothing stays nothing, however often the factor is applied", () => {
    expect(retryDelayMs({ ...exponential, initialMs: 0 }, 1_100, 0)).toBe(0);
  });

  it("is random in the share that jitter says, and never above the delay without it", () => {
    const half = { ...noRetry, jitter: 0.5 };
    expect(retryDelayMs(half, 1, 0)).toBe(50);
    expect(retryDelayMs(half, 1, 1 - Number.EPSILON)).toBe(100);
    expect(retryDelayMs({ ...noRetry, jitter: 1 }, 1, 0)).toBe(0);
  });
});

describe("a failure is final", () => {
  it("when it says so", () => {
    expect(nextRetryAtMs(exponential, failure("X", false), at)).toBeUndefined();
    expect(nextRetryAtMs(exponential, failure("X", true), at)).toBe(1_100);
  });

  it("when its reason is listed, and not when another is", () => {
    const plan = { ...exponential, nonRetryable: ["FATAL"] };
    expect(nextRetryAtMs(plan, failure("FATAL"), at)).toBeUndefined();
    expect(nextRetryAtMs(plan, failure("OTHER"), at)).toBe(1_100);
  });

  it("when the last attempt failed, and not one before", () => {
    const plan = { ...noRetry, attemptsMax: 3 };
    expect(nextRetryAtMs(plan, failure("X"), { ...at, failures: 2 })).toBe(1_100);
    expect(nextRetryAtMs(plan, failure("X"), { ...at, failures: 3 })).toBeUndefined();
  });

  it("when the next attempt would begin after the budget, and not at its last millisecond", () => {
    const plan = { ...noRetry, attemptsMax: 9, budgetMs: 1_100 };
    expect(nextRetryAtMs(plan, failure("X"), at)).toBe(1_100);
    expect(nextRetryAtMs({ ...plan, budgetMs: 1_099 }, failure("X"), at)).toBeUndefined();
  });
});

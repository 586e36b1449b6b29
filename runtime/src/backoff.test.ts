import { describe, expect, it } from "vitest";
import { fullJitter, sleep } from "./backoff.js";

describe("full jitter", () => {
  const options = { initialMs: 100, capMs: 5_000 };

  it("doubles its upper bound up to the cap, for any number of attempts", () => {
    const top = (attempt: number) => fullJitter(attempt, options, () => 1);
    expect([1, 2, 3, 6, 7, 1_000_000].map(top)).toEqual([100, 200, 400, 3_200, 5_000, 5_000]);
    expect(top(0)).toBe(100);
  });

  it("reaches down to nothing", () => {
    expect(fullJitter(5, options, () => 0)).toBe(0);
  });
});

describe("sleep", () => {
  it("ends at once when it is aborted, before or during", async () => {
    await sleep(3_600_000, AbortSignal.abort());
    const abort = new AbortController();
    const slept = sleep(3_600_000, abort.signal);
    abort.abort();
    await slept;
  });

  it("ends by itself", async () => {
    await sleep(1, new AbortController().signal);
  });
});

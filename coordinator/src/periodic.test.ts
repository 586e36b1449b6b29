import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createPeriodic, type Periodic } from "./periodic.js";

describe("a periodic reading", () => {
  let reads = 0;
  let fails = false;
  let periodic: Periodic;
  beforeEach(() => {
    vi.useFakeTimers();
    reads = 0;
    fails = false;
    const read = async (): Promise<void> => {
      reads += 1;
      if (fails) throw new Error("no database");
    };
    periodic = createPeriodic(read, 10_000, 60_000);
  });
  afterEach(() => {
    periodic.stop();
    vi.useRealTimers();
  });

  it("is made once for many who ask at once, and once a period from then on", async () => {
    await Promise.all([periodic.ask(), periodic.ask(), periodic.ask()]);
    expect(reads).toBe(1);
    await periodic.ask();
    expect(reads).toBe(1);
    await vi.advanceTimersByTimeAsync(35_000);
    expect(reads).toBe(4);
  });

  it("ends when nobody asks any more, and begins again with the next who does", async () => {
    await periodic.ask();
    await vi.advanceTimersByTimeAsync(600_000);
    const before = reads;
    expect(before).toBeLessThanOrEqual(8);
    await vi.advanceTimersByTimeAsync(600_000);
    expect(reads).toBe(before);
    await periodic.ask();
    expect(reads).toBe(before + 1);
  });

  it("goes on after a failure, and then keeps those who ask waiting for a reading", async () => {
    fails = true;
    await periodic.ask();
    fails = false;
    await periodic.ask();
    expect(reads).toBe(2);
  });

  it("reads nothing once it is stopped", async () => {
    await periodic.ask();
    periodic.stop();
    await periodic.ask();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(reads).toBe(1);
  });
});

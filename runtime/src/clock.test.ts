import { describe, expect, it } from "vitest";
import { DbClock } from "./clock.js";

function setUp() {
  let at = 0;
  const clock = new DbClock(1_000_000, () => at);
  return { clock, pass: (ms: number) => (at += ms) };
}

describe("the database's clock", () => {
  it("counts from what the database told last", () => {
    const { clock, pass } = setUp();
    expect(clock.observed).toBe(false);
    clock.observe(50_000);
    pass(1_234);
    expect(clock.now()).toBe(51_234);
    expect(clock.observed).toBe(true);
  });

  it("takes the first word of the database even if it is behind the host", () => {
    const { clock } = setUp();
    clock.observe(999_000);
    expect(clock.now()).toBe(999_000);
  });

  it("does not run backwards because an answer was long under way", () => {
    const { clock, pass } = setUp();
    clock.observe(50_000);
    pass(2_000);
    const before = clock.now();
    clock.observe(50_500); // told 1.5 s ago
    expect(clock.now()).toBeGreaterThanOrEqual(before);
    expect(clock.now()).toBeLessThanOrEqual(before + 1);
  });

  it("approaches a database whose clock is slower, without ever running backwards", () => {
    const { clock, pass } = setUp();
    clock.observe(0);
    let db = 0;
    let last = 0;
    for (let second = 0; second < 1_000; second += 1) {
      pass(1_000);
      db += 999.8; // 200 ppm slow
      clock.observe(db);
      expect(clock.now()).toBeGreaterThanOrEqual(last);
      last = clock.now();
    }
    expect(Math.abs(last - db)).toBeLessThan(5);
  });

  it("follows a clock that stepped, both ways, at once", () => {
    const { clock, pass } = setUp();
    clock.observe(10_000_000);
    pass(10);
    clock.now();
    clock.observe(10_000_000 - 3_600_000);
    expect(clock.now()).toBe(6_400_000);
    clock.observe(99_000_000);
    expect(clock.now()).toBe(99_000_000);
  });

  it("ignores what is no time", () => {
    const { clock } = setUp();
    clock.observe(5_000);
    clock.observe(Number.NaN);
    clock.observe(Number.POSITIVE_INFINITY);
    expect(clock.now()).toBe(5_000);
  });
});

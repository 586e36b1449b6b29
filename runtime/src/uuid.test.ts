import { describe, expect, it } from "vitest";
import { randomToken, uuidTimeMs, uuidv7 } from "./uuid.js";

const form = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

describe("uuidv7", () => {
  it("grows strictly, also 100,000 in one millisecond and when the clock steps back", () => {
    const now = Date.now();
    let last = "";
    let disorder = 0;
    for (let i = 0; i < 100_000; i += 1) {
      const id = uuidv7(i % 1_000 === 999 ? now - 60_000 : now);
      if (id <= last) disorder += 1;
      last = id;
    }
    expect(disorder).toBe(0);
    expect(last).toMatch(form);
  });

  it("carries its time", () => {
    const later = Date.now() + 3_600_000;
    expect(uuidTimeMs(uuidv7(later))).toBe(later);
    expect(uuidv7(later + 1)).toMatch(form);
    expect(uuidTimeMs("00000000-0000-4000-8000-000000000000")).toBeUndefined();
    expect(uuidTimeMs("x")).toBeUndefined();
  });
});

describe("random tokens", () => {
  it("are url-safe and never the same", () => {
    const made = new Set(Array.from({ length: 10_000 }, randomToken));
    expect(made.size).toBe(10_000);
    expect([...made].filter((token) => !/^[A-Za-z0-9_-]{24}$/.test(token))).toEqual([]);
  });
});

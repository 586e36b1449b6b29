import { describe, expect, it } from "vitest";
import { memoize } from "./memo.js";

describe("memoize", () => {
  it("computes once per key, and keeps those that were used last", () => {
    const computed: string[] = [];
    const double = memoize(2, (key) => {
      computed.push(key);
      return key + key;
    });
    expect(["a", "a", "b", "a", "c", "a", "b"].map(double)).toEqual(["aa", "aa", "bb", "aa", "cc", "aa", "bb"]);
    // c pushed b out, since a was used later.
    expect(computed).toEqual(["a", "b", "c", "b"]);
  });

  it("keeps neither long keys nor what was thrown", () => {
    let turns = 0;
    const count = memoize(5, (key) => {
      turns++;
      if (key === "bad") throw new Error("bad");
      return turns;
    });
    const long = "x".repeat(20_000);
    expect([count(long), count(long)]).toEqual([1, 2]);
    expect(() => count("bad")).toThrow("bad");
    expect(() => count("bad")).toThrow("bad");
    expect(turns).toBe(4);
  });
});

import { describe, expect, it } from "vitest";
import { UnlistedWatch } from "./unlisted-watch.js";

const bound = [{ lease: "a" }, { lease: "b" }];
const beat = (watch: UnlistedWatch<{ lease: string }>, ...leases: string[]): Set<string> => {
  const listed = new Set(leases);
  watch.listed(listed);
  return listed;
};

describe("unlisted watch", () => {
  it("gives up an attempt that was missing long enough and in two beats, not before", () => {
    const watch = new UnlistedWatch(1_000);
    expect(watch.check(bound, beat(watch, "a"), 0)).toEqual([]);
    expect(watch.check(bound, beat(watch, "a"), 999)).toEqual([]);
    expect(watch.check(bound, beat(watch, "a"), 999)).toEqual([]);
    expect(watch.check(bound, new Set(["a"]), 1_000)).toEqual([{ lease: "b" }]);
  });

  it("waits for beats however long the worker is silent", () => {
    const watch = new UnlistedWatch(1_000);
    const listed = beat(watch, "a");
    for (let nowMs = 0; nowMs < 60_000; nowMs += 1_000) expect(watch.check(bound, listed, nowMs)).toEqual([]);
  });

  it("starts anew when the attempt is listed in between, or bound anew", () => {
    const watch = new UnlistedWatch(1_000);
    watch.check(bound, beat(watch, "a"), 0);
    beat(watch, "a");
    watch.check(bound, beat(watch, "a", "b"), 900);
    expect(watch.check(bound, beat(watch, "a"), 1_100)).toEqual([]);
    beat(watch, "a");
    watch.check([{ lease: "a" }], beat(watch, "a"), 2_000);
    expect(watch.check(bound, beat(watch, "a"), 5_000)).toEqual([]);
  });
});

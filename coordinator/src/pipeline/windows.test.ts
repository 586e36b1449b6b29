import { describe, expect, it } from "vitest";
import { planOf } from "../engine/plan-fixture.js";
import type { Catalogue } from "./ports.js";
import { Windows } from "./windows.js";

const run = { id: "run", namespaceId: 1 };
const step = planOf({ a: {} }).steps[0]!;

/** A catalogue with one lane of `size` places; 0: no live worker. */
function windowsOf(size: number): { windows: Windows; kicks: () => number } {
  const lane = { namespaceId: 1, queueId: 1, laneId: 1 };
  const state = { lane, window: size, packMax: 1 };
  const catalogue: Catalogue = {
    laneFor: () => (size > 0 ? state : undefined),
    liveLanes: () => [],
    onChange: () => {},
    coordinators: () => [],
  };
  const windows = new Windows(catalogue);
  let kicks = 0;
  windows.onRoom(() => {
    kicks += 1;
  });
  return { windows, kicks: () => kicks };
}

describe("a lane's window", () => {
  it("gives as many places as it has, and each again when it was returned", () => {
    const { windows } = windowsOf(2);
    const take = (lease: string): boolean => windows.take(run, step, lease, true, 0) !== undefined;
    expect([take("1"), take("2"), take("3")]).toEqual([true, true, false]);
    windows.free("1");
    windows.free("1");
    windows.free("never taken");
    expect([take("4"), take("5")]).toEqual([true, false]);
    expect(windows.placeOf("1")).toBeUndefined();
    expect(windows.placeOf("4")?.lane.laneId).toBe(1);
    expect(windows.size).toBe(2);
  });

  it("lets nobody past those who wait, though it has room", () => {
    const { windows } = windowsOf(2);
    windows.setWaiting([{ namespaceId: 1, taskQueue: step.taskQueue }]);
    expect(windows.take(run, step, "new", false, 0)).toBeUndefined();
    expect(windows.take(run, step, "queued", true, 0)).toBeDefined();
    windows.setWaiting([]);
    expect(windows.take(run, step, "new", false, 0)).toBeDefined();
  });

  it("remembers that a step waits which no live worker serves", () => {
    const { windows } = windowsOf(0);
    expect(windows.take(run, step, "1", false, 0)).toBeUndefined();
    expect(windows.hasWaiting(1, step.taskQueue)).toBe(true);
  });

  it("calls for a refill when a place comes free while others wait, and not otherwise", () => {
    const { windows, kicks } = windowsOf(1);
    windows.take(run, step, "1", false, 0);
    windows.free("1");
    expect(kicks()).toBe(0);
    windows.take(run, step, "2", false, 0);
    windows.take(run, step, "3", false, 0);
    windows.free("2");
    expect(kicks()).toBe(1);
  });

  it("calls for a refill when a step was queued on old news of others, and not while it is full", () => {
    const { windows, kicks } = windowsOf(1);
    windows.queued(run, step);
    expect(kicks()).toBe(1);
    windows.take(run, step, "1", true, 0);
    windows.queued(run, step);
    expect(kicks()).toBe(1);
  });
});

import { describe, expect, it } from "vitest";
import type { LaneState } from "../pipeline/ports.js";
import { chooseLane, type LaneEntry, type Route, routeKey, routesOf, type Shares } from "./routes.js";

const lane = (laneId: number, contracts: string[], serves: string[] = [], slots = 10): LaneEntry => {
  const address = { namespaceId: 1, queueId: 1, laneId };
  return {
    row: { ...address, taskQueue: "q", contracts, slots, slotsMin: slots },
    lane: address,
    state: { lane: address, window: 2 * slots, packMax: 1 },
    serves,
    contracts: [],
    credit: 0,
  };
};
const shares = (share: number): Shares => new Map([["1/M@new", share]]);
const routeTo = (entries: LaneEntry[], callee: string, given: Shares = new Map()): Route | undefined =>
  routesOf(entries, given).get(routeKey(1, "q", callee));

/** Lanes of so many starts in a row, each of which finds a place. */
function starts(route: Route | undefined, count: number, find = (state: LaneState): LaneState => state): number[] {
  return Array.from({ length: count }, () => {
    const chosen = chooseLane(route);
    const state = chosen && find(chosen);
    state?.admitted?.();
    return state?.lane.laneId ?? 0;
  });
}
const countOf = (lanes: readonly number[], laneId: number): number => lanes.filter((one) => one === laneId).length;

const oldLane = () => lane(1, ["M@old"]);
const newLane = () => lane(2, ["M@new"], ["M@old"]);

describe("routes", () => {
  it("lead to workers of the very revision, and to others only where there are none", () => {
    const both = [oldLane(), newLane()];
    expect(starts(routeTo(both, "M@old"), 20)).toEqual(Array(20).fill(1));
    expect(both.map((entry) => entry.contracts)).toEqual([["M@old"], ["M@new"]]);
    const alone = [newLane()];
    expect(starts(routeTo(alone, "M@old"), 3)).toEqual([2, 2, 2]);
    expect(alone[0]?.contracts).toEqual(["M@new", "M@old"]);
    expect(chooseLane(routeTo([oldLane()], "M@new"))).toBeUndefined();
  });

  it("share work among lanes by their slots", () => {
    const lanes = starts(routeTo([lane(1, ["M@old"], [], 30), lane(2, ["M@old", "N@x"], [], 10)], "M@old"), 40);
    expect([countOf(lanes, 1), countOf(lanes, 2)]).toEqual([30, 10]);
  });

  it.each([0, 1, 5, 33, 50, 99, 100])("give a canary exactly its share of %i percent, spread evenly", (share) => {
    const lanes = starts(routeTo([oldLane(), newLane()], "M@old", shares(share)), 1_000);
    expect(countOf(lanes, 2)).toBe(share * 10);
    for (let from = 0; from + 100 <= lanes.length; from += 100)
      expect(countOf(lanes.slice(from, from + 100), 2)).toBe(share);
  });

  it("count only starts that find a place, however often they ask", () => {
    const route = routeTo([oldLane(), newLane()], "M@old", shares(50));
    const lanes = Array.from({ length: 100 }, () => {
      for (let tries = 0; tries < 3; tries++) chooseLane(route);
      return starts(route, 1)[0]!;
    });
    expect(countOf(lanes, 2)).toBe(50);
  });

  it("let a canary without room hold nothing up, and let it catch up by no more than two starts", () => {
    const route = routeTo([oldLane(), newLane()], "M@old", shares(50));
    const full = starts(route, 50, (state) => state.otherwise ?? state);
    expect(countOf(full, 2)).toBe(0);
    expect(countOf(starts(route, 100), 2)).toBeLessThanOrEqual(52);
  });

  it("keep what is pinned to the canary with its workers, and give a share of 0 nothing else, even where nobody is left", () => {
    for (const share of [0, 10]) {
      expect(starts(routeTo([oldLane(), newLane()], "M@new", shares(share)), 10)).toEqual(Array(10).fill(2));
    }
    expect(routeTo([newLane()], "M@old", shares(0))).toBeUndefined();
    expect(starts(routeTo([newLane()], "M@old", shares(10)), 3)).toEqual([2, 2, 2]);
  });

  it("try a canary only with what it can serve, and leave other actions of its workers alone", () => {
    const mixed = lane(2, ["M@new", "N@x"], []);
    expect(starts(routeTo([oldLane(), mixed], "M@old", shares(100)), 10)).toEqual(Array(10).fill(1));
    expect(starts(routeTo([oldLane(), mixed], "N@x", shares(0)), 2)).toEqual([2, 2]);
  });

  it("stay the same when they are found again from the same lanes", () => {
    const entries = [oldLane(), newLane()];
    routesOf(entries, shares(10));
    const again = routesOf(entries, shares(10)).get(routeKey(1, "q", "M@old"));
    expect(countOf(starts(again, 100), 2)).toBe(10);
  });
});

import { describe, expect, it } from "vitest";
import { FairQueue } from "./fair-queue.js";

describe("a fair queue", () => {
  it("serves owners in turn, and each one's items in order", () => {
    const queue = new FairQueue<string>();
    for (const item of ["a1", "a2", "a3", "a4"]) queue.add("a", item);
    queue.add("b", "b1");
    expect([queue.take(), queue.take()]).toEqual(["a1", "b1"]);
    queue.add("c", "c1");
    queue.add("b", "b2");
    expect(queue.size).toBe(5);
    expect([queue.take(), queue.take(), queue.take(), queue.take(), queue.take()]).toEqual([
      "a2",
      "c1",
      "b2",
      "a3",
      "a4",
    ]);
    expect([queue.take(), queue.size]).toEqual([undefined, 0]);
  });

  it("gives everything back that waits", () => {
    const queue = new FairQueue<number>();
    queue.add(1, 10);
    queue.add(2, 20);
    queue.add(1, 11);
    expect(queue.clear().sort()).toEqual([10, 11, 20]);
    expect([queue.take(), queue.size]).toEqual([undefined, 0]);
  });
});

import { describe, expect, it } from "vitest";
import { defaultIntervals } from "../registry/intervals.js";
import { refreshEveryMs } from "./durable-call.js";

describe("the methods that a coordinator serves", () => {
  it("are those of all coordinators within two seconds, with time left to read them", () => {
    expect(defaultIntervals.epochPollMs + refreshEveryMs).toBeLessThanOrEqual(1_500);
  });
});

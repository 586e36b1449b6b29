import type { Failure } from "@taskmesh/proto";
import { failureReasons } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { failureHttpStatus } from "./failure-status.js";

const failure = (reason: string, cause?: Failure): Failure => ({
  reason,
  message: "",
  retryable: false,
  details: [],
  cause,
});

describe("HTTP status of a failed run", () => {
  it("is 422 for what an action reports itself", () => {
    expect(failureHttpStatus(failure("OUT_OF_STOCK"))).toBe(422);
    expect(failureHttpStatus(failure("constructor"))).toBe(422);
  });

  it("looks through failed steps, however deep", () => {
    const deep = failure("STEP_FAILED", failure("STEP_FAILED", failure("WORKER_LOST")));
    expect(failureHttpStatus(deep)).toBe(502);
    expect(failureHttpStatus(failure("STEP_FAILED"))).toBe(500);
  });

  it("is an error status for every reason of the mesh", () => {
    for (const reason of Object.keys(failureReasons)) {
      expect(failureHttpStatus(failure(reason)), reason).toBeGreaterThanOrEqual(400);
    }
  });
});

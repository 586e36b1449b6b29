import type { Failure } from "@taskmesh/proto";
import { failureReasons } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { failureHttpStatus } from "./failure-status.js";

const failure = (reason: string): Failure => ({ reason, message: "", retryable: false, details: [], cause: undefined });

describe("HTTP status of a failed run", () => {
  it("is 422 for what an action reports itself", () => {
    expect(failureHttpStatus(failure("OUT_OF_STOCK"))).toBe(422);
    expect(failureHttpStatus(failure("constructor"))).toBe(422);
  });

  it("is an error status for every reason of the mesh", () => {
    for (const reason of Object.keys(failureReasons)) {
      expect(failureHttpStatus(failure(reason)), reason).toBeGreaterThanOrEqual(400);
    }
  });
});

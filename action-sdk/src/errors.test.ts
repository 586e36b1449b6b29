import { errorDetails } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import {
  ActionFailure,
  cutText,
  detail,
  fail,
  failureDetailBytesMax,
  failureMessageBytesMax,
  toFailure,
} from "./errors.js";

describe("failures", () => {
  it("reports an ActionFailure as it was made, details included", () => {
    const info = detail("google.rpc.ErrorInfo", errorDetails.ErrorInfo, { reason: "R", domain: "d", metadata: {} });
    const failure = toFailure(fail.final("PAGE_GONE", "the page is gone", { details: [info] }));
    expect(failure).toMatchObject({ reason: "PAGE_GONE", message: "the page is gone", retryable: false });
    expect(failure.details[0]?.typeUrl).toBe("type.googleapis.com/google.rpc.ErrorInfo");
    expect(errorDetails.ErrorInfo.decode(failure.details[0]!.value).reason).toBe("R");
  });

  it("reports the cause when it is an ActionFailure, one level deep", () => {
    const inner = fail.retryable("RATE_LIMITED", "slow down");
    expect(toFailure(fail.final("GAVE_UP", "no use", { cause: inner })).cause).toMatchObject({
      reason: "RATE_LIMITED",
      retryable: true,
    });
    expect(toFailure(fail.final("GAVE_UP", "no use", { cause: new Error("plain") })).cause).toBeUndefined();
  });

  it.each([
    [new Error("boom"), "boom"],
    [new TypeError(""), "TypeError"],
    ["a text", "a text"],
    [undefined, "handler threw undefined"],
    [
      {
        toString: () => {
          throw new Error("no");
        },
      },
      "can't be shown",
    ],
    [Object.assign(new Error("x"), { message: 5 }), "5"],
    [Object.create(null), "can't be shown"],
  ])("takes anything that is thrown: %#", (thrown, message) => {
    const failure = toFailure(thrown);
    expect(failure).toMatchObject({ reason: "HANDLER_ERROR", retryable: true });
    expect(failure.message).toContain(message);
  });

  it("refuses a reason that is not UPPER_SNAKE", () => {
    for (const reason of ["rate", "", "A-B", "1A", `A${"B".repeat(64)}`]) {
      expect(() => new ActionFailure(reason, "m", { retryable: true }), reason).toThrow(/not UPPER_SNAKE/);
    }
  });

  it("cuts messages at 4 KiB of UTF-8 and inside no character", () => {
    expect(cutText("é".repeat(2_048), failureMessageBytesMax)).toBe("é".repeat(2_048));
    const cut = cutText("é".repeat(2_049), failureMessageBytesMax);
    expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(failureMessageBytesMax);
    expect(cut).toMatch(/^é+…$/);
    expect(Buffer.byteLength(toFailure(new Error("x".repeat(100_000))).message)).toBe(failureMessageBytesMax);
  });

  it("leaves out details beyond 16 KiB, and keeps those that fit", () => {
    const big = { type: "a.Big", value: new Uint8Array(failureDetailBytesMax) };
    const small = { type: "a.Small", value: new Uint8Array(8) };
    const failure = toFailure(fail.final("R", "m", { details: [big, small] }));
    expect(failure.details.map((any) => any.typeUrl)).toEqual(["type.googleapis.com/a.Small"]);
  });
});

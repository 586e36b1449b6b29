import { describe, expect, it } from "vitest";
import { callbackToken, readCallbackToken } from "./callback-token.js";

const runId = "01a2007f-aa78-7364-b83f-f352628b8c95";

describe("a callback's token", () => {
  it("names its run, and is of one step and one run's secret alone", () => {
    const token = callbackToken(runId, "secret", "ask");
    expect(token).toMatch(/^01a2007f-aa78-7364-b83f-f352628b8c95\.[A-Za-z0-9_-]{22}$/);
    const read = readCallbackToken(token)!;
    expect(read.runId).toBe(runId);
    expect(read.isOf("secret", "ask")).toBe(true);
    expect(read.isOf("secret", "other")).toBe(false);
    expect(read.isOf("secre", "ask")).toBe(false);
    const last = token.at(-1)!;
    for (const other of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".replace(last, ""))
      expect(readCallbackToken(token.slice(0, -1) + other)!.isOf("secret", "ask")).toBe(false);
  });

  it.each(["", "x", runId, `${runId}.`, `${runId}.AAAA`, `${runId}.${"A".repeat(23)}`, `x.${"A".repeat(22)}`])(
    "is not %j",
    (token) => expect(readCallbackToken(token)).toBeUndefined(),
  );
});

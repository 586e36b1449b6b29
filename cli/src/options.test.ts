import { describe, expect, it } from "vitest";
import { parseAddress, parseDuration, parseInstant, parseLimit, parsePairs, parseStatuses } from "./options.js";

describe("option values", () => {
  it.each([
    ["90s", "90s"],
    ["15m", "900s"],
    ["1.5h", "5400s"],
    ["250ms", "0.25s"],
    ["2d", "172800s"],
  ])("reads the length %s as %s", (given, expected) => expect(parseDuration(given)).toBe(expected));

  it.each(["", "5", "s", "-1s", "0s", "1w", "1e3s"])("refuses the length %j", (given) =>
    expect(() => parseDuration(given)).toThrow(/Expected a length/),
  );

  it("reads instants as they are, and lengths as time before now", () => {
    expect(parseInstant("2026-01-31T12:00:00Z")).toBe("2026-01-31T12:00:00.000Z");
    expect(Date.parse(parseInstant("1h"))).toBeLessThan(Date.now() - 3_590_000);
    expect(() => parseInstant("yesterday")).toThrow(/Expected an instant/);
  });

  it("collects pairs, keeps further equals signs, refuses what has no key", () => {
    expect(parsePairs("b=x=y", parsePairs("a=", {}))).toEqual({ a: "", b: "x=y" });
    expect(() => parsePairs("=x", {})).toThrow(/key=value/);
    expect(() => parsePairs("x", {})).toThrow(/key=value/);
  });

  it("reads statuses in any case, and names the known ones for an unknown one", () => {
    expect(parseStatuses("failed, Running", [])).toEqual(["RUN_STATUS_FAILED", "RUN_STATUS_RUNNING"]);
    expect(() => parseStatuses("done", [])).toThrow(/succeeded/);
  });

  it("refuses limits and addresses that can't be meant", () => {
    expect(parseLimit("20")).toBe(20);
    for (const limit of ["0", "-1", "1.5", "x", ""]) expect(() => parseLimit(limit)).toThrow();
    expect(parseAddress("[::1]:7400")).toBe("[::1]:7400");
    for (const address of ["7400", "host:", "host:70000", "a b:1"]) expect(() => parseAddress(address)).toThrow();
  });
});

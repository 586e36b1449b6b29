import type { FastifyRequest } from "fastify";
import { describe, expect, it } from "vitest";
import { checkMethod, parseDurationMs, Query } from "./query.js";

const query = (values: Record<string, string | string[]>, ...allowed: string[]) =>
  new Query({ query: values } as unknown as FastifyRequest, allowed);

describe("query", () => {
  it("takes names in camelCase and in snake_case as one", () => {
    expect(query({ page_size: "5" }, "pageSize").integer("pageSize", 1, 10)).toBe(5);
    expect(query({ label: ["a=1", "b=2"] }, "label").all("label")).toEqual(["a=1", "b=2"]);
    expect(() => query({ page_size: "5", pageSize: "6" }, "pageSize").text("pageSize")).toThrow("more than once");
  });

  it("refuses unknown parameters with the nearest name", () => {
    expect(() => query({ pagesize: "5" }, "pageSize")).toThrow('did you mean "pageSize"?');
    expect(() => query({ __proto__x: "5" }, "pageSize")).toThrow("no such query parameter");
  });

  it("reads integers within their bounds only", () => {
    const read = (text: string) => query({ n: text }, "n").integer("n", 0, 10);
    expect([read("0"), read("10"), read("")]).toEqual([0, 10, undefined]);
    for (const bad of ["-1", "11", "1.5", "1e1", "0x1", " 1", "NaN", "9".repeat(400)]) {
      expect(() => read(bad), bad).toThrow("expected an integer from 0 to 10");
    }
  });

  it("reads instants to the millisecond, before 1970 too", () => {
    const read = (text: string) => query({ at: text }, "at").instant("at");
    expect(read("2026-01-31T12:00:00.25Z")).toEqual({ seconds: 1769860800n, nanos: 250_000_000 });
    expect(read("1969-12-31T23:59:59.5Z")).toEqual({ seconds: -1n, nanos: 500_000_000 });
    for (const bad of ["yesterday", "2026-01-31", "1769860800", "2026-02-31T99:00:00Z"]) {
      expect(() => read(bad), bad).toThrow("expected an instant");
    }
  });

  it("reads durations with a unit, or in seconds", () => {
    const lengths = ["30s", "1.5s", "500ms", "2m", "1h", "7"].map((text) => parseDurationMs("wait", text));
    expect(lengths).toEqual([30_000, 1_500, 500, 120_000, 3_600_000, 7_000]);
    for (const bad of ["", "-1s", "1d", "s", "1e3s", "1 s"]) {
      expect(() => parseDurationMs("wait", bad), bad).toThrow("expected a duration");
    }
  });

  it("knows a full method name", () => {
    expect(checkMethod("method", "acme.v1.A_b/C1")).toBe("acme.v1.A_b/C1");
    for (const bad of ["", "/", "a/", "/b", "a.b", "a/b/c", "a..b/c", "1a/b", "a/b c", "a/*", `a/${"b".repeat(300)}`]) {
      expect(() => checkMethod("method", bad), bad).toThrow("expected a full method name");
    }
  });
});

import { LogLevel } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { AttemptLog, type LoggedLine, logBytesMax } from "./log.js";

describe("the log of an attempt", () => {
  it("keeps level, message and fields, and mirrors each line", () => {
    const mirrored: LoggedLine[] = [];
    const log = new AttemptLog((line) => mirrored.push(line));
    const { info, error } = log.face;
    info("fetched", { status: 200, size: 10n, cause: new Error("inner") });
    error("failed");
    const [first, second] = log.lines();
    expect(first).toMatchObject({ level: LogLevel.LOG_LEVEL_INFO, message: "fetched" });
    expect(JSON.parse(first!.fieldsJson)).toMatchObject({ status: 200, size: "10" });
    expect(JSON.parse(first!.fieldsJson).cause).toContain("Error: inner");
    expect(second).toMatchObject({ level: LogLevel.LOG_LEVEL_ERROR, fieldsJson: "" });
    expect(mirrored.map((line) => line.message)).toEqual(["fetched", "failed"]);
  });

  it("holds 64 KiB, then counts what it leaves out", () => {
    const log = new AttemptLog();
    for (let line = 0; line < 1_000; line++) log.face.info("x".repeat(1_000));
    const lines = log.lines();
    const bytes = lines.reduce((sum, line) => sum + Buffer.byteLength(line.message) + 32, 0);
    expect(bytes).toBeLessThanOrEqual(logBytesMax);
    expect(bytes).toBeGreaterThan(logBytesMax - 1_200);
    expect(lines.at(-1)?.message).toBe(
      `${1_000 - (lines.length - 1)} more lines were left out: the log of an attempt holds 64 KiB`,
    );
  });

  it("never throws: circles, getters that throw and huge values become text", () => {
    const log = new AttemptLog();
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    log.face.warn("circle", circle);
    log.face.warn("thrower", {
      get value(): string {
        throw new Error("no");
      },
    });
    log.face.warn("huge", { value: "y".repeat(100_000) });
    log.face.warn("m".repeat(100_000));
    const lines = log.lines();
    expect(lines[0]?.fieldsJson).toContain("unloggable");
    expect(JSON.parse(lines[1]!.fieldsJson)).toEqual({ unloggable: "no" });
    expect(JSON.parse(lines[2]!.fieldsJson)).toHaveProperty("truncated");
    expect(Buffer.byteLength(lines[3]!.message)).toBeLessThanOrEqual(8 * 1024);
  });
});

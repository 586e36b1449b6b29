import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { scaffold } from "./scaffold.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "taskmesh-init-"));
});
afterEach(() => rmSync(folder, { recursive: true }));
const manifest = () => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { type?: string };

describe("the example project", () => {
  it("is written whole, into a folder that is made", () => {
    const target = join(folder, "a", "b");
    scaffold(target);
    expect(readdirSync(target).sort()).toEqual(
      [
        ".gitignore",
        "chain.yaml",
        "package.json",
        "pages.proto",
        "tsconfig.json",
        "worker.test.ts",
        "worker.ts",
      ].sort(),
    );
  });

  it("is not written at all over a file that exists", () => {
    writeFileSync(join(folder, "worker.ts"), "mine");
    expect(() => scaffold(folder)).toThrow(/worker.ts exists already; nothing was written/);
    expect(readdirSync(folder)).toEqual(["worker.ts"]);
    expect(readFileSync(join(folder, "worker.ts"), "utf8")).toBe("mine");
  });

  it("makes a module of the package that npm made, and keeps what is in it", () => {
    writeFileSync(join(folder, "package.json"), '{\n  "dependencies": { "taskmesh": "1" }\n}\n');
    const result = scaffold(folder);
    expect(manifest()).toEqual({ dependencies: { taskmesh: "1" }, type: "module" });
    expect(result.warnings).toEqual([]);
  });

  it("says what to change in a package that is explicitly something else", () => {
    writeFileSync(join(folder, "package.json"), '{"type":"commonjs"}');
    expect(scaffold(folder).warnings[0]).toContain('"type": "module"');
    expect(manifest().type).toBe("commonjs");
  });

  it("touches nothing when the package can't be read", () => {
    writeFileSync(join(folder, "package.json"), "{");
    expect(() => scaffold(folder)).toThrow(/not JSON/);
    expect(existsSync(join(folder, "worker.ts"))).toBe(false);
  });
});

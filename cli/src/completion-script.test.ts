import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { completionScript, shells } from "./completion-script.js";
import { createProgram } from "./program.js";

const folder = mkdtempSync(join(tmpdir(), "taskmesh-completion-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** What bash offers for the last of `words`. */
function complete(...words: string[]): string[] {
  const script = join(folder, "completion.bash");
  writeFileSync(script, completionScript(createProgram(), "bash"));
  const line = ["taskmesh", ...words];
  const quoted = line.map((word) => `'${word}'`).join(" ");
  const code = `source ${script}; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length}; _taskmesh; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return execFileSync("bash", ["-c", code], { encoding: "utf8" }).trim().split("\n");
}

describe("shell completion", () => {
  it("offers the commands, and those that begin as typed", () => {
    expect(complete("")).toEqual(expect.arrayContaining(["actions", "chains", "dev", "runs", "--url", "--json"]));
    expect(complete("com")).toEqual(["completion"]);
    expect(complete("runs", "sho")).toEqual(["show"]);
  });

  it("offers a command's own options and the ones of every command", () => {
    const offered = complete("runs", "start", "--");
    expect(offered).toEqual(
      expect.arrayContaining(["--input", "--watch", "--idempotency-key", "--namespace", "--help"]),
    );
    expect(complete("chains", "apply", "chain.yaml", "--req")).toEqual(["--require-live-workers"]);
  });

  it("still knows the command behind options and values", () => {
    expect(complete("--url", "http://x", "runs", "sta")).toEqual(["start"]);
  });

  it.each(shells)("names every command in the script for %s", (shell) => {
    const script = completionScript(createProgram(), shell);
    for (const group of createProgram().commands) expect(script).toContain(group.name());
  });
});

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { mutants } from "./mutants.js";
import { openScratch, type Scratch } from "./scratch.js";

const root = join(import.meta.dirname, "..", "..");

describe("a planted bug", () => {
  let scratch: Scratch;
  beforeAll(() => {
    scratch = openScratch();
  });
  afterAll(() => scratch.remove());

  it.each(mutants)("fits the sources: it $name", ({ file, find }) => {
    expect(readFileSync(join(root, file), "utf8").split(find)).toHaveLength(2);
  });

  it.each(mutants)("is in docs/faults.md with its test: it $name", ({ name, kill }) => {
    const line = readFileSync(join(root, "docs/faults.md"), "utf8")
      .split("\n")
      .find((text) => text.includes(`| ${name} |`));
    expect(line).toContain("seeds" in kill ? `--seeds ${kill.seeds}` : kill.test);
  });

  it.each(mutants.filter(({ quick }) => quick))("is caught: it $name", { timeout: 240_000 }, async (mutant) => {
    expect((await scratch.run(mutant.kill)).outcome).toBe("passed");
    const unplant = scratch.plant(mutant);
    const { outcome, output } = await scratch.run(mutant.kill);
    unplant();
    expect(outcome, output).toBe("failed");
  });

  it("is there for each part, three times at least, and twenty times in all", () => {
    for (const part of ["engine", "pipeline", "store", "transport", "sdk"])
      expect(mutants.filter((mutant) => mutant.part === part).length, part).toBeGreaterThanOrEqual(3);
    expect(mutants.length).toBeGreaterThanOrEqual(20);
  });
});

/**
 * `npm run mutants [-- part of a name]`: plants each bug in a copy of the sources, sees that it compiles, and that its test fails. Before
 * that every such test must pass without a bug.
 */
import { type Kill, type Mutant, mutants } from "./mutants.js";
import { openScratch, type Scratch } from "./scratch.js";

const wanted = process.argv[2] ?? "";
const chosen = mutants.filter(({ name, part, file }) => `${part} ${file} ${name}`.includes(wanted));
if (chosen.length === 0) {
  console.error(`no mutant's part, file or name contains ${JSON.stringify(wanted)}`);
  process.exit(2);
}

/** How one was caught, or why it was not. */
async function judge(scratch: Scratch, mutant: Mutant): Promise<string | undefined> {
  const unplant = scratch.plant(mutant);
  try {
    const wrong = await scratch.compile();
    if (wrong !== undefined) return `does not compile:\n${wrong}`;
    const { outcome, output } = await scratch.run(mutant.kill);
    if (outcome === "passed") return "SURVIVED";
    return outcome === "broken" ? `its test does not run:\n${output}` : undefined;
  } finally {
    unplant();
  }
}

const scratch = openScratch();
let failed = 0;
try {
  const kills = new Map<string, Kill>(chosen.map(({ kill }) => [JSON.stringify(kill), kill]));
  for (const [text, kill] of kills) {
    const { outcome, output } = await scratch.run(kill);
    if (outcome === "passed") continue;
    failed += 1;
    console.error(`without a bug, ${text} ${outcome}:\n${output}`);
  }
  for (const mutant of failed > 0 ? [] : chosen) {
    const beganAt = performance.now();
    const fault = await judge(scratch, mutant);
    const seconds = ((performance.now() - beganAt) / 1000).toFixed(1);
    console.log(
      `${fault === undefined ? "caught  " : "NOT CAUGHT"} ${mutant.part.padEnd(9)} ${mutant.name} (${seconds} s)`,
    );
    if (fault === undefined) continue;
    failed += 1;
    console.error(fault);
  }
} finally {
  scratch.remove();
}
console.log(`${chosen.length} bugs, ${failed} not caught`);
process.exit(failed > 0 ? 1 : 0);

/** `npm run simulate -- --seeds N --from S [--jobs J] [--trace]`: simulates seeds; prints how to run a failing one alone. */
import { fork } from "node:child_process";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { simulate } from "./simulate.js";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "5000" },
    from: { type: "string", default: "1" },
    /** Processes that share the seeds. */
    jobs: { type: "string", default: String(Math.min(4, availableParallelism())) },
    trace: { type: "boolean", default: false },
  },
});
const [seeds, from, wanted] = [Number(values.seeds), Number(values.from), Number(values.jobs)];
if (![seeds, from, wanted].every(Number.isSafeInteger) || seeds < 1 || wanted < 1) {
  console.error("usage: npm run simulate -- --seeds N --from S [--jobs J] [--trace]; N, S and J are whole numbers");
  process.exit(2);
}

interface Summary {
  failed: number;
  totals: Record<string, number>;
}

/** Simulates `count` seeds in this process. */
async function simulateHere(first: number, count: number): Promise<Summary> {
  const summary: Summary = { failed: 0, totals: {} };
  for (let seed = first; seed < first + count; seed++) {
    const { failure, trace, counts } = await simulate(seed, { trace: values.trace });
    add(summary.totals, counts);
    if (values.trace) console.log(trace.join("\n"));
    if (!failure) continue;
    summary.failed += 1;
    console.error(`seed ${seed}: ${failure.message}`);
    console.error(`  npm run simulate -- --seeds 1 --from ${seed} --trace`);
    if (values.trace) console.error(failure.stack);
  }
  return summary;
}

function add(totals: Record<string, number>, counts: Readonly<Record<string, number>>): void {
  for (const [name, count] of Object.entries(counts)) totals[name] = (totals[name] ?? 0) + count;
}

/** Simulates them in a process of its own. */
function simulateThere(first: number, count: number): Promise<Summary> {
  return new Promise((resolve) => {
    const child = fork(process.argv[1]!, ["--seeds", `${count}`, "--from", `${first}`, "--jobs", "1"]);
    let summary: Summary = { failed: count, totals: {} };
    child.on("message", (told) => {
      summary = told as Summary;
    });
    child.on("exit", () => resolve(summary));
  });
}

const beganAt = performance.now();
const jobs = values.trace ? 1 : Math.min(wanted, Math.ceil(seeds / 50));
const share = Math.ceil(seeds / jobs);
const firsts = Array.from({ length: jobs }, (_, job) => from + job * share);
const countFrom = (first: number): number => Math.max(0, Math.min(share, from + seeds - first));
const parts = await Promise.all(
  firsts.map((first) => (jobs === 1 ? simulateHere : simulateThere)(first, countFrom(first))),
);
const totals: Record<string, number> = {};
for (const part of parts) add(totals, part.totals);
const failed = parts.reduce((sum, part) => sum + part.failed, 0);
if (process.send) process.send({ failed, totals });
else {
  const seconds = ((performance.now() - beganAt) / 1000).toFixed(1);
  const counted = Object.entries(totals).map(([name, count]) => `${name} ${count}`);
  console.log(`${seeds} seeds in ${seconds} s, ${failed} failed: ${counted.join(", ")}`);
}
process.exitCode = failed > 0 ? 1 : 0;
process.disconnect?.();

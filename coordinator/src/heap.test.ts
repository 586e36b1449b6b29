import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const run = promisify(execFile);
/** Keeps about 60 MB alive, lets as much again pass many times, and prints how many full collections that took. */
const churn = `
  import { constants, PerformanceObserver } from "node:perf_hooks";
  let full = 0;
  const count = (list) => {
    for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) full += 1;
  };
  new PerformanceObserver(count).observe({ entryTypes: ["gc"] });
  const objects = (length) => Array.from({ length }, (_, key) => ({ key }));
  const kept = Array.from({ length: 40 }, () => objects(16384));
  const passing = [];
  for (let i = 0; i < 3000; i++) {
    passing[i % 200] = objects(4096);
    if (i % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  console.log(full, kept.length);
`;
const bound = `
  import { boundHeapGrowth } from ${JSON.stringify(join(import.meta.dirname, "heap.ts"))};
  boundHeapGrowth();
`;

async function collections(source: string, ...flags: string[]): Promise<number> {
  const { stdout } = await run(process.execPath, [...flags, "--import", "tsx", "--input-type=module", "-e", source]);
  return Number.parseInt(stdout, 10);
}

it("makes the runtime collect earlier, unless the process was started with a bound of its own", async () => {
  const [held, own] = await Promise.all([
    collections(bound + churn),
    collections(bound + churn, "--heap-growing-percent=400"),
  ]);
  expect(held).toBeGreaterThan(own);
});

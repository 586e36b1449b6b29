/** Drives one worker through the cases, one after another, and says how each ended. */
import type { ConformanceCase } from "./case.js";
import { Kit, type KitOptions, RuleBroken } from "./kit.js";
import type { Breach } from "./watch.js";

/** How a case ended. */
export interface Verdict {
  name: string;
  section: string;
  /** What the worker broke; none: it passed. */
  breaches: readonly Breach[];
  /** The worker's output while the case ran, for a failed one. */
  output: string;
  tookMs: number;
}

/** Breaches of one case that are told; a broken rule tends to be broken with every message. */
const breachesMax = 5;
const outputCharsMax = 4_000;

/** Runs the cases; `onVerdict` hears of each as it ends. */
export async function runCases(
  options: KitOptions,
  cases: readonly ConformanceCase[],
  onVerdict: (verdict: Verdict, index: number) => void = () => {},
): Promise<Verdict[]> {
  const kit = new Kit(options);
  await kit.open();
  const verdicts: Verdict[] = [];
  try {
    for (const [index, one] of cases.entries()) {
      const verdict = await judge(kit, one);
      verdicts.push(verdict);
      onVerdict(verdict, index);
    }
  } finally {
    await kit.close();
  }
  return verdicts;
}

async function judge(kit: Kit, one: ConformanceCase): Promise<Verdict> {
  const startedMs = performance.now();
  const { breaches } = kit.tap.watch;
  const known = breaches.length;
  const found: Breach[] = [];
  try {
    await kit.ensureWorker();
    await one.run(kit);
  } catch (error) {
    found.push(error instanceof RuleBroken ? error.breach : { section: one.section, message: messageOf(error) });
  }
  kit.tap.faults = {};
  await kit.clear(found.length > 0);
  found.push(...breaches.slice(known));
  const distinct = [...new Map(found.map((breach) => [`${breach.section} ${breach.message}`, breach])).values()];
  return {
    name: one.name,
    section: one.section,
    breaches: distinct.slice(0, breachesMax),
    output: distinct.length > 0 ? kit.output.slice(-outputCharsMax) : "",
    tookMs: performance.now() - startedMs,
  };
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

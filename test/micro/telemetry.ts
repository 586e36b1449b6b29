/**
 * What counting and tracing cost a step while nobody looks, in nanoseconds of processor time:
 *
 *   node --expose-gc --import tsx --conditions=@taskmesh/source test/micro/telemetry.ts
 *
 * Each part is run on what the real engine makes of a middle step of a chain of five. Processor time of the process rather than wall time,
 * so that a busy machine changes little; the loop alone is measured the same way and taken off; the median of nine rounds counts.
 */
import { metrics, tracing } from "@taskmesh/runtime";
import { planOf, startRun } from "../../coordinator/src/engine/plan-fixture.js";
import type { Draft } from "../../coordinator/src/pipeline/fold.js";
import { createSpans } from "../../coordinator/src/pipeline/spans.js";
import { countDraft } from "../../coordinator/src/plan-meters.js";

const rounds = 9;
const steps = 1_000_000;

/** A run that has just had a completion: one step ended, the next one dispatched. */
function middleStep(trace?: Record<string, string>): Draft {
  const plan = planOf({ a: {}, b: { needs: ["a"] }, c: { needs: ["b"] } });
  const bench = startRun(plan, trace ? { trace } : {});
  bench.complete("a");
  bench.complete("b");
  const { records, effects } = bench.last;
  const { method, version, contract } = plan;
  const write = {
    run: bench.run,
    expectedVersion: 2,
    method,
    chainVersion: version,
    contract,
    records,
    effects,
    logs: [],
  };
  return { plan, write, taken: [], work: [] };
}

/** Median nanoseconds of processor time of one call. */
function cost(part: (index: number) => unknown): number {
  const measured = Array.from({ length: rounds }, () => {
    globalThis.gc?.();
    const before = process.cpuUsage();
    let kept: unknown;
    for (let i = 0; i < steps; i += 1) kept = part(i);
    const { user, system } = process.cpuUsage(before);
    if (kept === steps) throw new Error("never");
    return ((user + system) * 1_000) / steps;
  });
  return measured.toSorted((a, b) => a - b)[Math.floor(rounds / 2)]!;
}

const plain = middleStep();
const traced = middleStep({ traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" });
const spans = createSpans();
const headers = { get: () => undefined };
const seconds = metrics.publishSeconds.at();

const parts: Record<string, (index: number) => unknown> = {
  "metrics of a step (runs, steps, attempts, two histograms)": () => countDraft(plain),
  "metrics of a publish (two clock reads, a histogram, a counter)": () => {
    seconds.record((performance.now() - performance.now()) / 1_000);
    return metrics.resent.at();
  },
  "spans of a step, tracing off, no trace": () => spans.written(plain),
  "spans of a step, tracing off, the caller has a trace": () => spans.written(traced),
  "headers of a start, tracing off, no trace": () => tracing.announce(undefined, "key"),
  "headers of a call, tracing off, no trace": () => tracing.extract(headers),
};

const loop = cost((index) => index);
for (const [name, part] of Object.entries(parts)) {
  cost(part);
  console.log(JSON.stringify({ part: name, ns: Math.max(0, Math.round(cost(part) - loop)) }));
}
process.exit(0);

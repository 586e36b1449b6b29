/**
 * The runs that this coordinator touched last, so that a step costs no read. Nothing here is true by itself: a change must win the
 * compare-and-set, and a refusal is decided again on a fresh read.
 */
import type { ChainPlan } from "../engine/plan.js";
import type { RunState } from "../engine/run-state.js";

export interface CachedRun {
  run: RunState;
  plan: ChainPlan;
  /** Roughly what it holds. */
  bytes: number;
}

export class RunCache {
  #runs = new Map<string, CachedRun>();
  #bytes = 0;

  constructor(
    private readonly runsMax = 20_000,
    private readonly bytesMax = 64 * 1024 * 1024,
  ) {}

  get(id: string): CachedRun | undefined {
    return this.#runs.get(id);
  }

  /** Puts the run in as the newest; the oldest go when there are too many. */
  put(id: string, run: RunState, plan: ChainPlan): void {
    this.drop(id);
    const entry = { run, plan, bytes: sizeOf(run) };
    this.#runs.set(id, entry);
    this.#bytes += entry.bytes;
    while (this.#runs.size > this.runsMax || (this.#bytes > this.bytesMax && this.#runs.size > 1)) {
      const oldest = this.#runs.keys().next();
      if (oldest.done) return;
      this.drop(oldest.value);
    }
  }

  drop(id: string): void {
    const entry = this.#runs.get(id);
    if (!entry) return;
    this.#runs.delete(id);
    this.#bytes -= entry.bytes;
  }

  get size(): number {
    return this.#runs.size;
  }
}

/** A step's state is about 200 bytes. */
function sizeOf(run: RunState): number {
  let bytes = 500 + run.steps.length * 200 + (run.input.bytes?.length ?? 0);
  for (const output of run.outputs) bytes += output?.bytes?.length ?? 0;
  for (const items of run.items?.values() ?? [])
    for (const { input } of items.values()) bytes += 300 + (input?.bytes?.length ?? 0);
  return bytes;
}

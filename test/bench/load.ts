/** A closed load: `inFlight` runs at once, each begun when one ends. */
export interface LoadResult {
  done: number;
  wrong: number;
  ms: number;
  latenciesMs: number[];
}

/** Runs `one` for `count` numbers from `first`, no more than `perSecond` a second; it answers whether the result was right. */
export async function drive(
  { count, inFlight, first, perSecond = Number.POSITIVE_INFINITY }: Ask,
  one: (i: number) => Promise<boolean>,
): Promise<LoadResult> {
  let next = 0;
  let wrong = 0;
  const latenciesMs: number[] = [];
  const startedAt = performance.now();
  const lane = async (): Promise<void> => {
    while (next < count) {
      const i = first + next++;
      const early = startedAt + ((i - first) * 1_000) / perSecond - performance.now();
      if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
      const at = performance.now();
      if (!(await one(i))) wrong += 1;
      latenciesMs.push(performance.now() - at);
    }
  };
  await Promise.all(Array.from({ length: Math.min(inFlight, count) }, lane));
  return { done: latenciesMs.length, wrong, ms: performance.now() - startedAt, latenciesMs };
}

/** The value below which a share of the numbers lies. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** What every program of the bench works on: about 200 bytes. */
export const pad = "x".repeat(160);
export const stepsPerRun = 5;

/** Asked of a program of the bench over its IPC channel, and its answer. */
export interface Ask {
  count: number;
  inFlight: number;
  first: number;
  /** Starts a second, at most; default: as many as there is room for in flight. */
  perSecond?: number;
}

/** Serves asks of the parent process; ends with it. */
export function serveAsks(one: (i: number) => Promise<boolean>): void {
  process.on("message", (ask: Ask) => {
    void drive(ask, one).then((result) => process.send?.(result));
  });
  process.on("disconnect", () => process.exit(0));
  process.on("SIGTERM", () => process.exit(0));
  process.send?.("ready");
}

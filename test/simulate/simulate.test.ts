import { describe, expect, it } from "vitest";
import { simulate } from "./simulate.js";

const seeds = 300;

describe("a simulated mesh", () => {
  it(`comes out right whatever goes wrong in it, for ${seeds} seeds`, { timeout: 240_000 }, async () => {
    const totals: Record<string, number> = {};
    const failed: string[] = [];
    for (let seed = 1; seed <= seeds; seed++) {
      const { failure, counts } = await simulate(seed);
      for (const [name, count] of Object.entries(counts)) totals[name] = (totals[name] ?? 0) + count;
      if (failure) failed.push(`npm run simulate -- --seeds 1 --from ${seed} --trace   # ${failure.message}`);
    }
    expect(failed).toEqual([]);
    // What the seeds are for did happen.
    for (const name of ["late", "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "items", "undone items"])
      expect(totals[name], name).toBeGreaterThan(10);
    expect(totals["starts"]).toBeGreaterThan(totals["successes"]!);
  });

  it("is the same each time for one seed", { timeout: 60_000 }, async () => {
    const first = await simulate(7, { trace: true });
    await simulate(8);
    const again = await simulate(7, { trace: true });
    expect(first.trace.length).toBeGreaterThan(100);
    expect(again.trace).toEqual(first.trace);
  });
});

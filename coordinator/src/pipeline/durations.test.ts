import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { failure, planOf, type RunBench, startRun, value } from "../engine/plan-fixture.js";
import type { Outcome } from "../engine/run-event.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import {
  type DurationRow,
  dropOldDurations,
  durationsKept,
  readDurations,
  writeDurations,
} from "../store/durations.js";
import { openStore, writeOf } from "../store/store-fixture.js";
import { createDurations, type Durations } from "./durations.js";

afterAll(stopDatabases);

const [a, b] = ["test.v1.Actions/A", "test.v1.Actions/B"];
const plan = planOf({ a: { method: a, retry: { attemptsMax: 2 } }, b: { method: b, needs: ["a"] } });

describe("durations of attempts", () => {
  let written: DurationRow[];
  let durations: Durations;
  beforeEach(() => {
    written = [];
    durations = createDurations(1_000, (rows) => {
      written.push(...rows);
      return Promise.resolve();
    });
  });

  const note = (bench: RunBench): void =>
    durations.note({ plan: bench.plan, write: writeOf(bench), taken: [], work: [] });

  /** Completes the step and notes it. */
  const end = (
    bench: RunBench,
    id: string,
    executionMs: number,
    outcome: Outcome = { kind: "output", value: value("ok") },
  ) => {
    bench.apply({ kind: "complete", report: bench.report(id), outcome, executionMs, session: "s1" });
    note(bench);
  };

  it("are those of long attempts that succeeded, by callable, newest first", async () => {
    const bench = startRun(plan);
    end(bench, "a", 9_000, { kind: "failure", failure: failure("BROKEN") });
    bench.wakeAt(bench.step("a").retryAtMs);
    end(bench, "a", 2_000);
    end(bench, "b", 999);
    const other = startRun({ ...plan }, { namespaceId: 2 });
    end(startRun(plan), "a", 3_000);
    end(other, "a", 4_000);
    await durations.flush();
    expect(written).toEqual([
      { namespaceId: 1, method: a, recentMs: [3_000, 2_000] },
      { namespaceId: 2, method: a, recentMs: [4_000] },
    ]);
    written = [];
    await durations.flush();
    expect(written).toEqual([]);
  });

  it("are bounded: the newest stay", async () => {
    for (let i = 0; i < durationsKept + 10; i++) end(startRun(plan), "a", 1_000 + i);
    await durations.flush();
    const newest = 1_000 + durationsKept + 9;
    expect(written[0]!.recentMs).toEqual(Array.from({ length: durationsKept }, (_, i) => newest - i));
  });

  it("are those of chains where a step has called them", async () => {
    const parent = { runId: "parent", stepId: "call", depth: 1 };
    const bench = startRun({ ...plan, method: "test.v1.Chains/Child" }, { parent });
    bench.complete("a");
    bench.nowMs += 7_000;
    bench.complete("b");
    note(bench);
    await durations.flush();
    expect(written).toEqual([{ namespaceId: 1, method: "test.v1.Chains/Child", recentMs: [7_000] }]);
  });

  it("that can't be written are dropped", async () => {
    durations = createDurations(1_000, () => Promise.reject(new Error("gone")));
    end(startRun(plan), "a", 2_000);
    await expect(durations.flush()).rejects.toThrow("gone");
    await durations.flush();
  });
});

describe.each(["pglite", "postgres"] as const)("durations on %s", (kind) => {
  let database: TestDatabase;
  beforeEach(async () => {
    database = await openStore(kind);
    await database.db.query("delete from call_durations");
  });
  afterEach(() => database.dispose());

  it("of several coordinators are put together, the newest first, and no more than are of use", async () => {
    const { db } = database;
    await writeDurations(db, [
      { namespaceId: 1, method: a, recentMs: [3, 2, 1] },
      { namespaceId: 1, method: b, recentMs: [10] },
    ]);
    await writeDurations(db, [{ namespaceId: 1, method: a, recentMs: [5.5, 4] }]);
    await writeDurations(db, [{ namespaceId: 2, method: a, recentMs: [99] }]);
    expect(await readDurations(db, 1, [a, b, "none"])).toEqual(
      new Map([
        [a, [5.5, 4, 3, 2, 1]],
        [b, [10]],
      ]),
    );
    await writeDurations(db, [{ namespaceId: 1, method: a, recentMs: Array.from({ length: 40 }, (_, i) => i) }]);
    expect((await readDurations(db, 1, [a])).get(a)).toHaveLength(durationsKept);
    await dropOldDurations(db, 60_000);
    expect((await readDurations(db, 2, [a])).size).toBe(1);
    await dropOldDurations(db, -60_000);
    expect((await readDurations(db, 2, [a])).size).toBe(0);
  });
});

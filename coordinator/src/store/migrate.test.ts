import { afterAll, describe, expect, it } from "vitest";
import { startPostgres } from "../../../test/fixtures/postgres.js";
import { planOf } from "../engine/plan-fixture.js";
import { openTestDatabase, stopDatabases } from "../registry/registry-fixture.js";
import type { Database } from "./db.js";
import { migrate } from "./migrate.js";
import { ensurePartitions } from "./partitions.js";
import { openPglite } from "./pglite.js";
import { openPostgres } from "./postgres.js";
import { commit, idAt, newRun, writeOf } from "./store-fixture.js";

afterAll(stopDatabases);

const weekMs = 7 * 24 * 3600 * 1000;

async function empty(kind: "pglite" | "postgres"): Promise<{ dbs: Database[]; dispose(): Promise<void> }> {
  if (kind === "pglite") {
    const db = await openPglite();
    return { dbs: [db, db, db], dispose: () => db.close() };
  }
  const cluster = await startPostgres();
  const url = await cluster.createDatabase();
  const dbs = [1, 2, 3].map(() => openPostgres({ url, connectionsMax: 2 }));
  return {
    dbs,
    async dispose() {
      await Promise.all(dbs.map((db) => db.close()));
      await cluster.dispose();
    },
  };
}

describe.each(["pglite", "postgres"] as const)("migrations on %s", (kind) => {
  it("may run at three coordinators at once, and again", async () => {
    const { dbs, dispose } = await empty(kind);
    try {
      await Promise.all(dbs.map((db) => migrate(db)));
      await migrate(dbs[0]!);
      const tables = await dbs[0]!.query<{ name: string }>(
        "select relname::text as name from pg_class where relname ~ '^(runs|events)_w[0-9]+$' order by 1",
      );
      expect(tables).toHaveLength(10);
      const applied = await dbs[0]!.query("select hash from drizzle.__drizzle_migrations");
      expect(new Set(applied.map(({ hash }) => hash)).size).toBe(applied.length);
    } finally {
      await dispose();
    }
  });
});

describe.each(["pglite", "postgres"] as const)("partitions on %s", (kind) => {
  it("of a week whose rows came before it are not made, others are, and the rows stay readable", async () => {
    const { db, dispose } = await openTestDatabase(kind);
    const nextYearMs = Date.now() + 52 * weekMs;
    const stray = newRun(planOf({ a: {} }), { id: idAt(nextYearMs) });
    await commit(db, [writeOf(stray)]);
    await ensurePartitions(db, nextYearMs);
    await ensurePartitions(db, nextYearMs);
    const names = await db.query<{ name: string }>(
      "select relname::text as name from pg_class where relname ~ '^runs_w[0-9]+$' order by 1",
    );
    const week = Math.floor(nextYearMs / weekMs);
    const made = names.map(({ name }) => Number(name.slice("runs_w".length))).filter((made) => made >= week - 1);
    expect(made).toEqual([week - 1, week + 1, week + 2, week + 3]);
    stray.complete("a");
    expect((await commit(db, [writeOf(stray)])).written.size).toBe(1);
    await dispose();
  });
});

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { startPostgres } from "../../../test/fixtures/postgres.js";
import { planOf } from "../engine/plan-fixture.js";
import { openTestDatabase, stopDatabases } from "../registry/registry-fixture.js";
import type { Database } from "./db.js";
import { countMigrations, migrate, migrationsFolder } from "./migrate.js";
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

describe.each(["pglite", "postgres"] as const)("an upgrade on %s", (kind) => {
  const files = readdirSync(migrationsFolder).filter((name) => name.endsWith(".sql"));
  const { entries } = JSON.parse(readFileSync(join(migrationsFolder, "meta/_journal.json"), "utf8")) as {
    entries: { tag: string; when: number }[];
  };

  it("applies what a database with data lacks, and nothing twice", async () => {
    const { dbs, dispose } = await empty(kind);
    const [db] = dbs as [Database];
    try {
      // As the first version left it.
      const first = readFileSync(join(migrationsFolder, `${entries[0]!.tag}.sql`), "utf8");
      for (const statement of first.split("--> statement-breakpoint")) await db.query(statement);
      await db.query("create schema drizzle");
      await db.query(
        "create table drizzle.__drizzle_migrations (id serial primary key, hash text not null, created_at numeric)",
      );
      await db.query(
        "insert into drizzle.__drizzle_migrations (hash, created_at) values ('first', $1::text::numeric)",
        [String(entries[0]!.when)],
      );
      await db.query("insert into namespaces (name) values ('old')");
      await Promise.all(dbs.map((one) => migrate(one)));
      expect(await countMigrations(db)).toBe(files.length);
      expect(await db.query("select name, retention_days from namespaces")).toEqual([
        { name: "old", retention_days: 30 },
      ]);
      await migrate(db);
      expect(await countMigrations(db)).toBe(files.length);
    } finally {
      await dispose();
    }
  });

  it("has a file for each entry of the journal, in the order in which they were made", () => {
    expect(entries.map(({ tag }) => `${tag}.sql`)).toEqual(files.sort());
    // The migrator applies what is newer than the newest that was applied.
    expect(entries.map(({ when }) => when)).toEqual(entries.map(({ when }) => when).sort((a, b) => a - b));
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

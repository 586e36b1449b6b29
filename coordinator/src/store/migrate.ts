/**
 * Brings the database to this version's schema. Every coordinator does so at its start; an advisory lock lets one at a time, since
 * concurrent runs of Drizzle's migrator would collide. Migrations are frozen once merged.
 */
import { fileURLToPath } from "node:url";
import { drizzle } from "drizzle-orm/pg-proxy";
import { migrate as migrateDrizzle } from "drizzle-orm/pg-proxy/migrator";
import type { Database, Db } from "./db.js";
import { ensurePartitions } from "./partitions.js";

/** Any constant that nothing else in the database uses. */
const migrationLock = 7_400_748_000;
/** Where the migrations are. */
export const migrationsFolder = fileURLToPath(new URL("../../migrations", import.meta.url));

/** Applies the migrations that are missing and makes the partitions of now, in one transaction. */
export async function migrate(database: Database): Promise<void> {
  await database.transaction(async (tx) => {
    if (tx.kind === "postgres") await tx.query("select pg_advisory_xact_lock($1::bigint)", [migrationLock]);
    await applyMigrations(tx);
    const [clock] = await tx.query<{ now: number }>(
      "select (extract(epoch from clock_timestamp()) * 1000)::float8 as now",
    );
    await ensurePartitions(tx, clock?.now ?? Date.now());
  });
}

/** How many migrations the database has had; 0 for an empty one. */
export async function countMigrations(db: Db): Promise<number> {
  const [table] = await db.query<{ there: boolean }>(
    "select to_regclass('drizzle.__drizzle_migrations') is not null as there",
  );
  if (!table?.there) return 0;
  const [row] = await db.query<{ count: number }>("select count(*)::int as count from drizzle.__drizzle_migrations");
  return row?.count ?? 0;
}

async function applyMigrations(tx: Db): Promise<void> {
  const orm = drizzle(async (text, params, method) => {
    const rows = await tx.query<Record<string, unknown>>(text, params);
    // The migrator reads what was applied by column name: given arrays, it would take every database for one that lacks nothing.
    return { rows: method === "execute" ? rows : rows.map((row) => Object.values(row)) };
  });
  const run = async (statements: string[]): Promise<void> => {
    for (const text of statements) await tx.query(text);
  };
  await migrateDrizzle(orm, run, { migrationsFolder });
}

/**
 * The partitions of `runs` and `events`: one a week, by the time in the UUIDv7 run ids, made ahead of time. Rows outside of them (a clock far
 * off) go to the default partition and are as good as others, only never dropped with a week.
 */
import type { Db } from "./db.js";

/** Length of a week in milliseconds. */
export const weekMs = 7 * 24 * 3600 * 1000;
const aheadWeeks = 3;
const idColumn = { runs: "id", events: "run_id" } as const;
/** Run rows are rewritten a few times, in place while their page has room; events never are. */
const storage = { runs: "fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05", events: "fillfactor = 100" };

/** Makes the partitions of last week to three weeks ahead of `nowMs`. Safe to repeat, also side by side with others under the migration lock. */
export async function ensurePartitions(db: Db, nowMs: number): Promise<void> {
  for (const table of ["runs", "events"] as const) {
    await db.query(
      `create table if not exists ${table}_default partition of ${table} default with (${storage[table]})`,
    );
    const known = (await partitionsOf(db))[table];
    const first = Math.floor(nowMs / weekMs) - 1;
    for (let week = first; week <= first + 1 + aheadWeeks; week++) {
      if (!known.has(week)) await makePartition(db, table, week);
    }
  }
}

/** Makes the partition of a week that has none, unless rows of it came before. */
export async function makePartition(db: Db, table: "runs" | "events", week: number): Promise<void> {
  const [from, to] = [uuidAt(week * weekMs), uuidAt((week + 1) * weekMs)];
  // Rows that came before their week had a partition are in the default one; the server would refuse to make it now.
  const [strays] = await db.query<{ found: boolean }>(
    `select exists (select from ${table}_default where ${idColumn[table]} >= $1::uuid and ${idColumn[table]} < $2::uuid) as found`,
    [from, to],
  );
  if (strays?.found) return;
  await db.query(
    `create table ${table}_w${week} partition of ${table} for values from ('${from}') to ('${to}') with (${storage[table]})`,
  );
}

/** The smallest UUID that a UUIDv7 of this instant can have (RFC 9562: 48 bits of milliseconds come first). */
export function uuidAt(ms: number): string {
  const hex = ms.toString(16).padStart(12, "0");
  return `${hex.slice(0, 8)}-${hex.slice(8)}-0000-0000-000000000000`;
}

/** The weeks that have a partition, by table. */
export async function partitionsOf(db: Db): Promise<{ runs: Set<number>; events: Set<number> }> {
  const rows = await db.query<{ name: string }>(
    `select c.relname::text as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent in ('runs'::regclass, 'events'::regclass)`,
  );
  const weeksOf = (table: string): Set<number> =>
    new Set(rows.flatMap(({ name }) => (name.startsWith(`${table}_w`) ? Number(name.slice(table.length + 2)) : [])));
  return { runs: weeksOf("runs"), events: weeksOf("events") };
}

/** The tables that a statement names: the partitioned ones, or the partitions of one week. */
export interface RunTables {
  runs: string;
  events: string;
}

export const partitionedTables: RunTables = { runs: "runs", events: "events" };

/**
 * Which tables a batch is written to. A statement on the partitioned tables opens and locks every partition with all its indexes, whatever it
 * touches (half a millisecond for a lone step with six weeks, measured); nearly every batch has runs of one week only, and then names
 * that week's partitions.
 */
export class Partitions {
  #weeks = new Set<number>();
  #stale = false;

  /** Whether a partition was found to be gone since the last refresh. */
  get stale(): boolean {
    return this.#stale;
  }

  /** Reads which weeks have partitions of both tables. */
  async refresh(db: Db): Promise<void> {
    const { runs, events } = await partitionsOf(db);
    this.#stale = false;
    this.#weeks = new Set([...runs].filter((week) => events.has(week)));
  }

  /** Forgets every week: a partition is gone, and the next refresh says which are left. */
  clear(): void {
    this.#weeks.clear();
    this.#stale = true;
  }

  /** The tables of these runs. */
  tablesOf(ids: readonly string[]): RunTables {
    const week = ids.length > 0 ? weekOf(ids[0]!) : undefined;
    if (week === undefined || !this.#weeks.has(week)) return partitionedTables;
    for (const id of ids) if (weekOf(id) !== week) return partitionedTables;
    return { runs: `runs_w${week}`, events: `events_w${week}` };
  }
}

/** The week of a UUIDv7, counted from 1970. */
const weekOf = (id: string): number => Math.floor(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16) / weekMs);

/** How long attempts of each callable took of late. Written off the path of runs (pipeline/durations.ts), read for estimates. */
import { arrayOf, type Db, textArray } from "./db.js";

/** Durations that are kept of a callable: enough for a median that one odd attempt does not move. */
export const durationsKept = 32;

export interface DurationRow {
  namespaceId: number;
  method: string;
  /** Newest first. */
  recentMs: readonly number[];
}

/**
 * Puts durations before those that are stored, of which the oldest go. No two rows may be of one callable; rows in the same order everywhere
 * keep coordinators that write at once from waiting for each other in a circle.
 */
export async function writeDurations(db: Db, rows: readonly DurationRow[]): Promise<void> {
  if (rows.length === 0) return;
  await db.query(
    `insert into call_durations as c (namespace_id, method, recent_ms, at)
      select d.namespace_id, d.method, d.recent_ms::float4[], clock_timestamp()
      from unnest($1::int[], $2::text[], $3::text[]) as d(namespace_id, method, recent_ms)
    on conflict (namespace_id, method) do update
      set recent_ms = (excluded.recent_ms || c.recent_ms)[1:${durationsKept}], at = excluded.at`,
    [
      arrayOf(rows.map(({ namespaceId }) => namespaceId)),
      textArray(rows.map(({ method }) => method)),
      textArray(rows.map(({ recentMs }) => arrayOf(recentMs.slice(0, durationsKept)))),
    ],
  );
}

/** The stored durations of callables, by method; those that have none are left out. */
export async function readDurations(
  db: Db,
  namespaceId: number,
  methods: readonly string[],
): Promise<Map<string, number[]>> {
  const rows = await db.query<{ method: string; recent: string }>(
    `select method, array_to_string(recent_ms, ',') as recent from call_durations
      where namespace_id = $1::int and method = any($2::text[])`,
    [namespaceId, textArray(methods)],
  );
  return new Map(rows.map(({ method, recent }) => [method, recent.split(",").map(Number)]));
}

/** Deletes what nothing was added to for `olderMs`: callables that nobody uses any more. */
export async function dropOldDurations(db: Db, olderMs: number): Promise<void> {
  await db.query("delete from call_durations where at < now() - $1::float8 * interval '1 millisecond'", [olderMs]);
}

/** What handlers reported: progress and checkpoints. Written by beats and failed completions, never by the commits of runs. */
import { arrayOf, bytesArray, type Db, textArray } from "./db.js";

/** One report of an attempt. */
export interface ReportRow {
  runId: string;
  stepId: string;
  item: number;
  attempt: number;
  percent: number;
  message: string;
  /** An encoded google.protobuf.Any; absent: as it was. */
  checkpoint?: Uint8Array;
}

/**
 * Stores the newest report of each attempt; those of earlier attempts than the stored one change nothing. `namespaceId`: only of runs in it.
 * No two rows may be of one step and item.
 */
export async function writeReports(db: Db, rows: readonly ReportRow[], namespaceId?: number): Promise<void> {
  if (rows.length === 0) return;
  await db.query(
    `insert into attempt_reports as a (run_id, step_id, item, attempt, percent, message, checkpoint, at)
      select r.run_id, r.step_id, r.item, r.attempt, r.percent, r.message, r.checkpoint, clock_timestamp()
      from unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::float4[], $6::text[], $7::bytea[])
        as r(run_id, step_id, item, attempt, percent, message, checkpoint)
      where $8::int is null or exists (select from runs where runs.id = r.run_id and runs.namespace_id = $8::int)
    on conflict (run_id, step_id, item) do update set attempt = excluded.attempt, percent = excluded.percent,
      message = excluded.message, checkpoint = coalesce(excluded.checkpoint, a.checkpoint), at = excluded.at
      where a.attempt <= excluded.attempt`,
    [
      arrayOf(rows.map((row) => row.runId)),
      textArray(rows.map((row) => row.stepId)),
      arrayOf(rows.map((row) => row.item)),
      arrayOf(rows.map((row) => row.attempt)),
      arrayOf(rows.map((row) => row.percent)),
      textArray(rows.map((row) => row.message)),
      bytesArray(rows.map((row) => row.checkpoint ?? null)),
      namespaceId ?? null,
    ],
  );
}

/** A report without its checkpoint. */
export interface ProgressRow {
  stepId: string;
  item: number;
  attempt: number;
  percent: number;
  message: string;
  atMs: number;
}

/** Reports of a run that one answer shows at most. */
export const progressRowsMax = 1_000;

/** What the handlers of a run reported after `afterMs`, oldest first. */
export function readProgress(db: Db, runId: string, afterMs = 0): Promise<ProgressRow[]> {
  return db.query(
    `select step_id as "stepId", item, attempt, percent::float8 as percent, message, (extract(epoch from at) * 1000)::float8 as "atMs"
      from attempt_reports where run_id = $1::uuid and at > to_timestamp($2::float8 / 1000) order by at limit ${progressRowsMax}`,
    [runId, afterMs],
  );
}

/** The last checkpoint of a step or item; undefined if there is none. */
export async function readCheckpoint(
  db: Db,
  runId: string,
  stepId: string,
  item: number,
): Promise<Uint8Array | undefined> {
  const [row] = await db.query<{ checkpoint: Uint8Array | null }>(
    "select checkpoint from attempt_reports where run_id = $1::uuid and step_id = $2::text and item = $3::int",
    [runId, stepId, item],
  );
  return row?.checkpoint ?? undefined;
}

/** Deletes what is of use to nobody: reports of runs that ended longer ago than `olderMs`. At most `limit`; answers how many. */
export async function dropOldReports(db: Db, olderMs: number, limit = 10_000): Promise<number> {
  const rows = await db.query(
    `delete from attempt_reports where (run_id, step_id, item) in (
      select a.run_id, a.step_id, a.item from attempt_reports a left join runs r on r.id = a.run_id
      where a.at < now() - $1::float8 * interval '1 millisecond'
        and (r.id is null or r.ended_at < now() - $1::float8 * interval '1 millisecond') limit $2::int)
    returning 1`,
    [olderMs, limit],
  );
  return rows.length;
}

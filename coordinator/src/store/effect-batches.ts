/** What lapsed coordinators had committed and perhaps not done. */
import type { Db } from "./db.js";

export interface EffectBatch {
  no: number;
  runIds: string[];
  /** Changes whenever the row does. */
  version: string;
}

/** The unconfirmed batches of a coordinator. Numbers are used again: a confirmed batch's row is written over. */
export async function effectBatchesOf(db: Db, coordinatorId: string): Promise<EffectBatch[]> {
  const rows = await db.query<{ no: number; ids: string; version: string }>(
    `select no::float8 as no, array_to_string(run_ids, ',') as ids, xmin::text as version
     from effect_batches where coordinator_id = $1::text order by no`,
    [coordinatorId],
  );
  return rows.map(({ no, ids, version }) => ({ no, version, runIds: ids === "" ? [] : ids.split(",") }));
}

/** Forgets a batch whose effects another coordinator has derived again, unless its owner lives and has written over it. */
export async function deleteEffectBatch(db: Db, coordinatorId: string, batch: EffectBatch): Promise<void> {
  await db.query(
    "delete from effect_batches where coordinator_id = $1::text and no = $2::bigint and xmin::text = $3::text",
    [coordinatorId, batch.no, batch.version],
  );
}

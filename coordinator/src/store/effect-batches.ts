/** What lapsed coordinators had committed and perhaps not done. */
import type { Db } from "./db.js";

export interface EffectBatch {
  no: number;
  runIds: string[];
}

/** The unconfirmed batches of a coordinator, oldest first. */
export async function effectBatchesOf(db: Db, coordinatorId: string): Promise<EffectBatch[]> {
  const rows = await db.query<{ no: number; ids: string }>(
    "select no::float8 as no, array_to_string(run_ids, ',') as ids from effect_batches where coordinator_id = $1::text order by no",
    [coordinatorId],
  );
  return rows.map(({ no, ids }) => ({ no, runIds: ids === "" ? [] : ids.split(",") }));
}

/** Forgets a batch whose effects another coordinator has derived again. */
export async function deleteEffectBatch(db: Db, coordinatorId: string, no: number): Promise<void> {
  await db.query("delete from effect_batches where coordinator_id = $1::text and no = $2::bigint", [coordinatorId, no]);
}

/** Custom ids: which run has one, or had it last. */
import type { RunStatus } from "@taskmesh/proto";
import type { Db } from "./db.js";

/** The run that has an id. */
export interface CustomIdHolder {
  runId: string;
  /** Of the request that started it under a key; empty: it had none. */
  requestHash: Uint8Array;
  /** Absent: the run is not kept any more. */
  status?: RunStatus;
}

/** Who has the id now. */
export async function findCustomId(db: Db, namespaceId: number, name: string): Promise<CustomIdHolder | undefined> {
  const [row] = await db.query<{ runId: string; requestHash: Uint8Array | null; status: RunStatus | null }>(
    `select c.run_id::text as "runId", c.request_hash as "requestHash", r.status from custom_ids c left join runs r on r.id = c.run_id
      where c.namespace_id = $1::int and c.name = $2::text`,
    [namespaceId, name],
  );
  if (!row) return undefined;
  const { runId, requestHash, status } = row;
  return { runId, requestHash: requestHash ?? new Uint8Array(0), ...(status === null ? {} : { status }) };
}

/** Runs that were made from this one, oldest first, at most `limit`. */
export async function readSuccessors(db: Db, runId: string, limit: number): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    "select successor_id::text as id from run_successors where run_id = $1::uuid order by successor_id limit $2::int",
    [runId, limit],
  );
  return rows.map(({ id }) => id);
}

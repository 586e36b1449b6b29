/** SQL of upcasters: ways from one revision of an action's input to another. */
import type { Db } from "./db.js";
import { liveStatuses } from "./gates.js";

/** A declared upcaster. */
export interface UpcasterRow {
  namespaceId: number;
  method: string;
  fromContract: string;
  toContract: string;
  /** An encoded taskmesh.v1.Upcaster. */
  spec: Uint8Array;
  reason: string;
  declaredAtMs: number;
}

const columns = `namespace_id as "namespaceId", method, from_contract as "fromContract", to_contract as "toContract", spec, reason,
  (extract(epoch from declared_at) * 1000)::float8 as "declaredAtMs"`;

/** Upcasters of a namespace, or of all; of one method, or of all; by method. */
export function readUpcasters(db: Db, namespaceId?: number, method?: string): Promise<UpcasterRow[]> {
  return db.query(
    `select ${columns} from contract_upcasters
     where ($1::int is null or namespace_id = $1::int) and ($2::text is null or method = $2::text)
     order by namespace_id, method, from_contract, to_contract`,
    [namespaceId ?? null, method ?? null],
  );
}

/** Stores a declaration, in place of an earlier one between the same revisions. */
export async function writeUpcaster(db: Db, row: Omit<UpcasterRow, "declaredAtMs">): Promise<void> {
  await db.query(
    `insert into contract_upcasters (namespace_id, method, from_contract, to_contract, spec, reason)
     values ($1::int, $2::text, $3::text, $4::text, $5::bytea, $6::text)
     on conflict (namespace_id, method, from_contract, to_contract)
       do update set spec = excluded.spec, reason = excluded.reason, declared_at = now()`,
    [row.namespaceId, row.method, row.fromContract, row.toContract, row.spec, row.reason],
  );
}

/** Deletes one; false: there was none. */
export async function deleteUpcaster(
  db: Db,
  { namespaceId, method, fromContract, toContract }: Omit<UpcasterRow, "spec" | "reason" | "declaredAtMs">,
): Promise<boolean> {
  const rows = await db.query(
    `delete from contract_upcasters where namespace_id = $1::int and method = $2::text and from_contract = $3::text and to_contract = $4::text
     returning 1 as one`,
    [namespaceId, method, fromContract, toContract],
  );
  return rows.length > 0;
}

/** Lanes of a session. */
export async function readSessionLanes(db: Db, sessionId: string): Promise<number[]> {
  const rows = await db.query<{ laneId: number }>(
    `select lane_id as "laneId" from session_queues where session_id = $1::text`,
    [sessionId],
  );
  return rows.map(({ laneId }) => laneId);
}

/** Ids of live runs with steps that are pinned to a revision, the newest first: runs of the action alone, and of chain versions with that pin. */
export async function readLiveRunsOf(
  db: Db,
  namespaceId: number,
  { method, contract }: { method: string; contract: string },
  limit: number,
): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    `select r.id::text as id from runs r
     where r.namespace_id = $1::int and r.status = any($4::smallint[])
       and ((r.method = $2::text and r.chain_version = 0 and r.contract = $3::text)
         or (r.method, r.chain_version) in (
           select c.name, v.version from chains c join chain_versions v on v.chain_id = c.id
           where c.namespace_id = $1::int and v.pins ->> $2::text = $3::text))
     order by r.id desc limit $5::int`,
    [namespaceId, method, contract, `{${liveStatuses.join(",")}}`, limit],
  );
  return rows.map(({ id }) => id);
}

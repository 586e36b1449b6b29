/** SQL of the list of a namespace's contracts, for programs that make an API of all of them. */

import { type Db, textArray } from "./db.js";
import type { CallableKind } from "./registry.js";

/** The newest revision of one method. */
export interface ListedRow {
  method: string;
  fingerprint: string;
  kind: CallableKind;
  inputType: string;
  outputType: string;
  /** SHA-256 in hex of its descriptor set. */
  descriptorHash: string;
  /** Counted from 1 in the order of first registrations. */
  place: number;
}

/** The newest revision of every method that has an active implementation, one in quarantine only where there is no other; by name, at most `limit`. */
export function readNewestContracts(db: Db, namespaceId: number, limit: number): Promise<ListedRow[]> {
  return db.query(
    `select a.method, newest.fingerprint, a.kind, newest.input_type as "inputType", newest.output_type as "outputType",
       newest.descriptor_hash as "descriptorHash", (row_number() over (order by first.id))::int as place
     from callables a
     cross join lateral (
       select c.fingerprint, c.input_type, c.output_type, c.descriptor_hash from contracts c
       left join contract_verdicts v on v.namespace_id = c.namespace_id and v.method = c.method
         and v.fingerprint = c.fingerprint and v.verdict = 'quarantined'
       where c.namespace_id = a.namespace_id and c.method = a.method and c.kind = a.kind
       order by v.fingerprint is not null, c.revision desc limit 1) newest
     cross join lateral (
       select c.id from contracts c where c.namespace_id = a.namespace_id and c.method = a.method
       order by c.revision limit 1) first
     where a.namespace_id = $1::int
     order by a.method collate "C" limit $2::int`,
    [namespaceId, limit],
  );
}

/** Which of the descriptor sets hold `bytes` somewhere. */
export async function setsHolding(
  db: Db,
  namespaceId: number,
  hashes: readonly string[],
  bytes: Uint8Array,
): Promise<Set<string>> {
  const rows = await db.query<{ hash: string }>(
    `select hash from descriptor_sets
     where namespace_id = $1::int and hash = any($2::text[]) and position($3::bytea in bytes) > 0`,
    [namespaceId, textArray(hashes), bytes],
  );
  return new Set(rows.map(({ hash }) => hash));
}

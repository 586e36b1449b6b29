/** SQL of the memory across runs. */
import { bytesArray, type Db } from "./db.js";

/** The method that a run of the namespace was started with; undefined: no such run. */
export async function methodOfRun(db: Db, namespaceId: number, runId: string): Promise<string | undefined> {
  const [row] = await db.query<{ method: string }>(
    "select method from runs where id = $1::text::uuid and namespace_id = $2::int",
    [runId, namespaceId],
  );
  return row?.method;
}

/** Id of a memory, made if it is new. */
export async function seenSetId(db: Db, namespaceId: number, method: string, name: string): Promise<number> {
  const key = [namespaceId, method, name];
  const find = "select id from seen_sets where namespace_id = $1::int and method = $2::text and name = $3::text";
  const [known] = await db.query<{ id: number }>(find, key);
  if (known) return known.id;
  await db.query(
    "insert into seen_sets (namespace_id, method, name) values ($1::int, $2::text, $3::text) on conflict do nothing",
    key,
  );
  const [made] = await db.query<{ id: number }>(find, key);
  return made!.id;
}

/**
 * The keys, as hex, that `owner` was the first to name; unnamed ones become its own. Two statements without a transaction: each is
 * complete by itself, and the second sees what the first, or the winner of a race with it, committed. Sorted, so that callers with
 * overlapping keys wait for each other in one order and cannot deadlock.
 */
export async function claimSeenKeys(
  db: Db,
  setId: number,
  owner: string,
  keyHashes: readonly Uint8Array[],
): Promise<Set<string>> {
  const keys = bytesArray(keyHashes);
  await db.query(
    `insert into seen_keys (set_id, key_hash, owner)
     select $1::int, key_hash, $2::text from unnest($3::text::bytea[]) as t (key_hash) order by key_hash
     on conflict do nothing`,
    [setId, owner, keys],
  );
  const rows = await db.query<{ key: string }>(
    `select encode(key_hash, 'hex') as key from seen_keys
     where set_id = $1::int and owner = $2::text and key_hash = any ($3::text::bytea[])`,
    [setId, owner, keys],
  );
  return new Set(rows.map(({ key }) => key));
}

/**
 * SQL of chains that were given as data. They are rows like other chains' versions, but for their names (registry/given-chains.ts) and for
 * being deleted when no run can be pinned to them any more.
 *
 * A version's number is the day on which it was stored, since the epoch: a version is begun with on its day alone, so its runs are known by their
 * age, and a name that was deleted never gets a number twice.
 */
import type { NewChainVersion } from "./chains.js";
import { arrayOf, type Db, textArray } from "./db.js";
import { insertContracts, type NewContract } from "./registry.js";

/** What their names begin with. */
export const givenPrefix = "taskmesh.given.v1.Chains/";

/** Stores the chain, unless it was stored on the same day, with its contracts. */
export async function storeGiven(
  db: Db,
  chain: NewChainVersion,
  contracts: readonly NewContract[],
): Promise<{ name: string; version: number }> {
  const { namespaceId, name } = chain;
  const key = [namespaceId, name];
  const [known] = await db.query<{ version: number }>(
    `select c.version from chains c join chain_versions v on v.chain_id = c.id and v.version = c.version
     where c.namespace_id = $1::int and c.name = $2::text and v.spec_hash = $3::text
       and c.version >= floor(extract(epoch from now()) / 86400)::int`,
    [...key, chain.specHash],
  );
  if (known) return { name, version: known.version };
  return db.transaction(async (tx) => {
    // Held against retention, which would delete the contracts that this finds stored.
    await tx.query("select 1 as one from chains where namespace_id = $1::int and name = $2::text for update", key);
    await insertContracts(tx, namespaceId, "chain", contracts);
    const [row] = await tx.query<{ id: number; version: number }>(
      `insert into chains (namespace_id, name, version)
       values ($1::int, $2::text, floor(extract(epoch from now()) / 86400)::int)
       on conflict (namespace_id, name) do update set version = greatest(chains.version + 1, excluded.version)
       returning id, version`,
      key,
    );
    if (!row) throw new Error("an upsert returned no row");
    await tx.query(
      `insert into chain_versions (chain_id, version, spec, spec_hash, contract, pins, edges)
       values ($1::int, $2::int, $3::bytea, $4::text, $5::text, $6::text::jsonb, $7::text::jsonb)`,
      [
        ...[row.id, row.version, chain.spec, chain.specHash, chain.contract],
        ...[JSON.stringify(chain.pins), JSON.stringify(chain.edges)],
      ],
    );
    return { name, version: row.version };
  });
}

/** Chains that one step of retention deletes. */
const deletedMax = 100;
/** A version is begun with on its day; the rest is for what was under way at midnight, and for clocks. */
const begunMs = 2 * 24 * 3_600_000;

/**
 * Deletes chains whose last runs, those for items of their steps included, are older than the oldest week that is left, `beforeMs`, and were not
 * moved out of it, with their contracts. Answers how many.
 */
export function deleteGiven(db: Db, beforeMs: number): Promise<number> {
  return db.transaction(async (tx) => {
    const rows = await tx.query<{ id: number; name: string }>(
      `select c.id, c.name from chains c
       where c.name like $1::text and not exists (
           select from chain_versions v where v.chain_id = c.id and v.created_at >= to_timestamp($2::float8 / 1000))
         and not exists (select from runs_default r where r.namespace_id = c.namespace_id
           and (r.method = c.name or starts_with(r.method, c.name || '.')))
       limit ${deletedMax} for update of c skip locked`,
      [`${givenPrefix}%`, beforeMs - begunMs],
    );
    if (rows.length === 0) return 0;
    const ids = [arrayOf(rows.map(({ id }) => id))];
    // A chain's own contract has its name; those that its steps declare are of services below it.
    const sets = await tx.query<{ namespace: number; hash: string }>(
      `delete from contracts k using chains c
       where c.id = any($1::int[]) and k.namespace_id = c.namespace_id
         and (k.method = c.name or k.method like replace(replace(c.name, '/', '.'), '_', '\\_') || '.%')
       returning k.namespace_id as namespace, k.descriptor_hash as hash`,
      ids,
    );
    await tx.query("delete from chain_versions where chain_id = any($1::int[])", ids);
    await tx.query("delete from chains where id = any($1::int[])", ids);
    await tx.query(
      `delete from descriptor_sets d using unnest($1::int[], $2::text[]) as s (namespace_id, hash)
       where d.namespace_id = s.namespace_id and d.hash = s.hash
         and not exists (select from contracts k where k.namespace_id = d.namespace_id and k.descriptor_hash = d.hash)`,
      [arrayOf(sets.map(({ namespace }) => namespace)), textArray(sets.map(({ hash }) => hash))],
    );
    return rows.length;
  });
}

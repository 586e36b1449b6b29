/** SQL of chains and their versions. A version never changes; "new runs use it" is the one thing that moves. */
import { type Db, textArray } from "./db.js";

/** One version of a chain. */
export interface ChainRow {
  name: string;
  version: number;
  /** An encoded ChainSpec. */
  spec: Uint8Array;
  /** Fingerprint of the chain's contract revision. */
  contract: string;
  /** Fingerprint of the pinned contract revision by callee. */
  pins: Record<string, string>;
  edges: { from: string; to: string }[];
  createdAtMs: number;
}

/** A version to be stored. */
export interface NewChainVersion {
  namespaceId: number;
  name: string;
  spec: Uint8Array;
  /** Hash over what makes versions differ: spec, contract and pins. */
  specHash: string;
  contract: string;
  pins: Record<string, string>;
  edges: readonly { from: string; to: string }[];
}

const columns = `c.name, v.version, v.spec, v.contract, v.pins, v.edges,
  (extract(epoch from v.created_at) * 1000)::float8 as "createdAtMs"`;

/**
 * Stores a version and makes it the one that new runs use. One that equals the newest (by hash) is not stored again. The caller holds
 * the chain's name (claimMethods), so saves of one chain take turns.
 */
export async function insertChainVersion(
  tx: Db,
  chain: NewChainVersion,
): Promise<{ version: number; created: boolean }> {
  const [newest] = await tx.query<{ id: number; version: number; specHash: string }>(
    `select c.id, c.version, v.spec_hash as "specHash" from chains c
     join chain_versions v on v.chain_id = c.id and v.version = c.version
     where c.namespace_id = $1::int and c.name = $2::text for update of c`,
    [chain.namespaceId, chain.name],
  );
  if (newest?.specHash === chain.specHash) return { version: newest.version, created: false };
  const [row] = await tx.query<{ id: number; version: number }>(
    `insert into chains (namespace_id, name, version) values ($1::int, $2::text, 1)
     on conflict (namespace_id, name) do update set version = chains.version + 1
     returning id, version`,
    [chain.namespaceId, chain.name],
  );
  if (!row) throw new Error("an upsert returned no row");
  await tx.query(
    `insert into chain_versions (chain_id, version, spec, spec_hash, contract, pins, edges)
     values ($1::int, $2::int, $3::bytea, $4::text, $5::text, $6::text::jsonb, $7::text::jsonb)`,
    [
      row.id,
      row.version,
      chain.spec,
      chain.specHash,
      chain.contract,
      JSON.stringify(chain.pins),
      JSON.stringify(chain.edges),
    ],
  );
  return { version: row.version, created: true };
}

/** One version of a chain; version 0: the one that new runs use. */
export async function readChain(
  db: Db,
  namespaceId: number,
  name: string,
  version: number,
): Promise<ChainRow | undefined> {
  const [row] = await db.query<ChainRow>(
    `select ${columns} from chains c join chain_versions v on v.chain_id = c.id
     where c.namespace_id = $1::int and c.name = $2::text
       and v.version = case when $3::int = 0 then c.version else $3::int end`,
    [namespaceId, name, version],
  );
  return row;
}

/** Version that new runs of a chain use; undefined: no such chain. */
export async function readChainVersion(db: Db, namespaceId: number, name: string): Promise<number | undefined> {
  const [row] = await db.query<{ version: number }>(
    "select version from chains where namespace_id = $1::int and name = $2::text",
    [namespaceId, name],
  );
  return row?.version;
}

/**
 * The newest version of each chain whose name is behind `after`, by name (in byte order, whatever the database's collation); those that were
 * given as data are left out.
 */
export function listChains(db: Db, namespaceId: number, after: string, limit: number): Promise<ChainRow[]> {
  return db.query(
    `select ${columns} from chains c join chain_versions v on v.chain_id = c.id and v.version = c.version
     where c.namespace_id = $1::int and c.name collate "C" > $2::text collate "C"
       and exists (select from callables a where a.namespace_id = c.namespace_id and a.method = c.name)
     order by c.name collate "C" limit $3::int`,
    [namespaceId, after, limit],
  );
}

/** Names of the chains among `methods`. */
export async function chainsAmong(db: Db, namespaceId: number, methods: readonly string[]): Promise<Set<string>> {
  const rows = await db.query<{ name: string }>(
    "select name from chains where namespace_id = $1::int and name = any($2::text[])",
    [namespaceId, textArray(methods)],
  );
  return new Set(rows.map((row) => row.name));
}

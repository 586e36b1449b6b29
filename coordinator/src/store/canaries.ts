/** SQL of canaries: which share of an action's starts its new revisions get. */
import { type Db, textArray } from "./db.js";

/** What somebody set. */
export interface CanaryRow {
  method: string;
  /** "": every revision after `afterRevision`. */
  fingerprint: string;
  afterRevision: number;
  /** Percent; null: the canary was ended. */
  share: number | null;
  reason: string;
  changedAtMs: number;
}

const columns = `method, fingerprint, after_revision as "afterRevision", share, reason,
  (extract(epoch from changed_at) * 1000)::float8 as "changedAtMs"`;

/** What was set in a namespace (for one method, or for all), the newest first. */
export function readCanaryHistory(
  db: Db,
  namespaceId: number,
  method: string | undefined,
  limit: number,
): Promise<CanaryRow[]> {
  return db.query(
    `select ${columns} from contract_canaries
     where namespace_id = $1::int and ($2::text is null or method = $2::text) order by id desc limit $3::int`,
    [namespaceId, method ?? null, limit],
  );
}

/** Records what counts from now on. A canary of every new revision begins after the newest one that is registered. */
export async function insertCanary(
  db: Db,
  namespaceId: number,
  { method, fingerprint, share, reason }: Pick<CanaryRow, "method" | "fingerprint" | "share" | "reason">,
): Promise<void> {
  await db.query(
    `insert into contract_canaries (namespace_id, method, fingerprint, after_revision, share, reason)
     values ($1::int, $2::text, $3::text,
       coalesce((select max(revision) from contracts where namespace_id = $1::int and method = $2::text), 0), $4::int, $5::text)`,
    [namespaceId, method, fingerprint, share, reason],
  );
}

/** Changes the share of the canary that an action has, and leaves alone which revisions it is about. False: it has none. */
export async function changeShare(
  db: Db,
  namespaceId: number,
  { method, share, reason }: { method: string; share: number | null; reason: string },
): Promise<boolean> {
  const rows = await db.query(
    `insert into contract_canaries (namespace_id, method, fingerprint, after_revision, share, reason)
     select namespace_id, method, fingerprint, after_revision, $3::int, $4::text from (
       select * from contract_canaries where namespace_id = $1::int and method = $2::text order by id desc limit 1) newest
     where newest.share is not null returning 1 as one`,
    [namespaceId, method, share, reason],
  );
  return rows.length > 0;
}

/** A revision that gets a share of the starts. */
export interface LiveCanaryRow {
  namespaceId: number;
  method: string;
  fingerprint: string;
  share: number;
}

/** Every revision that is a canary now, in all namespaces or of some methods of one. */
export function readCanaries(
  db: Db,
  of?: { namespaceId: number; methods: readonly string[] },
): Promise<LiveCanaryRow[]> {
  return db.query(
    `select k.namespace_id as "namespaceId", k.method, c.fingerprint, k.share from (
       select distinct on (namespace_id, method) * from contract_canaries
       where $1::int is null or (namespace_id = $1::int and method = any($2::text[]))
       order by namespace_id, method, id desc) k
     join contracts c on c.namespace_id = k.namespace_id and c.method = k.method and c.kind = 'action'
       and (c.fingerprint = k.fingerprint or (k.fingerprint = '' and c.revision > k.after_revision))
     where k.share is not null`,
    [of?.namespaceId ?? null, of === undefined ? null : textArray(of.methods)],
  );
}

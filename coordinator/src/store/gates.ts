/** SQL of the evolution gate: modes of namespaces, decisions on revisions, and what a revision has to do with chains and live runs. */
import { RunStatus } from "@taskmesh/proto";
import { type Db, textArray } from "./db.js";

/** What becomes of a contract that breaks its predecessor. */
export type GateMode = "refuse" | "quarantine" | "allow";

/** A mode that somebody set. */
export interface GateRow {
  mode: GateMode;
  reason: string;
  changedAtMs: number;
}

/** A decision on one revision. */
export interface VerdictRow {
  method: string;
  fingerprint: string;
  verdict: "quarantined" | "allowed";
  reason: string;
  base: string;
  /** As it was written; whoever reads it checks the form. */
  violations: unknown[];
  decidedAtMs: number;
}

const millis = (column: string) => `(extract(epoch from ${column}) * 1000)::float8`;

/** What was set for a namespace, the newest first. */
export function readGates(db: Db, namespaceId: number, limit: number): Promise<GateRow[]> {
  return db.query(
    `select mode, reason, ${millis("changed_at")} as "changedAtMs" from contract_gates
     where namespace_id = $1::int order by id desc limit $2::int`,
    [namespaceId, limit],
  );
}

/** Sets the mode of a namespace; earlier ones stay as the record. */
export async function insertGate(db: Db, namespaceId: number, mode: GateMode, reason: string): Promise<void> {
  await db.query("insert into contract_gates (namespace_id, mode, reason) values ($1::int, $2::text, $3::text)", [
    namespaceId,
    mode,
    reason,
  ]);
}

const verdictColumns = `method, fingerprint, verdict, reason, base, violations, ${millis("decided_at")} as "decidedAtMs"`;

/** Decisions on revisions of the methods; without methods of all, the newest first. */
export function readVerdicts(
  db: Db,
  namespaceId: number,
  which: { methods?: readonly string[]; limit: number },
): Promise<VerdictRow[]> {
  return db.query(
    `select ${verdictColumns} from contract_verdicts
     where namespace_id = $1::int and ($2::text[] is null or method = any($2::text[]))
     order by decided_at desc, method, fingerprint limit $3::int`,
    [namespaceId, which.methods ? textArray(which.methods) : null, which.limit],
  );
}

/** Records a decision, in place of an earlier one on the same revision. */
export async function writeVerdict(
  db: Db,
  namespaceId: number,
  verdict: Omit<VerdictRow, "decidedAtMs">,
): Promise<void> {
  await db.query(
    `insert into contract_verdicts (namespace_id, method, fingerprint, verdict, reason, base, violations)
     values ($1::int, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text::jsonb)
     on conflict (namespace_id, method, fingerprint)
       do update set verdict = excluded.verdict, reason = excluded.reason, base = excluded.base, violations = excluded.violations, decided_at = now()`,
    [
      namespaceId,
      verdict.method,
      verdict.fingerprint,
      verdict.verdict,
      verdict.reason,
      verdict.base,
      JSON.stringify(verdict.violations),
    ],
  );
}

/** Every revision in quarantine, as "<namespace id>/<method>@<fingerprint>". */
export async function readQuarantined(db: Db): Promise<Set<string>> {
  const rows = await db.query<{ entry: string }>(
    `select namespace_id || '/' || method || '@' || fingerprint as entry from contract_verdicts
     where verdict = 'quarantined'`,
  );
  return new Set(rows.map(({ entry }) => entry));
}

/** The revision of a method that the next one is compared with: the newest action that is not in quarantine. */
export interface BaseRow {
  method: string;
  fingerprint: string;
  revision: number;
  descriptorHash: string;
}

/** The bases of methods; those without a revision are left out. */
export function readBases(db: Db, namespaceId: number, methods: readonly string[]): Promise<BaseRow[]> {
  return db.query(
    `select distinct on (c.method) c.method, c.fingerprint, c.revision, c.descriptor_hash as "descriptorHash"
     from contracts c
     left join contract_verdicts v on v.namespace_id = c.namespace_id and v.method = c.method
       and v.fingerprint = c.fingerprint and v.verdict = 'quarantined'
     where c.namespace_id = $1::int and c.method = any($2::text[]) and c.kind = 'action' and v.method is null
     order by c.method, c.revision desc`,
    [namespaceId, textArray(methods)],
  );
}

/** A stored descriptor set. */
export async function readDescriptorSet(db: Db, namespaceId: number, hash: string): Promise<Uint8Array | undefined> {
  const [row] = await db.query<{ bytes: Uint8Array }>(
    "select bytes from descriptor_sets where namespace_id = $1::int and hash = $2::text",
    [namespaceId, hash],
  );
  return row?.bytes;
}

/** A chain version that calls a method, with the revision that it is pinned to. */
export interface PinRow {
  chain: string;
  version: number;
  current: boolean;
  method: string;
  fingerprint: string;
}

/** Versions that call one of the methods and that new runs use, or that are among `versions` ("<chain>@<version>"). */
export function readPins(
  db: Db,
  namespaceId: number,
  methods: readonly string[],
  versions: readonly string[],
  limit: number,
): Promise<PinRow[]> {
  return db.query(
    `select c.name as chain, v.version, v.version = c.version as current, p.key as method, p.value as fingerprint
     from chains c
     join chain_versions v on v.chain_id = c.id
     cross join lateral jsonb_each_text(v.pins) p
     where c.namespace_id = $1::int and p.key = any($2::text[])
       and (v.version = c.version or c.name || '@' || v.version = any($3::text[]))
     order by c.name collate "C", v.version desc, p.key limit $4::int`,
    [namespaceId, textArray(methods), textArray(versions), limit],
  );
}

/** Runs that have not ended, by what they are pinned to. */
export interface LiveRunsRow {
  method: string;
  /** 0: of the action alone. */
  version: number;
  contract: string;
  count: number;
  /** The newest, at most ten. */
  ids: string[];
}

/** Statuses of runs that have not ended. */
export const liveStatuses = [RunStatus.RUN_STATUS_RUNNING, RunStatus.RUN_STATUS_PAUSED, RunStatus.RUN_STATUS_BROKEN];

/** Live runs of a namespace; of more than `limit` the newest `limit` are counted. */
export function readLiveRuns(db: Db, namespaceId: number, limit: number): Promise<LiveRunsRow[]> {
  return db.query(
    `select method, chain_version as version, contract, count(*)::int as count,
       to_jsonb((array_agg(id::text order by id desc))[1:10]) as ids
     from (
       select id, method, chain_version, contract from runs
       where namespace_id = $1::int and status = any($2::smallint[]) order by id desc limit $3::int) live
     group by method, chain_version, contract`,
    [namespaceId, `{${liveStatuses.join(",")}}`, limit],
  );
}

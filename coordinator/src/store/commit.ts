/**
 * One batch of changed runs, in one statement and so in one transaction and one round trip.
 *
 * - Run rows are locked in id order before they are written: batches of two coordinators that overlap would deadlock otherwise.
 * - A run is written only if its version is still the expected one; its history and other rows are inserted only if it was.
 * - A start with an idempotency key is inserted only if the key was free, that of a child only if its parent still waits for it; what other
 *   starts have is in commit-starts.ts.
 *
 * All bytes travel in one blob (blob.ts) as base64, a third shorter than the hex that a bytea parameter would be; rows cut their part from it
 * in a scalar subquery, which is evaluated once (joined as a CTE it was copied for each row: 160 µs a row, measured). Scalars travel in
 * arrays, one a column. The text is put together from the sections that a batch has and kept per combination, so that the server
 * plans each once.
 */
import { encodeRunState } from "../engine/run-codec.js";
import type { Effect, ItemChange, RunRecord } from "../engine/run-event.js";
import type { RunState } from "../engine/run-state.js";
import { Blob } from "./blob.js";
import { assignmentSections } from "./commit-assignments.js";
import { confirmedEffects, pendingEffects } from "./commit-effects.js";
import { loneCommit, loneWrite } from "./commit-lone.js";
import { brokenRows, changedColumns, mendedRows } from "./commit-operations.js";
import { blobPayload, blobText, instant, type Section, slice } from "./commit-parts.js";
import { binds, dequeues, enqueues, itemSections, unbinds } from "./commit-places.js";
import { copiedItems, moreOfStarts, successorRows } from "./commit-starts.js";
import { arrayOf, columnOf, type Db, textArray } from "./db.js";
import { encodeEventBody } from "./event-body.js";
import { partitionedTables, type RunTables } from "./partitions.js";

/** What one run contributes to a batch. */
export interface RunWrite {
  run: RunState;
  /** Version that the stored row must have; 0 inserts the run. */
  expectedVersion: number;
  method: string;
  chainVersion: number;
  contract: string;
  records: RunRecord[];
  effects: Effect[];
  logs: { step: number; item: number; attempt: number; lines: Uint8Array }[];
  idempotency?: { key: string; requestHash: Uint8Array };
  /** The run is inserted only if its custom id is nobody's, or this run's. */
  customId?: { holder?: string; requestHash?: Uint8Array };
  /** The run is inserted only if this one is updated in the same batch. */
  after?: string;
  /** Items of fan-outs that changed, by step and item. */
  items?: Map<string, ItemChange>;
}

export interface Commit {
  coordinatorId: string;
  writes: RunWrite[];
  /** Number of this batch; its effects count as pending until a later commit names it as confirmed. */
  batchNo: number;
  /** Runs of this batch that have effects to perform. */
  pending: string[];
  confirmed: number[];
  /** Tables of these runs; default: the partitioned ones, which are always right. */
  tables?: RunTables;
}

export interface CommitResult {
  /** Runs that were written; the others lost the compare-and-set or their key was taken. */
  written: Set<string>;
  /** The database's clock. */
  nowMs: number;
}

/** How long an idempotency key is kept. */
export const idempotencyMs = 7 * 24 * 3600 * 1000;

/** Writes a batch. Rejects if nothing was written, or with an unknown outcome if the connection broke: then read before trying again. */
export async function commitBatch(db: Db, commit: Commit): Promise<CommitResult> {
  const lone = loneWrite(commit);
  const { text, params } = lone ? loneCommit(commit, lone) : batchCommit(commit);
  const [row] = await db.query<{ ids: string; now: number }>(text, params);
  if (!row) throw new Error("the commit answered nothing");
  return { written: new Set(row.ids === "" ? [] : row.ids.split(",")), nowMs: row.now };
}

function batchCommit(commit: Commit): { text: string; params: unknown[] } {
  const blob = new Blob();
  const byId = [...commit.writes].sort((a, b) => (a.run.id < b.run.id ? -1 : 1));
  const sections: Section[] = [];
  const add = (section: Section | undefined): void => {
    if (section) sections.push(section);
  };
  add(
    updates(
      byId.filter((w) => w.expectedVersion > 0),
      blob,
    ),
  );
  add(
    inserts(
      byId.filter((w) => w.expectedVersion === 0),
      blob,
    ),
  );
  add(events(byId, blob));
  add(enqueues(byId));
  add(dequeues(byId));
  add(binds(byId));
  add(unbinds(byId));
  add(logs(byId, blob));
  for (const section of assignmentSections(byId)) add(section);
  for (const section of itemSections(byId, blob)) add(section);
  add(copiedItems(byId));
  add(successorRows(byId));
  add(brokenRows(byId));
  add(mendedRows(byId));
  add(pendingEffects(commit));
  add(confirmedEffects(commit));
  const params: unknown[] = [blob.base64()];
  for (const section of sections) params.push(...section.params);
  return { text: statement(sections, commit.tables), params };
}

const blobCte = "bytes as materialized (select decode($1::text, 'base64') as blob)";
const texts = new Map<string, string>();

function statement(sections: Section[], { runs, events }: RunTables = partitionedTables): string {
  const key = `${runs}: ${sections.map(({ name, variant = "" }) => name + variant).join("+")}`;
  const known = texts.get(key);
  if (known) return known;
  let next = 2;
  const parts: string[] = [blobCte];
  const written: string[] = [];
  const has = (name: string): boolean => sections.some((section) => section.name.startsWith(name));
  if (has("update")) written.push("select id from updated");
  if (has("inserts")) written.push("select id from inserted");
  const ok = `ok as materialized (${written.length > 0 ? written.join(" union all ") : "select null::uuid as id where false"})`;
  let okAdded = false;
  for (const section of sections) {
    if (!okAdded && !section.name.startsWith("update") && !section.name.startsWith("inserts")) {
      parts.push(ok);
      okAdded = true;
    }
    parts.push(section.sql(next));
    next += section.params.length;
  }
  if (!okAdded) parts.push(ok);
  const text = `with ${parts.join(",\n")}
select array_to_string(array(select id from ok), ',') as ids, (extract(epoch from clock_timestamp()) * 1000)::float8 as now,
  (select octet_length(blob) from bytes) as bytes`;
  const named = text.replaceAll("{runs}", runs).replaceAll("{events}", events);
  texts.set(key, named);
  return named;
}

function updates(writes: RunWrite[], blob: Blob): Section | undefined {
  if (writes.length === 0) return undefined;
  const states = writes.map(({ run }) => blobText(blob, encodeRunState(run)));
  const more = changedColumns(writes);
  return {
    name: "updates",
    ...(more ? { variant: "+columns" } : {}),
    params: [
      columnOf(writes, (w) => w.run.id),
      columnOf(writes, (w) => w.expectedVersion),
      columnOf(writes, (w) => w.run.status),
      columnOf(writes, (w) => w.run.lastSeq),
      columnOf(writes, (w) => w.run.wakeupAtMs || null),
      columnOf(writes, (w) => w.run.endedAtMs || null),
      columnOf(states, (s) => s.offset),
      columnOf(states, (s) => s.length),
      ...(more?.params ?? []),
    ],
    sql: (n) => `u as materialized (
  select * from unnest($${n}::uuid[], $${n + 1}::int[], $${n + 2}::smallint[], $${n + 3}::int[], $${n + 4}::float8[],
    $${n + 5}::float8[], $${n + 6}::int[], $${n + 7}::int[]${more?.types(n + 8) ?? ""})
  as t(id, version, status, last_seq, wakeup, ended, off, len${more?.names ?? ""})),
locked as materialized (select r.id, r.version from {runs} r join u on u.id = r.id order by r.id for update of r),
updated as (
  update {runs} r set version = u.version + 1, status = u.status, last_seq = u.last_seq, wakeup_at = ${instant("u.wakeup")},
    ended_at = ${instant("u.ended")}, state = ${slice("u.off", "u.len")}${more?.sets ?? ""}
  from u, locked l where l.id = u.id and l.version = u.version and r.id = u.id and r.version = u.version returning r.id)`,
  };
}

function inserts(writes: RunWrite[], blob: Blob): Section | undefined {
  if (writes.length === 0) return undefined;
  const states = writes.map(({ run }) => blobText(blob, encodeRunState(run)));
  const hashes = writes.map((w) => (w.idempotency ? blob.bytes(w.idempotency.requestHash) : 0));
  const labels = writes.map(({ run }) => (Object.keys(run.labels).length > 0 ? JSON.stringify(run.labels) : null));
  const more = moreOfStarts(writes, blob);
  return {
    name: more.name,
    params: [
      columnOf(writes, (w) => w.run.id),
      columnOf(writes, (w) => w.run.namespaceId),
      textArray(writes.map((w) => w.method)),
      columnOf(writes, (w) => w.chainVersion),
      textArray(writes.map((w) => w.contract)),
      columnOf(writes, (w) => w.run.status),
      columnOf(writes, (w) => w.run.lastSeq),
      columnOf(writes, (w) => w.run.priority),
      textArray(labels),
      columnOf(writes, (w) => w.run.acceptedAtMs),
      columnOf(writes, (w) => w.run.deadlineAtMs),
      columnOf(writes, (w) => w.run.endedAtMs || null),
      columnOf(writes, (w) => w.run.wakeupAtMs || null),
      columnOf(states, (s) => s.offset),
      columnOf(states, (s) => s.length),
      textArray(writes.map((w) => w.idempotency?.key ?? null)),
      arrayOf(hashes),
      ...more.params,
    ],
    sql: (n) => `n as materialized (
  select * from unnest($${n}::uuid[], $${n + 1}::int[], $${n + 2}::text[], $${n + 3}::int[], $${n + 4}::text[], $${n + 5}::smallint[],
    $${n + 6}::int[], $${n + 7}::smallint[], $${n + 8}::text[], $${n + 9}::float8[], $${n + 10}::float8[], $${n + 11}::float8[],
    $${n + 12}::float8[], $${n + 13}::int[], $${n + 14}::int[], $${n + 15}::text[], $${n + 16}::int[]${more.types(n + 17)})
  as t(id, namespace_id, method, chain_version, contract, status, last_seq, priority, labels, accepted, deadline, ended, wakeup,
    off, len, key, hash${more.names})),${more.before}
keyed as (
  insert into idempotency_keys as i (namespace_id, key, request_hash, run_id, expires_at)
  select n.namespace_id, n.key, ${slice("n.hash", "32")}, n.id, ${instant(`(n.accepted + ${idempotencyMs})`)} from n where n.key is not null
  on conflict (namespace_id, key) do update set request_hash = excluded.request_hash, run_id = excluded.run_id,
    expires_at = excluded.expires_at where i.expires_at < now()
  returning run_id),
inserted as (
  insert into {runs} (id, namespace_id, method, chain_version, contract, status, version, last_seq, priority, labels, accepted_at,
    deadline_at, ended_at, wakeup_at, state${more.columns})
  select n.id, n.namespace_id, n.method, n.chain_version, n.contract, n.status, 1, n.last_seq, n.priority, n.labels::jsonb,
    ${instant("n.accepted")}, ${instant("n.deadline")}, ${instant("n.ended")}, ${instant("n.wakeup")}, ${slice("n.off", "n.len")}${more.values}
  from n where (n.key is null or n.id in (select run_id from keyed))${more.conditions}
  returning id)`,
  };
}

function events(writes: RunWrite[], blob: Blob): Section | undefined {
  const rows = writes.flatMap(({ run, records }) => records.map((record) => ({ run, record })));
  if (rows.length === 0) return undefined;
  const bodies = rows.map(({ record }) => blobText(blob, encodeEventBody(record)));
  const payloads = rows.map(({ record }) => blobPayload(blob, record.payload));
  // Most batches are about no item: they need no column for it.
  const items = rows.some(({ record }) => record.item) ? [columnOf(rows, ({ record }) => record.item ?? 0)] : [];
  return {
    name: items.length > 0 ? "item events" : "events",
    params: [
      columnOf(rows, ({ run }) => run.id),
      columnOf(rows, ({ record }) => record.seq),
      columnOf(rows, ({ run }) => run.nowMs),
      columnOf(rows, ({ record }) => record.kind),
      columnOf(rows, ({ record }) => (record.step < 0 ? null : record.step)),
      columnOf(rows, ({ record }) => record.attempt),
      columnOf(bodies, (b) => b.offset),
      columnOf(bodies, (b) => b.length),
      columnOf(payloads, (b) => b.offset),
      columnOf(payloads, (b) => b.length),
      ...items,
    ],
    sql: (n) => `recorded as (
  insert into {events} (run_id, seq, at, kind, step, item, attempt, body, payload)
  select e.run_id, e.seq, ${instant("e.at")}, e.kind, e.step, ${items.length > 0 ? "e.item" : "0"}, e.attempt,
    case when e.blen > 0 then ${slice("e.boff", "e.blen")} end, case when e.plen > 0 then ${slice("e.poff", "e.plen")} end
  from unnest($${n}::uuid[], $${n + 1}::int[], $${n + 2}::float8[], $${n + 3}::smallint[], $${n + 4}::smallint[], $${n + 5}::int[],
    $${n + 6}::int[], $${n + 7}::int[], $${n + 8}::int[], $${n + 9}::int[]${items.length > 0 ? `, $${n + 10}::int[]` : ""})
    as e(run_id, seq, at, kind, step, attempt, boff, blen, poff, plen${items.length > 0 ? ", item" : ""})
  where e.run_id in (select id from ok))`,
  };
}

function logs(writes: RunWrite[], blob: Blob): Section | undefined {
  const rows = writes.flatMap(({ run, logs: found }) => found.map((log) => ({ run, log })));
  if (rows.length === 0) return undefined;
  return {
    name: "logs",
    params: [
      columnOf(rows, ({ run }) => run.id),
      columnOf(rows, ({ log }) => log.step),
      columnOf(rows, ({ log }) => log.attempt),
      columnOf(rows, ({ log }) => blob.bytes(log.lines)),
      columnOf(rows, ({ log }) => log.lines.length),
      columnOf(rows, ({ log }) => log.item),
    ],
    sql: (n) => `logged as (
  insert into attempt_logs (run_id, step, item, attempt, lines)
  select g.run_id, g.step, g.item, g.attempt, ${slice("g.off", "g.len")}
  from unnest($${n}::uuid[], $${n + 1}::smallint[], $${n + 2}::int[], $${n + 3}::int[], $${n + 4}::int[], $${n + 5}::int[])
    as g(run_id, step, attempt, off, len, item)
  where g.run_id in (select id from ok) on conflict do nothing)`,
  };
}

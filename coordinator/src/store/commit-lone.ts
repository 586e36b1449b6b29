/**
 * A commit of one run that only moves on: what a run that is alone waits for, so one statement of scalars, with neither the arrays nor the blob
 * of a batch (commit.ts). A statement of each number of events is planned once.
 */

import { encodeRunState } from "../engine/run-codec.js";
import type { Effect, RunRecord } from "../engine/run-event.js";
import { Blob } from "./blob.js";
import type { Commit, RunWrite } from "./commit.js";
import { confirmedEffects, pendingEffects } from "./commit-effects.js";
import { instant } from "./commit-parts.js";
import { encodeEventBody } from "./event-body.js";
import { partitionedTables } from "./partitions.js";

/** Effects that no table but `effect_batches` knows of. */
const rowless: ReadonlySet<Effect["kind"]> = new Set<Effect["kind"]>([
  "dispatch",
  "evaluate",
  "free",
  "ended",
  "start-child",
  "cancel-child",
  "settle-children",
  "tell-parent",
]);
/** A commit of more events goes the way of a batch. */
const eventsMax = 3;

/** The write of the commit, if it is its only one and has no rows beyond its run's, its events' and its effects'. */
export function loneWrite({ writes }: Commit): RunWrite | undefined {
  const [write] = writes;
  if (!write || writes.length > 1 || write.records.length === 0 || write.records.length > eventsMax) return undefined;
  if (write.items || write.idempotency || write.logs.length > 0) return undefined;
  if (write.expectedVersion === 0 && (write.run.parent || write.run.origin || write.customId)) return undefined;
  return write.effects.every(({ kind }) => rowless.has(kind)) ? write : undefined;
}

const texts = new Map<string, string>();

/** Its statement and parameters; the statement answers as that of a batch does. */
export function loneCommit(commit: Commit, write: RunWrite): { text: string; params: unknown[] } {
  const { runs, events } = commit.tables ?? partitionedTables;
  const params = write.expectedVersion > 0 ? updated(write) : inserted(write);
  const eventsAt = params.length + 1;
  for (const record of write.records) pushEvent(params, record, write.run.nowMs);
  const effects = [pendingEffects(commit), confirmedEffects(commit)].filter((section) => section !== undefined);
  const key = `${runs} ${eventsAt} ${write.records.length} ${effects.map(({ name }) => name).join(" ")}`;
  let text = texts.get(key);
  if (text === undefined) {
    const parts = [write.expectedVersion > 0 ? update : insert, eventRows(eventsAt, write.records.length)];
    let next = params.length + 1;
    for (const { sql, params: own } of effects) {
      parts.push(sql(next));
      next += own.length;
    }
    text = `with ${parts.join(",\n")}
select coalesce((select id::text from written), '') as ids, (extract(epoch from clock_timestamp()) * 1000)::float8 as now`;
    text = text.replaceAll("{runs}", runs).replaceAll("{events}", events);
    texts.set(key, text);
  }
  for (const section of effects) params.push(...section.params);
  return { text, params };
}

const base64 = (text: string): string => Buffer.from(text).toString("base64");

/** One row can't be locked out of order, so no lock goes before it. */
const update = `written as (
  update {runs} r set version = $2::int + 1, status = $3::smallint, last_seq = $4::int, wakeup_at = ${instant("$5::float8")},
    ended_at = ${instant("$6::float8")}, state = decode($7::text, 'base64')
  where r.id = $1::uuid and r.version = $2::int returning r.id)`;

const updated = ({ run, expectedVersion }: RunWrite): unknown[] => [
  run.id,
  expectedVersion,
  run.status,
  run.lastSeq,
  run.wakeupAtMs || null,
  run.endedAtMs || null,
  base64(encodeRunState(run)),
];

const insert = `written as (
  insert into {runs} (id, namespace_id, method, chain_version, contract, status, version, last_seq, priority, labels, accepted_at,
    deadline_at, ended_at, wakeup_at, state, starter)
  values ($1::uuid, $2::int, $3::text, $4::int, $5::text, $6::smallint, 1, $7::int, $8::smallint, $9::text::jsonb, ${instant("$10::float8")},
    ${instant("$11::float8")}, ${instant("$12::float8")}, ${instant("$13::float8")}, decode($14::text, 'base64'), $15::text)
  returning id)`;

const inserted = ({ run, method, chainVersion, contract }: RunWrite): unknown[] => [
  run.id,
  run.namespaceId,
  method,
  chainVersion,
  contract,
  run.status,
  run.lastSeq,
  run.priority,
  Object.keys(run.labels).length > 0 ? JSON.stringify(run.labels) : null,
  run.acceptedAtMs,
  run.deadlineAtMs,
  run.endedAtMs || null,
  run.wakeupAtMs || null,
  base64(encodeRunState(run)),
  run.starter ?? null,
];

const eventTypes = "int,float8,smallint,smallint,int,int,text,text".split(",");

function pushEvent(params: unknown[], record: RunRecord, nowMs: number): void {
  const { seq, kind, step, item = 0, attempt, payload } = record;
  const body = encodeEventBody(record);
  params.push(seq, nowMs, kind, step < 0 ? null : step, item, attempt, body === "" ? null : base64(body));
  if (!payload) return void params.push(null);
  const blob = new Blob();
  blob.payload(payload);
  params.push(blob.base64());
}

function eventRows(first: number, count: number): string {
  const width = eventTypes.length;
  const row = (at: number): string => eventTypes.map((type, i) => `$${first + at * width + i}::${type}`).join(", ");
  const rows = Array.from({ length: count }, (_, at) => `(${row(at)})`).join(", ");
  return `recorded as (
  insert into {events} (run_id, seq, at, kind, step, item, attempt, body, payload)
  select written.id, e.seq, ${instant("e.at")}, e.kind, e.step, e.item, e.attempt, decode(e.body, 'base64'), decode(e.payload, 'base64')
  from written, (values ${rows}) as e(seq, at, kind, step, item, attempt, body, payload))`;
}

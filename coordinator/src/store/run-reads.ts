/** Reads for people: lists of runs, histories, logs. */
import { AttemptLogs, EventKind, type Failure, RunStatus } from "@taskmesh/proto";
import type { Value } from "../engine/plan.js";
import { arrayOf, type Db } from "./db.js";
import { decodeEventBody, type EventBody } from "./event-body.js";
import { toValue } from "./runs.js";

/** One history row, read. */
export interface StoredEvent {
  seq: number;
  atMs: number;
  kind: EventKind;
  /** Step index; -1: about the run. */
  step: number;
  item: number;
  attempt: number;
  body: EventBody;
  payload?: Value;
}

interface EventRow {
  seq: number;
  at: number;
  kind: EventKind;
  step: number | null;
  item: number;
  attempt: number;
  body: Uint8Array | null;
  payload: Uint8Array | null;
}

/** The history after `afterSeq`, in order; `payloads` false leaves inputs and outputs out. */
export async function readEvents(
  db: Db,
  runId: string,
  query: { afterSeq: number; limit: number; payloads: boolean },
): Promise<StoredEvent[]> {
  const payload = query.payloads ? "payload" : "null::bytea as payload";
  const rows = await db.query<EventRow>(
    `select seq, (extract(epoch from at) * 1000)::float8 as at, kind, step, item, attempt, body, ${payload} from events
      where run_id = $1::uuid and seq > $2::int order by seq limit $3::int`,
    [runId, query.afterSeq, query.limit],
  );
  return rows.map((row) => ({
    seq: row.seq,
    atMs: row.at,
    kind: row.kind,
    step: row.step ?? -1,
    item: row.item,
    attempt: row.attempt,
    body: decodeEventBody(row.body),
    ...(row.payload ? { payload: toValue(row.payload) } : {}),
  }));
}

/** The last event of an ended run. */
export async function readEnd(db: Db, runId: string): Promise<StoredEvent | undefined> {
  const rows = await db.query<EventRow>(
    `select seq, (extract(epoch from at) * 1000)::float8 as at, kind, step, item, attempt, body, payload from events
      where run_id = $1::uuid and kind = ${EventKind.EVENT_KIND_RUN_ENDED} order by seq desc limit 1`,
    [runId],
  );
  const row = rows[0];
  if (!row) return undefined;
  const { seq, at, kind, step, item, attempt, body, payload } = row;
  const read = { seq, atMs: at, kind, step: step ?? -1, item, attempt, body: decodeEventBody(body) };
  return payload ? { ...read, payload: toValue(payload) } : read;
}

/** How a run stands, and whether a step of it has answered its caller: its state says so under a name of its own (engine/run-codec.ts). */
export async function readStanding(
  db: Db,
  runId: string,
): Promise<{ status: RunStatus; namespaceId: number; answered: boolean } | undefined> {
  const [row] = await db.query<{ status: RunStatus; namespaceId: number; answered: boolean }>(
    `select status, namespace_id as "namespaceId", position('"answered":'::bytea in state) > 0 as answered
     from runs where id = $1::uuid`,
    [runId],
  );
  return row;
}

/** How these runs stand, by id. */
export async function readStatuses(db: Db, ids: readonly string[]): Promise<Map<string, RunStatus>> {
  if (ids.length === 0) return new Map();
  const rows = await db.query<{ id: string; status: RunStatus }>(
    "select id::text as id, status from runs where id = any($1::uuid[])",
    [arrayOf(ids)],
  );
  return new Map(rows.map(({ id, status }) => [id, status]));
}

/** What a list shows of a run. */
export interface RunSummary {
  id: string;
  method: string;
  chainVersion: number;
  contract: string;
  status: RunStatus;
  priority: number;
  labels: Record<string, string>;
  acceptedAtMs: number;
  endedAtMs: number;
  deadlineAtMs: number;
  lastSeq: number;
  starter?: string;
  /** Why it is BROKEN, or ended badly: reason and message alone. */
  failure?: Failure;
}

export interface RunFilter {
  namespaceId: number;
  /** Runs older than this id. */
  beforeId?: string;
  statuses: readonly RunStatus[];
  method?: string;
  labels: Readonly<Record<string, string>>;
  customId?: string;
  starter?: string;
  acceptedAfterMs?: number;
  acceptedBeforeMs?: number;
  limit: number;
}

/** A page of runs, newest first. */
export async function listRuns(db: Db, filter: RunFilter): Promise<RunSummary[]> {
  const where = ["namespace_id = $1::int"];
  const params: unknown[] = [filter.namespaceId];
  const add = (condition: (parameter: string) => string, value: unknown): void => {
    params.push(value);
    where.push(condition(`$${params.length}`));
  };
  if (filter.beforeId !== undefined) add((p) => `id < ${p}::uuid`, filter.beforeId);
  if (filter.statuses.length > 0) add((p) => `status = any(${p}::smallint[])`, arrayOf(filter.statuses));
  if (filter.method !== undefined) add((p) => `method = ${p}::text`, filter.method);
  if (Object.keys(filter.labels).length > 0) add((p) => `labels @> ${p}::text::jsonb`, JSON.stringify(filter.labels));
  if (filter.starter !== undefined) add((p) => `starter = ${p}::text`, filter.starter);
  if (filter.customId !== undefined)
    add(
      (p) => `id = (select c.run_id from custom_ids c where c.namespace_id = $1::int and c.name = ${p}::text)`,
      filter.customId,
    );
  if (filter.acceptedAfterMs !== undefined)
    add((p) => `accepted_at > to_timestamp(${p}::float8 / 1000)`, filter.acceptedAfterMs);
  if (filter.acceptedBeforeMs !== undefined)
    add((p) => `accepted_at < to_timestamp(${p}::float8 / 1000)`, filter.acceptedBeforeMs);
  params.push(filter.limit);
  const ms = (column: string): string => `(extract(epoch from ${column}) * 1000)::float8`;
  const rows = await db.query<
    Omit<RunSummary, "labels" | "endedAtMs" | "starter"> & {
      labels: RunSummary["labels"] | null;
      endedAtMs: number | null;
      starter: string | null;
      failed: Uint8Array | null;
    }
  >(
    // The page is chosen first: only histories of its runs are looked into, and only of those that have a failure.
    `select id::text as id, method, chain_version as "chainVersion", contract, status, priority, labels, ${ms("accepted_at")} as "acceptedAtMs",
      ${ms("ended_at")} as "endedAtMs", ${ms("deadline_at")} as "deadlineAtMs", last_seq as "lastSeq", starter,
      case when status in (${failedStatuses.join(", ")}) then (
        select e.body from events e where e.run_id = page.id and e.kind in (${EventKind.EVENT_KIND_RUN_BROKEN}, ${EventKind.EVENT_KIND_RUN_ENDED})
        order by e.seq desc limit 1) end as failed
    from (select * from runs where ${where.join(" and ")} order by id desc limit $${params.length}::int) page order by page.id desc`,
    params,
  );
  return rows.map(({ starter, failed, ...row }) => ({
    ...row,
    labels: row.labels ?? {},
    endedAtMs: row.endedAtMs ?? 0,
    ...(starter === null ? {} : { starter }),
    ...(failed === null ? {} : briefFailure(decodeEventBody(failed))),
  }));
}

const failedStatuses = [
  RunStatus.RUN_STATUS_BROKEN,
  RunStatus.RUN_STATUS_FAILED,
  RunStatus.RUN_STATUS_CANCELLED,
  RunStatus.RUN_STATUS_EXPIRED,
];
/** A page has up to a thousand of them. */
const briefChars = 512;

/** What a list says of a failure. */
function briefFailure({ failure }: EventBody): { failure?: Failure } {
  if (!failure) return {};
  const { reason, message, retryable } = failure;
  return { failure: { reason, message: message.slice(0, briefChars), retryable, details: [], cause: undefined } };
}

/** The logs of a run's attempts, by step index (undefined: all), oldest first. */
export async function readLogs(db: Db, runId: string, step: number | undefined): Promise<AttemptLogs[]> {
  const rows = await db.query<{ lines: Uint8Array }>(
    `select lines from attempt_logs where run_id = $1::uuid and ($2::int is null or step = $2::int) order by step, item, attempt limit 10000`,
    [runId, step ?? null],
  );
  return rows.map(({ lines }) => AttemptLogs.decode(lines));
}

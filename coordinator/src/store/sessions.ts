/**
 * SQL of worker sessions and their bound attempts.
 *
 * Only the database's clock says who lapsed. Writes to a session name the stream that makes them: an older stream of a session that was
 * resumed elsewhere changes nothing.
 */
import { childSession } from "../engine/children.js";
import { arrayOf, type Db, textArray } from "./db.js";
import { bumpEpoch } from "./registry.js";

/** What a worker says about itself, cleaned: texts without NUL, bounded. */
export interface SessionFacts {
  host: string;
  pid: number;
  version: string;
  sdk: string;
  labels: Record<string, string>;
  /** A TransportKind. */
  transport: number;
}

/** A lane that a session serves. */
export interface SessionLane {
  queueId: number;
  laneId: number;
  slots: number;
}

/** A session that is to be made, or resumed if a live one of that id and namespace is there. */
export interface SessionOpening {
  id: string;
  namespaceId: number;
  facts: SessionFacts;
  lanes: readonly SessionLane[];
}

/**
 * Opens sessions of different ids, with their lanes. Returns the stream number of each by id, which fences older streams; one that is missing
 * belongs to another namespace.
 */
export function openSessions(
  db: Db,
  coordinatorId: string,
  openings: readonly SessionOpening[],
): Promise<Map<string, number>> {
  // In one order, as recordBeats does.
  const rows = [...openings].sort((a, b) => (a.id < b.id ? -1 : 1));
  const texts = (read: (facts: SessionFacts) => string): string => textArray(rows.map(({ facts }) => read(facts)));
  return db.transaction(async (tx) => {
    const opened = await tx.query<{ id: string; stream: number }>(
      `insert into sessions (id, namespace_id, coordinator_id, stream, host, pid, version, sdk, labels, transport, told)
       select n.id, n.namespace_id, $1::text, 1, n.host, n.pid, n.version, n.sdk, n.labels::jsonb, n.transport, false
       from unnest($2::text[], $3::int[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::smallint[])
         as n (id, namespace_id, host, pid, version, sdk, labels, transport)
       on conflict (id) do update set coordinator_id = excluded.coordinator_id, stream = sessions.stream + 1, host = excluded.host,
         pid = excluded.pid, version = excluded.version, sdk = excluded.sdk, labels = excluded.labels,
         transport = excluded.transport, draining = false, assignable = true, told = false, last_beat_at = now()
       where sessions.namespace_id = excluded.namespace_id
       returning id, stream`,
      [
        coordinatorId,
        textArray(rows.map(({ id }) => id)),
        arrayOf(rows.map(({ namespaceId }) => namespaceId)),
        texts(({ host }) => host),
        arrayOf(rows.map(({ facts }) => facts.pid)),
        texts(({ version }) => version),
        texts(({ sdk }) => sdk),
        texts(({ labels }) => JSON.stringify(labels)),
        arrayOf(rows.map(({ facts }) => facts.transport)),
      ],
    );
    const streams = new Map(opened.map(({ id, stream }) => [id, stream]));
    await writeSessionLanes(
      tx,
      rows.filter(({ id }) => streams.has(id)),
    );
    await bumpEpoch(tx);
    return streams;
  });
}

/** Replaces the lanes of sessions, keeping the rows that did not change. */
async function writeSessionLanes(tx: Db, openings: readonly SessionOpening[]): Promise<void> {
  const lanes = openings.flatMap(({ id, lanes: own }) => own.map((lane) => ({ id, ...lane })));
  const sessionIds = textArray(lanes.map(({ id }) => id));
  const queueIds = arrayOf(lanes.map(({ queueId }) => queueId));
  await tx.query(
    `delete from session_queues q where q.session_id = any($1::text[]) and not exists (
       select from unnest($2::text[], $3::int[]) as l (session_id, queue_id)
       where l.session_id = q.session_id and l.queue_id = q.queue_id)`,
    [textArray(openings.map(({ id }) => id)), sessionIds, queueIds],
  );
  await tx.query(
    `insert into session_queues (session_id, queue_id, lane_id, slots, free)
     select session_id, queue_id, lane_id, slots, slots
     from unnest($1::text[], $2::int[], $3::int[], $4::int[]) as l (session_id, queue_id, lane_id, slots)
     on conflict (session_id, queue_id) do update
       set lane_id = excluded.lane_id, slots = excluded.slots, free = least(session_queues.free, excluded.slots)`,
    [sessionIds, queueIds, arrayOf(lanes.map(({ laneId }) => laneId)), arrayOf(lanes.map(({ slots }) => slots))],
  );
}

/** Whether the session is alive in the namespace: a lapsed one can't be resumed. */
export async function sessionExists(db: Db, namespaceId: number, id: string): Promise<boolean> {
  const [exists] = await sessionsExist(db, [{ namespaceId, id }]);
  return exists === true;
}

/** The same of many, in their order. */
export async function sessionsExist(db: Db, asked: readonly { namespaceId: number; id: string }[]): Promise<boolean[]> {
  const rows = await db.query<{ id: string; namespaceId: number }>(
    'select id, namespace_id as "namespaceId" from sessions where id = any($1::text[])',
    [textArray(asked.map(({ id }) => id))],
  );
  const namespaces = new Map(rows.map((row) => [row.id, row.namespaceId]));
  return asked.map(({ namespaceId, id }) => namespaces.get(id) === namespaceId);
}

/** Slots that live, assignable workers reported free in their last beats, by lane id. */
export async function freeSlotsByLane(db: Db): Promise<Map<number, number>> {
  const rows = await db.query<{ lane: number; free: number }>(
    `select q.lane_id as lane, sum(q.free)::int as free from session_queues q join sessions s on s.id = q.session_id
      where s.assignable and not s.draining group by q.lane_id`,
  );
  return new Map(rows.map(({ lane, free }) => [lane, free]));
}

/** Those of the sessions that have ended or lapsed. */
export async function missingSessions(db: Db, ids: readonly string[]): Promise<Set<string>> {
  const rows = await db.query<{ id: string }>(
    "select t.id from unnest($1::text[]) as t(id) where not exists (select from sessions s where s.id = t.id)",
    [textArray(ids)],
  );
  return new Set(rows.map(({ id }) => id));
}

/** What one beat says of its session. */
export interface BeatRow {
  sessionId: string;
  stream: number;
  /** Milliseconds since the beat arrived: what is recorded late, after an outage, must not make the worker look livelier than it is. */
  ageMs: number;
  inFlight: number;
  draining: boolean;
  assignable: boolean;
  /** What a beat of this stream lists is decided. */
  told: boolean;
  free: readonly { queueId: number; free: number }[];
}

/**
 * Records the newest beat of many sessions at once. Returns the ids that are still alive under these streams;
 * the others lapsed or were resumed elsewhere. `bump`: a flag changed that the live catalogue shows.
 */
export async function recordBeats(db: Db, beats: readonly BeatRow[], bump: boolean): Promise<Set<string>> {
  // In one order, so that two coordinators never wait for each other in a circle.
  const rows = [...beats].sort((a, b) => (a.sessionId < b.sessionId ? -1 : 1));
  const write = async (tx: Db): Promise<{ id: string }[]> => {
    const alive = await tx.query<{ id: string }>(
      `update sessions s set in_flight = b.in_flight, draining = b.draining, assignable = b.assignable,
         told = b.told, last_beat_at = greatest(s.last_beat_at, now() - make_interval(secs => b.age))
       from unnest($1::text[], $2::int[], $3::int[], $4::boolean[], $5::boolean[], $6::float8[], $7::boolean[])
         as b (id, stream, in_flight, draining, assignable, age, told)
       where s.id = b.id and s.stream = b.stream
       returning s.id`,
      [
        textArray(rows.map((row) => row.sessionId)),
        arrayOf(rows.map((row) => row.stream)),
        arrayOf(rows.map((row) => row.inFlight)),
        arrayOf(rows.map((row) => row.draining)),
        arrayOf(rows.map((row) => row.assignable)),
        arrayOf(rows.map((row) => row.ageMs / 1000)),
        arrayOf(rows.map((row) => row.told)),
      ],
    );
    await recordFree(tx, rows, new Set(alive.map((row) => row.id)));
    if (bump) await bumpEpoch(tx);
    return alive;
  };
  const alive = await db.transaction(write);
  return new Set(alive.map((row) => row.id));
}

async function recordFree(tx: Db, rows: readonly BeatRow[], alive: ReadonlySet<string>): Promise<void> {
  const free = rows
    .filter((row) => alive.has(row.sessionId))
    .flatMap((row) => row.free.map((entry) => ({ sessionId: row.sessionId, ...entry })));
  if (free.length === 0) return;
  await tx.query(
    `update session_queues q set free = least(f.free, q.slots)
     from unnest($1::text[], $2::int[], $3::int[]) as f (session_id, queue_id, free)
     where q.session_id = f.session_id and q.queue_id = f.queue_id and q.free <> least(f.free, q.slots)`,
    [
      textArray(free.map((entry) => entry.sessionId)),
      arrayOf(free.map((entry) => entry.queueId)),
      arrayOf(free.map((entry) => entry.free)),
    ],
  );
}

/** Ends a session at once; false if it is not this stream's any more. */
export function endSession(db: Db, id: string, stream: number): Promise<boolean> {
  return db.transaction(async (tx) => {
    const ended = await tx.query("delete from sessions where id = $1::text and stream = $2::int returning 1 as one", [
      id,
      stream,
    ]);
    if (ended.length > 0) await bumpEpoch(tx);
    return ended.length > 0;
  });
}

/**
 * The database's time if any session is without a beat for `timeoutMs`, undefined if none is. Lapses are judged by that moment, so that
 * an answer that was long under way ends nobody who could not beat meanwhile.
 */
export async function findSilentSessions(db: Db, timeoutMs: number): Promise<string | undefined> {
  const found = await db.query<{ at: string }>(
    "select now()::text as at from sessions where last_beat_at < now() - make_interval(secs => $1::float8) limit 1",
    [timeoutMs / 1000],
  );
  return found[0]?.at;
}

/** How long sessions may be silent, in milliseconds. */
export interface LapseRule {
  sessionTimeoutMs: number;
  /** The same, while other workers are just coming back, of a session whose coordinator is gone. */
  returnMs: number;
  coordinatorTimeoutMs: number;
}

/** Ends up to `limit` sessions that were silent for too long at the database's time `at`; each is returned to exactly one caller. */
export function lapseSessions(db: Db, at: string, rule: LapseRule, limit: number): Promise<string[]> {
  return db.transaction(async (tx) => {
    const rows = await tx.query<{ id: string }>(
      `delete from sessions where id in (
         select s.id from sessions s where s.last_beat_at < $1::timestamptz - make_interval(secs => $2::float8)
           and (s.last_beat_at < $1::timestamptz - make_interval(secs => $3::float8)
             or exists (
               select from coordinators c
               where c.id = s.coordinator_id and c.last_beat_at >= $1::timestamptz - make_interval(secs => $4::float8))
             or not exists (
               select from sessions t where not t.told and t.last_beat_at >= $1::timestamptz - make_interval(secs => $2::float8)))
         order by s.id limit $5::int for update skip locked)
       returning id`,
      [at, rule.sessionTimeoutMs / 1000, rule.returnMs / 1000, rule.coordinatorTimeoutMs / 1000, limit],
    );
    if (rows.length > 0) await bumpEpoch(tx);
    return rows.map((row) => row.id);
  });
}

/** An attempt that is bound to a session. */
export interface BindingRow {
  runId: string;
  stepId: string;
  item: number;
  attempt: number;
  lease: string;
  sessionId: string;
}

const bindingColumns = `b.run_id::text as "runId", b.step_id as "stepId", b.item, b.attempt, b.lease, b.session_id as "sessionId"`;

/** Attempts that are bound to any of these sessions, at most `limit`. */
export function readBindings(db: Db, sessionIds: readonly string[], limit: number): Promise<BindingRow[]> {
  return db.query(
    `select ${bindingColumns} from bindings b where b.session_id = any($1::text[]) order by b.session_id, b.run_id limit $2::int`,
    [textArray(sessionIds), limit],
  );
}

/** Attempts that are bound to sessions which no longer exist, at most `limit`; those that are runs of their own are bound to none. */
export function readOrphanedBindings(db: Db, limit: number): Promise<BindingRow[]> {
  return db.query(
    `select ${bindingColumns} from bindings b
     where b.session_id <> '${childSession}' and not exists (select from sessions s where s.id = b.session_id) limit $1::int`,
    [limit],
  );
}

/** A live worker with its queues. */
export interface WorkerRow {
  sessionId: string;
  host: string;
  pid: number;
  version: string;
  sdk: string;
  labels: Record<string, string>;
  transport: number;
  draining: boolean;
  assignable: boolean;
  registeredAtMs: number;
  lastBeatAtMs: number;
  queues: { taskQueue: string; contracts: string[]; slots: number; free: number }[];
}

/** Workers of a namespace with a beat within `timeoutMs`, oldest first. */
export async function readWorkers(db: Db, namespaceId: number, timeoutMs: number): Promise<WorkerRow[]> {
  const rows = await db.query<Omit<WorkerRow, "queues"> & { queues: WorkerRow["queues"] | string }>(
    `select s.id as "sessionId", s.host, s.pid::float8 as pid, s.version, s.sdk, s.labels, s.transport::int as transport,
       s.draining, s.assignable,
       (extract(epoch from s.registered_at) * 1000)::float8 as "registeredAtMs",
       (extract(epoch from s.last_beat_at) * 1000)::float8 as "lastBeatAtMs",
       coalesce((
         select jsonb_agg(jsonb_build_object('taskQueue', q.name, 'contracts', l.contracts, 'slots', sq.slots, 'free', sq.free)
           order by q.name)
         from session_queues sq
         join lanes l on l.id = sq.lane_id
         join task_queues q on q.id = sq.queue_id
         where sq.session_id = s.id), '[]') as queues
     from sessions s
     where s.namespace_id = $1::int and s.last_beat_at >= now() - make_interval(secs => $2::float8)
     order by s.registered_at, s.id`,
    [namespaceId, timeoutMs / 1000],
  );
  return rows.map((row) => ({ ...row, labels: parsed(row.labels), queues: parsed(row.queues) }));
}

/** jsonb comes parsed from both drivers today; text is taken too, since neither promises it for an expression. */
function parsed<T>(value: T | string): T {
  return typeof value === "string" ? (JSON.parse(value) as T) : value;
}

/** The lanes of a live session with their queues' names; undefined: no such session in the namespace. */
export async function readSessionLanes(
  db: Db,
  namespaceId: number,
  id: string,
): Promise<(SessionLane & { taskQueue: string })[] | undefined> {
  const rows = await db.query<SessionLane & { taskQueue: string }>(
    `select sq.queue_id as "queueId", sq.lane_id as "laneId", sq.slots, q.name as "taskQueue"
     from sessions s
     join session_queues sq on sq.session_id = s.id
     join task_queues q on q.id = sq.queue_id
     where s.id = $1::text and s.namespace_id = $2::int order by q.name`,
    [id, namespaceId],
  );
  return rows.length > 0 ? rows : undefined;
}

/** The numbers of the whole mesh and of its database that metrics show. One look each, whoever asks. */
import type { Db } from "./db.js";

/** The numbers of the whole mesh. */
export interface Figures {
  queues: QueueFigures[];
  /** How long the oldest due wake-up has been waiting, in seconds; 0: none is due. */
  sweeperLagSeconds: number;
  /** Commits whose effects are not confirmed, counted up to `rowsMax`. */
  effectBatches: number;
  /** Those that beat lately. */
  coordinators: number;
  /** Live sessions by TransportKind. */
  sessions: { transport: number; count: number }[];
  /** Runs that have not ended by RunStatus, counted up to `liveMax`. */
  runs: { status: number; count: number }[];
}

/** A task queue with live workers or waiting steps. */
export interface QueueFigures {
  namespace: string;
  queue: string;
  /** Steps in the ready queue. */
  ready: number;
  /** How long the oldest of them has been waiting, in seconds. */
  oldestSeconds: number;
  slots: number;
  freeSlots: number;
}

/** What Postgres says of the database. */
export interface DatabaseFigures {
  connections: number;
  connectionsMax: number;
  sizeBytes: number;
  commits: number;
  rollbacks: number;
  deadlocks: number;
  oldestTransactionSeconds: number;
}

/** Counting goes through the rows one by one, and beyond this the exact number tells nothing more. */
const rowsMax = 100_000;
/** Of each queue at least, however many share the bound. */
const queueRowsMin = 5_000;
const liveMax = 20_000;
/** A coordinator beats every few seconds. */
const beatSeconds = 20;

/** Reads the numbers of the whole mesh. */
export async function readFigures(db: Db): Promise<Figures> {
  const [row] = await db.query<Pick<Figures, "sweeperLagSeconds" | "effectBatches" | "coordinators">>(
    `select
       coalesce((select greatest(0, extract(epoch from clock_timestamp() - min(wakeup_at))) from runs
         where wakeup_at is not null), 0)::float8 as "sweeperLagSeconds",
       (select count(*) from (select 1 from effect_batches limit ${rowsMax}) as open)::int as "effectBatches",
       (select count(*) from coordinators where last_beat_at > now() - ${beatSeconds} * interval '1 second')::int
         as coordinators`,
  );
  const sessions = await db.query<{ transport: number; count: number }>(
    "select transport::int as transport, count(*)::int as count from sessions group by transport",
  );
  // In the order of the partial index, so that no other plan is as good: runs that have ended are many.
  const runs = await db.query<{ status: number; count: number }>(
    `select status::int as status, count(*)::int as count from (
       select status from runs where wakeup_at is not null order by wakeup_at limit ${liveMax}) as live
     group by status`,
  );
  const none = { sweeperLagSeconds: 0, effectBatches: 0, coordinators: 0 };
  return { ...none, ...row, sessions, runs, queues: await readQueues(db) };
}

/** The queues in use are found by their index, one step each; then each is counted. */
function readQueues(db: Db): Promise<QueueFigures[]> {
  return db.query<QueueFigures>(
    `with recursive waiting as (
       (select namespace_id, task_queue from ready_steps order by namespace_id, task_queue limit 1)
       union all
       select next.namespace_id, next.task_queue from waiting cross join lateral (
         select namespace_id, task_queue from ready_steps
         where (namespace_id, task_queue) > (waiting.namespace_id, waiting.task_queue)
         order by namespace_id, task_queue limit 1) as next
     ), offered as (
       select q.namespace_id, q.name as task_queue, sum(s.slots)::int as slots, sum(s.free)::int as free
       from session_queues s join task_queues q on q.id = s.queue_id group by q.namespace_id, q.name
     ), counted as (
       select w.namespace_id, w.task_queue, ready.count, ready.oldest from waiting w cross join lateral (
         select count(*)::int as count, min(ready_at) as oldest from (
           select ready_at from ready_steps r where r.namespace_id = w.namespace_id and r.task_queue = w.task_queue
           order by priority desc, ready_at
           limit (select greatest(${queueRowsMin}, ${rowsMax} / count(*)) from waiting)) as first) as ready
     )
     select n.name as namespace, coalesce(c.task_queue, o.task_queue) as queue, coalesce(c.count, 0) as ready,
       coalesce(greatest(0, extract(epoch from clock_timestamp() - c.oldest)), 0)::float8 as "oldestSeconds",
       coalesce(o.slots, 0) as slots, coalesce(o.free, 0) as "freeSlots"
     from counted c full join offered o on o.namespace_id = c.namespace_id and o.task_queue = c.task_queue
     join namespaces n on n.id = coalesce(c.namespace_id, o.namespace_id)
     order by 1, 2`,
  );
}

/** Reads what Postgres says of the database; every user may. */
export async function readDatabaseFigures(db: Db): Promise<DatabaseFigures | undefined> {
  const [row] = await db.query<DatabaseFigures>(
    `select numbackends::int as connections, current_setting('max_connections')::int as "connectionsMax",
       pg_database_size(datid)::float8 as "sizeBytes", xact_commit::float8 as commits,
       xact_rollback::float8 as rollbacks, deadlocks::float8 as deadlocks,
       coalesce((select greatest(0, extract(epoch from clock_timestamp() - min(xact_start))) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()), 0)::float8 as "oldestTransactionSeconds"
     from pg_stat_database where datname = current_database()`,
  );
  return row;
}

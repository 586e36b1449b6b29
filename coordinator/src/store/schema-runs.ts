/**
 * Tables of runs. `runs` and `events` are range-partitioned by run id (UUIDv7, so by time); the partitions are made by partitions.ts.
 *
 * The run row is a header: no payloads, nothing per item. Every change of it is a compare-and-set on `version`. Inputs, outputs and
 * results are payloads of event rows: the history is the record.
 */
import { sql } from "drizzle-orm";
import {
  bigint,
  check,
  customType,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  real,
  smallint,
  text,
  timestamp,
  uuid,
} from "drizzle-orm/pg-core";

const bytea = customType<{ data: Uint8Array }>({ dataType: () => "bytea" });
const instant = (name: string) => timestamp(name, { withTimezone: true });

export const runs = pgTable(
  "runs",
  {
    id: uuid("id").primaryKey(),
    namespaceId: integer("namespace_id").notNull(),
    /** The callable and what it is pinned to; version 0 is a lone action. */
    method: text("method").notNull(),
    chainVersion: integer("chain_version").notNull(),
    contract: text("contract").notNull(),
    /** RunStatus of the proto. */
    status: smallint("status").notNull(),
    /** Compare-and-set: every commit raises it. */
    version: integer("version").notNull(),
    /** Seq of the newest event. */
    lastSeq: integer("last_seq").notNull(),
    priority: smallint("priority").notNull(),
    labels: jsonb("labels"),
    acceptedAt: instant("accepted_at").notNull(),
    deadlineAt: instant("deadline_at").notNull(),
    endedAt: instant("ended_at"),
    /** When the sweeper must look at the run: never later than its earliest deadline or timer, null when the run has ended. */
    wakeupAt: instant("wakeup_at"),
    /** The engine's state of the steps (engine/run-state.ts), as JSON in UTF-8. */
    state: bytea("state").notNull(),
    /** Who started the run, or the one above it; null: unknown. */
    starter: text("starter"),
  },
  (t) => [
    // Listing pages by id within a namespace, optionally by status.
    index("runs_by_namespace").on(t.namespaceId, t.id),
    index("runs_by_status").on(t.namespaceId, t.status, t.id),
    // The sweeper's queue. The column changes only on the final write or when something is due earlier, so steps don't churn it.
    index("runs_by_wakeup").on(t.wakeupAt).where(sql`wakeup_at is not null`),
    // A run that has ended needs no waking, and one that has not is always woken in the end.
    check("runs_wakeup_while_live", sql`(ended_at is null) = (wakeup_at is not null)`),
    check("runs_status_known", sql`status between 1 and 7`),
  ],
);

export const events = pgTable(
  "events",
  {
    runId: uuid("run_id").notNull(),
    seq: integer("seq").notNull(),
    at: instant("at").notNull(),
    /** EventKind of the proto. */
    kind: smallint("kind").notNull(),
    /** Index of the step in the chain, null for events of the run. */
    step: smallint("step"),
    item: integer("item").notNull(),
    attempt: integer("attempt").notNull(),
    /** Moves, failure, session: EventBody as JSON in UTF-8. */
    body: bytea("body"),
    /** An encoded taskmesh.v1.Payload. */
    payload: bytea("payload"),
  },
  // The per-run sequence is the key, so no event can be recorded twice.
  (t) => [primaryKey({ columns: [t.runId, t.seq] })],
);

/** Steps that wait for room in a lane, best first. */
export const readySteps = pgTable(
  "ready_steps",
  {
    runId: uuid("run_id").notNull(),
    step: smallint("step").notNull(),
    item: integer("item").notNull(),
    namespaceId: integer("namespace_id").notNull(),
    taskQueue: text("task_queue").notNull(),
    /** "method@fingerprint" of the callee: lanes serve sets of these. */
    callee: text("callee").notNull(),
    priority: smallint("priority").notNull(),
    readyAt: instant("ready_at").notNull(),
    /** A coordinator is about to dispatch it; after this instant another one may. */
    claimedUntil: instant("claimed_until"),
  },
  (t) => [
    primaryKey({ columns: [t.runId, t.step, t.item] }),
    // The refill reads a queue in this order.
    index("ready_steps_in_order").on(t.namespaceId, t.taskQueue, t.priority.desc(), t.readyAt),
  ],
);

/** Attempts that a live session is known to run (design: bound). Rows exist only for attempts that outlive a beat. */
export const bindings = pgTable(
  "bindings",
  {
    runId: uuid("run_id").notNull(),
    step: smallint("step").notNull(),
    item: integer("item").notNull(),
    stepId: text("step_id").notNull(),
    attempt: integer("attempt").notNull(),
    lease: text("lease").notNull(),
    sessionId: text("session_id").notNull(),
    startedAt: instant("started_at").notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.runId, t.step, t.item] }),
    // A lapsed session's attempts.
    index("bindings_by_session").on(t.sessionId),
  ],
);

/** Items of fan-out steps that are open and not over. */
export const stepItems = pgTable(
  "step_items",
  {
    runId: uuid("run_id").notNull(),
    step: smallint("step").notNull(),
    item: integer("item").notNull(),
    /** The engine's state of the item (run-codec.ts), as JSON. */
    state: text("state").notNull(),
    /** Its input, an encoded taskmesh.v1.Payload. */
    input: bytea("input"),
  },
  (t) => [primaryKey({ columns: [t.runId, t.step, t.item] })],
);

/** What handlers reported last, a row per step (or item) that ever reported: shown while its attempt runs, and where the next one goes on. */
export const attemptReports = pgTable(
  "attempt_reports",
  {
    runId: uuid("run_id").notNull(),
    stepId: text("step_id").notNull(),
    item: integer("item").notNull(),
    attempt: integer("attempt").notNull(),
    percent: real("percent").notNull(),
    message: text("message").notNull(),
    /** An encoded google.protobuf.Any; null: none was reported. Kept over the attempts that report none. */
    checkpoint: bytea("checkpoint"),
    at: instant("at").notNull(),
  },
  (t) => [primaryKey({ columns: [t.runId, t.stepId, t.item] })],
);

/** Commits whose effects are not confirmed yet. When a coordinator lapses, another one derives the effects of these runs again. */
export const effectBatches = pgTable(
  "effect_batches",
  {
    coordinatorId: text("coordinator_id").notNull(),
    no: bigint("no", { mode: "number" }).notNull(),
    runIds: uuid("run_ids").array().notNull(),
  },
  (t) => [primaryKey({ columns: [t.coordinatorId, t.no] })],
);

export const idempotencyKeys = pgTable(
  "idempotency_keys",
  {
    namespaceId: integer("namespace_id").notNull(),
    key: text("key").notNull(),
    /** SHA-256 over method and input. */
    requestHash: bytea("request_hash").notNull(),
    runId: uuid("run_id").notNull(),
    expiresAt: instant("expires_at").notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.namespaceId, t.key] }),
    // Retention deletes by it.
    index("idempotency_keys_by_expiry").on(t.expiresAt),
  ],
);

export const attemptLogs = pgTable(
  "attempt_logs",
  {
    runId: uuid("run_id").notNull(),
    step: smallint("step").notNull(),
    item: integer("item").notNull(),
    attempt: integer("attempt").notNull(),
    /** An encoded taskmesh.v1.AttemptLogs. */
    lines: bytea("lines").notNull(),
  },
  (t) => [primaryKey({ columns: [t.runId, t.step, t.item, t.attempt] })],
);

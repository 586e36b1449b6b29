/**
 * Every instrument of the mesh, by the role of the processes that show it. docs/metrics.md is made of these tables.
 *
 * Names follow Prometheus: base units, in the name; the exporter adds `_total` to counters. Where OpenTelemetry has conventions (HTTP servers,
 * processes, Node), names and labels are theirs with dots as underscores.
 */
import { Counter, Gauge, Histogram, type Label } from "./metric-values.js";

const named = (name: string, doc: string): Label => ({ name, doc });
const listed = (name: string, doc: string, ...values: string[]): Label => ({ name, doc, values });

const chain = named("chain", "Full name of the chain; empty: a run of a lone action.");
const runAction = named("action", "Full name of the action, of runs of a lone one; empty: a run of a chain.");
const action = named("action", "Full name of what the step calls; empty: it waits and calls nothing.");
const queue = named("queue", "Name of the task queue.");
const tenant = named("taskmesh_namespace", "Namespace of the mesh.");
const runStatus = listed("status", "How the run ended.", "succeeded", "failed", "cancelled", "expired");
const liveStatus = listed("status", "Status of the run.", "running", "paused", "broken");
const stepEnds = ["succeeded", "failed", "expired", "cancelled", "skipped"];
const stepStatus = listed("status", "How the step ended.", ...stepEnds);
const itemStatus = listed("status", "How the item ended.", "succeeded", "failed");
const outcome = listed("outcome", "How the attempt ended.", "succeeded", "failed", "timed_out", "lost", "cancelled");
const slotState = listed("state", "Whether an attempt holds the slot.", "free", "busy");
const transport = listed("transport", "How work reaches the worker.", "jetstream", "relay", "memory");
const stale = listed(
  "why",
  "Why the completion changed nothing.",
  ...["unknown-run", "run-ended", "unknown-step", "stale-lease", "duplicate", "cancelling", "none"],
);
const publishOutcome = listed("outcome", "What the carrier made of the message.", "stored", "unknown", "refused");
const link = listed("state", "Whether the connection is up.", "up", "down");
const stream = listed("stream", "JetStream stream.", "TASKMESH_START", "TASKMESH_DONE");

const callStatus = listed(
  "rpc_response_status_code",
  "Status that the call ended with.",
  ...["OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"],
  ...["PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"],
  ...["INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"],
);

/** Seconds, from half a millisecond to a minute. */
const seconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
/** Likewise for what may take an hour. */
const longSeconds = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600];
/** Likewise for what may take weeks. */
const runSeconds = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1_800, 3_600, 21_600, 86_400, 604_800];
/** Counts of things in a batch. */
const counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];

/** What coordinators count of their own work. Sums over coordinators are the mesh's. */
const work = {
  runsStarted: new Counter("taskmesh_runs_started", "Runs accepted.", [chain, runAction]),
  runsEnded: new Counter("taskmesh_runs_ended", "Runs that reached a final status.", [runStatus, chain, runAction]),
  runSeconds: new Histogram(
    "taskmesh_run_seconds",
    "Time from acceptance to end of a run.",
    [chain, runAction],
    runSeconds,
  ),
  stepsEnded: new Counter("taskmesh_steps_ended", "Steps that reached a final status.", [
    ...[stepStatus, action, chain, queue],
  ]),
  itemsEnded: new Counter("taskmesh_items_ended", "Items of fan-out steps that ended.", [
    ...[itemStatus, action, chain, queue],
  ]),
  attempts: new Counter("taskmesh_attempts", "Attempts dispatched to workers.", [action, chain, queue]),
  retries: new Counter(
    "taskmesh_retries",
    "Attempts after the first of their step: after a failure, a time-out, or a loss.",
    [action, chain, queue],
  ),
  attemptsEnded: new Counter(
    "taskmesh_attempts_ended",
    "Attempts that ended; `lost` are lost leases: the worker went silent, or the start had to be given again.",
    [outcome, action, chain, queue],
  ),
  scheduleToStart: new Histogram(
    "taskmesh_schedule_to_start_seconds",
    "Time from when an attempt could run to the start of its handler; for attempts that no beat listed it includes the way back of the completion.",
    [action, queue],
    longSeconds,
  ),
  execution: new Histogram("taskmesh_execution_seconds", "Time that handlers ran.", [action, queue], longSeconds),
  completionsLate: new Counter(
    "taskmesh_completions_late",
    "Completions that came after their attempt was superseded or its step had ended, and are on record.",
    [],
  ),
  completionsStale: new Counter("taskmesh_completions_stale", "Completions that changed nothing.", [stale]),
  messagesUndecodable: new Counter("taskmesh_messages_undecodable", "Messages that were no valid message.", []),
};

/** What coordinators count of their pipeline. */
const pipeline = {
  batchSize: new Histogram("taskmesh_batch_size", "Events committed in one transaction.", [], counts),
  commitSeconds: new Histogram("taskmesh_commit_seconds", "Time of one commit of the pipeline.", [], seconds),
  commitsFailed: new Counter("taskmesh_commits_failed", "Commits that the database refused or did not answer.", [
    listed("why", "What became of it.", "unavailable", "conflict", "refused"),
  ]),
  conflicts: new Counter("taskmesh_conflicts", "Runs whose compare-and-set another coordinator had won.", []),
  pipelineDepth: new Gauge("taskmesh_pipeline_depth", "Events that wait for a batch of the pipeline.", []),
  cachedRuns: new Gauge("taskmesh_cached_runs", "Runs that the coordinator holds in memory.", []),
  dispatchedSteps: new Gauge(
    "taskmesh_dispatched_steps",
    "Attempts that this coordinator has dispatched and that are not over.",
    [],
  ),
  callSeconds: new Histogram(
    "rpc_server_call_duration_seconds",
    "Time of gRPC calls with one answer; those that wait for a run include the wait.",
    [named("rpc_method", "Full name of the method."), callStatus],
    seconds,
  ),
  sessions: new Gauge("taskmesh_sessions", "Worker sessions that this coordinator holds.", []),
  beats: new Counter("taskmesh_beats", "Beats taken from workers.", []),
  sessionsLapsed: new Counter("taskmesh_sessions_lapsed", "Sessions ended because their worker went silent.", []),
};

/** What one query reads of the whole mesh: every coordinator shows the same, so take the maximum, not the sum. */
const mesh = {
  liveRuns: new Gauge("taskmesh_live_runs", "Runs of the whole mesh that have not ended, counted up to 20,000.", [
    liveStatus,
  ]),
  readySteps: new Gauge(
    "taskmesh_ready_steps",
    "Steps of the whole mesh that wait in the ready queue for room at a worker, counted up to 100,000 over all queues.",
    [tenant, queue],
  ),
  oldestReady: new Gauge(
    "taskmesh_oldest_ready_seconds",
    "How long the oldest of the steps that `taskmesh_ready_steps` counts has been waiting.",
    [tenant, queue],
  ),
  sweeperLag: new Gauge(
    "taskmesh_sweeper_lag_seconds",
    "How long the oldest due wake-up of the mesh has been waiting.",
    [],
  ),
  effectBatches: new Gauge(
    "taskmesh_effect_batches",
    "Commits of the whole mesh whose effects are not confirmed yet, counted up to 100,000.",
    [],
  ),
  coordinators: new Gauge("taskmesh_coordinators", "Coordinators that beat.", []),
  workers: new Gauge("taskmesh_workers", "Live worker sessions of the whole mesh.", [transport]),
  slots: new Gauge("taskmesh_slots", "Slots of the live workers of the whole mesh.", [slotState, tenant, queue]),
  figuresSeconds: new Gauge("taskmesh_figures_seconds", "Time of the query behind the figures of the whole mesh.", []),
};

/** The servers as coordinators see them. */
const servers = {
  databaseUp: new Gauge("taskmesh_database_up", "Whether the database answered when it was asked last.", []),
  databasePing: new Histogram("taskmesh_database_ping_seconds", "Time of the shortest question.", [], seconds),
  databaseConnections: new Gauge("taskmesh_database_connections", "Connections to the database.", []),
  databaseConnectionsMax: new Gauge("taskmesh_database_connections_max", "Connections that Postgres takes.", []),
  databaseSize: new Gauge("taskmesh_database_size_bytes", "Size of the database on disk.", []),
  databaseTransaction: new Gauge(
    "taskmesh_database_oldest_transaction_seconds",
    "Age of the oldest open transaction that the mesh's user may see.",
    [],
  ),
  databaseCommits: new Counter("taskmesh_database_commits", "Transactions committed in the database, by whomever.", []),
  databaseRollbacks: new Counter("taskmesh_database_rollbacks", "Transactions rolled back in the database.", []),
  databaseDeadlocks: new Counter("taskmesh_database_deadlocks", "Deadlocks that Postgres has ended.", []),
  streamMessages: new Gauge("taskmesh_stream_messages", "Messages in a JetStream stream.", [stream]),
  streamBytes: new Gauge("taskmesh_stream_bytes", "Bytes in a JetStream stream.", [stream]),
  streamConsumers: new Gauge("taskmesh_stream_consumers", "Consumers of a JetStream stream.", [stream]),
  carrierUp: new Gauge("taskmesh_carrier_up", "Whether starts and completions can be carried now.", []),
  carrierWipes: new Counter("taskmesh_carrier_wipes", "Losses of messages that the carrier has told.", []),
  starts: new Counter("taskmesh_starts", "Starts handed to the carrier.", [publishOutcome]),
};

/** What every process with a connection to NATS counts: coordinators, and workers on JetStream. */
const nats = {
  natsLinks: new Gauge("taskmesh_nats_connections", "Connections of this process to NATS.", [link]),
  natsDisconnects: new Counter("taskmesh_nats_disconnects", "Connections to NATS that were lost.", []),
  publishSeconds: new Histogram(
    "taskmesh_publish_seconds",
    "Time from the publish of a message to JetStream to its confirmation.",
    [],
    seconds,
  ),
  publishes: new Counter("taskmesh_publishes", "Messages published to JetStream.", [publishOutcome]),
  resent: new Counter("taskmesh_publishes_resent", "Messages sent to JetStream more than once.", []),
};

const worker = {
  workerAttempts: new Counter("taskmesh_worker_attempts", "Attempts that this worker has run.", [
    listed("outcome", "What the worker reported; `dropped`: nothing.", "succeeded", "failed", "cancelled", "dropped"),
    action,
  ]),
  workerSeconds: new Histogram(
    "taskmesh_worker_attempt_seconds",
    "Time from the start of a handler to its report.",
    [action],
    longSeconds,
  ),
  workerSlots: new Gauge("taskmesh_worker_slots", "Slots of this worker.", [slotState, queue]),
  workerInFlight: new Gauge(
    "taskmesh_worker_attempts_in_flight",
    "Attempts that run or whose completion is not stored yet.",
    [],
  ),
  workerConnected: new Gauge("taskmesh_worker_connected", "Workers of this process that have a session.", []),
  workerBeats: new Counter("taskmesh_worker_beats", "Beats sent.", []),
  workerBeatSeconds: new Histogram("taskmesh_worker_beat_seconds", "Time from a beat to its answer.", [], seconds),
};

const gateway = {
  requestSeconds: new Histogram(
    "http_server_request_duration_seconds",
    "Time of HTTP requests.",
    [
      named("http_request_method", "The request's method."),
      named("http_route", "The route that took it; `unknown`: none did."),
      named("http_response_status_code", "The answer's status."),
    ],
    seconds,
  ),
};

/** What every process says of itself. */
const everywhere = {
  loopDelayP50: new Gauge(
    "nodejs_eventloop_delay_p50_seconds",
    "Median delay of the event loop since the last look.",
    [],
  ),
  loopDelayP99: new Gauge("nodejs_eventloop_delay_p99_seconds", "The 99th percentile of the same.", []),
  loopDelayMax: new Gauge("nodejs_eventloop_delay_max_seconds", "Longest of the same.", []),
  memory: new Gauge("process_memory_usage_bytes", "Resident memory of the process.", []),
  heap: new Gauge("v8js_memory_heap_used_bytes", "JavaScript objects of the process.", []),
  cpu: new Counter("process_cpu_time_seconds", "Processor time that the process has used.", [
    listed("cpu_mode", "Who used it.", "user", "system"),
  ]),
  uptime: new Gauge("process_uptime_seconds", "Time since the process started.", []),
};

/** The instruments by the part of a process that shows them; a process shows those of all its parts. */
export const metricTables = {
  coordinator: { ...work, ...pipeline, ...mesh, ...servers, ...nats },
  worker: { ...worker, ...nats },
  gateway,
  process: everywhere,
} as const;

/** Parts of a process that have instruments. */
export type MetricsRole = keyof typeof metricTables;

/** All instruments. Label values are given in the order of their labels. */
export const metrics = { ...metricTables.coordinator, ...worker, ...gateway, ...everywhere } as const;

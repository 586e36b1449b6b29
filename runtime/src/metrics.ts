/**
 * Metrics in Prometheus' format.
 *
 * Counting is an addition to a plain number: the OpenTelemetry SDK, which makes the text, reads the numbers when it is asked for them.
 * Durations and sizes are sums in fixed buckets, kept the same way. The SDK is loaded by `startMetrics`; without it counting still
 * works and costs the same next to nothing.
 *
 * Every instrument is in the one table below. Names follow Prometheus: base units, in the name, `_total` added to counters by the
 * exporter. Labels have few values by nature; a metric keeps at most `seriesMax` series and counts the rest under "other".
 */
import { Counter, Gauge, Histogram } from "./metric-values.js";

/** Seconds, from half a millisecond to a minute. */
const seconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
/** Counts of things in a batch. */
const counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048];

/** The instruments of the mesh. Label values are given in the order of the names. */
export const metrics = {
  runsStarted: new Counter("taskmesh_runs_started", "Runs accepted.", []),
  runsEnded: new Counter("taskmesh_runs_ended", "Runs that reached a final status.", ["status"]),
  stepsEnded: new Counter("taskmesh_steps_ended", "Steps that reached a final status.", ["status", "method"]),
  attempts: new Counter("taskmesh_attempts", "Attempts dispatched to workers.", ["method"]),
  retries: new Counter("taskmesh_retries", "Attempts that followed a failed, timed out or lost one.", ["method"]),
  completionsLate: new Counter(
    "taskmesh_completions_late",
    "Completions that came after their attempt was superseded or its step had ended.",
    [],
  ),
  eventsStale: new Counter("taskmesh_events_stale", "Events that changed nothing when they were applied.", ["kind"]),
  messagesUndecodable: new Counter("taskmesh_messages_undecodable", "Messages that were no valid message.", ["border"]),
  conflicts: new Counter("taskmesh_conflicts", "Runs whose compare-and-set another coordinator had won.", []),
  batchSize: new Histogram("taskmesh_batch_size", "Events committed in one transaction.", [], counts),
  commitSeconds: new Histogram("taskmesh_commit_seconds", "Time of one commit of the pipeline.", [], seconds),
  attemptSeconds: new Histogram("taskmesh_attempt_seconds", "Time that handlers ran.", ["method"], seconds),
  runSeconds: new Histogram("taskmesh_run_seconds", "Time from acceptance to end of a run.", ["status"], seconds),
  queueDepth: new Gauge("taskmesh_queue_depth", "Events that wait for a batch of the pipeline.", []),
  readySteps: new Gauge(
    "taskmesh_ready_steps",
    "Steps of the whole mesh that wait in the ready queue, at most 100,000.",
    [],
  ),
  dispatchedSteps: new Gauge(
    "taskmesh_dispatched_steps",
    "Steps that this coordinator has dispatched and that are not over.",
    [],
  ),
  sweeperLagSeconds: new Gauge(
    "taskmesh_sweeper_lag_seconds",
    "How long the oldest due wake-up of the mesh has been waiting.",
    [],
  ),
  workers: new Gauge("taskmesh_workers", "Live worker sessions of the whole mesh.", ["transport"]),
  slots: new Gauge("taskmesh_slots", "Slots of the live workers of the whole mesh, by whether they are free.", [
    "state",
  ]),
  requests: new Counter("taskmesh_http_requests", "HTTP requests answered by the gateway.", ["method", "status"]),
  requestSeconds: new Histogram("taskmesh_http_request_seconds", "Time of HTTP requests.", ["method"], seconds),
} as const;

/** Serves the numbers; undefined while metrics are not started. */
export interface MetricsExport {
  readonly contentType: string;
  /** The present numbers in Prometheus' text format. */
  render(): Promise<string>;
  /** Safe to repeat. */
  stop(): Promise<void>;
}

let started: Promise<MetricsExport> | undefined;
let users = 0;

/**
 * Loads what makes the text and starts to measure the process itself. Several parts of a process may start it; they share one, which
 * ends with the last `stop`.
 */
export async function startMetrics(): Promise<MetricsExport> {
  users += 1;
  started ??= import("./metrics-export.js").then(({ createExport }) => createExport(Object.values(metrics)));
  const shared = await started;
  let stopped = false;
  return {
    contentType: shared.contentType,
    render: () => shared.render(),
    async stop() {
      if (stopped) return;
      stopped = true;
      users -= 1;
      if (users > 0) return;
      started = undefined;
      await shared.stop();
    },
  };
}

// Makes dashboards/*.json of the tables below: node deploy/grafana/generate.mjs. A test holds the files equal to what this makes, every query
// to the metrics that exist, and every panel to what Grafana takes.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { choice, dashboard, datasource, lines, number, quantile, quantiles, rate, table, tempo } from "./panels.mjs";

const overview = dashboard("overview", "Overview", "Whether the mesh does its work, at a glance.", [
  number("Coordinators", "That beat.", "none", "max(taskmesh_coordinators)", { bad: 1, below: true }),
  number("Workers", "Live sessions.", "none", "sum(max by (transport) (taskmesh_workers))", { bad: 1, below: true }),
  number("Live runs", "Not ended, counted up to 20,000.", "short", "sum(max by (status) (taskmesh_live_runs))"),
  number(
    "Waiting steps",
    "In the ready queue.",
    "short",
    "sum(max by (taskmesh_namespace, queue) (taskmesh_ready_steps))",
    { bad: 1000 },
  ),
  number("Database", "Answers every coordinator.", "bool_yes_no", "min(taskmesh_database_up)", { bad: 1, below: true }),
  number("Carrier", "NATS is reached by every coordinator.", "bool_yes_no", "min(taskmesh_carrier_up)", {
    bad: 1,
    below: true,
  }),
  lines("Runs that end", "By how.", "ops", [[rate("taskmesh_runs_ended_total", "status"), "{{status}}"]], {
    stacked: true,
  }),
  lines("Time of runs", "From acceptance to end.", "s", quantiles("taskmesh_run_seconds")),
  lines("Steps that end", "By how.", "ops", [[rate("taskmesh_steps_ended_total", "status"), "{{status}}"]], {
    stacked: true,
  }),
  lines(
    "Attempts that end",
    "By how: everything but succeeded is tried again, up to the step's policy.",
    "ops",
    [[rate("taskmesh_attempts_ended_total", "outcome"), "{{outcome}}"]],
    { stacked: true },
  ),
  lines("Waiting steps by queue", "For room at a worker.", "short", [
    ["max by (queue) (taskmesh_ready_steps)", "{{queue}}"],
  ]),
  lines(
    "REST requests",
    "By status.",
    "reqps",
    [
      [
        rate("http_server_request_duration_seconds_count", "http_response_status_code"),
        "{{http_response_status_code}}",
      ],
    ],
    { stacked: true },
  ),
]);

const ofAction = '{action=~"$action"}';
const actions = dashboard(
  "actions",
  "Actions and chains",
  "How each action does, and the chains that call it.",
  [
    lines("Attempts", "Dispatched.", "ops", [[rate(`taskmesh_attempts_total${ofAction}`, "action"), "{{action}}"]]),
    lines("Retries", "Attempts after the first of their step.", "ops", [
      [rate(`taskmesh_retries_total${ofAction}`, "action"), "{{action}}"],
    ]),
    lines("Time of handlers", "95th percentile.", "s", [
      [quantile(0.95, "taskmesh_execution_seconds", "action", ofAction), "{{action}}"],
    ]),
    lines("Wait for a start", "95th percentile, from when an attempt could run to its handler's start.", "s", [
      [quantile(0.95, "taskmesh_schedule_to_start_seconds", "action", ofAction), "{{action}}"],
    ]),
    lines("Attempts that fail", "Share of those that end.", "percentunit", [
      [
        `sum by (action) (rate(taskmesh_attempts_ended_total{action=~"$action",outcome=~"failed|timed_out|lost"}[$__rate_interval])) / ${rate(`taskmesh_attempts_ended_total${ofAction}`, "action")}`,
        "{{action}}",
      ],
    ]),
    lines("Items of fan-outs", "That end.", "ops", [
      [rate(`taskmesh_items_ended_total${ofAction}`, "action, status"), "{{action}} {{status}}"],
    ]),
    table(
      "Actions",
      "Over the last quarter of an hour.",
      [
        [`sum by (action, queue) (increase(taskmesh_attempts_total${ofAction}[15m]))`, "Attempts", "short"],
        [`sum by (action, queue) (increase(taskmesh_retries_total${ofAction}[15m]))`, "Retries", "short"],
        [
          `sum by (action, queue) (rate(taskmesh_execution_seconds_sum${ofAction}[15m])) / sum by (action, queue) (rate(taskmesh_execution_seconds_count${ofAction}[15m]))`,
          "Mean time",
          "s",
        ],
      ],
      ["action", "queue"],
    ),
    table(
      "Chains",
      "Runs over the last quarter of an hour.",
      [
        ['sum by (chain) (increase(taskmesh_runs_started_total{chain!=""}[15m]))', "Started", "short"],
        [
          'sum by (chain) (increase(taskmesh_runs_ended_total{chain!="",status="succeeded"}[15m]))',
          "Succeeded",
          "short",
        ],
        [
          'sum by (chain) (increase(taskmesh_runs_ended_total{chain!="",status=~"failed|expired"}[15m]))',
          "Failed",
          "short",
        ],
      ],
      ["chain"],
    ),
  ],
  [choice("action", "Action", "taskmesh_attempts_total")],
);

const ofQueue = '{queue=~"$queue"}';
const queues = dashboard(
  "queues",
  "Queues and workers",
  "What waits, for how long, and who could take it.",
  [
    lines("Waiting steps", "In the ready queue.", "short", [
      [`max by (queue) (taskmesh_ready_steps${ofQueue})`, "{{queue}}"],
    ]),
    lines("Oldest waiting step", "How long it has been waiting.", "s", [
      [`max by (queue) (taskmesh_oldest_ready_seconds${ofQueue})`, "{{queue}}"],
    ]),
    lines(
      "Slots",
      "Of all live workers.",
      "short",
      [[`max by (queue, state) (taskmesh_slots${ofQueue})`, "{{queue}} {{state}}"]],
      { stacked: true },
    ),
    lines(
      "Wait for a start",
      "From when an attempt could run to its handler's start.",
      "s",
      quantiles("taskmesh_schedule_to_start_seconds", ofQueue),
    ),
    lines("Attempts", "Dispatched.", "ops", [[rate(`taskmesh_attempts_total${ofQueue}`, "queue"), "{{queue}}"]]),
    lines("Lost attempts", "Whose worker went silent, or whose start had to be given again.", "ops", [
      [rate('taskmesh_attempts_ended_total{outcome="lost",queue=~"$queue"}', "queue"), "{{queue}}"],
    ]),
    lines(
      "Workers",
      "Live sessions, by how work reaches them.",
      "short",
      [["max by (transport) (taskmesh_workers)", "{{transport}}"]],
      { stacked: true },
    ),
    lines("Sessions that lapsed", "Ended because the worker went silent.", "ops", [
      ["sum(rate(taskmesh_sessions_lapsed_total[$__rate_interval]))", "lapsed"],
    ]),
    lines("Beats", "Taken by coordinators, and sent by the workers that are scraped.", "ops", [
      ["sum(rate(taskmesh_beats_total[$__rate_interval]))", "taken"],
      ["sum(rate(taskmesh_worker_beats_total[$__rate_interval]))", "sent"],
    ]),
    lines("Answers to beats", "As workers wait for them.", "s", quantiles("taskmesh_worker_beat_seconds")),
    lines("Attempts in workers", "That run, or whose result is not stored yet.", "short", [
      ["sum by (instance) (taskmesh_worker_attempts_in_flight)", "{{instance}}"],
    ]),
    lines(
      "Outcomes in workers",
      "As workers reported them.",
      "ops",
      [[rate("taskmesh_worker_attempts_total", "outcome"), "{{outcome}}"]],
      { stacked: true },
    ),
    lines(
      "Time in workers",
      "From the start of a handler to its report.",
      "s",
      quantiles("taskmesh_worker_attempt_seconds"),
    ),
    lines("Slots in workers", "Of those that are scraped, and how many of these have a session.", "short", [
      ["sum by (state) (taskmesh_worker_slots)", "slots {{state}}"],
      ["sum(taskmesh_worker_connected)", "workers with a session"],
    ]),
  ],
  [choice("queue", "Queue", "taskmesh_slots")],
);

const coordinator = dashboard(
  "coordinator",
  "Coordinators",
  "The inside of coordinators: pipeline, commits, event loop.",
  [
    lines("Events that wait", "For a batch. At 20,000 callers are refused.", "short", [
      ["taskmesh_pipeline_depth", "{{instance}}"],
    ]),
    lines("Time of commits", "One statement each.", "s", quantiles("taskmesh_commit_seconds")),
    lines("Commits", "And the events in each, in the mean.", "short", [
      ["sum(rate(taskmesh_commit_seconds_count[$__rate_interval]))", "commits/s"],
      [
        "sum(rate(taskmesh_batch_size_sum[$__rate_interval])) / sum(rate(taskmesh_batch_size_count[$__rate_interval]))",
        "events a commit",
      ],
    ]),
    lines("Commits that fail", "By why.", "ops", [
      [rate("taskmesh_commits_failed_total", "why"), "{{why}}"],
      ["sum(rate(taskmesh_conflicts_total[$__rate_interval]))", "runs lost to another coordinator"],
    ]),
    lines("gRPC calls", "With one answer, by status.", "reqps", [
      [rate("rpc_server_call_duration_seconds_count", "rpc_response_status_code"), "{{rpc_response_status_code}}"],
    ]),
    lines("Time of gRPC calls", "95th percentile, by method; those that wait for a run include the wait.", "s", [
      [quantile(0.95, "rpc_server_call_duration_seconds", "rpc_method"), "{{rpc_method}}"],
    ]),
    lines("Sweeper lag", "How long the oldest due wake-up waits.", "s", [["max(taskmesh_sweeper_lag_seconds)", "lag"]]),
    lines(
      "Attempts under way",
      "By the coordinator that dispatched them.",
      "short",
      [["taskmesh_dispatched_steps", "{{instance}}"]],
      { stacked: true },
    ),
    lines("Effects not confirmed", "Commits whose starts and answers may still have to be sent again.", "short", [
      ["max(taskmesh_effect_batches)", "commits"],
    ]),
    lines("Late and stale completions", "What workers reported and nothing came of.", "ops", [
      ["sum(rate(taskmesh_completions_late_total[$__rate_interval]))", "late"],
      [rate("taskmesh_completions_stale_total", "why"), "{{why}}"],
      ["sum(rate(taskmesh_messages_undecodable_total[$__rate_interval]))", "undecodable"],
    ]),
    lines("Event loop delay", "Between looks.", "s", [
      ["max by (job) (nodejs_eventloop_delay_p50_seconds)", "p50 {{job}}"],
      ["max by (job) (nodejs_eventloop_delay_p99_seconds)", "p99 {{job}}"],
      ["max by (job) (nodejs_eventloop_delay_max_seconds)", "longest {{job}}"],
    ]),
    lines("Processor", "Cores.", "short", [
      ["sum by (job, instance) (rate(process_cpu_time_seconds_total[$__rate_interval]))", "{{job}} {{instance}}"],
    ]),
    lines("Memory", "Resident, and JavaScript objects in it.", "bytes", [
      ["process_memory_usage_bytes", "{{job}} {{instance}}"],
      ["v8js_memory_heap_used_bytes", "heap {{job}} {{instance}}"],
    ]),
    lines("Uptime", "A line that falls is a restart.", "s", [["process_uptime_seconds", "{{job}} {{instance}}"]]),
    lines("Runs in memory", "Of each coordinator's cache, and its sessions.", "short", [
      ["taskmesh_cached_runs", "runs {{instance}}"],
      ["taskmesh_sessions", "sessions {{instance}}"],
    ]),
  ],
);

const servers = dashboard("database-nats", "Database and NATS", "Postgres and NATS as coordinators see them.", [
  number("Database", "Answers every coordinator.", "bool_yes_no", "min(taskmesh_database_up)", { bad: 1, below: true }),
  number("Size", "On disk.", "bytes", "max(taskmesh_database_size_bytes)"),
  number("Oldest transaction", "Open now.", "s", "max(taskmesh_database_oldest_transaction_seconds)", { bad: 900 }),
  number("Carrier", "NATS is reached by every coordinator.", "bool_yes_no", "min(taskmesh_carrier_up)", {
    bad: 1,
    below: true,
  }),
  number(
    "Wipes",
    "Losses of messages in the last day. The mesh has sent them again.",
    "short",
    "sum(increase(taskmesh_carrier_wipes_total[1d]))",
    { bad: 1 },
  ),
  number(
    "Starts in the stream",
    "Near zero: backlogs wait in Postgres.",
    "short",
    'max(taskmesh_stream_messages{stream="TASKMESH_START"})',
    { bad: 10000 },
  ),
  lines("Answer of the database", "To the shortest question.", "s", quantiles("taskmesh_database_ping_seconds")),
  lines("Connections", "To the database, and what Postgres takes.", "short", [
    ["max(taskmesh_database_connections)", "open"],
    ["max(taskmesh_database_connections_max)", "at most"],
  ]),
  lines("Transactions", "In the database, by whomever.", "ops", [
    ["max(rate(taskmesh_database_commits_total[$__rate_interval]))", "committed"],
    ["max(rate(taskmesh_database_rollbacks_total[$__rate_interval]))", "rolled back"],
    ["max(rate(taskmesh_database_deadlocks_total[$__rate_interval]))", "deadlocks"],
  ]),
  lines("Query of the figures", "Behind the gauges of the whole mesh.", "s", [
    ["taskmesh_figures_seconds", "{{instance}}"],
  ]),
  lines("Confirmations by JetStream", "Of published messages.", "s", quantiles("taskmesh_publish_seconds")),
  lines("Publishes", "By outcome, and those sent again.", "ops", [
    [rate("taskmesh_publishes_total", "outcome"), "{{outcome}}"],
    ["sum(rate(taskmesh_publishes_resent_total[$__rate_interval]))", "sent again"],
  ]),
  lines("Starts", "Handed to the carrier; many share a message.", "ops", [
    [rate("taskmesh_starts_total", "outcome"), "{{outcome}}"],
  ]),
  lines("Messages in streams", "", "short", [["max by (stream) (taskmesh_stream_messages)", "{{stream}}"]]),
  lines("Consumers of streams", "One for each lane, and one for each coordinator.", "short", [
    ["max by (stream) (taskmesh_stream_consumers)", "{{stream}}"],
  ]),
  lines("Bytes in streams", "", "bytes", [["max by (stream) (taskmesh_stream_bytes)", "{{stream}}"]]),
  lines("Connections to NATS", "That are up or down, and how often one was lost.", "short", [
    ["sum by (state) (taskmesh_nats_connections)", "{{state}}"],
    ["sum(increase(taskmesh_nats_disconnects_total[$__rate_interval]))", "lost"],
  ]),
]);

/** Every span of a run has it. */
const search = '{ span.taskmesh.run.id = "$run" }';
const spanTable = (title, description, y, query, tableType) => ({
  title,
  type: "table",
  description,
  datasource: tempo,
  gridPos: { x: 0, y, w: 24, h: 10 },
  fieldConfig: { defaults: {}, overrides: [] },
  options: { showHeader: true, cellHeight: "sm" },
  targets: [{ refId: "A", datasource: tempo, queryType: "traceql", query, limit: 100, tableType }],
});

/** From a run id to its trace: the id is a variable, which a link may set (?var-run=…); a click on the trace id opens the trace. */
const trace = {
  ...dashboard(
    "run-trace",
    "A run's trace",
    "The trace of a run by its id, found by the attribute taskmesh.run.id that every span of a run has.",
  ),
  refresh: "",
  time: { from: "now-7d", to: "now" },
  templating: {
    list: [
      datasource("traces", "Tempo", "tempo"),
      { name: "run", label: "Run id", type: "textbox", query: "", current: { text: "", value: "" }, hide: 0 },
    ],
  },
  panels: [
    { id: 1, ...spanTable("Traces of run $run", "A click on the trace id opens it.", 0, search, "traces") },
    {
      id: 2,
      ...spanTable(
        "Spans of run $run",
        "Each attempt with its start, length and outcome.",
        10,
        `${search} | select(span.taskmesh.step.id, span.taskmesh.item, span.taskmesh.attempt, status)`,
        "spans",
      ),
    },
  ],
};

/** By file name. */
export const dashboards = { overview, actions, queues, "run-trace": trace, coordinator, "database-nats": servers };

/** A dashboard as it is stored. */
export const textOf = (made) => `${JSON.stringify(made, null, 2)}\n`;

if (process.argv[1] === import.meta.filename) {
  for (const [name, made] of Object.entries(dashboards)) {
    writeFileSync(join(import.meta.dirname, "dashboards", `${name}.json`), textOf(made));
  }
}

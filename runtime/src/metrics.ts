/**
 * Metrics in Prometheus' format.
 *
 * Counting is an addition to a plain number: the OpenTelemetry SDK, which makes the text, reads the numbers when it is asked for them.
 * Durations and sizes are sums in fixed buckets, kept the same way. The SDK is loaded by `startMetrics`; without it counting still
 * works and costs the same next to nothing. The instruments are in metric-table.ts.
 */
import { type MetricsRole, metricTables } from "./metric-table.js";

export { type MetricsRole, metrics, metricTables } from "./metric-table.js";

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
const roles = new Map<MetricsRole, number>([["process", 1]]);

/** Says that this process has such a part, whose instruments are then shown. Returns how to take that back. */
export function declareMetrics(role: MetricsRole): () => void {
  roles.set(role, (roles.get(role) ?? 0) + 1);
  let over = false;
  return () => {
    if (over) return;
    over = true;
    roles.set(role, roles.get(role)! - 1);
  };
}

const shown = () =>
  new Set([...roles].flatMap(([role, parts]) => (parts > 0 ? Object.values(metricTables[role]) : [])));

/**
 * Loads what makes the text and starts to measure the process itself. Several parts of a process may start it; they share one, which
 * ends with the last `stop`.
 */
export async function startMetrics(): Promise<MetricsExport> {
  users += 1;
  started ??= import("./metrics-export.js").then(({ createExport }) => createExport(shown));
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

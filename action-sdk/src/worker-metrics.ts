/** What a worker counts of its attempts, and where it shows it if it is asked to. */
import type { FreeSlots } from "@taskmesh/proto";
import { createMetricsServer, declareMetrics, metrics } from "@taskmesh/runtime";
import type { Attempt, FinalOutcome } from "./attempt-record.js";
import type { WorkerConfig } from "./options.js";

/** The part of a worker that metrics show. */
export interface ShownWorker {
  readonly inFlight: number;
  readonly address: string | undefined;
  readonly freeSlots: readonly FreeSlots[];
}

type Cell = ReturnType<typeof metrics.workerAttempts.at>;

/** The series of one action. */
interface ActionMeters {
  seconds: ReturnType<typeof metrics.workerSeconds.at>;
  ended: Partial<Record<string, Cell>>;
}

/** Names of actions that a worker serves are few; a start of another one is counted like those. */
const metersOf = new Map<string, ActionMeters>();
const actionsMax = 1_000;

const words: Record<FinalOutcome["kind"] | "dropped", string> = {
  output: "succeeded",
  stored: "succeeded",
  failure: "failed",
  cancelled: "cancelled",
  dropped: "dropped",
};

/** Counts an attempt at its end. */
export function countAttempt({ start, context }: Attempt, outcome: FinalOutcome["kind"] | "dropped"): void {
  const { method } = start;
  let meters = metersOf.get(method);
  if (!meters) {
    if (metersOf.size >= actionsMax) metersOf.clear();
    meters = { seconds: metrics.workerSeconds.at(method), ended: {} };
    metersOf.set(method, meters);
  }
  meters.ended[outcome] ??= metrics.workerAttempts.at(words[outcome], method);
  meters.ended[outcome].add();
  meters.seconds.record((performance.now() - context.startedAtMs) / 1_000);
}

const shown = new Set<() => ShownWorker | undefined>();

/** Shows a worker among the metrics of its process, and serves them if it is configured to. Returns how to end both. */
export async function showWorker(
  config: WorkerConfig,
  worker: () => ShownWorker | undefined,
): Promise<() => Promise<void>> {
  shown.add(worker);
  const undeclare = declareMetrics("worker");
  const end = metrics.workerInFlight.observe(readWorkers);
  const { token } = config.client;
  const server =
    config.metricsAddress &&
    createMetricsServer({
      address: config.metricsAddress,
      tokens: { tokens: token ? [token] : [] },
      log: config.log,
    });
  await server?.start();
  return async () => {
    shown.delete(worker);
    undeclare();
    end();
    await server?.stop();
  };
}

/** All workers of the process together. */
function readWorkers(): void {
  const workers = [...shown].flatMap((worker) => worker() ?? []);
  metrics.workerInFlight.set(workers.reduce((sum, { inFlight }) => sum + inFlight, 0));
  metrics.workerConnected.set(workers.filter(({ address }) => address !== undefined).length);
  metrics.workerSlots.replace(
    workers.flatMap(({ freeSlots }) =>
      freeSlots.flatMap(({ taskQueue, slots, free }) => [
        { value: free, labels: ["free", taskQueue] },
        { value: slots - free, labels: ["busy", taskQueue] },
      ]),
    ),
  );
}

/** What the engine room counts, as the mesh's metrics. Counting is an addition to a number, whether anybody asks for it or not. */
import { RunStatus, TransportKind } from "@taskmesh/proto";
import { type Carrier, declareMetrics, metrics } from "@taskmesh/runtime";
import { createPeriodic } from "./periodic.js";
import type { EngineMeters, EngineRoom } from "./pipeline/engine-room.js";
import type { Draft } from "./pipeline/fold.js";
import { countDraft } from "./plan-meters.js";
import type { Db } from "./store/db.js";
import { type DatabaseFigures, type Figures, readDatabaseFigures, readFigures } from "./store/figures.js";

export interface Meters extends EngineMeters {
  /** The answer of the database to the shortest question, `undefined`: none came in time. */
  asked(milliseconds: number | undefined): void;
  /** Reads the gauges of the engine room and of the whole mesh when metrics are asked for. */
  watch(parts: { engine: EngineRoom; db: Db; carrier: Pick<Carrier, "healthy"> }): void;
  unwatch(): void;
}

/** How often the figures of the whole mesh are read while anybody scrapes: often enough for an alert that waits a minute. */
const figuresEveryMs = 10_000;
/** A scraper that did not come for this long is gone. */
const figuresKeenMs = 90_000;

const sent = {
  stored: metrics.starts.at("stored"),
  unknown: metrics.starts.at("unknown"),
  refused: metrics.starts.at("refused"),
};
const batchSize = metrics.batchSize.at();
const commitSeconds = metrics.commitSeconds.at();

/** Makes them; `alsoWritten` is told of each stored draft too. */
export function createMeters(alsoWritten: (draft: Draft) => void): Meters {
  let stops: (() => void)[] = [];
  return {
    settled(settled) {
      if (settled.verdict === "changed") return;
      metrics.completionsStale.add(1, settled.verdict === "unknown-run" ? "unknown-run" : settled.why);
    },
    garbage: () => metrics.messagesUndecodable.add(1),
    conflicts: (runs) => metrics.conflicts.add(runs),
    committed({ work, commitMs }) {
      batchSize.record(work);
      commitSeconds.record(commitMs / 1_000);
    },
    commitFailed: (why) => metrics.commitsFailed.add(1, why),
    written(draft) {
      countDraft(draft);
      alsoWritten(draft);
    },
    sent: ({ kind }) => sent[kind].add(),
    wiped: () => metrics.carrierWipes.add(1),
    asked(milliseconds) {
      metrics.databaseUp.set(milliseconds === undefined ? 0 : 1);
      if (milliseconds !== undefined) metrics.databasePing.record(milliseconds / 1_000);
    },
    watch({ engine, db, carrier }) {
      const figures = createPeriodic(() => readAll(db), figuresEveryMs, figuresKeenMs);
      stops = [
        declareMetrics("coordinator"),
        figures.stop,
        metrics.readySteps.observe(() => figures.ask()),
        metrics.pipelineDepth.observe(() => metrics.pipelineDepth.set(engine.pipeline.depth)),
        metrics.cachedRuns.observe(() => metrics.cachedRuns.set(engine.pipeline.cached)),
        metrics.dispatchedSteps.observe(() => metrics.dispatchedSteps.set(engine.dispatched())),
        metrics.carrierUp.observe(() => metrics.carrierUp.set(carrier.healthy() ? 1 : 0)),
      ];
    },
    unwatch() {
      for (const stop of stops) stop();
      stops = [];
    },
  };
}

async function readAll(db: Db): Promise<void> {
  const startedAtMs = performance.now();
  showFigures(await readFigures(db));
  const database = await readDatabaseFigures(db);
  metrics.figuresSeconds.set((performance.now() - startedAtMs) / 1_000);
  if (database) showDatabase(database);
}

const transports: Record<number, string> = {
  [TransportKind.TRANSPORT_KIND_JETSTREAM]: "jetstream",
  [TransportKind.TRANSPORT_KIND_RELAY]: "relay",
  [TransportKind.TRANSPORT_KIND_MEMORY]: "memory",
};

const liveStatuses: Record<number, string> = {
  [RunStatus.RUN_STATUS_RUNNING]: "running",
  [RunStatus.RUN_STATUS_PAUSED]: "paused",
  [RunStatus.RUN_STATUS_BROKEN]: "broken",
};

function showFigures({ queues, sessions, runs, ...mesh }: Figures): void {
  metrics.sweeperLag.set(mesh.sweeperLagSeconds);
  metrics.effectBatches.set(mesh.effectBatches);
  metrics.coordinators.set(mesh.coordinators);
  for (const [kind, name] of Object.entries(transports)) {
    metrics.workers.set(sessions.find(({ transport }) => transport === Number(kind))?.count ?? 0, name);
  }
  for (const [kind, name] of Object.entries(liveStatuses)) {
    metrics.liveRuns.set(runs.find(({ status }) => status === Number(kind))?.count ?? 0, name);
  }
  const labels = (namespace: string, queue: string): string[] => [namespace, queue];
  metrics.readySteps.replace(queues.map((one) => ({ value: one.ready, labels: labels(one.namespace, one.queue) })));
  metrics.oldestReady.replace(
    queues.map((one) => ({ value: one.oldestSeconds, labels: labels(one.namespace, one.queue) })),
  );
  metrics.slots.replace(
    queues.flatMap((one) => [
      { value: one.freeSlots, labels: ["free", ...labels(one.namespace, one.queue)] },
      { value: one.slots - one.freeSlots, labels: ["busy", ...labels(one.namespace, one.queue)] },
    ]),
  );
}

function showDatabase(figures: DatabaseFigures): void {
  metrics.databaseConnections.set(figures.connections);
  metrics.databaseConnectionsMax.set(figures.connectionsMax);
  metrics.databaseSize.set(figures.sizeBytes);
  metrics.databaseTransaction.set(figures.oldestTransactionSeconds);
  metrics.databaseCommits.set(figures.commits);
  metrics.databaseRollbacks.set(figures.rollbacks);
  metrics.databaseDeadlocks.set(figures.deadlocks);
}

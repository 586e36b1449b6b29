/** What the engine room counts, as the mesh's metrics. Counting is an addition to a number, whether anybody asks for it or not. */
import { EventKind, RunStatus, TransportKind } from "@taskmesh/proto";
import { metrics } from "@taskmesh/runtime";
import type { EngineMeters, EngineRoom } from "./pipeline/engine-room.js";
import type { Draft } from "./pipeline/fold.js";
import type { Db } from "./store/db.js";
import { type Figures, readFigures } from "./store/figures.js";

export interface Meters extends EngineMeters {
  /** Reads the gauges of the engine room and of the whole mesh when metrics are asked for. */
  watch(engine: EngineRoom, db: Db): void;
  unwatch(): void;
}

export function createMeters(): Meters {
  let stops: (() => void)[] = [];
  return {
    started: () => metrics.runsStarted.add(1),
    ended(run) {
      const status = RunStatus[run.status].replace("RUN_STATUS_", "").toLowerCase();
      metrics.runsEnded.add(1, status);
      metrics.runSeconds.record((run.endedAtMs - run.acceptedAtMs) / 1000, status);
    },
    settled({ settled, executionMs, method }) {
      if (settled.verdict !== "changed")
        metrics.eventsStale.add(1, settled.verdict === "unknown-run" ? "unknown_run" : settled.why);
      else metrics.attemptSeconds.record(executionMs / 1000, method);
    },
    garbage: () => metrics.messagesUndecodable.add(1, "completions"),
    conflicts: (runs) => metrics.conflicts.add(runs),
    batch({ work, commitMs, drafts }) {
      metrics.batchSize.record(work);
      metrics.commitSeconds.record(commitMs / 1000);
      for (const draft of drafts) countDraft(draft);
    },
    watch(engine, db) {
      stops = [
        metrics.readySteps.observe(async () => showFigures(await readFigures(db))),
        metrics.queueDepth.observe(() => metrics.queueDepth.set(engine.pipeline.depth)),
        metrics.dispatchedSteps.observe(() => metrics.dispatchedSteps.set(engine.dispatched())),
      ];
    },
    unwatch() {
      for (const stop of stops) stop();
      stops = [];
    },
  };
}

const transports: Record<number, string> = {
  [TransportKind.TRANSPORT_KIND_JETSTREAM]: "jetstream",
  [TransportKind.TRANSPORT_KIND_RELAY]: "relay",
  [TransportKind.TRANSPORT_KIND_MEMORY]: "memory",
};

function showFigures(figures: Figures): void {
  metrics.readySteps.set(figures.readySteps);
  metrics.sweeperLagSeconds.set(figures.sweeperLagSeconds);
  metrics.slots.set(figures.freeSlots, "free");
  metrics.slots.set(figures.slots - figures.freeSlots, "busy");
  for (const [kind, name] of Object.entries(transports)) {
    const found = figures.sessions.find(({ transport }) => transport === Number(kind));
    metrics.workers.set(found?.count ?? 0, name);
  }
}

const stepEnds: Partial<Record<EventKind, string>> = {
  [EventKind.EVENT_KIND_STEP_SUCCEEDED]: "succeeded",
  [EventKind.EVENT_KIND_STEP_FAILED]: "failed",
  [EventKind.EVENT_KIND_STEP_EXPIRED]: "expired",
  [EventKind.EVENT_KIND_STEP_CANCELLED]: "cancelled",
};

function countDraft({ plan, write }: Draft): void {
  for (const effect of write.effects) {
    if (effect.kind !== "dispatch") continue;
    metrics.attempts.add(1, effect.step.method);
    if (effect.attempt > 1) metrics.retries.add(1, effect.step.method);
  }
  for (const { kind, step } of write.records) {
    if (kind === EventKind.EVENT_KIND_COMPLETION_LATE) metrics.completionsLate.add(1);
    const ended = stepEnds[kind];
    if (ended !== undefined) metrics.stepsEnded.add(1, ended, plan.steps[step]?.method ?? "");
  }
}

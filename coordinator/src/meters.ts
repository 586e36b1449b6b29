/** What the engine room counts, as the mesh's metrics. Counting is an addition to a number, whether anybody asks for it or not. */
import { EventKind, RunStatus } from "@taskmesh/proto";
import { metrics } from "@taskmesh/runtime";
import type { EngineMeters, EngineRoom } from "./pipeline/engine-room.js";
import type { Draft } from "./pipeline/fold.js";

export interface Meters extends EngineMeters {
  /** Reads the engine room's gauges when metrics are asked for. */
  watch(engine: EngineRoom): void;
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
    watch(engine) {
      stops = [
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

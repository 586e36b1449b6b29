/**
 * Spans of attempts and runs, recorded after the commit that ended them, each in one piece: none stays open while a step waits or a
 * worker works. Their ids are made of names that everyone knows (`attemptSpanKey`), so the worker's span has its parent before
 * that is recorded, and whichever coordinator commits the end can record it.
 */
import { EventKind } from "@taskmesh/proto";
import { attemptSpanKey, tracing } from "@taskmesh/runtime";
import type { StepPlan } from "../engine/plan.js";
import type { RunRecord } from "../engine/run-event.js";
import { type RunState, stateOf } from "../engine/run-state.js";
import type { Draft } from "./fold.js";

export interface Spans {
  /** Records what a draft ended, once it is stored. */
  written(draft: Draft): void;
  /** Records the span of a run that has ended. */
  ended(run: RunState, method: string): void;
}

/** Attempts whose start this process remembers; of the others a span has the start that the run still knows. */
const startsMax = 100_000;

/** Kinds of history rows that end an attempt. */
const endings = new Set([
  EventKind.EVENT_KIND_STEP_SUCCEEDED,
  EventKind.EVENT_KIND_ITEM_SUCCEEDED,
  EventKind.EVENT_KIND_ATTEMPT_FAILED,
  EventKind.EVENT_KIND_ATTEMPT_LOST,
  EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT,
  EventKind.EVENT_KIND_STEP_CANCELLED,
  EventKind.EVENT_KIND_STEP_EXPIRED,
]);

export function createSpans(): Spans {
  const startedAtMs = new Map<string, number>();

  const attemptEnded = (
    draft: Draft,
    record: Pick<RunRecord, "step" | "item" | "attempt">,
    error: string | undefined,
  ): void => {
    const { run } = draft.write;
    const step = draft.plan.steps[record.step];
    const { item = 0 } = record;
    const key = step && keyOf(run, step.id, item, record.attempt);
    const state = stateOf(run, record.step, item);
    if (!key || !run.trace) return;
    const known = startedAtMs.get(key) ?? (state?.attempt === record.attempt ? state.attemptAtMs : undefined);
    startedAtMs.delete(key);
    // Cancelled or expired before anything was sent.
    if (!known || record.attempt === 0) return;
    tracing.recordSpan({
      name: `attempt ${step.id}`,
      kind: "producer",
      parent: run.trace,
      links: record.attempt > 1 ? [tracing.announce(run.trace, keyOf(run, step.id, item, record.attempt - 1))] : [],
      key,
      startMs: known,
      endMs: run.nowMs,
      attributes: {
        ...runAttributes(run, step.method),
        "taskmesh.step_id": step.id,
        "taskmesh.attempt": record.attempt,
      },
      error,
    });
  };

  const attemptStarted = (
    draft: Draft,
    { step, item = 0, attempt }: { step: StepPlan; item?: number; attempt: number },
  ): void => {
    const { run } = draft.write;
    // Superseded without a row of its own: claimed, or sent again after the carrier lost it.
    if (startedAtMs.has(keyOf(run, step.id, item, attempt - 1))) {
      attemptEnded(draft, { step: step.index, item, attempt: attempt - 1 }, "SUPERSEDED");
    }
    startedAtMs.set(keyOf(run, step.id, item, attempt), run.nowMs);
    if (startedAtMs.size <= startsMax) return;
    for (const oldest of startedAtMs.keys()) {
      startedAtMs.delete(oldest);
      break;
    }
  };

  return {
    written(draft) {
      if (!tracing.enabled || !draft.write.run.trace) return;
      for (const record of draft.write.records) {
        if (endings.has(record.kind)) attemptEnded(draft, record, errorOf(record));
      }
      for (const effect of draft.write.effects) {
        if (effect.kind === "dispatch") attemptStarted(draft, effect);
      }
    },
    ended(run, method) {
      if (!tracing.enabled || !run.trace) return;
      tracing.recordSpan({
        name: `run ${method}`,
        parent: run.trace,
        startMs: run.acceptedAtMs,
        endMs: run.endedAtMs,
        attributes: runAttributes(run, method),
        error: run.failure?.reason,
      });
    },
  };
}

const succeeded = new Set([EventKind.EVENT_KIND_STEP_SUCCEEDED, EventKind.EVENT_KIND_ITEM_SUCCEEDED]);

function keyOf(run: RunState, stepId: string, item: number, attempt: number): string {
  return attemptSpanKey({ runId: run.id, stepId, item, attempt });
}

function runAttributes(run: RunState, method: string): Record<string, string> {
  return { "taskmesh.run_id": run.id, "taskmesh.method": method };
}

function errorOf(record: RunRecord): string | undefined {
  if (succeeded.has(record.kind)) return undefined;
  if (record.kind === EventKind.EVENT_KIND_ATTEMPT_LOST) return "WORKER_LOST";
  return record.failure?.reason ?? "CANCELLED";
}

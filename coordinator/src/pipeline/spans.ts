/**
 * Spans of attempts and runs, recorded after the commit that ended them, each in one piece: none stays open while a step waits or a
 * worker works.
 *
 *   the call that started the run ─► run ─► attempt of a step ─► its handler, in a worker
 *                                              `─► run of a sub-chain ─► …
 *
 * Ids are made of names that everyone knows (`runSpanKey`, `attemptSpanKey`), so what is below has its parent before that is recorded,
 * and whichever coordinator commits an end can record it. Attributes name things; values of messages are in none.
 */
import { EventKind } from "@taskmesh/proto";
import { attemptSpanKey, runSpanKey, tracing } from "@taskmesh/runtime";
import type { StepPlan } from "../engine/plan.js";
import type { RunRecord } from "../engine/run-event.js";
import { type RunState, StepStatus, stateOf } from "../engine/run-state.js";
import type { Draft } from "./fold.js";

export interface Spans {
  /** Records what a draft ended, once it is stored. */
  written(draft: Draft): void;
  /** Records the span of a run that has ended. */
  ended(run: RunState, method: string): void;
}

/** Attempts whose start this process remembers; of the others a span has the start that the run still knows. */
const startsMax = 100_000;

/** Kinds of history rows that end an attempt well. */
const succeeded = new Set([
  EventKind.EVENT_KIND_STEP_SUCCEEDED,
  EventKind.EVENT_KIND_STEP_ROUND,
  EventKind.EVENT_KIND_ITEM_SUCCEEDED,
]);
/** Kinds that end one in any case. */
const reported = new Set([
  ...succeeded,
  EventKind.EVENT_KIND_ATTEMPT_FAILED,
  EventKind.EVENT_KIND_ATTEMPT_LOST,
  EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT,
]);
/** Kinds that end a step, and its attempt if one is under way: the last one may be over and the step wait for the next. */
const stopped = new Set([EventKind.EVENT_KIND_STEP_CANCELLED, EventKind.EVENT_KIND_STEP_EXPIRED]);

type Ending = Pick<RunRecord, "step" | "item" | "attempt" | "executionMs" | "waitedMs">;

export function createSpans(): Spans {
  const startedAtMs = new Map<string, number>();

  /** When an attempt that has ended could run first; undefined: nobody knows. */
  const startOf = (run: RunState, key: string, { step, item = 0, attempt, waitedMs, executionMs = 0 }: Ending) => {
    const started = startedAtMs.get(key);
    startedAtMs.delete(key);
    if (started !== undefined) return started;
    const state = stateOf(run, step, item);
    if (state?.attempt === attempt) return state.attemptAtMs || undefined;
    // Dispatched by another coordinator, and gone from the state, as items are when they are over.
    return waitedMs === undefined ? undefined : run.nowMs - executionMs - waitedMs;
  };

  const attemptStopped = (draft: Draft, ending: Ending, error: string | undefined, ended: Set<string>): void => {
    const { run } = draft.write;
    const step = draft.plan.steps[ending.step];
    const isUnderWay = step && startedAtMs.has(keyOf(run, step.id, ending.item ?? 0, ending.attempt));
    if (isUnderWay) attemptEnded(draft, ending, error, ended);
  };

  const attemptEnded = (draft: Draft, ending: Ending, error: string | undefined, ended: Set<string>): void => {
    const { run } = draft.write;
    const step = draft.plan.steps[ending.step];
    // Cancelled or expired before anything was sent.
    if (!step || ending.attempt === 0) return;
    const { item = 0, attempt } = ending;
    const key = keyOf(run, step.id, item, attempt);
    const startMs = startOf(run, key, ending);
    if (startMs === undefined || ended.has(key)) return;
    ended.add(key);
    tracing.recordSpan({
      name: `attempt ${step.id}`,
      kind: "producer",
      parent: tracing.announce(run.trace, runSpanKey(run.id)),
      links: attempt > 1 ? [tracing.announce(run.trace, keyOf(run, step.id, item, attempt - 1))] : [],
      key,
      startMs,
      endMs: run.nowMs,
      attributes: {
        ...runAttributes(run, step.method),
        "taskmesh.step.id": step.id,
        "taskmesh.item": item,
        "taskmesh.attempt": attempt,
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
      attemptEnded(draft, { step: step.index, item, attempt: attempt - 1 }, "SUPERSEDED", new Set());
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
      // A failure that is caught ends the attempt once, though its step then succeeds with another value.
      const ended = new Set<string>();
      for (const record of draft.write.records) {
        const error = errorOf(record);
        if (reported.has(record.kind) || record.executionMs !== undefined) attemptEnded(draft, record, error, ended);
        else if (stopped.has(record.kind)) attemptStopped(draft, record, error, ended);
        for (const { step, status, attempt } of record.moves) {
          if (step === record.step || status !== StepStatus.STEP_STATUS_CANCELLED) continue;
          attemptStopped(draft, { step, attempt }, "CANCELLED", ended);
        }
      }
      for (const effect of draft.write.effects) {
        if (effect.kind === "dispatch" || (effect.kind === "start-child" && !effect.again)) {
          attemptStarted(draft, effect);
        }
      }
    },
    ended(run, method) {
      if (!tracing.enabled || !run.trace) return;
      tracing.recordSpan({
        name: `run ${method}`,
        parent: run.trace,
        key: runSpanKey(run.id),
        startMs: run.acceptedAtMs,
        endMs: run.endedAtMs,
        attributes: runAttributes(run, method),
        error: run.failure?.reason,
      });
    },
  };
}

function keyOf(run: RunState, stepId: string, item: number, attempt: number): string {
  return attemptSpanKey({ runId: run.id, stepId, item, attempt });
}

function runAttributes(run: RunState, method: string): Record<string, string> {
  return { "taskmesh.run.id": run.id, "taskmesh.namespace": run.namespace, "taskmesh.method": method };
}

function errorOf(record: RunRecord): string | undefined {
  if (succeeded.has(record.kind)) return undefined;
  if (record.kind === EventKind.EVENT_KIND_ATTEMPT_LOST) return "WORKER_LOST";
  return record.failure?.reason ?? "CANCELLED";
}

/** One attempt in a worker's hands, and how it looks in beats and completions. */
import type { AttemptBeat, CompleteStep, Payload, StartStep } from "@taskmesh/proto";
import { attemptSpanKey, type LiveSpan, type StartDelivery, type TraceHeaders, tracing } from "@taskmesh/runtime";
import type { AttemptContext, AttemptFacts } from "./context.js";
import { failureOf } from "./errors.js";
import { inlinePayload } from "./payload.js";
import type { Outcome } from "./perform.js";

/** `stored`: an output that travels by reference. */
export type FinalOutcome = Outcome | { kind: "stored"; payload: Payload };

export interface Attempt {
  start: StartStep;
  delivery: StartDelivery;
  context: AttemptContext;
  abortedAtMs: number;
  /** A beat has listed it. */
  listed: boolean;
  returned: boolean;
  reported: boolean;
  acked: boolean;
  /** Its slot is free again. */
  freed: boolean;
  trace: AttemptTrace | undefined;
}

/** The trace of one attempt. */
export interface AttemptTrace {
  /** Undefined while this process makes no spans: then the caller's headers are passed on, which keeps the trace in one piece. */
  span: LiveSpan | undefined;
  headers(): Record<string, string>;
}

/** Starts the span of an attempt below what the start's headers name; nothing at all where there are none. */
export function traceOf(parent: TraceHeaders | undefined, facts: AttemptFacts): AttemptTrace | undefined {
  if (parent?.["traceparent"] === undefined) return undefined;
  const attributes = {
    "taskmesh.method": facts.method,
    "taskmesh.run.id": facts.runId,
    "taskmesh.step.id": facts.stepId,
    "taskmesh.item": facts.item,
    "taskmesh.attempt": facts.attempt,
  };
  // Not what the headers say: a claim has made it another attempt since they were sent.
  const above = tracing.announce(parent, attemptSpanKey(facts)) ?? parent;
  const span = tracing.startSpan({ name: `attempt ${facts.method}`, kind: "consumer", parent: above, attributes });
  return { span, headers: () => ({ ...(span?.headers ?? parent) }) };
}

export function toBeat(attempt: Attempt, now: number): AttemptBeat {
  const { start, context } = attempt;
  const startedMs = Date.now() - (now - context.startedAtMs);
  const seconds = Math.floor(startedMs / 1_000);
  return {
    runId: start.runId,
    stepId: start.stepId,
    item: start.item,
    attempt: start.attempt,
    lease: start.lease,
    startedAt: { seconds: BigInt(seconds), nanos: Math.floor((startedMs - seconds * 1_000) * 1e6) },
    sinceReportMs: Math.min(0xffffffff, Math.round(context.sinceReportMs())),
    startToCloseMs: context.extendedMs,
    ...(context.reported && { progress: { ...context.reported, estimated: false } }),
    ...(context.checkpoint && { checkpoint: context.checkpoint }),
  };
}

/** The report of an attempt that ended. */
export function toCompletion(attempt: Attempt, outcome: FinalOutcome, sessionId: string): CompleteStep {
  const { start, context } = attempt;
  return {
    runId: start.runId,
    stepId: start.stepId,
    item: start.item,
    attempt: start.attempt,
    lease: start.lease,
    outcome: toWire(outcome),
    executionMs: Math.round(performance.now() - context.startedAtMs),
    logs: context.lines(),
    sessionId,
    ...(outcome.kind === "failure" && context.checkpoint && { checkpoint: context.checkpoint }),
  };
}

function toWire(outcome: FinalOutcome): NonNullable<CompleteStep["outcome"]> {
  switch (outcome.kind) {
    case "output":
      return { $case: "output", value: inlinePayload(outcome.bytes) };
    case "stored":
      return { $case: "output", value: outcome.payload };
    case "failure":
      return { $case: "failure", value: outcome.failure };
    case "cancelled":
      return { $case: "cancelled", value: { message: outcome.message } };
  }
}

export function timedOut({ start, context }: Attempt): Outcome {
  if (context.endsWithRun) return failed("RUN_EXPIRED", "the run's deadline is over", false);
  const message = `${start.method} took longer than ${context.extendedMs || start.startToCloseMs} ms`;
  return failed("START_TO_CLOSE_TIMEOUT", message, true);
}

export const failed = (reason: string, message: string, retryable: boolean): Outcome => ({
  kind: "failure",
  failure: failureOf(reason, message, retryable),
});

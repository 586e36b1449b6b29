/**
 * The span of an attempt, a child of what the start's headers say. Made only for starts that carry trace headers, so tracing that is off
 * costs one comparison.
 */
import { context, propagation, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import type { AttemptFacts } from "./context.js";
import type { Outcome } from "./perform.js";

/** The trace of one attempt. */
export interface AttemptTrace {
  /** Runs `work` with the span active, so that what it calls joins the trace. */
  run(work: () => void): void;
  /** Headers for outgoing calls. */
  headers(): Record<string, string>;
  end(outcome: Outcome): void;
}

export function traceAttempt(headers: Record<string, string>, facts: AttemptFacts): AttemptTrace {
  const parent = propagation.extract(ROOT_CONTEXT, headers);
  const attributes = {
    "taskmesh.method": facts.method,
    "taskmesh.run_id": facts.runId,
    "taskmesh.step_id": facts.stepId,
    "taskmesh.attempt": facts.attempt,
  };
  const tracer = trace.getTracer("taskmesh.action-sdk");
  const span = tracer.startSpan(`attempt ${facts.method}`, { kind: SpanKind.CONSUMER, attributes }, parent);
  const inside = trace.setSpan(parent, span);
  return {
    run: (work) => context.with(inside, work),
    headers() {
      const outgoing: Record<string, string> = {};
      propagation.inject(inside, outgoing);
      // Without a propagator in this process the caller's own headers still keep the trace in one piece.
      return Object.keys(outgoing).length > 0 ? outgoing : { ...headers };
    },
    end(outcome) {
      if (outcome.kind === "failure") {
        span.setAttribute("taskmesh.failure_reason", outcome.failure.reason);
        span.setStatus({ code: SpanStatusCode.ERROR, message: outcome.failure.reason });
      }
      span.end();
    },
  };
}

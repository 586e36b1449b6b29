/** What a log line about a run says of it, so that it is found by run and by trace. */
import { traceIdOf } from "@taskmesh/runtime";
import type { RunState } from "../engine/run-state.js";

/** The fields of a line about the run. */
export function runFields(run: Pick<RunState, "id" | "trace">): { run_id: string; trace_id?: string } {
  const traceId = traceIdOf(run.trace);
  return { run_id: run.id, ...(traceId ? { trace_id: traceId } : {}) };
}

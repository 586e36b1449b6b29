/** The tasks that run in threads: pure functions from plain values to plain values. */
import { extractLinks, selectHtml } from "../html/select.js";
import { queryJson } from "../json/query.js";
import { applyRegex } from "../text/regex.js";
import { renderTemplate } from "../text/render.js";
import { TaskFailure } from "./task-failure.js";

const tasks = { selectHtml, extractLinks, queryJson, applyRegex, renderTemplate };

/** The tasks by name. */
export type Tasks = typeof tasks;
export type TaskName = keyof Tasks;

/** What goes to a thread. */
export interface TaskCall {
  name: TaskName;
  input: unknown;
}

/** What comes back: once `ready`, then one answer per call. */
export type TaskReply =
  | { kind: "ready" }
  | { kind: "output"; output: unknown }
  /** The task refused its input. */
  | { kind: "failure"; reason: string; message: string }
  /** The task threw something else. */
  | { kind: "error"; message: string; stack: string };

/** Runs a task. Never throws. */
export function performTask(name: TaskName, input: unknown): TaskReply {
  try {
    return { kind: "output", output: (tasks[name] as (input: unknown) => unknown)(input) };
  } catch (thrown) {
    if (thrown instanceof TaskFailure) return { kind: "failure", reason: thrown.reason, message: thrown.message };
    if (thrown instanceof RangeError) {
      // Too deep for the stack, or a string or array beyond what the language can hold.
      return { kind: "failure", reason: "LIMIT_EXCEEDED", message: `the computation is too large: ${thrown.message}` };
    }
    const { message, stack } = thrown instanceof Error ? thrown : new Error(String(thrown));
    return { kind: "error", message, stack: stack ?? message };
  }
}

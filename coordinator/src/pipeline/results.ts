/** Ends of runs for callers of this coordinator that wait for them: no read of the database is needed for what was committed here. */
import type { Failure, RunStatus } from "@taskmesh/proto";
import type { Value } from "../engine/plan.js";
import { answerOfCaller } from "../engine/responds.js";
import type { Draft } from "./fold.js";

export interface RunResult {
  namespaceId: number;
  status: RunStatus;
  output?: Value;
  failure?: Failure;
}

export class Results {
  #waiting = new Map<string, Set<(result: RunResult) => void>>();

  /** Calls `listener` when the run ends here; answers how to stop waiting. */
  onEnd(runId: string, listener: (result: RunResult) => void): () => void {
    const listeners = this.#waiting.get(runId) ?? new Set();
    this.#waiting.set(runId, listeners);
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#waiting.get(runId) === listeners) this.#waiting.delete(runId);
    };
  }

  /** A committed draft ended its run, broke it, or answered its caller: whoever waits is told at once. */
  ended(draft: Draft): void {
    const { run, records } = draft.write;
    const listeners = this.#waiting.get(run.id);
    if (!listeners) return;
    this.#waiting.delete(run.id);
    const end = run.endedAtMs > 0 ? records.at(-1)?.payload : undefined;
    const output = end ?? answerOfCaller(run);
    const result: RunResult = {
      namespaceId: run.namespaceId,
      status: run.status,
      ...(output ? { output } : {}),
      ...(run.failure ? { failure: run.failure } : {}),
    };
    for (const listener of listeners) listener(result);
  }
}

/**
 * Who waits for news of a run on this coordinator. A notice is a hint to look, never the news itself: what another coordinator commits gives
 * none here, so waiters look by themselves every `pollMs` too.
 */
export class Notices {
  #waiting = new Map<string, Set<() => void>>();

  constructor(private readonly pollMs = 1_000) {}

  /** Something of the run was committed here. */
  notify(runId: string): void {
    const waiting = this.#waiting.get(runId);
    if (!waiting) return;
    this.#waiting.delete(runId);
    for (const wake of waiting) wake();
  }

  /** Resolves at the next notice, after the poll interval or `limitMs`, or when one of `signals` aborts; never rejects. */
  wait(runId: string, signals: readonly AbortSignal[] = [], limitMs = this.pollMs): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(runId) ?? new Set();
      this.#waiting.set(runId, waiting);
      const done = (): void => {
        stop();
        waiting.delete(done);
        if (waiting.size === 0 && this.#waiting.get(runId) === waiting) this.#waiting.delete(runId);
        resolve();
      };
      waiting.add(done);
      const stop = until(signals, Math.min(this.pollMs, limitMs), done);
    });
  }

  /** Resolves after the poll interval or `limitMs`, or when one of `signals` aborts; never rejects. */
  pause(signals: readonly AbortSignal[], limitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        stop();
        resolve();
      };
      const stop = until(signals, Math.min(this.pollMs, limitMs), done);
    });
  }

  /** Wakes everybody: the coordinator is going away. */
  notifyAll(): void {
    for (const runId of [...this.#waiting.keys()]) this.notify(runId);
  }
}

/**
 * Calls `done` after `ms`, or when one of `signals` aborts; later, not now, if one has. Answers how to let go of all of it. Not
 * AbortSignal.any: what that leaves behind at a signal that lives as long as the process is never freed.
 */
function until(signals: readonly AbortSignal[], ms: number, done: () => void): () => void {
  const timer = setTimeout(done, signals.some((signal) => signal.aborted) ? 0 : ms);
  for (const signal of signals) signal.addEventListener("abort", done, { once: true });
  return () => {
    clearTimeout(timer);
    for (const signal of signals) signal.removeEventListener("abort", done);
  };
}

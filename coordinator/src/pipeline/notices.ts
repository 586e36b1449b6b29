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

  /** Resolves at the next notice, after the poll interval or `limitMs`, or when `signal` aborts; never rejects. */
  wait(runId: string, signal?: AbortSignal, limitMs = this.pollMs): Promise<void> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(runId) ?? new Set();
      this.#waiting.set(runId, waiting);
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        waiting.delete(done);
        if (waiting.size === 0 && this.#waiting.get(runId) === waiting) this.#waiting.delete(runId);
        resolve();
      };
      const timer = setTimeout(done, Math.min(this.pollMs, limitMs));
      waiting.add(done);
      if (signal?.aborted) done();
      else signal?.addEventListener("abort", done, { once: true });
    });
  }

  /** Resolves after the poll interval or `limitMs`, or when `signal` aborts; never rejects. */
  pause(signal: AbortSignal, limitMs: number): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, Math.min(this.pollMs, limitMs));
      signal.addEventListener("abort", done, { once: true });
    });
  }

  /** Wakes everybody: the coordinator is going away. */
  notifyAll(): void {
    for (const runId of [...this.#waiting.keys()]) this.notify(runId);
  }
}

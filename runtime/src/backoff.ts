/** Delays between tries: full jitter, so that peers that failed together do not come back together. */

export interface BackoffOptions {
  /** Upper bound of the first delay, in milliseconds. */
  initialMs: number;
  /** Upper bound of every delay, in milliseconds. */
  capMs: number;
}

/**
 * Milliseconds to wait before try `attempt` + 1: anything from 0 to `initialMs` doubled per attempt, at most `capMs`.
 * `attempt` counts failed tries from 1.
 */
export function fullJitter(attempt: number, options: BackoffOptions, random: () => number = Math.random): number {
  // Beyond 2^30 the cap always wins; the clamp keeps the power finite.
  const exponent = Math.min(Math.max(attempt - 1, 0), 30);
  return random() * Math.min(options.capMs, options.initialMs * 2 ** exponent);
}

/** Resolves after `ms`, or at once when `signal` aborts (it never rejects: look at the signal). Does not keep the process alive by itself if `unref`. */
export function sleep(ms: number, signal?: AbortSignal, options: { unref?: boolean } = {}): Promise<void> {
  if (signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    if (options.unref) timer.unref();
    signal?.addEventListener("abort", end, { once: true });
  });
}

/** Whether `promise` resolved within `ms`. Rejects if it does. */
export async function within(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const timer = new AbortController();
  const late = sleep(ms, timer.signal).then(() => false);
  return await Promise.race([promise.then(() => true), late]).finally(() => timer.abort());
}

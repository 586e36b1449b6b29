/**
 * A reading that is renewed in the background while somebody wants it: however many ask, and however often, it is made once a period;
 * while nobody asks, not at all.
 */

export interface Periodic {
  /** Wants the reading. Resolves at once while it is renewed anyway, else when one is made. Never rejects. */
  ask(): Promise<void>;
  /** Ends it; what is under way may still come. */
  stop(): void;
}

/** `read` is called every `everyMs`, one at a time, for as long as the last `ask` is less than `keenMs` ago. */
export function createPeriodic(read: () => Promise<void>, everyMs: number, keenMs: number): Periodic {
  let timer: NodeJS.Timeout | undefined;
  let reading: Promise<void> | undefined;
  let made = false;
  let askedAtMs = 0;
  let stopped = false;

  const round = (): Promise<void> => {
    timer = undefined;
    reading = read().then(
      () => {
        made = true;
      },
      () => {
        // What can't be read now keeps its last value; the next round comes in any case.
      },
    );
    return reading.finally(() => {
      reading = undefined;
      const keen = performance.now() - askedAtMs < keenMs;
      made &&= keen;
      if (keen && !stopped) timer = setTimeout(round, everyMs).unref();
    });
  };

  return {
    ask() {
      askedAtMs = performance.now();
      if (stopped || (made && (timer || reading))) return Promise.resolve();
      clearTimeout(timer);
      return reading ?? round();
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

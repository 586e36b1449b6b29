/**
 * Work that is done again and again until it is stopped.
 *
 * L1. Rounds never overlap; `kick` starts the next one at once, and a kick during a round is followed by another.
 * L2. A round that throws is logged and does not end the loop. Only the first of a row of failures is logged as an error.
 * L3. After `stop` resolved no round runs.
 */
import type { Logger, Service } from "@taskmesh/runtime";
import { createPart } from "./part.js";

export interface Loop extends Service {
  /** Starts a round now instead of after the pause. */
  kick(): void;
}

export interface LoopOptions {
  /** Pause between two rounds in milliseconds. */
  everyMs: number;
  /** One round. Must settle in bounded time; should give up when `signal` aborts. */
  round: (signal: AbortSignal) => Promise<void>;
  log: Logger;
  /** Whether `start` makes the first round itself and fails if it does; default true. Otherwise the loop begins with a pause. */
  eager?: boolean;
  /** Told of each failed round, after it was logged. */
  onFailure?: (error: unknown) => void;
}

/** Makes a loop; it runs from `start` to `stop`. */
export function createLoop(name: string, options: LoopOptions): Loop {
  let wake: () => void = () => {};
  let kicked = false;
  let ended: Promise<void> = Promise.resolve();
  let abort = new AbortController();

  const pause = (signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        wake = () => {};
        resolve();
      };
      const timer = setTimeout(end, options.everyMs);
      wake = end;
      signal.addEventListener("abort", end, { once: true });
      if (kicked || signal.aborted) end();
    });

  const run = async (signal: AbortSignal): Promise<void> => {
    let failing = false;
    for (;;) {
      await pause(signal);
      if (signal.aborted) return;
      kicked = false;
      try {
        await options.round(signal);
        if (failing) options.log.info(`${name} works again`);
        failing = false;
      } catch (error) {
        if (signal.aborted) return;
        options.log[failing ? "debug" : "error"]({ err: error }, `${name} failed; it is tried again`);
        failing = true;
        options.onFailure?.(error);
      }
    }
  };

  return createPart(name, {
    async start() {
      abort = new AbortController();
      if (options.eager ?? true) await options.round(abort.signal);
      ended = run(abort.signal);
    },
    async stop() {
      abort.abort();
      await ended;
    },
    extra: {
      kick() {
        kicked = true;
        wake();
      },
    },
  });
}

/** Waits for a stream that said "enough". */
import type { EventEmitter } from "node:events";

/** Resolves when the stream has drained or is over, after `patienceMs` at the latest. */
export function roomIn(stream: EventEmitter, patienceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const events = ["drain", "close", "error"] as const;
    const done = (): void => {
      clearTimeout(timer);
      for (const event of events) stream.off(event, done);
      resolve();
    };
    const timer = setTimeout(done, patienceMs);
    for (const event of events) stream.on(event, done);
  });
}

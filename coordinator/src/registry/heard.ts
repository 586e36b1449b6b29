/**
 * Whether all that workers reported before a moment has been read.
 *
 * A worker stops listing an attempt when the carrier has its completion. From then on only the carrier knows of it, possibly for long: it
 * may be addressed to a coordinator that died and is not adopted yet. Then the attempt looks lost and is not.
 *
 * G1. An attempt is given up only when every completion that the carrier held when the doubt began is committed, whoever it was addressed to.
 * G2. A doubt ends after `doubtMaxMs` in any case, also while the carrier can't say: a step must not wait for ever for what may never come.
 * G3. Nobody is asked anything until an attempt is doubted.
 */
import { type Carrier, type CompletionsRead, type Logger, sleep } from "@taskmesh/runtime";

/** Time that one question waits for what is on its way; who asked comes again with what is left. */
const waitMsDefault = 1_000;
const pollMs = 50;
/** G2 */
const doubtMaxMs = 60_000;
/** Doubts that nobody asked about again are forgotten at this number. */
const doubtsMax = 50_000;

export interface HeardOptions {
  carrier: Pick<Carrier, "completionsRead">;
  /** Every coordinator that a completion may be addressed to. */
  coordinators: () => Promise<readonly string[]>;
  log: Logger;
  /** Longest wait of one question in milliseconds, default 1,000. */
  waitMs?: number;
  /** Monotonic; default performance.now. */
  nowMs?: () => number;
}

export interface Heard {
  /** Those of the attempts that may be given up (G1, G2); for the others ask again later. */
  settled<T extends { lease: string }>(attempts: readonly T[]): Promise<T[]>;
  /** Waits until what is stored for the coordinator now is read, for `patienceMs` at most. */
  caughtUp(coordinatorId: string, patienceMs: number, signal: AbortSignal): Promise<void>;
}

interface Doubt {
  /** All completions up to this one have to be read. */
  mark: number;
  sinceMs: number;
}

/** Makes it. */
export function createHeard(options: HeardOptions): Heard {
  const { carrier, coordinators, log, waitMs = waitMsDefault, nowMs = () => performance.now() } = options;
  const doubts = new Map<string, Doubt>();

  const askAll = async (): Promise<CompletionsRead> => carrier.completionsRead(await coordinators());

  const isOver = (lease: string, stored: number, read: number): boolean => {
    const known = doubts.get(lease);
    const doubt = known ?? { mark: stored, sinceMs: nowMs() };
    // The carrier was wiped: what it held then is gone, or is published again by now.
    doubt.mark = Math.min(doubt.mark, stored);
    if (!known) doubts.set(lease, doubt);
    return read >= doubt.mark || nowMs() - doubt.sinceMs >= doubtMaxMs;
  };

  return {
    async settled(attempts) {
      if (attempts.length === 0) return [];
      if (doubts.size > doubtsMax) doubts.clear();
      const untilMs = performance.now() + waitMs;
      let open = attempts;
      for (;;) {
        const { stored, read } = await askAll().catch((error: unknown) => {
          log.debug({ err: error }, "the carrier can't say what it holds");
          return { stored: Number.POSITIVE_INFINITY, read: 0 };
        });
        open = open.filter(({ lease }) => !isOver(lease, stored, read));
        if (open.length === 0 || performance.now() >= untilMs) break;
        await sleep(pollMs);
      }
      const kept = new Set(open.map(({ lease }) => lease));
      const over = attempts.filter(({ lease }) => !kept.has(lease));
      for (const { lease } of over) doubts.delete(lease);
      return over;
    },

    async caughtUp(coordinatorId, patienceMs, signal) {
      const untilMs = performance.now() + patienceMs;
      let mark: number | undefined;
      while (!signal.aborted && performance.now() < untilMs) {
        const seen = await carrier.completionsRead([coordinatorId]).catch(() => undefined);
        if (seen) {
          mark = Math.min(mark ?? seen.stored, seen.stored);
          if (seen.read >= mark) return;
        }
        await sleep(pollMs, signal);
      }
    },
  };
}

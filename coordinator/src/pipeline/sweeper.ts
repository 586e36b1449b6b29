/**
 * Wakes runs at which something is due: timers, retries, every deadline. It runs all the time on every coordinator; rows are claimed by
 * pushing their wake-up (SKIP LOCKED), so two never wake one run, and a claim whose holder dies comes up again after `holdMs`.
 */
import type { Logger } from "@taskmesh/runtime";
import type { RunStore } from "../store/run-store.js";
import type { Pipeline } from "./pipeline.js";

export interface SweeperDeps {
  store: RunStore;
  pipeline: Pipeline;
  log: Logger;
  nowMs(): number;
}

export interface Sweeper {
  start(): void;
  stop(): Promise<void>;
  /** Something is due at this instant: look then, if that is sooner than the next look. */
  wakeAt(ms: number): void;
}

const intervalMs = 1_000;
const pageMax = 500;
const holdMs = 10_000;
/** Runs that are being woken at most: the next page waits until these are committed. */
const wakingMax = 2_000;

export function createSweeper(deps: SweeperDeps): Sweeper {
  let timer: NodeJS.Timeout | undefined;
  let nextAtMs = Number.POSITIVE_INFINITY;
  let running: Promise<void> | undefined;
  let stopped = true;
  let waking = 0;

  const plan = (atMs: number): void => {
    if (stopped || atMs >= nextAtMs) return;
    nextAtMs = atMs;
    clearTimeout(timer);
    timer = setTimeout(sweep, Math.max(0, Math.min(intervalMs, atMs - deps.nowMs())));
  };

  const sweep = (): void => {
    if (running) return;
    nextAtMs = Number.POSITIVE_INFINITY;
    running = pages()
      .catch((error: unknown) => deps.log.warn({ err: error }, "the sweeper could not look"))
      .finally(() => {
        running = undefined;
        // A timer that went off meanwhile has found the sweep running and done nothing: its instant is looked at now.
        const soonMs = nextAtMs;
        nextAtMs = Number.POSITIVE_INFINITY;
        plan(Math.min(soonMs, deps.nowMs() + intervalMs));
      });
  };

  const pages = async (): Promise<void> => {
    while (!stopped && waking < wakingMax) {
      const due = await deps.store.claimDue(pageMax, holdMs);
      for (const runId of due) wake(runId);
      if (due.length < pageMax) return;
    }
  };

  const wake = (runId: string): void => {
    waking += 1;
    const done = (): void => {
      waking -= 1;
    };
    deps.pipeline.submit({
      kind: "event",
      runId,
      event: { kind: "wake" },
      fresh: false,
      tries: 0,
      bytes: 64,
      settle: done,
      fail: done,
    });
  };

  return {
    start() {
      stopped = false;
      plan(deps.nowMs());
    },
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
    wakeAt: plan,
  };
}

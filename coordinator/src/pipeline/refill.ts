/** Moves steps from the ready queue into lanes that have room: when a place comes free, when workers come, and every second. */
import type { Logger } from "@taskmesh/runtime";
import type { RunStore } from "../store/run-store.js";
import type { Pipeline } from "./pipeline.js";
import type { Catalogue } from "./ports.js";
import type { Windows } from "./windows.js";

export interface RefillDeps {
  store: RunStore;
  pipeline: Pipeline;
  catalogue: Catalogue;
  windows: Windows;
  log: Logger;
}

export interface Refill {
  start(): void;
  stop(): Promise<void>;
}

const intervalMs = 1_000;
const holdMs = 5_000;
const pageMax = 500;

export function createRefill(deps: RefillDeps): Refill {
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let again = false;
  let stopped = true;

  const kick = (): void => {
    if (stopped) return;
    if (running) {
      again = true;
      return;
    }
    clearTimeout(timer);
    running = round()
      .catch((error: unknown) => deps.log.warn({ err: error }, "the ready queue could not be read"))
      .finally(() => {
        running = undefined;
        if (stopped) return;
        if (again) {
          again = false;
          setImmediate(kick);
        } else timer = setTimeout(kick, intervalMs);
      });
  };

  const round = async (): Promise<void> => {
    deps.windows.setWaiting(await deps.store.waitingQueues());
    if (!deps.windows.anyWaiting) return;
    let taken = 0;
    for (const lane of deps.catalogue.liveLanes()) {
      const { namespaceId, taskQueue, state, contracts } = lane;
      const limit = Math.min(pageMax, deps.windows.room(state));
      if (limit === 0 || !deps.windows.hasWaiting(namespaceId, taskQueue)) continue;
      const steps = await deps.store.claimReady({ namespaceId, taskQueue, callees: contracts, limit, holdMs });
      taken += steps.length;
      await Promise.all(steps.map((step) => admit(step.runId, step.step, step.item)));
    }
    if (taken > 0) again = true;
  };

  const admit = (runId: string, step: number, item: number): Promise<void> =>
    new Promise((resolve) => {
      const done = (): void => resolve();
      const event = { kind: "admit" as const, step, item };
      deps.pipeline.submit({
        kind: "event",
        runId,
        event,
        fresh: false,
        tries: 0,
        bytes: 64,
        settle: done,
        fail: done,
      });
    });

  return {
    start() {
      stopped = false;
      deps.windows.onRoom(kick);
      deps.catalogue.onChange(kick);
      kick();
    },
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}

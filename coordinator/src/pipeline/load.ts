/** Gets the runs that a batch is about. */
import type { Logger } from "@taskmesh/runtime";
import type { ChainPlan } from "../engine/plan.js";
import type { RunState } from "../engine/run-state.js";
import type { RunStore } from "../store/run-store.js";
import { isRunId } from "./completions.js";
import type { Plans } from "./ports.js";
import type { RunCache } from "./run-cache.js";
import { runFields } from "./run-fields.js";
import type { Work } from "./work.js";

export interface Loaded {
  runs: Map<string, { run: RunState; plan: ChainPlan }>;
  /** Runs that were read for this batch. */
  freshIds: Set<string>;
  /** Runs whose plan can't be had, with the reason. */
  unreadable: Map<string, unknown>;
}

export interface LoadDeps {
  store: RunStore;
  cache: RunCache;
  plans: Plans;
  log: Logger;
  /** Repeats a read until the database answers. */
  patiently<T>(read: () => Promise<T>): Promise<T>;
}

/**
 * The runs of the batch: from the cache, or read where they are not there or a refusal must be decided again. They are held for the batch,
 * since reading many large ones may push others of it out of the cache.
 */
export function loadBatch(deps: LoadDeps, batch: readonly Work[]): Loaded | Promise<Loaded> {
  const { cache } = deps;
  const loaded: Loaded = { runs: new Map(), freshIds: new Set(), unreadable: new Map() };
  const { runs, freshIds } = loaded;
  for (const item of batch) {
    if (item.kind === "start") {
      // What a run is made from is decided on a fresh read (N3).
      if (item.command.from) freshIds.add(item.command.from.runId);
      continue;
    }
    const cached = item.fresh ? undefined : cache.get(item.runId);
    if (cached) runs.set(item.runId, cached);
    // What is no id names no run, and would make the whole read fail.
    else if (isRunId(item.runId)) freshIds.add(item.runId);
  }
  return freshIds.size === 0 ? loaded : readFresh(deps, loaded);
}

async function readFresh(deps: LoadDeps, loaded: Loaded): Promise<Loaded> {
  const { cache } = deps;
  const { runs, freshIds, unreadable } = loaded;
  const found = await deps.patiently(() => deps.store.loadRuns([...freshIds]));
  for (const id of freshIds) {
    const stored = found.get(id);
    runs.delete(id);
    cache.drop(id);
    if (!stored) continue;
    const { run, method, chainVersion, contract } = stored;
    try {
      const plan = await deps.plans.pinned(run.namespaceId, method, chainVersion, contract);
      runs.set(id, { run, plan });
      cache.put(id, run, plan);
    } catch (error) {
      deps.log.error({ err: error, ...runFields(run) }, "the plan of a run can't be read");
      unreadable.set(id, error);
    }
  }
  return loaded;
}

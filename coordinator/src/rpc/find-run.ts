/** The stored run that a call is about. */
import type { ChainPlan } from "../engine/plan.js";
import { isRunId } from "../pipeline/completions.js";
import { runNotFound } from "../pipeline/intake.js";
import type { Plans } from "../pipeline/ports.js";
import type { Db } from "../store/db.js";
import { loadRuns, type StoredRun } from "../store/runs.js";

/** Finds it. Rejects: NOT_FOUND / RUN_NOT_FOUND. */
export async function findRun(deps: { db: Db }, namespaceId: number, runId: string): Promise<StoredRun> {
  if (!isRunId(runId)) throw runNotFound(runId);
  const stored = (await loadRuns(deps.db, [runId])).get(runId);
  if (!stored || stored.run.namespaceId !== namespaceId) throw runNotFound(runId);
  return stored;
}

/** Finds it with its plan. Rejects like `findRun`. */
export async function findPlanned(
  deps: { db: Db; plans: Plans },
  namespaceId: number,
  runId: string,
): Promise<StoredRun & { plan: ChainPlan }> {
  const stored = await findRun(deps, namespaceId, runId);
  const plan = await deps.plans.pinned(namespaceId, stored.method, stored.chainVersion, stored.contract);
  return { ...stored, plan };
}

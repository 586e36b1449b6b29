/**
 * What one watcher of a run is told of its progress: whatever handlers report, at once, and estimates as they grow.
 *
 * The steps and what they usually take are read anew only when the watcher's stream had gone quiet after something happened: a run that
 * goes from step to step costs its watchers nothing here, and one long step a read when it begins.
 */
import type { RunProgress } from "@taskmesh/proto";
import type { ChainPlan } from "../engine/plan.js";
import type { StepState } from "../engine/run-state.js";
import type { Db } from "../store/db.js";
import { type ProgressRow, readProgress } from "../store/reports.js";
import { readSteps } from "../store/runs.js";
import { readUsual, withEstimates } from "./estimates.js";
import { currentReports, isEstimated, toRunProgress } from "./run-progress.js";

export interface WatchedRun {
  db: Db;
  namespaceId: number;
  runId: string;
  plan: ChainPlan;
  /** The database's clock. */
  now(): number;
}

export class WatchProgress {
  readonly #run: WatchedRun;
  /** Instant of the newest report that was told. */
  #reportedMs = 0;
  /** Something happened since the steps were read. */
  #stale = true;
  #known: { steps: readonly StepState[]; rows: readonly ProgressRow[]; usual: ReadonlyMap<string, number> } | undefined;
  /** The estimate that was told last. */
  #told: number | undefined;

  constructor(run: WatchedRun) {
    this.#run = run;
  }

  /** Looks again; `happened`: the history has grown since the last look. Answers what is news, if anything is. */
  async look(happened: boolean): Promise<RunProgress | undefined> {
    const { db, runId, plan, now } = this.#run;
    this.#stale ||= happened;
    const news = await readProgress(db, runId, this.#reportedMs);
    const last = news.at(-1);
    if (last || (this.#stale && !happened)) await this.#read();
    if (!this.#known || (!last && this.#stale)) return undefined;
    this.#reportedMs = last?.atMs ?? this.#reportedMs;
    const { steps, rows, usual } = this.#known;
    const current = withEstimates(steps, plan, currentReports(steps, plan, rows), { usual, nowMs: now() });
    const progress = toRunProgress(steps, plan, current);
    const grown = isEstimated(current) && progress.percent !== this.#told;
    if (!(last || grown) || progress.steps.length === 0) return undefined;
    this.#told = progress.percent;
    return progress;
  }

  async #read(): Promise<void> {
    const { db, namespaceId, runId, plan } = this.#run;
    const [rows, steps] = await Promise.all([readProgress(db, runId), readSteps(db, runId)]);
    this.#stale = false;
    if (!steps) return;
    const usual = await readUsual(db, namespaceId, steps, plan, currentReports(steps, plan, rows));
    this.#known = { steps, rows, usual };
  }
}

/** Deletes what is over due (store/retention.ts), once an hour for the whole mesh. */
import type { Logger, Service } from "@taskmesh/runtime";
import { claimChore, holdChore } from "../store/chores.js";
import type { Db } from "../store/db.js";
import { retain } from "../store/retention.js";
import { createLoop } from "./loop.js";

const chore = "retention";
/** Between two looks whether a round is due: one statement. */
const lookEveryMs = 60_000;
/** Between two rounds. */
const roundEveryMs = 3600 * 1000;
/** A holder that takes no step for this long has died or hangs. Longer than the longest statement. */
const holdMs = 2 * 60_000;

export interface RetentionOptions {
  db: Db;
  coordinatorId: string;
  log: Logger;
}

/** Makes the service. It stops between two steps. */
export function createRetention({ db, coordinatorId, log }: RetentionOptions): Service {
  const goOn = (): Promise<boolean> => holdChore(db, chore, coordinatorId, holdMs);
  const round = async (signal: AbortSignal): Promise<void> => {
    if (!(await claimChore(db, chore, coordinatorId, holdMs))) return;
    const [clock] = await db.query<{ now: number }>(
      "select (extract(epoch from clock_timestamp()) * 1000)::float8 as now",
    );
    if (!clock) return;
    const done = await retain(db, { nowMs: clock.now, signal, goOn });
    // One that was cut off is gone on with at once, by whoever looks next.
    await holdChore(db, chore, coordinatorId, signal.aborted ? 0 : roundEveryMs);
    if (Object.values(done).some((count) => count > 0)) log.info(done, "retention deleted what was over due");
  };
  return createLoop("retention", { everyMs: lookEveryMs, round, log, eager: false });
}

/**
 * Retention: what of the past is deleted, and in which order.
 *
 *   weeks that are over ─► dropped, or emptied in batches ─► moved runs that have ended ─► rows of gone runs ─► keys ─► payloads
 *
 * R1. A run is kept for its namespace's retention after its end, and for as long as anything waits for it. What is over due goes within about a
 *     week, since weeks are looked at when they are over.
 * R2. Every step is one transaction, and the next one is found by what is stored: a round may end anywhere, or run beside another.
 * R3. Steps are bounded, and those that others wait for are short: they give up when the tables are busy, until the next round.
 */
import { type Db, sqlState } from "./db.js";
import { deleteGiven } from "./given-chains.js";
import { weekMs } from "./partitions.js";
import { deleteExpiredKeys, deleteOrphans, deleteUnusedPayloads, orphanTables } from "./retention-leftovers.js";
import { deleteRuns, dropWeek, historyFits, keptRuns, readPolicy, readWeeks, type Week } from "./retention-weeks.js";

/** What a round did. */
export interface Retained {
  weeksDropped: number;
  runsMoved: number;
  /** Runs that were deleted one by one, those of dropped weeks left out. */
  runsDeleted: number;
  rowsDeleted: number;
  payloadsDeleted: number;
}

export interface RetainOptions {
  /** The database's clock. */
  nowMs: number;
  /** Ends the round between two steps. */
  signal: AbortSignal;
  /** Called before each step; false ends the round. */
  goOn?: () => Promise<boolean>;
  limits?: Partial<typeof retainLimits>;
}

/** A week is dropped with at most so many runs, and so many history rows of theirs, to move: others wait meanwhile. */
export const retainLimits = { movedRunsMax: 500, movedEventsMax: 20_000 };

/** The week that is not over and the one before, whose partitions are made anew if they are missing, stay whatever the retention. */
const youngWeeks = 2;

/** One round over everything. Rejects with the database's error; what was done until then stays done. */
export async function retain(db: Db, options: RetainOptions): Promise<Retained> {
  const done: Retained = { weeksDropped: 0, runsMoved: 0, runsDeleted: 0, rowsDeleted: 0, payloadsDeleted: 0 };
  const limits = { ...retainLimits, ...options.limits };
  const goOn = async (): Promise<boolean> => !options.signal.aborted && ((await options.goOn?.()) ?? true);
  const policy = await readPolicy(db);
  const overMs = options.nowMs - Math.max(policy.daysMin * 24 * 3600 * 1000, (youngWeeks - 1) * weekMs);
  const isOver = ({ week }: Week): boolean => (week + 1) * weekMs <= overMs;
  const round: Round = { db, nowMs: options.nowMs, policy: policy.text, limits, done, goOn };

  for (const week of (await readWeeks(db)).filter(isOver)) await passWeek(round, week);
  await emptyTable(round, { runs: "runs_default", events: "events" });
  const [oldest] = await readWeeks(db);
  if (oldest) {
    const beforeMs = oldest.week * weekMs;
    for (const table of orphanTables) await batches(round, () => deleteOrphans(db, table, beforeMs));
    await batches(round, () => deleteGiven(db, beforeMs));
    if (await goOn()) done.payloadsDeleted = await deleteUnusedPayloads(db, beforeMs, options.signal);
  }
  await batches(round, () => deleteExpiredKeys(db));
  return done;
}

interface Round {
  db: Db;
  nowMs: number;
  policy: string;
  limits: typeof retainLimits;
  done: Retained;
  goOn(): Promise<boolean>;
}

async function passWeek(round: Round, week: Week): Promise<void> {
  const { db, nowMs, policy, limits, done, goOn } = round;
  if (!(await goOn())) return;
  try {
    const kept = await keptRuns(db, week.runs, nowMs, limits.movedRunsMax);
    const few = kept.length <= limits.movedRunsMax && (await historyFits(db, week.events, kept, limits.movedEventsMax));
    if (!few) return await emptyTable(round, week);
    const dropped = await dropWeek(db, week, { kept, policy });
    if (!dropped) return;
    done.weeksDropped += 1;
    done.runsMoved += dropped.moved;
  } catch (error) {
    if (!passedOver.has(sqlState(error) ?? "")) throw error;
  }
}

/** A lock that was not given in time, a deadlock, a week that another round has dropped: the next round looks again. */
const passedOver = new Set(["55P03", "40P01", "42P01"]);

async function emptyTable({ db, nowMs, done, goOn }: Round, week: Pick<Week, "runs" | "events">): Promise<void> {
  for (let after: string | undefined; await goOn(); ) {
    const { deleted, next } = await deleteRuns(db, week, nowMs, after);
    done.runsDeleted += deleted;
    if (next === undefined) return;
    after = next;
  }
}

async function batches({ done, goOn }: Round, step: () => Promise<number>): Promise<void> {
  while (await goOn()) {
    const deleted = await step();
    done.rowsDeleted += deleted;
    if (deleted === 0) return;
  }
}

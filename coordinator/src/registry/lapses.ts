/**
 * Ends sessions whose worker went silent, whoever held them, and gives up what they ran.
 *
 * Any coordinator may do it: each lapsed session is deleted by exactly one. If that one dies before it gave up the attempts, they are
 * found as orphans. When beats could not be recorded because this process was stopped or the database was away, nobody is judged for a
 * while after the database answered again: the workers are given the time to beat, and their coordinators to record it. Thousands of workers need
 * longer to find another coordinator than a session may be silent: while they are coming back, those of a dead coordinator are waited for.
 */
import { type Logger, metrics, type Service } from "@taskmesh/runtime";
import type { Db } from "../store/db.js";
import { findSilentSessions, lapseSessions, readBindings, readOrphanedBindings } from "../store/sessions.js";
import type { RegistryIntervals } from "./intervals.js";
import { createLoop } from "./loop.js";
import { createPart } from "./part.js";
import type { Sessions } from "./sessions.js";

/** Sessions that one round ends; the rest follows in the next. */
const sessionsPerRound = 500;
/** Attempts that one round gives up. */
const bindingsPerRound = 5_000;
/** Answers that are further apart than this many times what is planned mean that the process or the database was away. */
const stoppedFactor = 4;

export interface LapsesOptions {
  db: Db;
  intervals: RegistryIntervals;
  lose: Sessions["lose"];
  /** Sessions went: the live catalogue is to be read again. */
  onChange: () => void;
  log: Logger;
}

/** Makes the search for lapsed sessions. */
export function createLapses(options: LapsesOptions): Service {
  const { db, intervals, log } = options;
  let judgesFromMs = Number.POSITIVE_INFINITY;
  let lastAnswerMs = 0;

  const beginGrace = (): void => {
    judgesFromMs = performance.now() + intervals.graceMs;
  };
  const lapse = async (): Promise<void> => {
    const at = await findSilentSessions(db, intervals.sessionTimeoutMs);
    const nowMs = performance.now();
    // Counted from answer to answer: a look that was long under way, or failed, or was not made, found the workers unable to beat too.
    if (nowMs - lastAnswerMs > stoppedFactor * intervals.lapseScanMs) beginGrace();
    lastAnswerMs = nowMs;
    if (at === undefined || nowMs < judgesFromMs) return;
    const lapsed = await lapseSessions(db, at, intervals, sessionsPerRound);
    if (lapsed.length === 0) return;
    log.info({ sessions: lapsed }, "sessions lapsed");
    metrics.sessionsLapsed.add(lapsed.length);
    options.onChange();
    await options.lose(await readBindings(db, lapsed, bindingsPerRound), "its worker went silent");
  };
  const orphans = async (): Promise<void> => {
    if (performance.now() < judgesFromMs) return;
    await options.lose(await readOrphanedBindings(db, bindingsPerRound), "its worker is gone");
  };
  const shared = { log, eager: false, onFailure: beginGrace };
  const lapsing = createLoop("session lapses", { everyMs: intervals.lapseScanMs, round: lapse, ...shared });
  const gleaning = createLoop("orphaned attempts", { everyMs: intervals.orphanScanMs, round: orphans, ...shared });

  return createPart("lapses", {
    async start() {
      lastAnswerMs = performance.now();
      // A coordinator that just started may be the only one: its workers have to find it first.
      beginGrace();
      await lapsing.start();
      await gleaning.start();
    },
    async stop() {
      await gleaning.stop();
      await lapsing.stop();
    },
    extra: {},
  });
}

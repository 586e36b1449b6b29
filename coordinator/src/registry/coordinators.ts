/**
 * Which coordinators live, and who finishes what a lapsed one left.
 *
 * C1. Only the database's clock says that a coordinator lapsed.
 * C2. A lapsed coordinator is adopted by exactly one live one; if the adopter lapses, by another. Its row stays until all is done, so
 *     a crash in between loses nothing.
 * C3. Completions that were addressed to it are consumed until no worker is left that could owe it one.
 * C4. What it left is judged only when its workers are back and have said what they have in hand, or have lapsed, and the completions that
 *     waited for it are read (for `adoptionWaitMs` at most): before that, an attempt that is done or runs looks like one whose start was never sent.
 */
import { type Carrier, type Logger, type Service, sleep } from "@taskmesh/runtime";
import {
  type Adopted,
  adoptCoordinators,
  beatCoordinator,
  forgetCoordinator,
  leftSessions,
  retireCoordinators,
  settledCoordinators,
} from "../store/coordinators.js";
import type { Db } from "../store/db.js";
import type { Heard } from "./heard.js";
import type { RegistryIntervals } from "./intervals.js";
import { createLoop } from "./loop.js";
import { createPart } from "./part.js";

/** Rounds between two looks whether an adopted coordinator can be forgotten: there is no hurry. */
const settleEveryRounds = 15;

export interface CoordinatorsOptions {
  db: Db;
  carrier: Pick<Carrier, "adopt" | "release">;
  heard: Pick<Heard, "caughtUp">;
  /** Id of this process; a new one at each start of a process. */
  id: string;
  /** gRPC address of this process, for people. */
  address: string;
  /** No other process can have this database (embedded mode): what is found there lapsed when this one started. */
  exclusive: boolean;
  intervals: RegistryIntervals;
  /**
   * Finish what a lapsed coordinator left in the database, all of it older than `beforeMs` by the database's clock. Called after its completions
   * are consumed here; repeated if it rejects.
   */
  onLapsed: (id: string, beforeMs: number) => Promise<void>;
  /** The set of live coordinators changed. */
  onChange: () => void;
  log: Logger;
}

export interface Coordinators extends Service {
  /** Ids of the live coordinators, this one included. */
  live(): readonly string[];
}

/** Keeps this coordinator's heartbeat and watches the others'. */
export function createCoordinators(options: CoordinatorsOptions): Coordinators {
  const { db, id, intervals, log } = options;
  const timeoutMs = intervals.coordinatorTimeoutMs;
  let live: readonly string[] = [id];
  const adoption = createAdoption(options);

  const beat = async (): Promise<void> => {
    const seen = await beatCoordinator(db, { id, address: options.address }, timeoutMs);
    const changed = seen.live.join() !== live.join();
    live = seen.live;
    if (changed) options.onChange();
    adoption.expect(seen.lapsed.length > 0);
  };
  // Two loops: finishing another's work takes its time, and must not cost this coordinator its own heartbeat.
  const everyMs = intervals.coordinatorBeatMs;
  const heartbeat = createLoop("coordinator heartbeat", { everyMs, round: beat, log });
  const adopting = createLoop("coordinator adoption", { everyMs, round: adoption.round, log, eager: false });

  return createPart("coordinators", {
    async start() {
      if (options.exclusive) await retireCoordinators(db, { allBut: id });
      await heartbeat.start();
      await adopting.start();
    },
    async stop() {
      await adopting.stop();
      await adoption.ends();
      await heartbeat.stop();
      // Survivors take over at once instead of after the time-out.
      await retireCoordinators(db, { id }).catch((error: unknown) => log.warn({ err: error }, "could not sign off"));
    },
    extra: { live: () => live },
  });
}

interface Adoption {
  /** Whether there is a lapsed coordinator: without one, a round asks the database nothing. */
  expect(lapsed: boolean): void;
  round(signal: AbortSignal): Promise<void>;
  /** Resolves when nothing is under way; rounds must have ended. */
  ends(): Promise<void>;
}

function createAdoption(options: CoordinatorsOptions): Adoption {
  const { db, id, intervals, log } = options;
  const finished = new Set<string>();
  const finishing = new Map<string, Promise<void>>();
  let expected = false;
  let rounds = 0;

  /** C4 */
  const settle = async (lapsed: string, signal: AbortSignal): Promise<void> => {
    // Nobody else can have the database, so its workers and its carrier ended with it.
    if (options.exclusive) return;
    const untilMs = performance.now() + intervals.adoptionWaitMs;
    const leftMs = (): number => untilMs - performance.now();
    // A pause first: coordinators of an earlier release don't record whether a worker has told what it has in hand.
    do await sleep(intervals.flushMs, signal);
    while (!signal.aborted && leftMs() > 0 && (await leftSessions(db, lapsed)));
    await options.heard.caughtUp(lapsed, Math.max(intervals.flushMs, leftMs()), signal);
  };
  const finish = async ({ id: lapsed, atMs }: Adopted, signal: AbortSignal): Promise<void> => {
    try {
      await options.carrier.adopt(lapsed);
      await settle(lapsed, signal);
      if (signal.aborted) return;
      await options.onLapsed(lapsed, atMs);
      finished.add(lapsed);
      log.info({ coordinator: lapsed }, "finished what a lapsed coordinator left");
    } catch (error) {
      if (signal.aborted) return;
      log.error(
        { err: error, coordinator: lapsed },
        "could not finish what a lapsed coordinator left; it is tried again",
      );
    }
  };
  const forget = async (): Promise<void> => {
    for (const settled of await settledCoordinators(db, id, intervals.adoptionKeptMs)) {
      if (!finished.has(settled) || !(await options.carrier.release(settled))) continue;
      if (await forgetCoordinator(db, settled, id)) finished.delete(settled);
    }
  };
  return {
    expect(lapsed) {
      expected = lapsed;
    },
    async ends() {
      await Promise.all(finishing.values());
    },
    async round(signal) {
      if (!expected) return;
      const adopted = await adoptCoordinators(db, id, intervals.coordinatorTimeoutMs);
      // One that came back to life lapses anew some day, and then there is new work to finish.
      for (const known of finished) if (!adopted.some(({ id }) => id === known)) finished.delete(known);
      for (const lapsed of adopted) {
        if (finished.has(lapsed.id) || finishing.has(lapsed.id)) continue;
        // Side by side: one that lapses later is not to wait for the workers of the first.
        const done = finish(lapsed, signal).finally(() => finishing.delete(lapsed.id));
        finishing.set(lapsed.id, done);
      }
      rounds += 1;
      if (rounds % settleEveryRounds === 0) await forget();
    },
  };
}

/**
 * Which coordinators live, and who finishes what a lapsed one left.
 *
 * C1. Only the database's clock says that a coordinator lapsed.
 * C2. A lapsed coordinator is adopted by exactly one live one; if the adopter lapses, by another. Its row stays until all is done, so
 *     a crash in between loses nothing.
 * C3. Completions that were addressed to it are consumed until no worker is left that could owe it one.
 */
import type { Carrier, Logger, Service } from "@taskmesh/runtime";
import type { Db } from "../store/db.js";
import {
  adoptCoordinators,
  beatCoordinator,
  forgetCoordinator,
  retireCoordinators,
  settledCoordinators,
} from "../store/sessions.js";
import type { RegistryIntervals } from "./intervals.js";
import { createLoop } from "./loop.js";
import { createPart } from "./part.js";

/** Rounds between two looks whether an adopted coordinator can be forgotten: there is no hurry. */
const settleEveryRounds = 15;

export interface CoordinatorsOptions {
  db: Db;
  carrier: Pick<Carrier, "adopt" | "release">;
  /** Id of this process; a new one at each start of a process. */
  id: string;
  /** gRPC address of this process, for people. */
  address: string;
  /** No other process can have this database (embedded mode): what is found there lapsed when this one started. */
  exclusive: boolean;
  intervals: RegistryIntervals;
  /** Finish what a lapsed coordinator left in the database. Called after its completions are consumed here; repeated if it rejects. */
  onLapsed: (id: string) => Promise<void>;
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
}

function createAdoption(options: CoordinatorsOptions): Adoption {
  const { db, id, intervals, log } = options;
  const finished = new Set<string>();
  let expected = false;
  let rounds = 0;

  const finish = async (lapsed: string): Promise<void> => {
    try {
      await options.carrier.adopt(lapsed);
      await options.onLapsed(lapsed);
      finished.add(lapsed);
      log.info({ coordinator: lapsed }, "finished what a lapsed coordinator left");
    } catch (error) {
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
    async round(signal) {
      if (!expected) return;
      const adopted = await adoptCoordinators(db, id, intervals.coordinatorTimeoutMs);
      // One that came back to life lapses anew some day, and then there is new work to finish.
      for (const known of finished) if (!adopted.includes(known)) finished.delete(known);
      for (const lapsed of adopted) {
        if (signal.aborted) return;
        if (!finished.has(lapsed)) await finish(lapsed);
      }
      rounds += 1;
      if (rounds % settleEveryRounds === 0) await forget();
    },
  };
}

/**
 * All worker sessions of this coordinator: takes their streams, records their beats together, watches their work transports, and gives
 * up what they no longer run.
 *
 * One tick does what is due for all sessions; each kind of database work is one statement for all of them.
 */
import type { JetStreamAccess, Register } from "@taskmesh/proto";
import { type Carrier, type Logger, randomToken, type Service, statusError } from "@taskmesh/runtime";
import type { Intake } from "../pipeline/ports.js";
import type { Db } from "../store/db.js";
import { type BeatRow, type BindingRow, endSession, readBindings, recordBeats } from "../store/sessions.js";
import type { RegistryIntervals } from "./intervals.js";
import { createLoop, type Loop } from "./loop.js";
import { createPart } from "./part.js";
import { type OpenedSession, runSession, type Session, type SessionHost, type SessionStream } from "./session.js";

/** Sessions of one coordinator: memory stays bounded whatever connects. */
const sessionsMax = 10_000;
/** Bound attempts that are looked at in one scan, and given up at once. */
const bindingsMax = 20_000;
/** Ticks per probe interval: how late a dead path may be noticed. */
const ticksPerProbe = 5;

export interface SessionsOptions {
  db: Db;
  carrier: Pick<Carrier, "probe" | "healthy" | "access">;
  intake: () => Pick<Intake, "bind" | "lose">;
  intervals: RegistryIntervals;
  /** Stores a registration and prepares its answer. */
  open: (message: Register) => Promise<OpenedSession>;
  /** Sessions came, went, or changed what they can take: the live catalogue is to be read again. */
  onChange: () => void;
  log: Logger;
}

export interface Sessions extends Service {
  /** Runs one Connect stream to its end. Rejects with the status that it ends with, if it is not OK. */
  accept(stream: SessionStream): Promise<void>;
  /** A live session of this coordinator. */
  find(id: string): Session | undefined;
  /** The carrier lost data: every worker is told to publish its unconfirmed completions again. */
  republish(): void;
  /** Sends every worker to another coordinator and takes no new ones. Resolves when they are told. */
  drain(): Promise<void>;
  /** Gives up attempts whose session is over; what fails is found again by the scan for orphans. */
  lose(bindings: readonly BindingRow[], why: string): Promise<void>;
}

/** Makes the sessions of one coordinator. */
export function createSessions(options: SessionsOptions): Sessions {
  const { db, carrier, intervals, log } = options;
  const live = new Map<string, Session>();
  const open = new Set<Promise<void>>();
  const pending = new Set<Session>();
  let starting = 0;
  let draining = false;
  let flagsChanged = false;

  const lose = async (bindings: readonly BindingRow[], why: string): Promise<void> => {
    const intake = options.intake();
    await Promise.all(
      bindings.map(({ sessionId, ...ref }) =>
        intake.lose(ref, why).catch((error: unknown) => {
          log.warn({ err: error, run_id: ref.runId, session: sessionId }, "a lost attempt could not be given up yet");
        }),
      ),
    );
  };
  const flush = createLoop("session beats", {
    everyMs: intervals.flushMs,
    round: async () => {
      if (pending.size === 0) return;
      const batch = [...pending];
      const bump = flagsChanged;
      pending.clear();
      flagsChanged = false;
      try {
        const alive = await recordBeats(db, batch.map(beatRow), bump);
        for (const session of batch) if (!alive.has(session.id)) session.close(sessionGone());
      } catch (error) {
        for (const session of batch) if (live.get(session.id) === session) pending.add(session);
        flagsChanged ||= bump;
        throw error;
      }
      if (bump) options.onChange();
    },
    log,
    eager: false,
  });
  const news = (session: Session, urgent: boolean): void => {
    if (live.get(session.id) !== session) return;
    pending.add(session);
    if (!urgent) return;
    flagsChanged = true;
    flush.kick();
  };
  const end = async (session: Session): Promise<void> => {
    try {
      if (!(await endSession(db, session.id, session.opened.stream))) return;
      options.onChange();
      await lose(await readBindings(db, [session.id], bindingsMax), "its worker left");
    } catch (error) {
      log.warn({ err: error, session: session.id }, "a session could not be ended; it will lapse");
    }
  };
  const host: SessionHost = {
    intervals,
    intake: { bind: (...args) => options.intake().bind(...args) },
    async open(message) {
      if (draining) throw refuseDraining();
      if (live.size + starting >= sessionsMax) {
        const message = `this coordinator serves ${sessionsMax} sessions already`;
        throw statusError({ reason: "OVERLOADED", message, retryAfterMs: 5_000 });
      }
      starting += 1;
      try {
        return await options.open(message);
      } finally {
        starting -= 1;
      }
    },
    opened(session) {
      live.get(session.id)?.close(sessionGone());
      live.set(session.id, session);
      options.onChange();
      if (draining) void session.drain();
    },
    news,
    ended(session, left) {
      pending.delete(session);
      if (live.get(session.id) !== session) return;
      live.delete(session.id);
      // A worker that was told to go elsewhere closes this stream and keeps its session.
      if (left && !draining) void end(session);
    },
    renew: (session) => accessOf(carrier, session.opened),
    carrierHealthy: () => carrier.healthy(),
    log,
  };
  const ticking = createTick(options, live, news);
  const scanning = createBindingScan(options, live, lose);

  return createPart("sessions", {
    async start() {
      draining = false;
      for (const loop of [flush, ticking, scanning]) await loop.start();
    },
    async stop() {
      await drainAll();
      await Promise.all([...open]);
      for (const loop of [scanning, ticking, flush]) await loop.stop();
    },
    extra: {
      async accept(stream: SessionStream) {
        const done = runSession(stream, host);
        const settled = done.catch(() => {});
        open.add(settled);
        await settled;
        open.delete(settled);
        await done;
      },
      find: (id: string) => live.get(id),
      republish() {
        for (const session of live.values()) session.republish = true;
      },
      drain: drainAll,
      lose,
    },
  });

  async function drainAll(): Promise<void> {
    draining = true;
    await Promise.all([...live.values()].map((session) => session.drain()));
  }
}

/** What a session's worker needs to dial the carrier; undefined where it can't. */
export function accessOf(
  carrier: Pick<Carrier, "access">,
  session: Pick<OpenedSession, "id" | "namespaceId" | "lanes">,
): Promise<JetStreamAccess | undefined> {
  const lanes = session.lanes.map((granted) => granted.lane);
  return carrier.access({ namespaceId: session.namespaceId, sessionId: session.id, lanes });
}

/** Sends nonces, judges what came back, and cuts off streams that went silent. */
function createTick(
  { carrier, intervals, log }: SessionsOptions,
  live: ReadonlyMap<string, Session>,
  news: (session: Session, urgent: boolean) => void,
): Loop {
  let ticks = 0;
  const tick = async (): Promise<void> => {
    const nowMs = performance.now();
    const healthy = carrier.healthy();
    const probing = ticks++ % ticksPerProbe === 0;
    for (const session of live.values()) {
      // While the carrier is away every path is dead, and opening one again would not help.
      if (!healthy) session.nonces.restart(nowMs);
      else if (probing) {
        const nonce = randomToken();
        session.nonces.sent(nonce, nowMs);
        carrier.probe(session.opened.namespaceId, session.id, nonce);
      }
      const assignable = session.nonces.ageMs(nowMs) <= intervals.nonceMaxAgeMs;
      if (assignable !== session.assignable) {
        session.assignable = assignable;
        log.info({ session: session.id, assignable }, "work transport of a session changed");
        news(session, true);
      }
      if (nowMs - session.lastBeatAtMs > intervals.sessionTimeoutMs) session.close(sessionGone());
    }
  };
  return createLoop("session tick", { everyMs: intervals.probeMs / ticksPerProbe, round: tick, log, eager: false });
}

/** Gives up bound attempts that their worker stopped listing. */
function createBindingScan(
  { db, intervals, log }: SessionsOptions,
  live: ReadonlyMap<string, Session>,
  lose: Sessions["lose"],
): Loop {
  const round = async (): Promise<void> => {
    const sessions = [...live.values()].filter((session) => session.mayHaveBindings);
    if (sessions.length === 0) return;
    const ids = sessions.map((session) => session.id);
    const bindings = await readBindings(db, ids, bindingsMax);
    const bySession = new Map<string, BindingRow[]>(ids.map((id) => [id, []]));
    for (const binding of bindings) bySession.get(binding.sessionId)?.push(binding);
    const nowMs = performance.now();
    for (const session of sessions) {
      const bound = bySession.get(session.id) ?? [];
      // A bind that is under way sets it again.
      if (bound.length === 0 && session.inFlight === 0) session.mayHaveBindings = false;
      await lose(session.unlisted.check(bound, session.listed, nowMs), "its worker no longer runs it");
    }
  };
  return createLoop("binding scan", { everyMs: intervals.bindingScanMs, round, log, eager: false });
}

function beatRow(session: Session): BeatRow {
  const free = session.opened.lanes.flatMap(({ taskQueue, lane, slots }) => {
    const reported = session.free.get(taskQueue);
    return reported === undefined ? [] : [{ queueId: lane.queueId, free: Math.min(reported, slots) }];
  });
  return {
    sessionId: session.id,
    stream: session.opened.stream,
    ageMs: Math.max(0, performance.now() - session.lastBeatAtMs),
    inFlight: session.inFlight,
    draining: session.draining,
    assignable: session.assignable,
    free,
  };
}

const sessionGone = (): Error =>
  statusError({ reason: "SESSION_NOT_FOUND", message: "the session lapsed or was resumed elsewhere: register again" });

const refuseDraining = (): Error =>
  statusError({ reason: "DRAINING", message: "the coordinator is shutting down: connect again", retryAfterMs: 500 });

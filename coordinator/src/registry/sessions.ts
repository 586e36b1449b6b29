/**
 * All worker sessions of this coordinator: takes their streams, records their beats together, watches their work transports, and gives
 * up what they no longer run.
 *
 * One tick does what is due for all sessions; each kind of database work is one statement for all of them.
 */
import type { JetStreamAccess, Register } from "@taskmesh/proto";
import { type Carrier, type Logger, metrics, randomToken, type Service, statusError } from "@taskmesh/runtime";
import type { Intake } from "../pipeline/ports.js";
import type { Db } from "../store/db.js";
import { type BeatRow, type BindingRow, endSession, readBindings, recordBeats } from "../store/sessions.js";
import type { Heard } from "./heard.js";
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
  heard: Pick<Heard, "settled">;
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
  /** Gives up attempts whose session is over; what fails, or may be reported yet, is found again by the scan for orphans. */
  lose(bindings: readonly BindingRow[], why: string): Promise<void>;
}

/** Makes the sessions of one coordinator. */
export function createSessions(options: SessionsOptions): Sessions {
  const room = new SessionRoom(options);
  const loops = [room.flush, createTick(options, room), createBindingScan(options, room)];
  return createPart("sessions", {
    async start() {
      room.draining = false;
      for (const loop of loops) await loop.start();
    },
    async stop() {
      await room.drain();
      await room.ends();
      for (const loop of loops.toReversed()) await loop.stop();
    },
    extra: {
      accept: (stream: SessionStream) => room.accept(stream),
      find: (id: string) => room.live.get(id),
      republish() {
        for (const session of room.live.values()) session.republish = true;
      },
      drain: () => room.drain(),
      lose: room.lose,
    },
  });
}

/** The sessions that are live here, and what becomes of their beats. */
class SessionRoom implements SessionHost {
  readonly live = new Map<string, Session>();
  readonly flush: Loop;
  readonly intake: SessionHost["intake"];
  readonly intervals: RegistryIntervals;
  readonly log: Logger;
  draining = false;
  readonly #options: SessionsOptions;
  readonly #open = new Set<Promise<void>>();
  readonly #pending = new Set<Session>();
  #starting = 0;
  #flagsChanged = false;

  constructor(options: SessionsOptions) {
    this.#options = options;
    this.intervals = options.intervals;
    this.log = options.log;
    this.intake = { bind: (...args) => options.intake().bind(...args) };
    this.flush = createLoop("session beats", {
      everyMs: options.intervals.flushMs,
      round: () => this.#record(),
      log: options.log,
      eager: false,
    });
  }

  async accept(stream: SessionStream): Promise<void> {
    const done = runSession(stream, this);
    const settled = done.catch(() => {});
    this.#open.add(settled);
    await settled;
    this.#open.delete(settled);
    await done;
  }

  /** Resolves when no stream is open. */
  async ends(): Promise<void> {
    await Promise.all(this.#open);
  }

  async open(message: Register): Promise<OpenedSession> {
    if (this.draining) {
      const text = "the coordinator is shutting down: connect again";
      throw statusError({ reason: "DRAINING", message: text, retryAfterMs: 500 });
    }
    if (this.live.size + this.#starting >= sessionsMax) {
      const text = `this coordinator serves ${sessionsMax} sessions already`;
      throw statusError({ reason: "OVERLOADED", message: text, retryAfterMs: 5_000 });
    }
    this.#starting += 1;
    try {
      return await this.#options.open(message);
    } finally {
      this.#starting -= 1;
    }
  }

  opened(session: Session): void {
    this.live.get(session.id)?.close(sessionGone());
    this.live.set(session.id, session);
    metrics.sessions.set(this.live.size);
    this.#options.onChange();
    if (this.draining) void session.drain();
  }

  news(session: Session, urgent: boolean): void {
    if (this.live.get(session.id) !== session) return;
    this.#pending.add(session);
    if (!urgent) return;
    this.#flagsChanged = true;
    this.flush.kick();
  }

  ended(session: Session, left: boolean): void {
    this.#pending.delete(session);
    if (this.live.get(session.id) !== session) return;
    this.live.delete(session.id);
    metrics.sessions.set(this.live.size);
    // A worker that was told to go elsewhere closes this stream and keeps its session.
    if (left && !this.draining) void this.#end(session);
  }

  renew(session: Session): Promise<JetStreamAccess | undefined> {
    return accessOf(this.#options.carrier, session.opened);
  }

  carrierHealthy(): boolean {
    return this.#options.carrier.healthy();
  }

  async drain(): Promise<void> {
    this.draining = true;
    await Promise.all([...this.live.values()].map((session) => session.drain()));
  }

  readonly lose = async (bindings: readonly BindingRow[], why: string): Promise<void> => {
    const intake = this.#options.intake();
    const settled = await this.#options.heard.settled(bindings);
    await Promise.all(
      settled.map(({ sessionId, ...ref }) =>
        intake.lose(ref, why).catch((error: unknown) => {
          const about = { err: error, run_id: ref.runId, session: sessionId };
          this.log.warn(about, "a lost attempt could not be given up yet");
        }),
      ),
    );
  };

  async #record(): Promise<void> {
    if (this.#pending.size === 0) return;
    const batch = [...this.#pending];
    const bump = this.#flagsChanged;
    this.#pending.clear();
    this.#flagsChanged = false;
    try {
      const alive = await recordBeats(this.#options.db, batch.map(beatRow), bump);
      for (const session of batch) if (!alive.has(session.id)) session.close(sessionGone());
    } catch (error) {
      for (const session of batch) if (this.live.get(session.id) === session) this.#pending.add(session);
      this.#flagsChanged ||= bump;
      throw error;
    }
    if (bump) this.#options.onChange();
  }

  async #end(session: Session): Promise<void> {
    const { db, onChange } = this.#options;
    try {
      if (!(await endSession(db, session.id, session.opened.stream))) return;
      onChange();
      await this.lose(await readBindings(db, [session.id], bindingsMax), "its worker left");
    } catch (error) {
      this.log.warn({ err: error, session: session.id }, "a session could not be ended; it will lapse");
    }
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
function createTick({ carrier, intervals, log }: SessionsOptions, room: SessionRoom): Loop {
  let ticks = 0;
  const tick = async (): Promise<void> => {
    const nowMs = performance.now();
    const healthy = carrier.healthy();
    const probing = ticks++ % ticksPerProbe === 0;
    for (const session of room.live.values()) {
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
        room.news(session, true);
      }
      if (nowMs - session.lastBeatAtMs > intervals.sessionTimeoutMs) session.close(sessionGone());
    }
  };
  return createLoop("session tick", { everyMs: intervals.probeMs / ticksPerProbe, round: tick, log, eager: false });
}

/** Gives up bound attempts that their worker stopped listing. */
function createBindingScan({ db, intervals, log }: SessionsOptions, room: SessionRoom): Loop {
  const round = async (): Promise<void> => {
    const sessions = [...room.live.values()].filter((session) => session.mayHaveBindings);
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
      await room.lose(session.unlisted.check(bound, session.listed, nowMs), "its worker no longer runs it");
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
    told: session.told,
    free,
  };
}

const sessionGone = (): Error =>
  statusError({ reason: "SESSION_NOT_FOUND", message: "the session lapsed or was resumed elsewhere: register again" });

/**
 * One stream of one worker session, from Register to its end.
 *
 *   waiting --Register--> registering --stored--> live --> ended
 *
 * S1. The first message is Register, once; everything after it is a Beat. Anything else ends the stream.
 * S2. Messages are handled one after another, and the next is read when the last is answered: HTTP/2's flow control holds back a worker
 *     that sends faster, and a worker that does not read is cut off after `patienceMs`.
 * S3. A stream that the worker closes ends the session at once. A stream that breaks, or that this side closes, leaves it alive
 *     in the database, where it lapses or is resumed.
 * S4. What a beat says about an attempt is believed only through Intake.bind, which checks the lease.
 */
import {
  type AttemptBeat,
  type Beat,
  BeatReply,
  CancelReason,
  type ConnectRequest,
  type ConnectResponse,
  type JetStreamAccess,
  type Register,
  type Registered,
} from "@taskmesh/proto";
import { type Logger, metrics, sleep, statusError } from "@taskmesh/runtime";
import type { AttemptRef, BindVerdict, Intake } from "../pipeline/ports.js";
import type { BindingRow } from "../store/sessions.js";
import type { RegistryIntervals } from "./intervals.js";
import { NonceWatch } from "./nonce-watch.js";
import type { GrantedLane } from "./registration.js";
import { ReportWatch } from "./report-watch.js";
import { UnlistedWatch } from "./unlisted-watch.js";

/** The rpc under a session. */
export interface SessionStream {
  /** What the worker sends; ends when it closes its side, throws when the stream breaks. */
  readonly messages: AsyncIterable<ConnectRequest>;
  /** Whether the call was broken off rather than closed. */
  readonly cancelled: () => boolean;
  /** Resolves when there is room for the next response. Rejects when the worker is gone. */
  send(response: ConnectResponse): Promise<void>;
}

/** What a Register message became. */
export interface OpenedSession {
  id: string;
  namespaceId: number;
  /** Fences older streams of the session. */
  stream: number;
  resumed: boolean;
  lanes: readonly GrantedLane[];
  registered: Registered;
}

/** What a session needs of its surroundings. */
export interface SessionHost {
  intervals: RegistryIntervals;
  intake: Pick<Intake, "bind">;
  /** Stores the registration. Rejects with the status that ends the stream. */
  open(message: Register): Promise<OpenedSession>;
  /** The session is live; its beats and flags are to be recorded from now on. */
  opened(session: Session): void;
  /** There is news to record; at once if a flag changed that the catalogue shows. */
  news(session: Session, urgent: boolean): void;
  /** The stream is over; `left`: the worker closed it, so the session ends too. */
  ended(session: Session, left: boolean): void;
  /** Credentials in place of those that expire. */
  renew(session: Session): Promise<JetStreamAccess | undefined>;
  carrierHealthy(): boolean;
  log: Logger;
}

/** A stream that breaks looks closed at first: the gRPC library reports its end a moment before it reports the break. */
const breakTellMs = 50;
/** Beats are handled at most this often per beat interval: the rest waits in the worker's socket. */
const beatsPerInterval = 50;
/** Attempts listed beyond the slots: starts that wait at the worker's door. */
const listedSlack = 64;
/** Share of the life of credentials that is left when they are renewed. */
const renewShare = 0.25;
/** Run ids are UUIDs; the rest of a ref only has to be storable. */
const runIdForm = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const refTextMax = 128;
const int32Max = 2 ** 31 - 1;

export class Session {
  readonly unlisted: UnlistedWatch<BindingRow>;
  readonly nonces = new NonceWatch(performance.now());
  /** Leases that the last beat listed. */
  listed: ReadonlySet<string> = new Set();
  /** Whether rows of `bindings` may name this session. */
  mayHaveBindings: boolean;
  inFlight = 0;
  draining = false;
  assignable = true;
  /** What the first beat of this stream listed is decided. */
  told = false;
  free = new Map<string, number>();
  lastBeatAtMs = performance.now();
  /** To be said with the next reply: the carrier lost data. */
  republish = false;

  readonly #reports = new ReportWatch();
  readonly #slots: number;
  readonly #abort = new AbortController();
  #lastReopenAtMs = Number.NEGATIVE_INFINITY;
  #lastNumber = 0n;
  #renewAtMs = Number.POSITIVE_INFINITY;
  #closing: { error?: Error } | undefined;

  constructor(
    readonly opened: OpenedSession,
    private readonly stream: SessionStream,
    private readonly host: SessionHost,
  ) {
    this.unlisted = new UnlistedWatch(host.intervals.unlistedMs);
    this.mayHaveBindings = opened.resumed;
    this.#slots = opened.lanes.reduce((sum, lane) => sum + lane.slots, 0);
    this.#planRenewal(opened.registered.jetstream);
  }

  get id(): string {
    return this.opened.id;
  }

  get closing(): boolean {
    return this.#closing !== undefined;
  }

  /** Ends the stream from this side (S3); the session lives on in the database unless the caller ends it. */
  close(error?: Error): void {
    if (this.#closing) return;
    this.#closing = error ? { error } : {};
    this.#abort.abort();
  }

  /** Tells the worker to connect to another coordinator, then closes. */
  async drain(): Promise<void> {
    if (this.#closing) return;
    const reply = { ...BeatReply.create(), number: this.#lastNumber, drain: true };
    await this.#send({ $case: "beatReply", value: reply }).catch(() => {});
    this.close();
  }

  /** Reads beats until the stream is over. Rejects with what the worker is to be told, if anything. */
  async serve(messages: AsyncIterator<ConnectRequest>): Promise<void> {
    let left = false;
    try {
      await this.#send({ $case: "registered", value: this.opened.registered });
      left = await this.#read(messages);
    } finally {
      this.#closing ??= {};
      this.host.ended(this, left);
    }
    if (this.#closing.error) throw this.#closing.error;
  }

  /** S2: a worker that does not read its answers in time is cut off. */
  async #send(message: NonNullable<ConnectResponse["message"]>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const slow = new Promise<never>((_, reject) => {
      const giveUp = (): void => reject(protocolBroken("the worker does not read its answers"));
      timer = setTimeout(giveUp, this.host.intervals.patienceMs);
    });
    try {
      await Promise.race([this.stream.send({ message }), slow]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** True when the worker closed the stream. */
  async #read(messages: AsyncIterator<ConnectRequest>): Promise<boolean> {
    const betweenMs = this.host.intervals.beatMs / beatsPerInterval;
    let earliestMs = 0;
    for (;;) {
      const next = await nextOrAbort(messages, this.#abort.signal);
      if (next === "aborted") return false;
      if (next.done) {
        await sleep(breakTellMs, this.#abort.signal);
        return !this.stream.cancelled();
      }
      const { message } = next.value;
      if (message?.$case !== "beat") throw protocolBroken("every message after Register must be a Beat"); // S1
      const earlyMs = earliestMs - performance.now();
      if (earlyMs > 0) await sleep(earlyMs, this.#abort.signal); // S2
      earliestMs = performance.now() + betweenMs;
      await this.#beat(message.value);
    }
  }

  async #beat(beat: Beat): Promise<void> {
    if (beat.attempts.length > this.#slots + listedSlack) {
      throw protocolBroken(`a beat lists ${beat.attempts.length} attempts; the worker has ${this.#slots} slots`);
    }
    this.#lastNumber = beat.number;
    metrics.beats.add(1);
    this.lastBeatAtMs = performance.now();
    this.nonces.echoed(beat.nonce);
    this.listed = new Set(beat.attempts.map((attempt) => attempt.lease));
    this.unlisted.listed(this.listed);
    this.#reports.keep(this.listed);
    this.inFlight = beat.attempts.length;
    for (const entry of beat.freeSlots.slice(0, this.opened.lanes.length)) this.free.set(entry.taskQueue, entry.free);
    // Draining is a one-way street: a worker that changes its mind registers again.
    const urgent = beat.draining && !this.draining;
    this.draining ||= beat.draining;
    this.host.news(this, urgent);
    const reply = await this.#answer(beat);
    await this.#send({ $case: "beatReply", value: reply });
  }

  async #answer(beat: Beat): Promise<BeatReply> {
    const reply = { ...BeatReply.create(), number: beat.number };
    reply.reopenTransport = this.#mustReopen();
    if (this.republish) {
      this.republish = false;
      reply.republish = true;
    }
    if (Date.now() >= this.#renewAtMs) await this.#renew(reply);
    if (beat.attempts.length === 0) {
      this.#tell();
      return reply;
    }
    // Verdicts that are not there in time come with the next beat: a database that is away must not silence the session.
    const answered = { ...reply, boundLeases: [...reply.boundLeases], cancels: [...reply.cancels] };
    const late = new AbortController();
    const verdicts = Promise.all(beat.attempts.map((attempt) => this.#bind(attempt, answered, late.signal)));
    const decided = await Promise.race([verdicts, sleep(this.host.intervals.beatMs, late.signal)]);
    late.abort();
    if (decided?.every((one) => one)) this.#tell();
    return answered;
  }

  #tell(): void {
    if (this.told) return;
    this.told = true;
    this.host.news(this, false);
  }

  /** Answers whether there was a verdict in time. */
  async #bind(beat: AttemptBeat, reply: BeatReply, late: AbortSignal): Promise<boolean> {
    const verdict = await this.#verdict(beat);
    if (verdict !== undefined && verdict !== "stale") this.mayHaveBindings = true;
    if (late.aborted || verdict === undefined) return false;
    if (verdict === "stale") {
      reply.cancels.push({ lease: beat.lease, reason: CancelReason.CANCEL_REASON_LEASE_LOST });
      return true;
    }
    reply.boundLeases.push(beat.lease);
    if (verdict === "cancelling") {
      reply.cancels.push({ lease: beat.lease, reason: CancelReason.CANCEL_REASON_CANCELLED });
    }
    return true;
  }

  /** undefined: not known now. */
  async #verdict(beat: AttemptBeat): Promise<BindVerdict | undefined> {
    const ref = attemptRef(beat);
    if (!ref) return "stale";
    const startedAtMs = beat.startedAt
      ? Number(beat.startedAt.seconds) * 1000 + Math.floor(beat.startedAt.nanos / 1e6)
      : Date.now();
    try {
      const report = this.#reports.newsOf(beat);
      const { sinceReportMs, startToCloseMs } = beat;
      // Said with each beat, not only when it has grown: the engine stores no more than what is longer, and this keeps nothing of it.
      const verdict = await this.host.intake.bind(ref, this.id, startedAtMs, sinceReportMs, report, startToCloseMs);
      if (report) this.#reports.stored(beat);
      return verdict;
    } catch (error) {
      this.host.log.debug({ err: error, run_id: ref.runId, step_id: ref.stepId }, "an attempt could not be bound");
      return undefined;
    }
  }

  #mustReopen(): boolean {
    const nowMs = performance.now();
    const { nonceMaxAgeMs } = this.host.intervals;
    if (!this.host.carrierHealthy() || this.nonces.ageMs(nowMs) <= nonceMaxAgeMs) return false;
    // Once per age: a transport that was just opened again needs time to prove itself.
    if (nowMs - this.#lastReopenAtMs < nonceMaxAgeMs) return false;
    this.#lastReopenAtMs = nowMs;
    return true;
  }

  async #renew(reply: BeatReply): Promise<void> {
    const access = await this.host.renew(this).catch((error: unknown) => {
      this.host.log.warn(
        { err: error, session: this.id },
        "credentials could not be renewed; the next beat tries again",
      );
      return undefined;
    });
    if (!access) return;
    reply.jetstream = access;
    this.#planRenewal(access);
  }

  #planRenewal(access: JetStreamAccess | undefined): void {
    if (!access?.expiresAt) return;
    const expiresAtMs = Number(access.expiresAt.seconds) * 1000;
    const nowMs = Date.now();
    this.#renewAtMs = expiresAtMs - Math.max(0, expiresAtMs - nowMs) * renewShare;
  }
}

/** Runs one stream from its first message on. Rejects with the status that it ends with, if it is not OK. */
export async function runSession(stream: SessionStream, host: SessionHost): Promise<void> {
  const messages = stream.messages[Symbol.asyncIterator]();
  const first = await nextOrAbort(messages, AbortSignal.timeout(host.intervals.patienceMs));
  if (first === "aborted") throw protocolBroken("no Register came in time");
  if (first.done) return;
  const { message } = first.value;
  if (message?.$case !== "register") throw protocolBroken("the first message must be Register"); // S1
  const session = new Session(await host.open(message.value), stream, host);
  host.opened(session);
  await session.serve(messages);
}

function attemptRef(beat: AttemptBeat): AttemptRef | undefined {
  const { runId, stepId, item, attempt, lease } = beat;
  const known =
    runIdForm.test(runId) &&
    [stepId, lease].every((text) => text.length > 0 && text.length <= refTextMax && !text.includes("\u0000")) &&
    [item, attempt].every((count) => count <= int32Max);
  return known ? { runId, stepId, item, attempt, lease } : undefined;
}

async function nextOrAbort<T>(
  iterator: AsyncIterator<T>,
  signal: AbortSignal,
): Promise<IteratorResult<T, unknown> | "aborted"> {
  if (signal.aborted) return "aborted";
  let onAbort: () => void = () => {};
  const aborted = new Promise<"aborted">((resolve) => {
    onAbort = () => resolve("aborted");
    signal.addEventListener("abort", onAbort, { once: true });
  });
  const next = iterator.next();
  next.catch(() => {}); // It may lose the race and fail later.
  try {
    return await Promise.race([next, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** A status for what a worker did wrong. */
function protocolBroken(message: string): Error {
  return statusError({ reason: "ARGUMENT_INVALID", message });
}

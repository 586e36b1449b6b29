/**
 * The session of a worker with the mesh: registered, kept by beats, found again when it breaks.
 *
 *   dial --Register--> Registered --Beat, every interval--> BeatReply ... --+
 *    ^                                                                      |
 *    +---- full jitter, next address, same session id <--- breaks, lapses, drains
 *
 * S1. Registration is driven again until it holds. Only the first one can fail for good, on what a retry can't mend; later ones say so
 *     loudly and go on, since running attempts still need the session.
 * S2. A broken stream is cancelled, never ended: ending it would end the session, and with it the bindings of running attempts.
 * S3. Liveness is judged inside the stream: three intervals without a BeatReply and it is torn down, whatever the socket says.
 *     Intervals are counted, not measured, so a process that was stopped and resumed reads what waits for it first.
 * S4. Nothing here runs per attempt.
 */
import type { ClientDuplexStream } from "@grpc/grpc-js";
import type { Beat, BeatReply, ConnectRequest, ConnectResponse, Register, Registered } from "@taskmesh/proto";
import {
  type Address,
  formatAddress,
  fromServiceError,
  fullJitter,
  type Logger,
  metrics,
  StatusError,
  sleep,
  status,
} from "@taskmesh/runtime";
import type { Dialled } from "./dial.js";

/** Bounds of the random pause between tries. The cap keeps a healed mesh from waiting for its workers. */
const backoff = { initialMs: 200, capMs: 5_000 };
/** Time that a coordinator has to answer Register, descriptors of 4 MiB included. */
const registerTimeoutMs = 15_000;
/** Intervals without a BeatReply after which the stream counts as dead. */
const silentIntervalsMax = 3;
/** Time that the coordinator has to end the session after the worker did. */
const goodbyeTimeoutMs = 2_000;
/** Tries after which an unreachable mesh is reported as a warning, then each time the number doubles. */
const quietTries = 3;
/** An interval this much late means that something held the event loop. */
const lateBeatMs = 5_000;

/** What the session asks of the worker, and tells it. */
export interface SessionListener {
  /** What to register, with the session to resume if there is one. */
  register(sessionId: string): Register;
  /** The registration holds. Called again after each reconnect. */
  onRegistered(registered: Registered, dialled: Dialled): void;
  /** The next beat, without its number. */
  beat(): Omit<Beat, "number">;
  onReply(reply: BeatReply): void;
  /** The stream is gone; another is on its way. */
  onBroken(): void;
}

export interface ConnectionOptions {
  /** At least one. */
  addresses: readonly Address[];
  dial(address: Address): Dialled;
  listener: SessionListener;
  log: Logger;
}

/** A session that keeps itself. */
export interface Connection {
  /** Resolves when the first registration holds. Rejects when it can't: with a StatusError, or when stopped. */
  readonly registered: Promise<void>;
  /** Id of the session, empty before the first registration. */
  readonly sessionId: string;
  /** The coordinator of the session; undefined while there is none. */
  readonly dialled: Dialled | undefined;
  /** Sends a beat at once if there is a session. */
  beatNow(): void;
  /** Ends the session and closes everything. Safe to repeat. */
  stop(): Promise<void>;
}

/** Codes that a retry can't mend, for a first registration. */
const hopeless = new Set<status>([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.FAILED_PRECONDITION,
  status.PERMISSION_DENIED,
  status.UNAUTHENTICATED,
  status.UNIMPLEMENTED,
  status.OUT_OF_RANGE,
]);

const beats = metrics.workerBeats.at();
const beatSeconds = metrics.workerBeatSeconds.at();

/**
 * How loud a failed try is: what no retry mends (another mesh behind the address, a contract that it refuses) is an error from the first time
 * on; what passes by itself is only worth a warning when it does not. Each is said again when the number of tries has doubled.
 */
function levelOf(error: StatusError, tries: number): "error" | "warn" | "info" {
  const doubled = (tries & (tries - 1)) === 0;
  if (doubled && hopeless.has(error.code) && error.reason !== "SESSION_NOT_FOUND") return "error";
  return doubled && tries >= quietTries ? "warn" : "info";
}

type Stream = ClientDuplexStream<ConnectRequest, ConnectResponse>;

/** Opens a session and keeps it until it is stopped. */
export function openConnection(options: ConnectionOptions): Connection {
  return new SelfHealingConnection(options);
}

class SelfHealingConnection implements Connection {
  readonly registered: Promise<void>;
  sessionId = "";
  dialled: Dialled | undefined;
  readonly #options: ConnectionOptions;
  readonly #stopping = new AbortController();
  readonly #loop: Promise<void>;
  #settleFirst: { resolve(): void; reject(error: Error): void } | undefined;
  /** The live stream, once registered. */
  #stream: Stream | undefined;
  #beatNumber = 0n;
  /** When the newest beat went out. */
  #beatAtMs = 0;
  #silentIntervals = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.registered = new Promise((resolve, reject) => {
      this.#settleFirst = { resolve, reject };
    });
    this.registered.catch(() => {});
    this.#loop = this.#run();
  }

  beatNow(): void {
    this.#sendBeat();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#settle(new Error("the worker was stopped before its registration held"));
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { addresses, log } = this.#options;
    const { signal } = this.#stopping;
    // Workers that start together don't all take the first address.
    let next = Math.floor(Math.random() * addresses.length);
    let tries = 0;
    while (!signal.aborted) {
      const address = addresses[next++ % addresses.length]!;
      const error = await this.#session(address, () => {
        tries = 0;
      });
      if (signal.aborted) return;
      tries++;
      if (this.#settleFirst && hopeless.has(error.code) && error.reason !== "SESSION_NOT_FOUND") {
        this.#settle(error);
        return;
      }
      if (error.reason === "SESSION_NOT_FOUND") this.sessionId = "";
      const pauseMs = error.reason === "DRAINING" && tries <= addresses.length ? 0 : fullJitter(tries, backoff);
      const line = {
        address: formatAddress(address),
        reason: error.reason,
        error: error.message,
        retry_ms: Math.round(pauseMs),
      };
      log[levelOf(error, tries)](line, "no session with the mesh; connecting again");
      await sleep(pauseMs, signal);
    }
  }

  #settle(error?: Error): void {
    const first = this.#settleFirst;
    this.#settleFirst = undefined;
    if (error) first?.reject(error);
    else first?.resolve();
  }

  /** One stream from dial to end. Never rejects; says why it ended. */
  async #session(address: Address, onHeld: () => void): Promise<StatusError> {
    const { dial, listener } = this.#options;
    const dialled = dial(address);
    const { signal } = this.#stopping;
    let timer: NodeJS.Timeout | undefined;
    let ended: ((error: StatusError) => void) | undefined;
    const end = new Promise<StatusError>((resolve) => {
      ended = resolve;
    });
    const stream = dialled.registry.connect();
    const tearDown = (reason: string, message: string): void => {
      ended?.(statusOf(status.UNAVAILABLE, reason, message));
    };
    timer = setTimeout(() => tearDown("DEADLINE_EXCEEDED", "no answer to Register"), registerTimeoutMs);
    const onStop = (): void =>
      this.#stream === stream ? this.#sayGoodbye(stream, ended) : tearDown("CALL_CANCELLED", "");
    signal.addEventListener("abort", onStop, { once: true });

    stream.on("error", (error) => ended?.(fromServiceError(error)));
    stream.on("end", () => tearDown("STREAM_ENDED", "the coordinator closed the session"));
    stream.on("data", ({ message }: ConnectResponse) => {
      if (message?.$case === "registered" && this.#stream !== stream) {
        clearTimeout(timer);
        timer = this.#hold(stream, dialled, message.value, tearDown);
        onHeld();
      } else if (message?.$case === "beatReply") {
        this.#silentIntervals = 0;
        if (message.value.number === this.#beatNumber) beatSeconds.record((performance.now() - this.#beatAtMs) / 1_000);
        listener.onReply(message.value);
        if (message.value.drain) tearDown("DRAINING", "the coordinator is draining");
      }
    });
    stream.write({ message: { $case: "register", value: listener.register(this.sessionId) } });

    const error = await end;
    clearInterval(timer);
    signal.removeEventListener("abort", onStop);
    const held = this.#stream === stream;
    this.#stream = undefined;
    this.dialled = undefined;
    stream.cancel(); // S2
    if (held) listener.onBroken();
    dialled.close();
    return error;
  }

  /** The registration holds: beats from here on. Returns their timer. */
  #hold(
    stream: Stream,
    dialled: Dialled,
    registered: Registered,
    tearDown: (reason: string, message: string) => void,
  ): NodeJS.Timeout {
    const { listener, log } = this.#options;
    this.#stream = stream;
    this.dialled = dialled;
    this.sessionId = registered.sessionId;
    this.#silentIntervals = 0;
    listener.onRegistered(registered, dialled);
    this.#settle();
    this.#sendBeat();
    const intervalMs = Math.max(100, durationMs(registered.beatInterval) ?? 5_000);
    let dueAtMs = performance.now() + intervalMs;
    return setInterval(() => {
      const lateMs = performance.now() - dueAtMs;
      dueAtMs = performance.now() + intervalMs;
      if (lateMs > lateBeatMs) {
        log.warn(
          { blocked_ms: Math.round(lateMs) },
          "the event loop was blocked: a handler computes without a pause, or the process was stopped",
        );
      }
      if (++this.#silentIntervals > silentIntervalsMax)
        tearDown("BEATS_UNANSWERED", "the coordinator does not answer beats");
      else this.#sendBeat();
    }, intervalMs);
  }

  #sendBeat(): void {
    const stream = this.#stream;
    // A stream that can't take more has beats waiting already; the next interval will tell whether it is dead.
    if (!stream?.writable || stream.writableNeedDrain) return;
    const value: Beat = { ...this.#options.listener.beat(), number: ++this.#beatNumber };
    this.#beatAtMs = performance.now();
    beats.add();
    stream.write({ message: { $case: "beat", value } });
  }

  /** Ends the session in order: a last beat, then the end of the stream, which the coordinator answers with its own. */
  #sayGoodbye(stream: Stream, ended: ((error: StatusError) => void) | undefined): void {
    this.#sendBeat();
    stream.end();
    setTimeout(() => ended?.(statusOf(status.CANCELLED, "CALL_CANCELLED", "stopped")), goodbyeTimeoutMs).unref();
  }
}

function statusOf(code: status, reason: string, message: string): StatusError {
  return new StatusError({ code, reason, message });
}

function durationMs(duration: { seconds: bigint; nanos: number } | undefined): number | undefined {
  return duration && Number(duration.seconds) * 1_000 + duration.nanos / 1e6;
}

/**
 * What a handler knows about its attempt, and what it can say while it runs.
 *
 * The context is made once per attempt and everything that costs (the signal, the log, the headers) is made when it is first asked for,
 * so a handler that ignores its context pays for one small object.
 */
import type { Any, LogLine, Progress } from "@taskmesh/proto";
import { checkpointBytesMax, readCheckpoint, toCheckpoint } from "./checkpoint.js";
import { type AbortCode, AttemptAborted, cutText } from "./errors.js";
import { AttemptLog } from "./log.js";

/** Most that an attempt may take in all: what a beat can tell. */
const attemptMsMax = 2 ** 32 - 1;

/** Structured fields of a log line: anything that JSON can hold. */
export type LogFields = Readonly<Record<string, unknown>>;

/** The attempt's own log, at most 64 KiB; later lines are counted, not kept. Lines go to the worker's log as well. */
export interface ActionLog {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** What a handler is given beside its input. Safe to destructure. */
export interface ActionContext {
  /**
   * Aborts when the attempt must stop: cancelled, superseded, timed out, or the worker's drain time is over.
   * Its `reason` is an `AttemptAborted` whose `code` says which.
   */
  readonly signal: AbortSignal;
  /** When the attempt times out, on this host's clock; undefined if nothing bounds it. */
  readonly deadline: Date | undefined;
  /** Milliseconds until the attempt times out, 0 when it has; Infinity if nothing bounds it. Unmoved by changes of the host's clock. */
  remainingMs(): number;
  /** Counted from 1. */
  readonly attempt: number;
  /** Random token of this very attempt: a fencing token for stores that can check one. */
  readonly lease: string;
  /**
   * `run/step`, in a fan-out with `/` and the item's index behind it (from the second item on): equal for every attempt, different for
   * all else. Use it to make effects happen once.
   */
  readonly idempotencyKey: string;
  readonly runId: string;
  readonly stepId: string;
  /** Index of the item in a fan-out step, 0 otherwise. */
  readonly item: number;
  /** Full method name of the action, "acme.pages.v1.PageActions/Score". */
  readonly method: string;
  readonly namespace: string;
  readonly log: ActionLog;
  /** Reports how far the work is, 0 to 100. Sent with the next beat; only the newest counts. Keeps the attempt alive as `heartbeat` does. */
  progress(percent: number, message?: string): void;
  /** Says that the handler is alive. Needed only where the step has a heartbeat timeout. */
  heartbeat(): void;
  /**
   * Asks for more time than the step's `start_to_close`: the attempt may run at least `ms` milliseconds from now. `deadline`, `remainingMs()`
   * and `signal` follow at once, the mesh with the next beat. It never shortens, and moves nothing but the attempt's own limit: the step's
   * `schedule_to_close` and the run's deadline stay, and another attempt begins with the step's limit. Keeps the attempt alive as `heartbeat`
   * does. Once `signal` has aborted it is too late, and nothing happens. Throws a RangeError unless `ms` is a finite number over 0 with which
   * the attempt takes no more than 2^32-1 ms (49 days) in all.
   */
  extendTimeout(ms: number): void;
  /**
   * Keeps what the next attempt is to go on from, should this one not succeed: a message of at most 16 KiB, by its full name and generated
   * constant. Only the newest counts. Keeps the attempt alive as `heartbeat` does. Throws a RangeError if it is too large.
   */
  saveCheckpoint<T>(type: string, codec: { encode(value: T): { finish(): Uint8Array } }, value: T): void;
  /** What an earlier attempt of the step kept last; undefined if none did, or if it is of another type. */
  loadCheckpoint<T>(type: string, codec: { decode(bytes: Uint8Array): T }): T | undefined;
  readonly trace: {
    /** W3C trace context for outgoing calls; empty when tracing is off. */
    headers(): Record<string, string>;
  };
}

/** Names and times of an attempt, as they came with its start. */
export interface AttemptFacts {
  attempt: number;
  lease: string;
  runId: string;
  stepId: string;
  item: number;
  method: string;
  namespace: string;
  /** When the attempt's own time is over, on the `performance.now()` clock; Infinity if it has no limit of its own. */
  deadlineAtMs: number;
  /** When the run's time is over, on the same clock; default: never. No attempt can move it. */
  runEndsAtMs?: number;
  /** What an earlier attempt kept last. */
  checkpoint?: Any;
}

/** What a handler has said of its progress: 0 to 100, and anything more. */
export type ProgressReport = Pick<Progress, "percent" | "message">;

/** Where a context takes what it can't make itself. */
export interface ContextPorts {
  /** Also written to the worker's own log. */
  mirror?: (
    facts: AttemptFacts,
    line: { level: keyof ActionLog; message: string; fields: LogFields | undefined },
  ) => void;
  /** Sees every progress report; without it only the newest is kept. */
  onProgress?: (report: ProgressReport) => void;
  /** Trace context of the handler's span. */
  traceHeaders?: () => Record<string, string>;
}

/** The context of one attempt, with the side that the worker holds. */
export class AttemptContext implements ActionContext {
  readonly attempt: number;
  readonly lease: string;
  readonly runId: string;
  readonly stepId: string;
  readonly item: number;
  readonly method: string;
  readonly namespace: string;
  /** On the `performance.now()` clock. */
  readonly startedAtMs = performance.now();
  readonly #facts: AttemptFacts;
  readonly #ports: ContextPorts;
  #controller: AbortController | undefined;
  #aborted: AttemptAborted | undefined;
  #log: AttemptLog | undefined;
  #progress: ProgressReport | undefined;
  #checkpoint: Any | undefined;
  #reportedAtMs = this.startedAtMs;
  #ownEndsAtMs: number;
  #extendedMs = 0;

  constructor(facts: AttemptFacts, ports: ContextPorts) {
    this.attempt = facts.attempt;
    this.lease = facts.lease;
    this.runId = facts.runId;
    this.stepId = facts.stepId;
    this.item = facts.item;
    this.method = facts.method;
    this.namespace = facts.namespace;
    this.#facts = facts;
    this.#ports = ports;
    this.#ownEndsAtMs = facts.deadlineAtMs;
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#aborted) this.#controller.abort(this.#aborted);
    }
    return this.#controller.signal;
  }

  get deadline(): Date | undefined {
    const left = this.#leftMs();
    return left === Number.POSITIVE_INFINITY ? undefined : new Date(Date.now() + left);
  }

  // Made when asked for, here and below, and bound, so that `({ text }, { progress, remainingMs })` works.
  get remainingMs(): () => number {
    return () => this.#leftMs();
  }

  get idempotencyKey(): string {
    const { runId, stepId, item } = this.#facts;
    return item > 0 ? `${runId}/${stepId}/${item}` : `${runId}/${stepId}`;
  }

  get log(): ActionLog {
    if (!this.#log) {
      const { mirror } = this.#ports;
      this.#log = new AttemptLog(mirror && ((line) => mirror(this.#facts, line)));
    }
    return this.#log.face;
  }

  get progress(): (percent: number, message?: string) => void {
    return (percent, message = "") => {
      const report = { percent: Math.min(100, Math.max(0, Number(percent) || 0)), message: cutText(message, 1_024) };
      this.#progress = report;
      this.#reportedAtMs = performance.now();
      this.#ports.onProgress?.(report);
    };
  }

  get heartbeat(): () => void {
    return () => {
      this.#reportedAtMs = performance.now();
    };
  }

  get extendTimeout(): (ms: number) => void {
    return (ms) => {
      const nowMs = performance.now();
      const totalMs = extendedMs(ms, nowMs - this.startedAtMs);
      this.#reportedAtMs = nowMs;
      if (this.#aborted || nowMs + ms <= this.#ownEndsAtMs) return;
      this.#ownEndsAtMs = nowMs + ms;
      this.#extendedMs = totalMs;
    };
  }

  get saveCheckpoint(): ActionContext["saveCheckpoint"] {
    return (type, codec, value) => {
      const checkpoint = toCheckpoint(type, codec.encode(value).finish());
      const size = checkpoint.typeUrl.length + checkpoint.value.length;
      if (size > checkpointBytesMax)
        throw new RangeError(`a checkpoint has at most ${checkpointBytesMax} bytes; this one has ${size}`);
      this.#checkpoint = checkpoint;
      this.#reportedAtMs = performance.now();
    };
  }

  get loadCheckpoint(): ActionContext["loadCheckpoint"] {
    return (type, codec) => {
      const kept = this.#checkpoint ?? this.#facts.checkpoint;
      return kept && readCheckpoint(kept, type, codec);
    };
  }

  get trace(): { headers(): Record<string, string> } {
    return { headers: this.#ports.traceHeaders ?? (() => ({})) };
  }

  /** Aborts the signal. The first reason stands, but LEASE_LOST replaces any: then nothing may be reported. */
  abort(code: AbortCode): void {
    if (this.#aborted && code !== "LEASE_LOST") return;
    this.#aborted = new AttemptAborted(code);
    this.#controller?.abort(this.#aborted);
  }

  /** Why the signal was aborted, undefined while it is not. */
  get abortCode(): AbortCode | undefined {
    return this.#aborted?.code;
  }

  /** What the handler reported last, undefined if nothing. */
  get reported(): ProgressReport | undefined {
    return this.#progress;
  }

  /** What this attempt kept last, undefined if nothing. */
  get checkpoint(): Any | undefined {
    return this.#checkpoint;
  }

  /** What the handler has asked that the attempt may take in all, in milliseconds from its start; 0: no more than it was given. */
  get extendedMs(): number {
    return this.#extendedMs;
  }

  /** When the attempt's time is over, on the `performance.now()` clock; Infinity if nothing bounds it. */
  get deadlineAtMs(): number {
    return Math.min(this.#ownEndsAtMs, this.#runEndsAtMs);
  }

  /** The run's deadline comes first. */
  get endsWithRun(): boolean {
    return this.#runEndsAtMs < this.#ownEndsAtMs;
  }

  /** Milliseconds since the handler last reported, or started. */
  sinceReportMs(): number {
    return performance.now() - this.#reportedAtMs;
  }

  /** The log so far, as it is reported. */
  lines(): LogLine[] {
    return this.#log?.lines() ?? [];
  }

  /** Bytes of the log so far, about. */
  get logBytes(): number {
    return this.#log?.bytes ?? 0;
  }

  get #runEndsAtMs(): number {
    return this.#facts.runEndsAtMs ?? Number.POSITIVE_INFINITY;
  }

  #leftMs(): number {
    return Math.max(0, this.deadlineAtMs - performance.now());
  }

  /** Adds a line in the worker's own name, such as the stack of what the handler threw. */
  note(message: string, fields?: LogFields): void {
    this.log.error(message, fields);
  }
}

/** What an attempt takes in all, in whole milliseconds, if it may run for `ms` more; RangeError if that is no time that can be told. */
function extendedMs(ms: number, ranMs: number): number {
  if (typeof ms !== "number" || !Number.isFinite(ms) || ms <= 0)
    throw new RangeError(`extendTimeout takes milliseconds over 0, such as 60_000; it was given ${String(ms)}`);
  const totalMs = Math.ceil(ranMs + ms);
  if (totalMs <= attemptMsMax) return totalMs;
  const message = `extendTimeout(${ms}) would let the attempt take ${totalMs} ms in all, at most ${attemptMsMax} (49 days) are possible`;
  throw new RangeError(`${message}; ask for less, or keep a checkpoint and fail retryably`);
}

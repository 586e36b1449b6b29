/**
 * What a handler can say when it did not succeed, and what the worker says in its place.
 *
 *   thrown ActionFailure            reported as it is
 *   any other thrown value          HANDLER_ERROR, retryable: the mesh can't know better
 *   input or output break the type  INPUT_INVALID, OUTPUT_INVALID, final: another attempt would end the same
 *
 * Only `reason`, `message`, `retryable` and `details` leave the worker. Stacks go to the attempt's log.
 */
import type { Any, Failure } from "@taskmesh/proto";

/** Longest message of a failure that is reported; the rest is cut. */
export const failureMessageBytesMax = 4 * 1024;
/** Most bytes of details that a failure carries; details beyond it are left out. */
export const failureDetailBytesMax = 16 * 1024;

/** A typed detail of a failure: an encoded message and its type. Made by `detail`. */
export interface FailureDetail {
  /** Full name of the message, "acme.pages.v1.BadPage", or a type URL. */
  type: string;
  /** The encoded message. */
  value: Uint8Array;
}

/** A typed detail from a generated message constant: `detail("acme.pages.v1.BadPage", BadPage, { url })`. */
export function detail<T>(
  type: string,
  codec: { encode(value: T): { finish(): Uint8Array } },
  value: T,
): FailureDetail {
  return { type, value: codec.encode(value).finish() };
}

/** Options of `fail.final` and `fail.retryable`. */
export interface FailOptions {
  /** Typed details for those who act on the failure; at most 16 KiB encoded. */
  details?: readonly FailureDetail[];
  /** What led to it. Goes to the attempt's log; if it is an ActionFailure it is reported as the failure's cause. */
  cause?: unknown;
}

/** A failure with a reason that retry policies and callers match on. Throw it from a handler; made by `fail`. */
export class ActionFailure extends Error {
  override readonly name = "ActionFailure";
  /** UPPER_SNAKE, such as RATE_LIMITED. */
  readonly reason: string;
  /** Whether another attempt could succeed; the step's retry policy decides whether there is one. */
  readonly retryable: boolean;
  readonly details: readonly Any[];

  /** Throws a TypeError if `reason` is not UPPER_SNAKE of at most 64 characters. */
  constructor(reason: string, message: string, options: FailOptions & { retryable: boolean }) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    if (!/^[A-Z][A-Z0-9_]{0,63}$/.test(reason)) {
      throw new TypeError(`failure reason ${JSON.stringify(reason)} is not UPPER_SNAKE, such as RATE_LIMITED`);
    }
    this.reason = reason;
    this.retryable = options.retryable;
    this.details = (options.details ?? []).map(toAny);
  }
}

/** Makes the failures that a handler throws: `throw fail.final("PAGE_GONE", "the page is gone")`. */
export const fail = {
  /** No attempt can succeed: the step fails, whatever its retry policy says. */
  final: (reason: string, message: string, options: FailOptions = {}): ActionFailure =>
    new ActionFailure(reason, message, { ...options, retryable: false }),
  /** A later attempt could succeed. */
  retryable: (reason: string, message: string, options: FailOptions = {}): ActionFailure =>
    new ActionFailure(reason, message, { ...options, retryable: true }),
};

/** Why the signal of an attempt is aborted. */
export type AbortCode =
  /** Its run was cancelled: clean up and return; throwing reports the attempt as cancelled. */
  | "CANCELLED"
  /** The attempt was superseded: nothing that it reports counts any more. */
  | "LEASE_LOST"
  /** The attempt's start-to-close time is over. */
  | "TIMED_OUT"
  /** The run's deadline is over. */
  | "RUN_EXPIRED"
  /** The worker shuts down and the time for work in flight is over. The step is given to another worker. */
  | "DRAINING";

/** The run's deadline is the coordinator's to judge, whose clock may be a little behind the worker's: it aborts this much later. */
const runMarginMs = 100;

/** Why the attempt is to be aborted now, if its time is over. */
export function overdue(
  { endsWithRun, deadlineAtMs }: { endsWithRun: boolean; deadlineAtMs: number },
  now: number,
): AbortCode | undefined {
  if (now < deadlineAtMs + (endsWithRun ? runMarginMs : 0)) return undefined;
  return endsWithRun ? "RUN_EXPIRED" : "TIMED_OUT";
}

/** The reason of an aborted `signal`: `signal.reason.code` tells the cases apart. */
export class AttemptAborted extends Error {
  override readonly name = "AttemptAborted";
  readonly code: AbortCode;
  constructor(code: AbortCode) {
    super(abortMessages[code]);
    this.code = code;
  }
}

const abortMessages: Record<AbortCode, string> = {
  CANCELLED: "the run was cancelled",
  LEASE_LOST: "the attempt was superseded",
  TIMED_OUT: "the attempt took longer than its start-to-close timeout",
  RUN_EXPIRED: "the run's deadline is over",
  DRAINING: "the worker is shutting down",
};

function toAny({ type, value }: FailureDetail): Any {
  return { typeUrl: type.includes("/") ? type : `type.googleapis.com/${type}`, value: Buffer.from(value) };
}

/** The failure that is reported for whatever a handler threw. Never throws. */
export function toFailure(thrown: unknown): Failure {
  if (thrown instanceof ActionFailure) {
    const failure: Failure = {
      reason: thrown.reason,
      message: cutText(thrown.message, failureMessageBytesMax),
      retryable: thrown.retryable,
      details: boundDetails(thrown.details),
    };
    if (thrown.cause instanceof ActionFailure && thrown.cause !== thrown) failure.cause = causeOf(thrown.cause);
    return failure;
  }
  return failureOf("HANDLER_ERROR", describe(thrown), true);
}

/** One level only: a cause of a cause is for the log. */
function causeOf(cause: ActionFailure): Failure {
  return failureOf(cause.reason, cause.message, cause.retryable);
}

/** A failure in the worker's own name. */
export function failureOf(reason: string, message: string, retryable: boolean): Failure {
  return { reason, message: cutText(message, failureMessageBytesMax), retryable, details: [] };
}

/** Text for people about anything that can be thrown. */
export function describe(thrown: unknown): string {
  try {
    if (thrown instanceof Error) return String(thrown.message) || String(thrown.name);
    return typeof thrown === "string" ? thrown : `handler threw ${String(thrown)}`;
  } catch {
    return "handler threw a value that can't be shown";
  }
}

/** `text` cut to at most `bytesMax` bytes of UTF-8, never inside a character. */
export function cutText(text: string, bytesMax: number): string {
  if (text.length * 3 <= bytesMax) return text;
  const bytes = Buffer.from(text);
  if (bytes.length <= bytesMax) return text;
  let end = bytesMax - 3;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return `${bytes.toString("utf8", 0, end)}…`;
}

function boundDetails(details: readonly Any[]): Any[] {
  let room = failureDetailBytesMax;
  return details.filter((detail) => {
    const size = detail.value.length + detail.typeUrl.length;
    if (size > room) return false;
    room -= size;
    return true;
  });
}

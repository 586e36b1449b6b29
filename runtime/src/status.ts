/**
 * What an rpc says when it does not succeed, the same on both sides of the wire.
 *
 * A status is a gRPC code, a message for people, and google.rpc.Status in the trailer `grpc-status-details-bin` with
 * ErrorInfo (reason, domain "taskmesh"), BadRequest and RetryInfo where they apply, and typed details of taskmesh.v1.
 * Recognise a StatusError by its `reason`, not by its class.
 */
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { type Any, errorDetails, rpcStatus } from "@taskmesh/proto";
import { type Reason, type ReasonEntry, reasons } from "./reasons.js";

/** gRPC status codes. */
export { status } from "@grpc/grpc-js";

/** Domain of every ErrorInfo that the mesh makes. */
export const errorDomain = "taskmesh";
/** Trailer that carries the encoded google.rpc.Status. */
export const statusDetailsKey = "grpc-status-details-bin";
/** Bound on the encoded details: trailers share HTTP/2's usual 16 KiB limit on a header list. */
const detailsBytesMax = 8 * 1024;
/** Bound on the message: it travels percent-encoded in a trailer, three bytes a byte at worst. */
const messageCharsMax = 2 * 1024;

/** One field that breaks a contract, by its path in the request. */
export interface FieldViolation {
  /** Path such as `input.items[2].name`. */
  field: string;
  description: string;
  /** UPPER_SNAKE, where a program can act on it. */
  reason?: string | undefined;
}

/** A typed detail: its message type name and its encoded bytes. */
export interface StatusDetail {
  /** Full message name, such as `taskmesh.v1.RunEnded`. */
  type: string;
  value: Uint8Array;
}

export interface StatusErrorInit {
  /** Default: the code that the reason is registered with. */
  code?: status | undefined;
  reason: string;
  message: string;
  metadata?: Readonly<Record<string, string>> | undefined;
  fieldViolations?: readonly FieldViolation[] | undefined;
  /** When a retry makes sense, in milliseconds from now. */
  retryAfterMs?: number | undefined;
  details?: readonly (StatusDetail | Any)[] | undefined;
  cause?: unknown;
}

/** An rpc's refusal or failure. `message` is for people; `cause` stays in this process. */
export class StatusError extends Error {
  override readonly name = "StatusError";
  readonly code: status;
  /** UPPER_SNAKE; one of `reasons`, or an action's own where a run failed. */
  readonly reason: string;
  /** Facts that belong to the reason, such as the name that was not found. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly fieldViolations: readonly FieldViolation[];
  /** When a retry makes sense, in milliseconds; undefined: the server did not say. */
  readonly retryAfterMs: number | undefined;
  /** Further typed details; ErrorInfo, BadRequest and RetryInfo are in the fields above. */
  readonly details: readonly Any[];

  constructor(init: StatusErrorInit) {
    super(init.message, init.cause === undefined ? undefined : { cause: init.cause });
    this.code = init.code ?? codeOf(init.reason);
    this.reason = init.reason;
    this.metadata = init.metadata ?? {};
    this.fieldViolations = init.fieldViolations ?? [];
    this.retryAfterMs = init.retryAfterMs;
    this.details = (init.details ?? []).map(toAny);
  }

  /** Whether the same call may succeed later without a change. */
  get retryable(): boolean {
    return this.code === status.UNAVAILABLE || this.retryAfterMs !== undefined;
  }

  /** The first detail of a type, decoded; undefined if there is none or it is malformed. */
  detail<T>(type: string, codec: { decode(bytes: Uint8Array): T }): T | undefined {
    const found = this.details.find((any) => typeName(any) === type);
    if (!found) return undefined;
    try {
      return codec.decode(found.value);
    } catch {
      return undefined;
    }
  }
}

/** Makes a StatusError with a registered reason; its code is the reason's unless given. */
export function statusError(init: StatusErrorInit & { reason: Reason }): StatusError {
  return new StatusError(init);
}

/** Encodes a detail: `statusDetail("taskmesh.v1.RunEnded", RunEnded, { runId, status })`. */
export function statusDetail<T>(
  type: string,
  codec: { encode(message: T): { finish(): Uint8Array } },
  message: T,
): Any {
  return toAny({ type, value: codec.encode(message).finish() });
}

/** Whether `error` is a StatusError, also one of another copy of this package. */
export function isStatusError(error: unknown): error is StatusError {
  return error instanceof StatusError || (error instanceof Error && error.name === "StatusError" && "reason" in error);
}

/** The google.rpc.Status that stands for an error. */
export function toRpcStatus(error: StatusError): rpcStatus.Status {
  const details = [
    statusDetail("google.rpc.ErrorInfo", errorDetails.ErrorInfo, {
      reason: error.reason,
      domain: errorDomain,
      metadata: { ...error.metadata },
    }),
  ];
  if (error.retryAfterMs !== undefined) {
    const ms = Math.max(0, Math.round(error.retryAfterMs));
    const retryDelay = { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 };
    details.push(statusDetail("google.rpc.RetryInfo", errorDetails.RetryInfo, { retryDelay }));
  }
  if (error.fieldViolations.length > 0) {
    const fieldViolations = error.fieldViolations.map(({ field, description, reason }) => ({
      field,
      description,
      reason: reason ?? "",
      localizedMessage: undefined,
    }));
    details.push(statusDetail("google.rpc.BadRequest", errorDetails.BadRequest, { fieldViolations }));
  }
  return { code: error.code, message: clip(error.message), details: bounded([...details, ...error.details]) };
}

/** The StatusError that a google.rpc.Status stands for. Never throws: malformed details are left out. */
export function fromRpcStatus(rpc: rpcStatus.Status, cause?: unknown): StatusError {
  const init: StatusErrorInit = { code: rpc.code, reason: "", message: rpc.message, cause };
  const rest: Any[] = [];
  for (const any of rpc.details) {
    try {
      if (!readKnownDetail(any, init)) rest.push(any);
    } catch {
      // A detail that does not decode tells nothing; the rest of the status still holds.
    }
  }
  return new StatusError({ ...init, reason: init.reason || reasonOf(rpc.code), details: rest });
}

/**
 * What a server answers a call with. A StatusError goes out whole; any other error is a bug of ours and goes out as an opaque
 * INTERNAL that names only `traceId`. Logging the cause is the caller's job (the listener does it).
 */
export function toServiceError(error: unknown, traceId?: string): ServiceError {
  const known = isStatusError(error) ? error : internalError(error, traceId);
  const metadata = new Metadata();
  metadata.set(statusDetailsKey, Buffer.from(rpcStatus.Status.encode(toRpcStatus(known)).finish()));
  const details = clip(known.message);
  return Object.assign(new Error(details), { name: "ServiceError", code: known.code, details, metadata });
}

/** An opaque INTERNAL with its cause kept for the log. */
export function internalError(cause: unknown, traceId?: string): StatusError {
  const message = traceId ? `internal error, trace id ${traceId}` : "internal error";
  return statusError({ reason: "INTERNAL", message, cause, ...(traceId ? { metadata: { traceId } } : {}) });
}

/** What a failed call says, decoded: from a grpc ServiceError, or any thrown value. Never throws. */
export function fromServiceError(error: unknown): StatusError {
  if (isStatusError(error)) return error;
  if (!isServiceError(error)) return internalError(error);
  const encoded = error.metadata?.get(statusDetailsKey)[0];
  const message = error.details || error.message;
  if (Buffer.isBuffer(encoded)) {
    try {
      const rpc = rpcStatus.Status.decode(encoded);
      // The trailer can't outvote the status of the call itself.
      return fromRpcStatus({ ...rpc, code: error.code, message: rpc.message || message }, error);
    } catch {
      // Not a google.rpc.Status: the code and the message are all there is.
    }
  }
  const reason = message.startsWith("Received message larger") ? "MESSAGE_TOO_LARGE" : reasonOf(error.code);
  return new StatusError({ code: error.code, reason, message, cause: error });
}

/** HTTP status of a problem+json answer: the reason's own where it has one, else the code's. */
export function httpStatusOf(error: { code: status; reason: string }): number {
  return (reasons as Readonly<Record<string, ReasonEntry | undefined>>)[error.reason]?.http ?? toHttpStatus(error.code);
}

/** HTTP status that comes nearest to a gRPC code. */
export function toHttpStatus(code: status): number {
  return httpStatuses[code] ?? 500;
}

/** HTTP status of an answer without a body of ours to the gRPC code that comes nearest. */
export function fromHttpStatus(http: number): status {
  if (http >= 200 && http < 300) return status.OK;
  const exact = fromHttp[http];
  if (exact !== undefined) return exact;
  if (http >= 400 && http < 500) return status.INVALID_ARGUMENT;
  return http >= 500 ? status.INTERNAL : status.UNKNOWN;
}

/** Name of a code, `NOT_FOUND`. */
export function codeName(code: status): string {
  return status[code] ?? "UNKNOWN";
}

// FAILED_PRECONDITION is 409, not 400: the request is well formed and the state refuses it.
const httpStatuses: Record<status, number> = {
  [status.OK]: 200,
  [status.CANCELLED]: 499,
  [status.UNKNOWN]: 500,
  [status.INVALID_ARGUMENT]: 400,
  [status.DEADLINE_EXCEEDED]: 504,
  [status.NOT_FOUND]: 404,
  [status.ALREADY_EXISTS]: 409,
  [status.PERMISSION_DENIED]: 403,
  [status.RESOURCE_EXHAUSTED]: 429,
  [status.FAILED_PRECONDITION]: 409,
  [status.ABORTED]: 409,
  [status.OUT_OF_RANGE]: 400,
  [status.UNIMPLEMENTED]: 501,
  [status.INTERNAL]: 500,
  [status.UNAVAILABLE]: 503,
  [status.DATA_LOSS]: 500,
  [status.UNAUTHENTICATED]: 401,
};

const fromHttp: Record<number, status> = {
  400: status.INVALID_ARGUMENT,
  401: status.UNAUTHENTICATED,
  403: status.PERMISSION_DENIED,
  404: status.NOT_FOUND,
  405: status.UNIMPLEMENTED,
  408: status.DEADLINE_EXCEEDED,
  409: status.ABORTED,
  413: status.RESOURCE_EXHAUSTED,
  429: status.RESOURCE_EXHAUSTED,
  499: status.CANCELLED,
  501: status.UNIMPLEMENTED,
  502: status.UNAVAILABLE,
  503: status.UNAVAILABLE,
  504: status.DEADLINE_EXCEEDED,
};

/** The reason of a status that came without one, from a peer or from the gRPC library itself. */
const reasonsByCode: Partial<Record<status, Reason>> = {
  [status.CANCELLED]: "CALL_CANCELLED",
  [status.INVALID_ARGUMENT]: "ARGUMENT_INVALID",
  [status.DEADLINE_EXCEEDED]: "DEADLINE_EXCEEDED",
  [status.RESOURCE_EXHAUSTED]: "LIMIT_EXCEEDED",
  [status.UNIMPLEMENTED]: "METHOD_UNIMPLEMENTED",
  [status.UNAVAILABLE]: "COORDINATOR_UNAVAILABLE",
  [status.UNAUTHENTICATED]: "TOKEN_INVALID",
};

function reasonOf(code: status): string {
  return reasonsByCode[code] ?? codeName(code);
}

function codeOf(reason: string): status {
  return (reasons as Record<string, { code: status } | undefined>)[reason]?.code ?? status.UNKNOWN;
}

function toAny(detail: StatusDetail | Any): Any {
  if ("typeUrl" in detail) return detail;
  return { typeUrl: `type.googleapis.com/${detail.type}`, value: Buffer.from(detail.value) };
}

/** Full message name of a detail. */
export function typeName(any: Any): string {
  return any.typeUrl.slice(any.typeUrl.lastIndexOf("/") + 1);
}

function readKnownDetail(any: Any, init: StatusErrorInit): boolean {
  switch (typeName(any)) {
    case "google.rpc.ErrorInfo": {
      const info = errorDetails.ErrorInfo.decode(any.value);
      init.reason = info.reason;
      init.metadata = info.metadata;
      return true;
    }
    case "google.rpc.RetryInfo": {
      const { retryDelay } = errorDetails.RetryInfo.decode(any.value);
      if (retryDelay) init.retryAfterMs = Number(retryDelay.seconds) * 1000 + retryDelay.nanos / 1e6;
      return true;
    }
    case "google.rpc.BadRequest":
      init.fieldViolations = errorDetails.BadRequest.decode(any.value).fieldViolations.map((found) => ({
        field: found.field,
        description: found.description,
        ...(found.reason ? { reason: found.reason } : {}),
      }));
      return true;
    default:
      return false;
  }
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && error.code in status;
}

function clip(message: string): string {
  return message.length <= messageCharsMax ? message : `${message.slice(0, messageCharsMax)} …`;
}

/** Details in order until the bound: what is cut is the last and least. */
function bounded(details: Any[]): Any[] {
  let room = detailsBytesMax;
  return details.filter((any) => {
    room -= any.typeUrl.length + any.value.length + 8;
    return room >= 0;
  });
}

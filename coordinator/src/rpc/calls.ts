/**
 * Handlers as plain async functions: `unary`, `serverStream`, `clientStream` and `bidi` turn them into what the gRPC server takes.
 *
 * They map errors (to-status.ts), turn deadline and cancel into one AbortSignal, continue the caller's trace, log INTERNAL errors
 * with their cause under a trace id, and honour backpressure. An error event of a call never reaches the process.
 */
import type { EventEmitter } from "node:events";
import type { Readable } from "node:stream";
import {
  type handleBidiStreamingCall,
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  type ServerDuplexStream,
  type ServerWritableStream,
  type ServiceError,
} from "@grpc/grpc-js";
import {
  codeName,
  createLogger,
  type LiveSpan,
  randomToken,
  status,
  type TraceHeaders,
  toServiceError,
  tracing,
} from "@taskmesh/runtime";
import { countCall } from "./call-meters.js";
import { toStatus } from "./to-status.js";

const log = createLogger("rpc");

/** What a handler knows of its call besides the request. */
export interface CallContext {
  /** Path of the method, `/taskmesh.v1.RunService/StartRun`. */
  readonly path: string;
  readonly metadata: Metadata;
  /** Address of the caller. */
  readonly peer: string;
  /** The common name in the caller's certificate, if it has shown one that was verified. Costs something where there is one. */
  principal(): string | undefined;
  /** Milliseconds until the caller gives up, when asked; Infinity: never. A hint, since it comes from the calendar clock. */
  remainingMs(): number;
  /** Aborts when the caller cancels, leaves, or its deadline passes. */
  readonly signal: AbortSignal;
  /** Sends initial metadata ahead of the answer; at most once. */
  sendMetadata(name: string, value: string): void;
  /** Sends metadata behind the answer of a stream that ends well. */
  addTrailer(name: string, value: string): void;
  /** Says in the call's span which run it is about. */
  aboutRun(runId: string): void;
  /** Trace headers for what the call sets in motion: those of its span, or the caller's where tracing is off. */
  readonly trace: TraceHeaders | undefined;
}

/** Sends one message of a stream; resolves when there is room for the next. Rejects when the caller has left. */
export type Send<Response> = (response: Response) => Promise<void>;

/** What the four kinds of server calls have in common. */
interface AnyCall extends EventEmitter {
  readonly metadata: Metadata;
  readonly cancelled: boolean;
  getPath(): string;
  getPeer(): string;
  getAuthContext(): { sslPeerCertificate?: { subject?: { CN?: string | string[] } } };
  getDeadline(): Date | number;
  sendMetadata(metadata: Metadata): void;
}

/** A method with one request and one response. */
export function unary<Request, Response>(
  handler: (request: Request, context: CallContext) => Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call, callback) => {
    const startedAtMs = performance.now();
    const opened = open(call);
    const { path } = opened.context;
    opened
      .run(async () => handler(call.request, opened.context))
      .then(
        (response) => {
          opened.end();
          countCall(path, status.OK, startedAtMs);
          callback(null, response);
        },
        (error: unknown) => {
          const failed = opened.fail(error);
          countCall(path, failed.code, startedAtMs);
          callback(failed, null);
        },
      );
  };
}

/** A method with one request and a stream of responses; the stream ends when the handler's promise settles. */
export function serverStream<Request, Response>(
  handler: (request: Request, send: Send<Response>, context: CallContext) => Promise<void>,
): handleServerStreamingCall<Request, Response> {
  return (call) => {
    const opened = open(call);
    finish(
      call,
      opened,
      opened.run(async () => handler(call.request, sender(call, opened.context.signal), opened.context)),
    );
  };
}

/**
 * A method with one request of which only the call tells whether it has one response or many; counted as calls with one are. On the wire one
 * response is a stream of one.
 */
export function answers<Request, Response>(
  handler: (request: Request, send: Send<Response>, context: CallContext) => Promise<void>,
): handleServerStreamingCall<Request, Response> {
  return (call) => {
    const startedAtMs = performance.now();
    const opened = open(call);
    const { path } = opened.context;
    const handled = opened.run(async () => handler(call.request, sender(call, opened.context.signal), opened.context));
    finish(call, opened, handled, (code) => countCall(path, code, startedAtMs));
  };
}

/** A method with a stream of requests and one response. */
export function clientStream<Request, Response>(
  handler: (requests: AsyncIterable<Request>, context: CallContext) => Promise<Response>,
): handleClientStreamingCall<Request, Response> {
  return (call, callback) => {
    const opened = open(call);
    opened
      .run(async () => handler(requestsOf<Request>(call), opened.context))
      .then(
        (response) => {
          opened.end();
          callback(null, response);
        },
        (error: unknown) => callback(opened.fail(error), null),
      );
  };
}

/** A method with streams both ways; it ends when the handler's promise settles. */
export function bidi<Request, Response>(
  handler: (requests: AsyncIterable<Request>, send: Send<Response>, context: CallContext) => Promise<void>,
): handleBidiStreamingCall<Request, Response> {
  return (call) => {
    const opened = open(call);
    const requests = requestsOf<Request>(call);
    finish(
      call,
      opened,
      opened.run(async () => handler(requests, sender(call, opened.context.signal), opened.context)),
    );
  };
}

/** The stream's own iterator would destroy it after the last request, before the answer is sent. */
function requestsOf<Request>(call: Readable): AsyncIterable<Request> {
  return { [Symbol.asyncIterator]: () => call.iterator({ destroyOnReturn: false }) };
}

interface OpenCall {
  context: CallContext;
  /** Metadata to be sent behind the answer, where there is any. */
  trailer(): Metadata | undefined;
  run<T>(fn: () => Promise<T>): Promise<T>;
  end(): void;
  /** Maps, logs and counts an error. */
  fail(error: unknown): ServiceError;
}

function open(call: AnyCall): OpenCall {
  const path = call.getPath();
  // A call that is reset after its end still emits errors; without a listener they would end the process.
  call.on("error", () => {});
  let abort: AbortController | undefined;
  let handed: TraceHeaders | undefined;
  let trailer: Metadata | undefined;
  const span = startSpan(path, call.metadata);
  const context: CallContext = {
    path,
    metadata: call.metadata,
    get peer() {
      return call.getPeer();
    },
    principal() {
      const name = call.getAuthContext().sslPeerCertificate?.subject?.CN;
      return Array.isArray(name) ? name[0] : name;
    },
    remainingMs() {
      const deadline = call.getDeadline();
      return (deadline instanceof Date ? deadline.getTime() : deadline) - Date.now();
    },
    // Made when first asked for: most handlers of short calls never look.
    get signal() {
      if (!abort) {
        const made = new AbortController();
        abort = made;
        if (call.cancelled) made.abort();
        else call.on("cancelled", () => made.abort());
      }
      return abort.signal;
    },
    sendMetadata(name, value) {
      const initial = new Metadata();
      initial.set(name, value);
      if (!call.cancelled) call.sendMetadata(initial);
    },
    addTrailer(name, value) {
      trailer ??= new Metadata();
      trailer.set(name, value);
    },
    aboutRun: (runId) => span?.setAttribute("taskmesh.run.id", runId),
    get trace() {
      handed ??= span?.headers ?? tracing.extract(call.metadata);
      return handed;
    },
  };
  return {
    context,
    trailer: () => trailer,
    run: (fn) => (span ? span.run(fn) : fn()),
    end: () => span?.end(),
    fail(error) {
      const traceId = span?.traceId ?? randomToken();
      // Whatever a handler threw after its caller had left came of that, and nobody waits for it.
      const known = toStatus(call.cancelled ? abortError() : error, traceId);
      span?.setAttribute("rpc.grpc.status_code", known.code);
      span?.end(isFault(known.code) ? codeName(known.code) : undefined);
      if (known.code === status.INTERNAL) log.error({ err: error, method: path, trace_id: traceId }, "a call failed");
      return toServiceError(known);
    },
  };
}

function startSpan(path: string, metadata: Metadata): LiveSpan | undefined {
  if (!tracing.enabled) return undefined;
  const name = path.slice(1);
  const slash = name.indexOf("/");
  return tracing.startSpan({
    name,
    kind: "server",
    parent: tracing.extract(metadata),
    attributes: { "rpc.system": "grpc", "rpc.service": name.slice(0, slash), "rpc.method": name.slice(slash + 1) },
  });
}

/** By the semantic conventions, a refusal that is the caller's matter leaves a server span unmarked. */
function isFault(code: status): boolean {
  switch (code) {
    case status.UNKNOWN:
    case status.DEADLINE_EXCEEDED:
    case status.UNIMPLEMENTED:
    case status.INTERNAL:
    case status.UNAVAILABLE:
    case status.DATA_LOSS:
      return true;
    default:
      return false;
  }
}

type Writable<Response> = ServerWritableStream<unknown, Response> | ServerDuplexStream<unknown, Response>;

function sender<Response>(call: Writable<Response>, signal: AbortSignal): Send<Response> {
  return (response) => {
    if (signal.aborted || call.writableEnded) return Promise.reject(abortError());
    if (call.write(response)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const onDrain = (): void => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = (): void => {
        call.off("drain", onDrain);
        reject(abortError());
      };
      call.once("drain", onDrain);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  };
}

function abortError(): Error {
  return Object.assign(new Error("the caller has left"), { name: "AbortError" });
}

function finish<Response>(
  call: Writable<Response>,
  opened: OpenCall,
  handled: Promise<void>,
  over: (code: status) => void = () => {},
): void {
  handled.then(
    () => {
      opened.end();
      over(status.OK);
      call.end(opened.trailer());
    },
    (error: unknown) => {
      const failed = opened.fail(error);
      over(failed.code);
      if (!call.cancelled) call.emit("error", failed);
    },
  );
}

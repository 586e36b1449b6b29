/**
 * Tracing by OpenTelemetry, set up by its standard environment variables (docs/guides/configuration.md, Tracing).
 *
 * Off, unless an OTLP endpoint is set or the process has registered a tracer provider of its own. Off means: no spans, nothing is
 * allocated for a call without trace headers, and the OpenTelemetry SDK is not even loaded. A caller's trace is still handed on.
 *
 * T1. A trace crosses processes as W3C headers (traceparent, tracestate, baggage) and is stored with a run as such.
 * T2. No span stays open longer than one call or one handler. What lasts longer, or ends in another process than it began in, is
 *     recorded in one piece at its end (`recordSpan`), and its id is known before that because it is made of a key (`announce`):
 *     so whoever works under it can already name it as the parent.
 */
import { createHash } from "node:crypto";
import {
  type Attributes,
  type Context,
  context,
  createTraceState,
  propagation,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  type TracerProvider,
  trace,
} from "@opentelemetry/api";
import type { TraceHeaders } from "./transport/transport.js";

/** Where trace headers are read from: a plain object, a Map, fetch Headers, NATS headers, or grpc Metadata. */
export type TraceCarrier = { get(name: string): unknown } | Readonly<Record<string, unknown>>;

/** Who calls whom: see the OpenTelemetry span kinds. */
export type SpanKindName = "internal" | "server" | "client" | "producer" | "consumer";

/** Attributes of a span. */
export type SpanAttributes = Attributes;

export interface SpanStart {
  name: string;
  /** Default internal. */
  kind?: SpanKindName | undefined;
  /** Undefined: the span begins a trace. */
  parent?: TraceHeaders | undefined;
  /** Spans of other work that this one has to do with, such as the attempt before. */
  links?: readonly (TraceHeaders | undefined)[] | undefined;
  attributes?: SpanAttributes | undefined;
}

export interface SpanRecord extends SpanStart {
  /** Milliseconds since 1970. */
  startMs: number;
  endMs: number;
  /** Present: the span failed. */
  error?: string | undefined;
  /** The key that its id was announced with. */
  key?: string | undefined;
}

/** A span under way. */
export interface LiveSpan {
  /** To pass on to whoever works under it. */
  readonly headers: TraceHeaders;
  readonly traceId: string;
  /** Runs `fn` with the span active, so that logs and instrumented libraries find it. */
  run<T>(fn: () => T): T;
  setAttribute(name: string, value: string | number | boolean): void;
  /** Gives it another name, known by now. */
  rename(name: string): void;
  /** Ends it. `error` marks it as failed. Safe to repeat. */
  end(error?: string): void;
}

interface Live {
  tracer: Tracer;
  /** Makes the next span have this id; undefined where the provider is not ours. */
  ids: { next: string | undefined } | undefined;
}

let live: Live | undefined;

/** Turns tracing on or off; for telemetry-start.ts alone. */
export function setTracing(provider: TracerProvider | undefined, ids?: { next: string | undefined }): void {
  live = provider && { tracer: provider.getTracer("taskmesh"), ids };
}

/** The tracing of this process. */
export const tracing = {
  /** Whether spans are made at all. */
  get enabled(): boolean {
    return live !== undefined;
  },

  /**
   * The trace headers that a carrier holds, checked and bounded. Undefined: none, or malformed ones. Also where tracing is off, so that
   * a process without spans of its own can hand a caller's trace on; where that is of no use, look at `enabled` first.
   */
  extract(carrier: TraceCarrier | undefined): TraceHeaders | undefined {
    return carrier && readHeaders(carrier);
  },

  /** The headers of the active span. Undefined: there is none, or tracing is off. */
  inject(): TraceHeaders | undefined {
    if (!live) return undefined;
    const active = context.active();
    const spanContext = trace.getSpanContext(active);
    return spanContext && toHeaders(spanContext, formatBaggage(active));
  },

  /**
   * The headers of a span that will be recorded later under `parent`, with an id made of `key`; the parent's own where tracing is
   * off. Undefined: there is no parent.
   */
  announce(parent: TraceHeaders | undefined, key: string): TraceHeaders | undefined {
    if (!live || !parent) return parent;
    const known = toSpanContext(parent);
    return known && toHeaders({ ...known, spanId: spanIdOf(key) }, parent["baggage"]);
  },

  /** Records a span that is over. */
  recordSpan(span: SpanRecord): void {
    if (!live) return;
    begin(live, span, span.key === undefined ? undefined : spanIdOf(span.key), span.startMs, (started) => {
      if (span.error !== undefined) started.setStatus({ code: SpanStatusCode.ERROR, message: span.error });
      started.end(Math.max(span.startMs, span.endMs));
    });
  },

  /** Starts a span that ends in this process within one call or one handler. Undefined: tracing is off. */
  startSpan(span: SpanStart): LiveSpan | undefined {
    if (!live) return undefined;
    return begin(live, span, undefined, undefined, (started, parentContext) => toLiveSpan(started, parentContext));
  },
};

function begin<T>(
  { tracer, ids }: Live,
  span: SpanStart,
  spanId: string | undefined,
  startMs: number | undefined,
  use: (span: Span, parent: Context) => T,
): T {
  const parent = span.parent ? toContext(span.parent) : ROOT_CONTEXT;
  const links = (span.links ?? []).flatMap((headers) => {
    const linked = headers && toSpanContext(headers);
    return linked ? [{ context: linked }] : [];
  });
  if (ids) ids.next = spanId;
  try {
    const started = tracer.startSpan(
      span.name,
      {
        kind: kinds[span.kind ?? "internal"],
        links,
        ...(span.attributes ? { attributes: span.attributes } : {}),
        ...(startMs === undefined ? {} : { startTime: startMs }),
      },
      parent,
    );
    return use(started, parent);
  } finally {
    if (ids) ids.next = undefined;
  }
}

const kinds: Record<SpanKindName, SpanKind> = {
  internal: SpanKind.INTERNAL,
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
};

function toLiveSpan(span: Span, parent: Context): LiveSpan {
  const active = trace.setSpan(parent, span);
  const spanContext = span.spanContext();
  let ended = false;
  return {
    headers: toHeaders(spanContext, formatBaggage(parent)),
    traceId: spanContext.traceId,
    run: (fn) => context.with(active, fn),
    setAttribute: (name, value) => void span.setAttribute(name, value),
    rename: (name) => void span.updateName(name),
    end(error) {
      if (ended) return;
      ended = true;
      if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: error });
      span.end();
    },
  };
}

/** W3C bounds, except for baggage: a run is stored with its headers, and 8 KiB with each would be too much. */
const traceStateCharsMax = 512;
const baggageCharsMax = 2048;
const traceParent = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:$|-)/;
const printable = /^[\x20-\x7e]+$/;

function readHeaders(carrier: TraceCarrier): TraceHeaders | undefined {
  const get = (name: string, charsMax: number): string | undefined => {
    const found =
      typeof carrier.get === "function" ? carrier.get(name) : (carrier as Readonly<Record<string, unknown>>)[name];
    const value: unknown = Array.isArray(found) ? found[0] : found;
    return typeof value === "string" && value.length <= charsMax && printable.test(value) ? value : undefined;
  };
  const parent = get("traceparent", 128);
  if (parent === undefined || !traceParent.test(parent)) return undefined;
  const headers: TraceHeaders = { traceparent: parent };
  const state = get("tracestate", traceStateCharsMax);
  if (state) headers["tracestate"] = state;
  const baggage = get("baggage", baggageCharsMax);
  if (baggage) headers["baggage"] = baggage;
  return headers;
}

function toSpanContext(headers: TraceHeaders): SpanContext | undefined {
  const found = traceParent.exec(headers["traceparent"] ?? "");
  if (!found) return undefined;
  const state = headers["tracestate"];
  return {
    traceId: found[1]!,
    spanId: found[2]!,
    traceFlags: Number.parseInt(found[3]!, 16) & 1,
    isRemote: true,
    ...(state ? { traceState: createTraceState(state) } : {}),
  };
}

function toContext(headers: TraceHeaders): Context {
  const spanContext = toSpanContext(headers);
  const withSpan = spanContext ? trace.setSpanContext(ROOT_CONTEXT, spanContext) : ROOT_CONTEXT;
  const baggage = headers["baggage"];
  return baggage ? propagation.setBaggage(withSpan, parseBaggage(baggage)) : withSpan;
}

function toHeaders(spanContext: SpanContext, baggage: string | undefined): TraceHeaders {
  const flags = (spanContext.traceFlags & 1).toString(16).padStart(2, "0");
  const headers: TraceHeaders = { traceparent: `00-${spanContext.traceId}-${spanContext.spanId}-${flags}` };
  const state = spanContext.traceState?.serialize();
  if (state) headers["tracestate"] = state;
  if (baggage) headers["baggage"] = baggage;
  return headers;
}

function parseBaggage(text: string): ReturnType<typeof propagation.createBaggage> {
  const entries: Record<string, { value: string }> = {};
  for (const part of text.split(",")) {
    const [pair = ""] = part.split(";");
    const split = pair.indexOf("=");
    if (split <= 0) continue;
    try {
      entries[pair.slice(0, split).trim()] = { value: decodeURIComponent(pair.slice(split + 1).trim()) };
    } catch {
      // One malformed entry does not take the others with it.
    }
  }
  return propagation.createBaggage(entries);
}

function formatBaggage(from: Context): string | undefined {
  const entries = propagation.getBaggage(from)?.getAllEntries() ?? [];
  if (entries.length === 0) return undefined;
  const text = entries.map(([name, { value }]) => `${name}=${encodeURIComponent(value)}`).join(",");
  return text.length <= baggageCharsMax ? text : undefined;
}

/** The key of an attempt's span (`announce`, `recordSpan`): the coordinator that records it and the worker below it both know it. */
export function attemptSpanKey(attempt: { runId: string; stepId: string; item: number; attempt: number }): string {
  return `${attempt.runId}/${attempt.stepId}/${attempt.item}/${attempt.attempt}`;
}

/** The key of a run's span, which is recorded when the run ends: those of its attempts are below it from the first on. */
export function runSpanKey(runId: string): string {
  return `${runId}/run`;
}

/** The id of the trace that headers belong to. */
export function traceIdOf(headers: TraceHeaders | undefined): string | undefined {
  return headers && traceParent.exec(headers["traceparent"] ?? "")?.[1];
}

/** An id that anyone who knows the key can make: 8 bytes, never all zero. */
function spanIdOf(key: string): string {
  const id = createHash("sha256").update(key).digest("hex").slice(0, 16);
  return id === "0000000000000000" ? "0000000000000001" : id;
}

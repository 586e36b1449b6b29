/**
 * Logs: one JSON object a line on stderr, so that stdout stays free for what a program prints.
 *
 * Secrets never reach a line: fields with telling names, passwords in URLs, bearer tokens, JWTs and NATS seeds are
 * blanked in the finished line, wherever in it they hide, and so is every value given to `hideSecret`.
 */
import { trace } from "@opentelemetry/api";
import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from "pino";

export type { Logger } from "pino";

/** Levels that TASKMESH_LOG_LEVEL takes, from much to nothing. */
export const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogThreshold = (typeof logLevels)[number];

const blank = "[hidden]";
/** Shorter values would blank ordinary words. */
const secretCharsMin = 6;
const hidden = new Set<string>();

const secretFields =
  /("(?:[a-z_\-.]*(?:token|secret|password|passwd|seed|jwt|authorization|cookie|private_?key|api_?key|credentials))"\s*:\s*)"(?:[^"\\]|\\.)*"/gi;
const urlPassword = /(\b[a-z][a-z0-9+.-]*:\/\/[^\s/:@"]*):[^\s/@"]+@/gi;
const bearer = /\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}/gi;
const jwt = /\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*/g;
const natsSeed = /\bS[UAOCNX][A-Z2-7]{56}\b/g;
const privateKey = /-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*?-----END [A-Z ]*PRIVATE KEY-----/g;

/** Blanks a value in every log line of this process from now on, whatever surrounds it. Values under 6 characters are ignored. */
export function hideSecret(value: string | undefined): void {
  if (!value || value.length < secretCharsMin) return;
  hidden.add(value);
  // Lines are JSON: a value with quotes or backslashes appears in them escaped.
  hidden.add(JSON.stringify(value).slice(1, -1));
}

/** `text` with every secret in it blanked. */
export function redact(text: string): string {
  let clean = text
    .replace(secretFields, `$1"${blank}"`)
    .replace(urlPassword, `$1:${blank}@`)
    .replace(bearer, `$1 ${blank}`)
    .replace(jwt, blank)
    .replace(natsSeed, blank)
    .replace(privateKey, blank);
  for (const value of hidden) clean = clean.replaceAll(value, blank);
  return clean;
}

export interface LogOptions {
  /** Default: TASKMESH_LOG_LEVEL as set by `setLogLevel`, else info. */
  level?: LogThreshold | undefined;
  /** Where lines go; default stderr. */
  write?: ((line: string) => void) | undefined;
  /** Fields of every line, such as `run_id`. */
  fields?: Readonly<Record<string, unknown>> | undefined;
}

let defaultLevel: LogThreshold = "info";
const live = new Set<WeakRef<Logger>>();

/** Sets the level of loggers made from now on without one, and of those made before. */
export function setLogLevel(level: LogThreshold): void {
  defaultLevel = level;
  for (const ref of live) {
    const logger = ref.deref();
    if (logger) logger.level = level;
    else live.delete(ref);
  }
}

/**
 * Makes a logger. Each line has `time` (ISO), `level` (word), `name`, `msg`, and `trace_id` and `span_id` while a span is active;
 * give `{ run_id, step_id, err }` as fields of a call or of `logger.child()`.
 */
export function createLogger(name: string, options: LogOptions = {}): Logger {
  const logger = pino(
    {
      name,
      level: options.level ?? defaultLevel,
      base: { ...options.fields },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      mixin: activeTrace,
    },
    redacting(options.write ?? stderr()),
  );
  if (!options.level) live.add(new WeakRef(logger));
  return logger;
}

function activeTrace(): object {
  const context = trace.getActiveSpan()?.spanContext();
  return context ? { trace_id: context.traceId, span_id: context.spanId } : {};
}

function redacting(write: (line: string) => void): DestinationStream {
  return { write: (line) => write(redact(line)) };
}

let shared: ((line: string) => void) | undefined;

/** Synchronous: the line that says why a process ends must not be lost with it. */
function stderr(): (line: string) => void {
  if (!shared) {
    const stream = destination({ fd: 2, sync: true });
    // A closed pipe at the other end must not bring the process down.
    stream.on("error", () => {});
    shared = (line) => void stream.write(line);
  }
  return shared;
}

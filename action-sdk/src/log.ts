/** The log of one attempt: bounded in bytes, never throwing, ready to travel with the completion. */
import { LogLevel, type LogLine } from "@taskmesh/proto";
import type { ActionLog, LogFields } from "./context.js";
import { cutText } from "./errors.js";

/** Most bytes of log that one attempt keeps, by its encoded size. */
export const logBytesMax = 64 * 1024;
/** Longest message of one line. */
const messageBytesMax = 8 * 1024;
/** Longest structured fields of one line, as JSON. */
const fieldsBytesMax = 8 * 1024;
/** Kept free for the last line, which says how many were left out. */
const lastLineBytes = 128;
/** Timestamp, level and lengths of a line. */
const lineOverheadBytes = 32;

const levels: Record<keyof ActionLog, LogLevel> = {
  debug: LogLevel.LOG_LEVEL_DEBUG,
  info: LogLevel.LOG_LEVEL_INFO,
  warn: LogLevel.LOG_LEVEL_WARN,
  error: LogLevel.LOG_LEVEL_ERROR,
};

export interface LoggedLine {
  level: keyof ActionLog;
  message: string;
  fields: LogFields | undefined;
}

/** Collects lines up to 64 KiB; further lines are counted. */
export class AttemptLog {
  /** What the handler sees; methods need no `this`. */
  readonly face: ActionLog;
  readonly #lines: LogLine[] = [];
  #bytes = 0;
  #leftOut = 0;

  /** `mirror` also receives the lines that no longer fit. */
  constructor(mirror?: (line: LoggedLine) => void) {
    const write = (level: keyof ActionLog) => (message: string, fields?: LogFields) => {
      this.#add(level, message, fields);
      mirror?.({ level, message, fields });
    };
    this.face = { debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The lines so far, with a last one that counts those left out. */
  lines(): LogLine[] {
    if (this.#leftOut === 0) return this.#lines;
    const message = `${this.#leftOut} more lines were left out: the log of an attempt holds ${logBytesMax / 1024} KiB`;
    return [...this.#lines, { at: now(), level: LogLevel.LOG_LEVEL_WARN, message, fieldsJson: "" }];
  }

  #add(level: keyof ActionLog, given: string, fields: LogFields | undefined): void {
    const message = cutText(String(given), messageBytesMax);
    const fieldsJson = fields === undefined ? "" : toJson(fields);
    const size = lineOverheadBytes + Buffer.byteLength(message) + Buffer.byteLength(fieldsJson);
    if (this.#leftOut > 0 || this.#bytes + size > logBytesMax - lastLineBytes) {
      this.#leftOut++;
      return;
    }
    this.#bytes += size;
    this.#lines.push({ at: now(), level: levels[level], message, fieldsJson });
  }
}

function now(): { seconds: bigint; nanos: number } {
  const ms = Date.now();
  return { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 };
}

/** JSON of the fields; what JSON can't hold becomes text, and a log call never throws. */
function toJson(fields: LogFields): string {
  try {
    const json = JSON.stringify(fields, (_key, value: unknown) => {
      if (typeof value === "bigint") return value.toString();
      if (value instanceof Error) return value.stack ?? value.message;
      return value;
    });
    if (json === undefined) return "";
    if (Buffer.byteLength(json) <= fieldsBytesMax) return json;
    return JSON.stringify({ truncated: cutText(json, fieldsBytesMax / 2) });
  } catch (error) {
    return JSON.stringify({ unloggable: error instanceof Error ? error.message : String(error) });
  }
}

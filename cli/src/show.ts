/** How values of the mesh are written for people: statuses, instants, lengths of time, failures. */
import { type Json, object, text } from "./json.js";
import { type Colors, plain } from "./output.js";

/** "RUN_STATUS_SUCCEEDED" or "STEP_STATUS_READY" without the prefix that only proto needs. */
export const bareStatus = (status: unknown): string =>
  String(status ?? "UNSPECIFIED").replace(/^(RUN|STEP)_STATUS_|^EVENT_KIND_/, "");

/** Statuses that a run never leaves. */
export const isFinal = (status: string): boolean => /^(SUCCEEDED|FAILED|CANCELLED|EXPIRED)$/.test(bareStatus(status));

/** A status in its colour. */
export function paintStatus(status: unknown, colors: Colors): string {
  const bare = bareStatus(status);
  switch (bare) {
    case "SUCCEEDED":
      return colors.green(bare);
    case "FAILED":
    case "EXPIRED":
    case "BROKEN":
      return colors.red(bare);
    case "CANCELLED":
    case "RETRYING":
    case "PAUSED":
      return colors.yellow(bare);
    case "RUNNING":
    case "DISPATCHED":
      return colors.cyan(bare);
    default:
      return colors.dim(bare);
  }
}

/** "0.4 s", "12 s", "3 min 5 s", "2 h 4 min", "3 d 2 h". */
export function showDuration(ms: number): string {
  if (ms < 0) return showDuration(0);
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long ago an RFC 3339 instant was, or "-". */
export function showAgo(instant: unknown, nowMs: number): string {
  const at = typeof instant === "string" ? Date.parse(instant) : Number.NaN;
  return Number.isNaN(at) ? "-" : `${showDuration(nowMs - at)} ago`;
}

/** Time between two RFC 3339 instants; the second may be absent: until now. */
export function showBetween(from: unknown, to: unknown, nowMs: number): string {
  const start = typeof from === "string" ? Date.parse(from) : Number.NaN;
  const end = typeof to === "string" ? Date.parse(to) : nowMs;
  return Number.isNaN(start) || Number.isNaN(end) ? "-" : showDuration(end - start);
}

/** "REASON: message" of a failure, or "". */
export function showFailure(failure: Json | undefined): string {
  const { reason, message } = object(failure);
  return plain([text(reason), text(message)].filter((part) => part !== "").join(": "));
}

/** A value on one line for a person, cut to `max` characters. */
export function showValue(value: Json | undefined, max = 200): string {
  if (value === undefined) return "";
  const line = plain(JSON.stringify(value));
  return line.length <= max ? line : `${line.slice(0, max - 1)}…`;
}

/** Where the items of a fan-out stand: "7,200 of 10,000 items, 3 failed, 16 active". */
export function showItems(value: Json | undefined): string {
  const counts = object(value);
  const total = Number(counts.total ?? 0);
  if (total === 0) return "";
  const [succeeded, failed, active] = [counts.succeeded, counts.failed, counts.active].map((n) => Number(n ?? 0));
  const parts = [`${succeeded!.toLocaleString("en")} of ${total.toLocaleString("en")} items`];
  if (failed! > 0) parts.push(`${failed!.toLocaleString("en")} failed`);
  if (active! > 0) parts.push(`${active!.toLocaleString("en")} active`);
  return parts.join(", ");
}

/** An instant that is to come, and how long until then: "2026-01-31T12:00:00Z (in 3 h 5 min)"; "" for none. */
export function showUntil(instant: unknown, nowMs: number): string {
  const at = typeof instant === "string" ? Date.parse(instant) : Number.NaN;
  if (Number.isNaN(at)) return "";
  return `${plain(text(instant as Json))} (${at > nowMs ? `in ${showDuration(at - nowMs)}` : "now"})`;
}

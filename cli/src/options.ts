/** Values of options, checked where commander reads them: a bad one is a usage error that names the option. */
import { InvalidArgumentError } from "@commander-js/extra-typings";

const unitSeconds: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 };

/** "90s", "15m", "1.5h" or "2d" as canonical protobuf JSON ("90s"). */
export function parseDuration(text: string): string {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? [];
  const seconds = Number(amount) * (unitSeconds[unit ?? ""] ?? Number.NaN);
  if (!Number.isFinite(seconds) || seconds <= 0)
    throw new InvalidArgumentError("Expected a length such as 90s, 15m or 2h.");
  return `${Number(seconds.toFixed(3))}s`;
}

/** An instant: RFC 3339, or a length of time before now ("15m"). As RFC 3339. */
export function parseInstant(text: string): string {
  const at = Date.parse(text);
  if (/^\d{4}-/.test(text) && !Number.isNaN(at)) return new Date(at).toISOString();
  try {
    return new Date(Date.now() - Number.parseFloat(parseDuration(text)) * 1000).toISOString();
  } catch (cause) {
    if (!(cause instanceof InvalidArgumentError)) throw cause;
    throw new InvalidArgumentError(
      "Expected an instant such as 2026-01-31T12:00:00Z, or a length before now such as 15m.",
    );
  }
}

/** An instant, RFC 3339, as it is. */
export function parseFutureInstant(text: string): string {
  const at = Date.parse(text);
  if (/^\d{4}-/.test(text) && !Number.isNaN(at)) return new Date(at).toISOString();
  throw new InvalidArgumentError("Expected an instant such as 2026-01-31T12:00:00Z.");
}

/** Collects repeated "key=value" options. */
export function parsePairs(text: string, before: Record<string, string>): Record<string, string> {
  const split = text.indexOf("=");
  if (split <= 0) throw new InvalidArgumentError("Expected key=value.");
  return { ...before, [text.slice(0, split)]: text.slice(split + 1) };
}

const parseWhole = (text: string, min: number, max: number): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
  }
  return value;
};

export const parsePriority = (text: string): number => parseWhole(text, -100, 100);
export const parseRetention = (text: string): number => parseWhole(text, 1, 36_500);
export const parseLimit = (text: string): number => parseWhole(text, 1, 100_000);
export const parseVersion = (text: string): number => parseWhole(text, 1, 4_294_967_295);

const parseChoice =
  (prefix: string, choices: readonly string[]) =>
  (text: string): string => {
    if (!choices.includes(text)) throw new InvalidArgumentError(`Expected one of ${choices.join(", ")}.`);
    return `${prefix}${text.toUpperCase().replaceAll("-", "_")}`;
  };

/** What to do while a run has a custom id. */
export const parseConflict = parseChoice("ID_CONFLICT_POLICY_", ["fail", "use-existing", "terminate-existing"]);
/** What to do when the run that had a custom id has ended. */
export const parseReuse = parseChoice("ID_REUSE_POLICY_", ["allow", "allow-if-failed", "reject"]);

const runStatuses = ["RUNNING", "PAUSED", "BROKEN", "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"];

/** Collects repeated or comma-separated run statuses, in any case, as canonical enum names. */
export function parseStatuses(text: string, before: string[]): string[] {
  const found = text.split(",").map((one) => one.trim().toUpperCase());
  const unknown = found.find((one) => !runStatuses.includes(one));
  if (unknown !== undefined) {
    throw new InvalidArgumentError(`Expected one of ${runStatuses.join(", ").toLowerCase()}.`);
  }
  return [...before, ...found.map((one) => `RUN_STATUS_${one}`)];
}

/** "host:port", with a port that can exist. */
export function parseAddress(text: string): string {
  const [, host, port] = /^(\[[0-9a-f:]+\]|[^:\s]+):(\d{1,5})$/i.exec(text) ?? [];
  if (host === undefined || Number(port) > 65_535)
    throw new InvalidArgumentError("Expected host:port, such as 127.0.0.1:7400.");
  return text;
}

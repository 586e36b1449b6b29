/** Reading of query parameters, paths and headers: strict, so that a misspelt filter is an error and not an unfiltered list. */

import { nearestName, type StatusError, shorten, statusError } from "@taskmesh/runtime";
import type { FastifyRequest } from "fastify";

/** The query of a request. Names may be written in camelCase or snake_case; unknown ones are refused. */
export class Query {
  private readonly values = new Map<string, string[]>();

  constructor(request: FastifyRequest, allowed: readonly string[]) {
    const names = ["namespace", ...allowed];
    for (const [given, value] of Object.entries(request.query as Record<string, string | string[]>)) {
      const name = given.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
      if (!names.includes(name)) {
        const nearest = nearestName(name, names);
        const hint = nearest === undefined ? "" : `; did you mean ${JSON.stringify(nearest)}?`;
        throw invalid(shorten(given), `there is no such query parameter${hint}`);
      }
      const list = Array.isArray(value) ? value : [value];
      this.values.set(name, [...(this.values.get(name) ?? []), ...list]);
    }
  }

  /** The value of a parameter that is given once at most; an empty one counts as absent. */
  text(name: string): string | undefined {
    const [first, ...more] = this.values.get(name) ?? [];
    if (more.length > 0) throw invalid(name, "is given more than once");
    return first === "" ? undefined : first;
  }

  /** Every value of a parameter that may be repeated. */
  all(name: string): readonly string[] {
    return (this.values.get(name) ?? []).filter((value) => value !== "");
  }

  integer(name: string, min: number, max: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = /^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw invalid(name, `expected an integer from ${min} to ${max}, found ${JSON.stringify(shorten(text))}`);
  }

  flag(name: string): boolean {
    const text = this.text(name) ?? (this.values.has(name) ? "true" : "false");
    if (/^(true|1)$/.test(text)) return true;
    if (/^(false|0)$/.test(text)) return false;
    throw invalid(name, `expected true or false, found ${JSON.stringify(shorten(text))}`);
  }

  /** A length of time in milliseconds; longer ones are cut to `maxMs`. */
  durationMs(name: string, maxMs: number): number | undefined {
    const text = this.text(name);
    return text === undefined ? undefined : Math.min(parseDurationMs(name, text), maxMs);
  }

  instant(name: string): { seconds: bigint; nanos: number } | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const ms = instantPattern.test(text) ? Date.parse(text) : Number.NaN;
    if (Number.isNaN(ms)) {
      throw invalid(name, `expected an instant such as 2026-01-31T12:00:00Z, found ${JSON.stringify(shorten(text))}`);
    }
    const seconds = Math.floor(ms / 1000);
    return { seconds: BigInt(seconds), nanos: (ms - seconds * 1000) * 1_000_000 };
  }
}

/** For routes that take no query parameters but the namespace. */
export function refuseQuery(request: FastifyRequest): void {
  new Query(request, []);
}

const instantPattern = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$/;

/** A refusal that names one field of the request. */
export function invalid(field: string, description: string): StatusError {
  const message = `${field}: ${description}`;
  return statusError({ reason: "ARGUMENT_INVALID", message, fieldViolations: [{ field, description }] });
}

const durationUnitsMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** "30s", "1.5s", "500ms", "2m", "1h"; a bare number is seconds. */
export function parseDurationMs(field: string, text: string): number {
  const [, number, unit] = /^(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)?$/.exec(text.trim()) ?? [];
  if (number !== undefined) return Number(number) * (durationUnitsMs[unit ?? "s"] ?? 1_000);
  throw invalid(field, `expected a duration such as 30s, found ${JSON.stringify(shorten(text))}`);
}

/** Full names longer than this belong to nothing. */
const METHOD_LENGTH_MAX = 256;
const methodPattern = /^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\/[A-Za-z_]\w*$/;

/** Checks a full method name; `field` is what to blame. */
export function checkMethod(field: string, method: string): string {
  if (method.length <= METHOD_LENGTH_MAX && methodPattern.test(method)) return method;
  const example = "acme.pages.v1.PageActions/Score";
  throw invalid(field, `expected a full method name such as ${example}, found ${JSON.stringify(shorten(method))}`);
}

/** The method that a path of the form `.../:service/:method` names. */
export function methodOfPath(request: FastifyRequest): string {
  const { service, method } = request.params as { service: string; method: string };
  return checkMethod("method", `${service}/${method}`);
}

/** The run that a path names; anything that can't be a run id is a run that does not exist. */
export function runIdOfPath(request: FastifyRequest): string {
  const { runId } = request.params as { runId: string };
  if (/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$/.test(runId)) return runId;
  throw statusError({ reason: "RUN_NOT_FOUND", message: `there is no run ${JSON.stringify(shorten(runId))}` });
}

/** A header that is given once at most. */
export function header(request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(", ") : value;
}

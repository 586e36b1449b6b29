/**
 * What a setting may look like: how each form of value is described and read. `required`, `optional` and `defaulted` make a
 * setting of a form.
 */
import { readFileSync } from "node:fs";
import { z } from "zod";
import type { Setting } from "./config.js";

interface SettingInit {
  variable: string;
  doc: string;
  fix?: string;
  secret?: boolean;
}

/** A setting that must be there. */
export function required<T>(init: SettingInit, kind: Kind<T>): Setting<T> {
  return make(init, kind, undefined, true);
}

/** A setting that may be absent. */
export function optional<T>(init: SettingInit, kind: Kind<T>): Setting<T | undefined> {
  return make<T | undefined>(init, kind as Kind<T | undefined>, undefined, false);
}

/** A setting that has a default, written as its text would be. */
export function defaulted<T>(init: SettingInit, kind: Kind<T>, fallback: string): Setting<T> {
  return make(init, kind, fallback, false);
}

function make<T>(init: SettingInit, kind: Kind<T>, fallback: string | undefined, isRequired: boolean): Setting<T> {
  return {
    variable: init.variable,
    doc: init.doc,
    form: kind.form,
    fallback,
    required: isRequired,
    secret: init.secret ?? false,
    schema: kind.schema,
    fix: init.fix ?? `Set ${init.variable} to ${kind.form}.`,
  };
}

/** A form of value: how it is described and read. */
export interface Kind<T> {
  form: string;
  schema: z.ZodType<T, string>;
}

/** Any text that is not empty. */
export const text = (form = "text"): Kind<string> => ({ form, schema: z.string() });

/** A whole number; `form` names its unit. */
export const integer = (form: string, min: number, max: number): Kind<number> => ({
  form: `${form}, ${min} to ${max}`,
  schema: z
    .string()
    .regex(/^-?\d{1,15}$/, "is not a whole number")
    .transform(Number)
    .refine((value) => value >= min && value <= max, `is not between ${min} and ${max}`),
});

/** `true`, `false`, `1` or `0`. */
export const flag = (): Kind<boolean> => ({
  form: "true or false",
  schema: z
    .string()
    .toLowerCase()
    .pipe(z.enum(["true", "false", "1", "0"], "is neither true nor false"))
    .transform((value) => value === "true" || value === "1"),
});

/** One of some words. */
export const oneOf = <const T extends string>(words: readonly T[]): Kind<T> => ({
  form: words.join(" | "),
  schema: z
    .string()
    .toLowerCase()
    .pipe(z.enum(words as readonly [T, ...T[]], `is none of ${words.join(", ")}`)) as z.ZodType<T, string>,
});

/** A list with commas between its items; at least one. */
export const list = <T>(item: Kind<T>): Kind<T[]> => ({
  form: `${item.form}, several with commas between`,
  schema: z
    .string()
    .transform((value) => value.split(",").flatMap((part) => part.trim() || []))
    .pipe(z.array(item.schema).min(1, "has no item")) as z.ZodType<T[], string>,
});

/** A URL of one of some schemes (`postgres`, without the colon). */
export const url = (...schemes: string[]): Kind<string> => ({
  form: `${schemes[0]}:// URL`,
  schema: z.string().refine(
    (value) => {
      const parsed = URL.canParse(value) ? new URL(value) : undefined;
      return parsed !== undefined && schemes.includes(parsed.protocol.slice(0, -1));
    },
    `is not a URL that begins with ${schemes.map((scheme) => `${scheme}://`).join(" or ")}`,
  ),
});

/** An address to listen on or to dial. */
export interface Address {
  host: string;
  /** 0: any free port (listening only). */
  port: number;
}

/** `host:port`, IPv6 in brackets. */
export const address = (): Kind<Address> => ({
  form: "host:port",
  schema: z.string().transform((value, context) => {
    const parsed = parseAddress(value);
    if (parsed) return parsed;
    context.issues.push({ code: "custom", message: "is not host:port", input: value });
    return z.NEVER;
  }),
});

/** Reads `host:port`, `[::1]:port` or `:port` (all interfaces); undefined if it is none of these. */
export function parseAddress(value: string): Address | undefined {
  const found = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]*)):(\d{1,5})$/.exec(value);
  if (!found) return undefined;
  const port = Number(found[3]);
  if (port > 65_535) return undefined;
  return { host: found[1] ?? (found[2] || "0.0.0.0"), port };
}

/** `host:port`, IPv6 in brackets. */
export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** An address to listen on, or `off`. */
export const addressOrOff = (): Kind<Address | "off"> => ({
  form: "host:port | off",
  schema: z.string().transform((value, context) => {
    const parsed = value.toLowerCase() === "off" ? "off" : parseAddress(value);
    if (parsed) return parsed;
    context.issues.push({ code: "custom", message: "is neither host:port nor off", input: value });
    return z.NEVER;
  }),
});

/** Whether only this machine can reach the host. Names other than `localhost` may resolve to anything and are not loopback. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/** The path of a file that can be read. */
export const file = (): Kind<string> => ({
  form: "path of a file",
  schema: z.string().refine((path) => readOrUndefined(path) !== undefined, "names a file that can't be read"),
});

/** The text of a file, undefined if it can't be read. */
export function readOrUndefined(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

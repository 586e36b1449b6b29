/**
 * Configuration: environment variables against a table of settings.
 *
 * Every fault is reported at once, before anything starts, each with its variable, what is wrong and how to put it right.
 * A secret may stand in `NAME` or in a file that `NAME_FILE` names; it is hidden from logs as soon as it is read.
 * Help texts and docs/guides/configuration.md are made of the same tables.
 */
import type { z } from "zod";
import { hideSecret } from "./log.js";
import { nearestName } from "./nearest-name.js";
import { readOrUndefined } from "./setting-kinds.js";

/** What a process reads its settings from; process.env is one. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** One variable. */
export interface Setting<T> {
  /** Name of the variable. */
  readonly variable: string;
  /** One or two sentences for people. */
  readonly doc: string;
  /** Form and unit of the value, such as `host:port` or `seconds`. */
  readonly form: string;
  /** What holds when the variable is not set, as text; undefined: there is no default. */
  readonly fallback: string | undefined;
  readonly required: boolean;
  /** May also come from the file that `<variable>_FILE` names, and is never shown. */
  readonly secret: boolean;
  readonly schema: z.ZodType<T, string>;
  /** How to put a wrong value right. */
  readonly fix: string;
}

/** A table of settings, by the name that the program uses. */
export type Settings = Readonly<Record<string, Setting<unknown>>>;

/** What a table of settings reads to. */
export type SettingValues<S extends Settings> = { [K in keyof S]: S[K] extends Setting<infer T> ? T : never };

/** One thing that is wrong with the configuration. */
export interface ConfigFault {
  variable: string;
  problem: string;
  fix: string;
}

/** Everything that is wrong with the configuration, in one error. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly faults: readonly ConfigFault[];

  constructor(faults: readonly ConfigFault[]) {
    const lines = faults.map(({ variable, problem, fix }) => `  ${variable}: ${problem}\n      ${fix}`);
    super(`${faults.length === 1 ? "One setting is" : `${faults.length} settings are`} wrong:\n${lines.join("\n")}`);
    this.faults = faults;
  }
}

/** The settings of a table, and what is wrong with them. Values with a fault are absent. */
export function readSettings<S extends Settings>(
  settings: S,
  env: Environment,
): { values: SettingValues<S>; faults: ConfigFault[] } {
  const values: Record<string, unknown> = {};
  const faults: ConfigFault[] = [];
  for (const [name, setting] of Object.entries(settings)) {
    const read = readSetting(setting, env);
    if ("fault" in read) faults.push(read.fault);
    else values[name] = read.value;
  }
  return { values: values as SettingValues<S>, faults };
}

function readSetting(setting: Setting<unknown>, env: Environment): { value: unknown } | { fault: ConfigFault } {
  const source = rawValue(setting, env);
  if ("fault" in source) return source;
  const raw = source.raw ?? setting.fallback;
  if (raw === undefined) {
    if (!setting.required) return { value: undefined };
    return { fault: { variable: setting.variable, problem: "is not set", fix: setting.fix } };
  }
  if (setting.secret && source.raw !== undefined) hide(source.raw);
  const parsed = setting.schema.safeParse(raw);
  if (parsed.success) return { value: parsed.data };
  const why = parsed.error.issues.map((issue) => issue.message).join("; ");
  const shown = setting.secret ? "the value" : JSON.stringify(raw.length > 100 ? `${raw.slice(0, 100)}…` : raw);
  return { fault: { variable: source.variable, problem: `${shown} ${why}`, fix: setting.fix } };
}

/** Of URLs, only the passwords are secret: their hosts must stay readable in logs. */
function hide(raw: string): void {
  if (!raw.includes("://")) return hideSecret(raw);
  for (const part of raw.split(",")) {
    if (!URL.canParse(part.trim())) continue;
    const { password } = new URL(part.trim());
    hideSecret(password);
    hideSecret(decoded(password));
  }
}

/** As drivers show it; as it is, where its percent signs encode nothing. */
function decoded(password: string): string {
  try {
    return decodeURIComponent(password);
  } catch {
    return password;
  }
}

/** The text of a setting. Empty is the same as not set: that is how shells and containers unset a variable. */
function rawValue(
  { variable, secret }: Setting<unknown>,
  env: Environment,
): { variable: string; raw: string | undefined } | { fault: ConfigFault } {
  const direct = env[variable]?.trim() || undefined;
  const fileVariable = `${variable}_FILE`;
  const path = secret ? env[fileVariable]?.trim() || undefined : undefined;
  if (path === undefined) return { variable, raw: direct };
  if (direct !== undefined) {
    const problem = `is set, and so is ${fileVariable}`;
    return { fault: { variable, problem, fix: `Set one of ${variable} and ${fileVariable}.` } };
  }
  const content = readOrUndefined(path)?.trim();
  if (content) return { variable: fileVariable, raw: content };
  const problem = content === "" ? `the file "${path}" is empty` : `the file "${path}" can't be read`;
  return { fault: { variable: fileVariable, problem, fix: "Name a file that this process may read." } };
}

/**
 * What several readers of one environment make of it.
 * @throws ConfigError with the faults of all of them, each once.
 */
export function readTogether<T extends readonly unknown[]>(...readers: { [K in keyof T]: () => T[K] }): T {
  const faults = new Map<string, ConfigFault>();
  const values = readers.map((read) => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      for (const fault of error.faults) faults.set(`${fault.variable}: ${fault.problem}`, fault);
      return undefined;
    }
  });
  if (faults.size > 0) throw new ConfigError([...faults.values()]);
  return values as unknown as T;
}

/**
 * The settings of a table alone.
 * @throws ConfigError with every fault.
 */
export function requireSettings<S extends Settings>(settings: S, env: Environment): SettingValues<S> {
  const { values, faults } = readSettings(settings, env);
  if (faults.length > 0) throw new ConfigError(faults);
  return values;
}

/** Variables that begin like ours, are in no table, and are nearly one that is: most likely misspelt. */
export function misspeltVariables(known: Iterable<Settings>, env: Environment): string[] {
  const names = new Set<string>();
  for (const settings of known) {
    for (const { variable, secret } of Object.values(settings)) {
      names.add(variable);
      if (secret) names.add(`${variable}_FILE`);
    }
  }
  return Object.keys(env).flatMap((name) => {
    if (!name.startsWith("TASKMESH_") || names.has(name)) return [];
    const meant = nearestName(name, names);
    return meant ? [`${name} is not a setting; did you mean ${meant}?`] : [];
  });
}

/** The `--help` text of a table: every setting with form, default and meaning. */
export function settingsHelp(settings: Settings): string {
  return Object.values(settings)
    .map((setting) => {
      const names = setting.secret ? `${setting.variable} (or ${setting.variable}_FILE)` : setting.variable;
      return `  ${names}\n      ${setting.form}; ${describeDefault(setting)}\n      ${setting.doc}`;
    })
    .join("\n");
}

/** The same as a Markdown table. */
export function settingsMarkdown(settings: Settings): string {
  const rows = Object.values(settings).map((setting) => {
    const names = setting.secret ? `\`${setting.variable}\`, \`${setting.variable}_FILE\`` : `\`${setting.variable}\``;
    const cells = [names, setting.form, setting.fallback ?? describeDefault(setting), setting.doc];
    return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  });
  return ["| variable | value | default | what it does |", "|---|---|---|---|", ...rows].join("\n");
}

function describeDefault(setting: Setting<unknown>): string {
  if (setting.required) return "required";
  return setting.fallback === undefined ? "not set" : `default ${setting.fallback}`;
}

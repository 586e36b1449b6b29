/**
 * JSON text from outside, read strictly: what two parsers could read differently is refused instead of guessed.
 *
 * Refused besides syntax errors: bytes that are not UTF-8, a byte order mark, keys that occur twice in one object, strings
 * with lone surrogates, more than 64 levels of nesting. Integers that a double can't hold are reported by path, because only
 * the reader of the value knows whether digits would be lost.
 */
import type { JsonValue } from "@bufbuild/protobuf";

/** Levels of objects and arrays in accepted JSON; deeper input would exhaust stacks further in. */
export const JSON_DEPTH_MAX = 64;

/** Path of a value: keys and indexes from the root. */
export type JsonPath = readonly (string | number)[];

export type StrictJson =
  | { ok: true; value: JsonValue; lossyIntegers: readonly JsonPath[] }
  | { ok: false; field: string; message: string };

/** Reads JSON text or its UTF-8 bytes. A refusal says where (`field` is a path, empty for the whole text) and why. */
export function parseStrictJson(input: string | Uint8Array): StrictJson {
  let text: string;
  try {
    text = typeof input === "string" ? input : utf8.decode(input);
  } catch {
    return { ok: false, field: "", message: "the text is not valid UTF-8" };
  }
  let value: JsonValue;
  try {
    value = JSON.parse(text) as JsonValue;
  } catch (cause) {
    return { ok: false, field: "", message: `malformed JSON: ${describeSyntaxError(text, cause)}` };
  }
  const scan = new Scan(text);
  const refusal = scan.run();
  return refusal ?? { ok: true, value, lossyIntegers: scan.lossyIntegers };
}

/** Writes a path for people: `steps[2].input.text`; keys that are not plain names are quoted. */
export function formatPath(path: JsonPath): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else if (/^[A-Za-z_@][A-Za-z0-9_]{0,127}$/.test(part)) text += text === "" ? part : `.${part}`;
    else text += `[${JSON.stringify(shorten(part))}]`;
  }
  return text;
}

/** Cuts text for an error message. */
export function shorten(text: string, lengthMax = 60): string {
  return text.length <= lengthMax ? text : `${text.slice(0, lengthMax)}...`;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** More reports than this help nobody. */
const LOSSY_INTEGERS_MAX = 100;

/**
 * V8's messages quote the input around the fault, which may hold secrets and differs between releases: only the position
 * is taken over.
 */
function describeSyntaxError(text: string, cause: unknown): string {
  if (text.trim() === "") return "the text is empty";
  const message = cause instanceof Error ? cause.message : "";
  if (/end of JSON|Unterminated/.test(message)) return "the text ends too early";
  const position = /at position (\d+)/.exec(message)?.[1];
  if (position !== undefined) return `unexpected text at ${lineAndColumn(text, Number(position))}`;
  const token = /^Unexpected token '(.+?)'/u.exec(message)?.[1];
  return token === undefined ? "unexpected text" : `unexpected ${JSON.stringify(token)}`;
}

function lineAndColumn(text: string, position: number): string {
  const before = text.slice(0, position);
  const line = before.split("\n").length;
  return `line ${line}, column ${position - before.lastIndexOf("\n")}`;
}

interface Level {
  /** Keys seen so far; undefined for an array. */
  keys: Set<string> | undefined;
  expectsKey: boolean;
}

/** One pass over text that JSON.parse has accepted, so that only structure needs to be followed. */
class Scan {
  readonly lossyIntegers: JsonPath[] = [];
  private at = 0;
  private readonly levels: Level[] = [];
  private readonly path: (string | number)[] = [];

  constructor(private readonly text: string) {}

  run(): Extract<StrictJson, { ok: false }> | undefined {
    const { text } = this;
    while (this.at < text.length) {
      const code = text.charCodeAt(this.at);
      let message: string | undefined;
      if (code === QUOTE) message = this.string();
      else if (code === OPEN_BRACE || code === OPEN_BRACKET) message = this.open(code === OPEN_BRACE);
      else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) this.close();
      else if (code === COMMA) this.comma();
      else if (code === MINUS || (code >= DIGIT_0 && code <= DIGIT_9)) this.number();
      else this.at++;
      if (message !== undefined) return { ok: false, field: formatPath(this.path.slice(0, 16)), message };
    }
    return undefined;
  }

  private open(isObject: boolean): string | undefined {
    this.at++;
    if (this.levels.length >= JSON_DEPTH_MAX) return `nested deeper than ${JSON_DEPTH_MAX} levels`;
    this.levels.push({ keys: isObject ? new Set() : undefined, expectsKey: isObject });
    this.path.push(isObject ? "" : 0);
    return undefined;
  }

  private close(): void {
    this.at++;
    this.levels.pop();
    this.path.pop();
  }

  private comma(): void {
    this.at++;
    const level = this.levels.at(-1);
    if (level === undefined) return;
    if (level.keys !== undefined) level.expectsKey = true;
    else this.path.push((this.path.pop() as number) + 1);
  }

  private string(): string | undefined {
    const { text } = this;
    const start = this.at;
    let end = text.indexOf('"', start + 1);
    while (isEscaped(text, end)) end = text.indexOf('"', end + 1);
    this.at = end + 1;
    const level = this.levels.at(-1);
    const raw = text.slice(start + 1, end);
    if (level?.expectsKey === true) {
      const key = raw.includes("\\") ? (JSON.parse(`"${raw}"`) as string) : raw;
      level.expectsKey = false;
      this.path[this.path.length - 1] = key;
      if (level.keys?.has(key) === true) return `the key ${JSON.stringify(shorten(key))} occurs twice`;
      level.keys?.add(key);
      return isWellFormed(key) ? undefined : "the key has a lone surrogate, which no UTF-8 text can hold";
    }
    return isWellFormed(raw.includes("\\u") ? (JSON.parse(`"${raw}"`) as string) : raw)
      ? undefined
      : "the string has a lone surrogate, which no UTF-8 text can hold";
  }

  private number(): void {
    numberPattern.lastIndex = this.at;
    const literal = numberPattern.exec(this.text)?.[0] ?? "-";
    this.at += literal.length;
    if (literal.length < 16 || !/^-?\d+$/.test(literal)) return;
    if (isExact(literal) || this.lossyIntegers.length >= LOSSY_INTEGERS_MAX) return;
    this.lossyIntegers.push([...this.path]);
  }
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const DIGIT_0 = 0x30;
const DIGIT_9 = 0x39;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const numberPattern = /-?[0-9.eE+-]+/y;

/** Whether a double holds just this integer. */
function isExact(literal: string): boolean {
  const value = Number(literal);
  // Above the largest double there are none, and their digits, of which there may be millions, need not be read.
  return Number.isSafeInteger(value) || (Number.isFinite(value) && BigInt(value) === BigInt(literal));
}

/** Whether the quote at `end` belongs to the string: an odd number of backslashes stands before it. */
function isEscaped(text: string, end: number): boolean {
  let backslashes = 0;
  while (text.charCodeAt(end - 1 - backslashes) === 0x5c) backslashes++;
  return backslashes % 2 === 1;
}

function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}

import type { Range, Scalar } from "yaml";

/**
 * Where in a YAML text the character at `offset` of a scalar's value stands. Exact for plain, quoted and literal scalars; in folded text,
 * where line breaks become spaces, it is exact within a line.
 *
 * Value and source are walked side by side: they differ by quotes, escapes, indentation and folding only.
 */
export function offsetInSource(
  source: string,
  range: Range,
  type: Scalar["type"],
  value: string,
  offset: number,
): number {
  let at = startOfText(source, range[0], type);
  const end = range[1];
  for (let i = 0; i < Math.min(offset, value.length) && at < end; i++) {
    at = source[at] === value[i] || isWhite(value[i]!) ? at : nextMatch(source, at, end, value[i]!, type);
    at = after(source, at, end, value[i]!, type);
  }
  // Indentation belongs to no character.
  const next = value[offset];
  return next === undefined || source[at] === next ? at : nextMatch(source, at, end, next, type);
}

const isWhite = (c: string): boolean => c === " " || c === "\n" || c === "\t";

function startOfText(source: string, start: number, type: Scalar["type"]): number {
  if (type === "QUOTE_SINGLE" || type === "QUOTE_DOUBLE") return start + 1;
  if (type !== "BLOCK_LITERAL" && type !== "BLOCK_FOLDED") return start;
  const newline = source.indexOf("\n", start);
  let at = newline < 0 ? start : newline + 1;
  while (source[at] === " ") at++;
  return at;
}

/** The first place from `at` where the source can stand for `c`. */
function nextMatch(source: string, at: number, end: number, c: string, type: Scalar["type"]): number {
  for (let i = at; i < end; i++) {
    if (source[i] === c || (type === "QUOTE_DOUBLE" && source[i] === "\\")) return i;
    // Only white space may stand between two characters of the value.
    if (!isWhite(source[i]!) && source[i] !== "\r") return at;
  }
  return at;
}

/** The place after the source of the value's character `c`. */
function after(source: string, at: number, end: number, c: string, type: Scalar["type"]): number {
  if (type === "QUOTE_DOUBLE" && source[at] === "\\") {
    return at + ({ x: 4, u: 6, U: 10 }[source[at + 1] ?? ""] ?? 2);
  }
  if (type === "QUOTE_SINGLE" && source[at] === "'") return at + 2;
  if (source[at] === c) return at + 1;
  // A folded line break: all of its white space is this one character.
  let i = at;
  while (i < end && (isWhite(source[i]!) || source[i] === "\r")) i++;
  return i;
}

/**
 * Regular expressions of expressions and of validation rules: RE2, so a match takes time in proportion to text and pattern, whatever both
 * say. What RE2 does not bound well is the pattern itself: `(…){1000}` is a program a thousand times as long as its text. So patterns have a
 * weight, about the length of the program, and a bound on it; compiled ones are kept, since most are the same each time.
 */
import { RE2JS } from "@bufbuild/re2";

/** Heaviest pattern that is compiled; a long one that people write has a few hundred. */
export const patternWeightMax = 10_000;
/** Patterns that are kept compiled. */
const keptMax = 64;

const kept = new Map<string, RE2JS>();

/** Compiles a pattern. Throws what is wrong with it: no RE2, or too heavy. */
export function compilePattern(pattern: string): RE2JS {
  const known = kept.get(pattern);
  if (known !== undefined) return known;
  const weight = patternWeight(pattern);
  if (weight > patternWeightMax)
    throw new Error(`the pattern is too large: its repetitions make ${weight} parts of it`);
  const compiled = RE2JS.compile(pattern);
  for (const oldest of kept.keys()) {
    if (kept.size < keptMax) break;
    kept.delete(oldest);
  }
  kept.set(pattern, compiled);
  return compiled;
}

/** About how many parts the pattern has when its counted repetitions are written out. Never throws: it is asked before RE2 is. */
export function patternWeight(pattern: string): number {
  /** Weights of the groups around the present place. */
  const outer: number[] = [];
  let sum = 0;
  let last = 0;
  for (let at = 0; at < pattern.length; ) {
    const char = pattern[at]!;
    const rest = char === "{" ? /^\{(\d{1,9})(?:,(\d{0,9}))?\}/.exec(pattern.slice(at, at + 24)) : null;
    if (rest !== null) {
      const times = Math.max(1, Number(rest[1]), Number(rest[2] ?? 0));
      sum += last * (times - 1);
      last *= times;
      at += rest[0].length;
    } else if (char === "(") {
      outer.push(sum);
      sum = 0;
      at += 1;
    } else if (char === ")") {
      last = sum + 2;
      sum = (outer.pop() ?? 0) + last;
      at += 1;
    } else {
      last = 1;
      sum += 1;
      at = char === "\\" ? at + 2 : char === "[" ? endOfClass(pattern, at) : at + 1;
    }
  }
  // Groups that nobody closes are no pattern: RE2 says so.
  return outer.reduce((total, one) => total + one, sum);
}

/** Behind the "]" that ends a class; "]" right at its beginning is a member of it. */
function endOfClass(pattern: string, start: number): number {
  let at = pattern[start + 1] === "^" ? start + 3 : start + 2;
  while (at < pattern.length && pattern[at] !== "]") at += pattern[at] === "\\" ? 2 : 1;
  return at + 1;
}

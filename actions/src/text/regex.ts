/**
 * Regular expressions of RE2 syntax: no backtracking, so no pattern takes exponential time. Each match costs time linear in the text
 * that it looks at; a thread's deadline bounds the whole.
 */
import { type Matcher, RE2JS, RE2JSException } from "re2js";
import { memoize } from "../bounded/memo.js";
import { createOutputMeter, TaskFailure } from "../bounded/task-failure.js";
import {
  type RegexApplyRequest,
  type RegexApplyResponse,
  type RegexMatch,
  RegexMode,
} from "../gen/taskmesh/text/v1/text.js";

/** Matches that are taken when the request doesn't say. */
const limitDefault = 10_000;
const flagBits: Record<string, number> = { i: RE2JS.CASE_INSENSITIVE, m: RE2JS.MULTILINE, s: RE2JS.DOTALL };

/** Finds, replaces or splits. Throws REGEX_INVALID, REPLACEMENT_INVALID, OUTPUT_TOO_LARGE. */
export function applyRegex(request: RegexApplyRequest): RegexApplyResponse {
  const pattern = compile(request);
  if (request.mode === RegexMode.REGEX_MODE_REPLACE) return replace(request, pattern);
  if (request.mode === RegexMode.REGEX_MODE_SPLIT) return split(request, pattern);
  return find(request, pattern);
}

/** Compiled patterns that are kept, with what they have learnt of their texts. */
const patternsKept = 50;

// The flags come first, so that the rest is the pattern whatever is in it.
const compileKey = memoize(patternsKept, (key) => {
  const [flags = "", ...rest] = key.split("/");
  const bits = [...flags].reduce((sum, flag) => sum | (flagBits[flag] ?? 0), 0);
  return RE2JS.compile(rest.join("/"), bits);
});

function compile({ pattern, flags }: RegexApplyRequest): RE2JS {
  try {
    return compileKey(`${flags}/${pattern}`);
  } catch (cause) {
    if (!(cause instanceof RE2JSException)) throw cause;
    throw new TaskFailure("REGEX_INVALID", cause.message, cause);
  }
}

function find(request: RegexApplyRequest, pattern: RE2JS): RegexApplyResponse {
  const limit = request.limit || limitDefault;
  const names = Object.entries(pattern.namedGroups());
  const meter = createOutputMeter();
  const matches: RegexMatch[] = [];
  for (const matcher = pattern.matcher(request.text); matches.length < limit && matcher.find(); ) {
    const match = toMatch(matcher, names);
    for (const text of [match.text, ...match.groups, ...Object.values(match.named)]) meter(text);
    matches.push(match);
  }
  const count = matches.length;
  return { text: matches[0]?.text ?? "", matched: count > 0, matches, parts: [], count };
}

function toMatch(matcher: Matcher, names: [string, number][]): RegexMatch {
  const groups: string[] = [];
  for (let index = 1; index <= matcher.groupCount(); index++) groups.push(matcher.group(index) ?? "");
  const named = names.flatMap(([name, index]) => {
    const text = matcher.group(index);
    return text === null ? [] : [[name, text] as const];
  });
  return {
    text: matcher.group() ?? "",
    start: matcher.start(),
    end: matcher.end(),
    groups,
    named: Object.fromEntries(named),
  };
}

function replace(request: RegexApplyRequest, pattern: RE2JS): RegexApplyResponse {
  const { text } = request;
  const limit = request.limit || Number.POSITIVE_INFINITY;
  const parts = parseReplacement(request.replacement, pattern);
  const meter = createOutputMeter();
  const written: string[] = [];
  const write = (part: string) => {
    meter(part);
    written.push(part);
  };
  let count = 0;
  let from = 0;
  for (const matcher = pattern.matcher(text); count < limit && matcher.find(); count++) {
    write(text.slice(from, matcher.start()));
    write(parts.map((part) => (typeof part === "string" ? part : (matcher.group(part) ?? ""))).join(""));
    from = matcher.end();
  }
  write(text.slice(from));
  return { text: written.join(""), matched: count > 0, matches: [], parts: [], count };
}

/** Literals and the numbers of groups, in order. */
function parseReplacement(replacement: string, pattern: RE2JS): (string | number)[] {
  const names = pattern.namedGroups();
  const refuse = (what: string) => new TaskFailure("REPLACEMENT_INVALID", `the pattern has no group ${what}`);
  return replacement.split(/(\$\$|\$\d{1,3}|\$\{[^}]*\})/).map((part) => {
    if (part === "$$") return "$";
    const [, number, name] = /^\$(?:(\d{1,3})|\{([^}]*)\})$/s.exec(part) ?? [];
    if (number !== undefined || (name !== undefined && /^\d{1,3}$/.test(name))) {
      const index = Number(number ?? name);
      if (index > pattern.groupCount()) throw refuse(String(index));
      return index;
    }
    if (name === undefined) return part;
    const index = Object.hasOwn(names, name) ? names[name] : undefined;
    if (index === undefined) throw refuse(JSON.stringify(name.slice(0, 100)));
    return index;
  });
}

function split(request: RegexApplyRequest, pattern: RE2JS): RegexApplyResponse {
  const { text } = request;
  const limit = request.limit || limitDefault;
  const meter = createOutputMeter();
  const parts: string[] = [];
  const add = (part: string) => {
    meter(part);
    parts.push(part);
  };
  let count = 0;
  let from = 0;
  for (const matcher = pattern.matcher(text); count < limit && matcher.find(); ) {
    // An empty match separates characters, but nothing at either end.
    if (matcher.end() === matcher.start() && (matcher.start() === 0 || matcher.start() === text.length)) continue;
    add(text.slice(from, matcher.start()));
    from = matcher.end();
    count++;
  }
  add(text.slice(from));
  return { text: parts[0]!, matched: count > 0, matches: [], parts, count };
}

/**
 * Checks one expression completely: syntax, names, guards, types, bounds, and that the engine which will run it takes it.
 */
import type { ASTNode, TypeError as CelTypeError, ParseError } from "@marcbachmann/cel-js";
import { nearestName } from "@taskmesh/runtime";
import { listItem, mapItems, typeOfNode } from "./assignable.js";
import { loneSurrogate } from "./convert.js";
import { type Cost, costOf } from "./cost.js";
import { faultOfConstant, planExpression } from "./engine-values.js";
import type { ExpressionProblem, Reading } from "./reading.js";
import { depthMax, nodesMax, type ScopeTypes } from "./scope-types.js";
import { type ReadOptions, readExpression } from "./syntax.js";

/** Longest expression in UTF-16 code units. */
export const expressionLengthMax = 16 * 1024;

export interface CheckedExpression {
  source: string;
  ast: ASTNode;
  /** The checker's type of the value. */
  type: string;
  reading: Reading;
  /** What it costs; undefined: next to nothing, whatever it reads. */
  cost: Cost | undefined;
  /** Runs it. */
  run: ReturnType<typeof planExpression>;
}

export type ExpressionResult = { ok: true; value: CheckedExpression } | { ok: false; problems: ExpressionProblem[] };

export function checkExpression(source: string, types: ScopeTypes, options: ReadOptions): ExpressionResult {
  const whole = { start: 0, end: source.length };
  const refused = (
    problem: Omit<ExpressionProblem, "start" | "end"> & Partial<ExpressionProblem>,
  ): ExpressionResult => ({
    ok: false,
    problems: [{ ...whole, ...problem }],
  });
  if (source.length > expressionLengthMax) {
    const [expected, found] = [`at most ${expressionLengthMax} characters`, `${source.length} characters`];
    const message = `the expression has ${source.length} characters; at most ${expressionLengthMax} are allowed`;
    return refused({ reason: "TOO_LARGE", message, expected, found });
  }
  const text = { reason: "SYNTAX", expected: "a CEL expression" };
  if (source.trim() === "") return refused({ ...text, message: "the expression is empty", found: "nothing" });
  if (loneSurrogate.test(source))
    return refused({ ...text, message: "the expression has a lone surrogate", found: "a lone surrogate" });
  try {
    const parsed = types.environment.parse(source);
    const reading = readExpression(parsed.ast, types, options);
    if (reading.problems.length > 0 || reading.opaque) return { ok: false, problems: reading.problems };
    const checked = parsed.check();
    if (!checked.valid || checked.type === undefined)
      return { ok: false, problems: [typeProblem(checked.error, types, whole)] };
    const faults = [
      ...faultsOfConstants(parsed.ast, source),
      ...faultsOfIndexes(parsed.ast, types),
      ...(types.stored === true ? [] : faultsOfKeys(parsed.ast, source)),
    ];
    if (faults.length > 0) return { ok: false, problems: faults };
    const run = isPlainPath(source) ? planWhenRun(source) : planExpression(withPresenceTests(source, reading));
    const cost = costOf(parsed.ast);
    return { ok: true, value: { source, ast: parsed.ast, type: checked.type, reading, cost, run } };
  } catch (error) {
    return { ok: false, problems: [syntaxProblem(error, whole)] };
  }
}

/** Words that the engine's parser keeps to itself. */
const reservedWords = new Set(
  "as break const continue else false for function if import in let loop namespace null package return true var void while".split(
    " ",
  ),
);

/** Most inputs are paths, and paths are copied (projection.ts): a third of the time that a long chain takes to save was planning what never runs. */
const isPlainPath = (source: string): boolean =>
  /^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*$/.test(source) && !source.split(".").some((name) => reservedWords.has(name));

/** An expression that the engine's parser takes for certain, planned when it is run for the first time. */
function planWhenRun(source: string): CheckedExpression["run"] {
  let planned: CheckedExpression["run"] | undefined;
  return (variables) => {
    planned ??= planExpression(source);
    return planned(variables);
  };
}

type Range = { start: number; end: number };

/** Both parsers throw; only the checker's errors have a range. */
function syntaxProblem(error: unknown, whole: Range): ExpressionProblem {
  const { summary, range, code } = error as Partial<ParseError>;
  if (summary === undefined) {
    const text = error instanceof Error ? error.message : String(error);
    const message = `the expression is not part of this CEL profile: ${text}`;
    return { reason: "SYNTAX", message, expected: "this CEL profile", found: text.slice(0, foundMax), ...whole };
  }
  const place = range ?? whole;
  if (code?.includes("limit") === true || /limit|exceed/i.test(summary)) {
    const expected = `at most ${nodesMax} parts, nested ${depthMax} deep`;
    return {
      reason: "TOO_LARGE",
      message: `the expression is too large: ${summary}`,
      expected,
      found: summary,
      ...whole,
    };
  }
  const message = summary.endsWith("EOF") ? "the expression ends too early" : `syntax error: ${summary}`;
  const about = { expected: "a CEL expression", found: summary };
  return { reason: "SYNTAX", message, start: place.start, end: Math.max(place.end, place.start), ...about };
}

function typeProblem(error: unknown, types: ScopeTypes, whole: Range): ExpressionProblem {
  const { summary, range, code, node } = error as Partial<CelTypeError>;
  const place = { ...whole, ...(range === undefined ? {} : { start: range.start, end: range.end }) };
  if (code === "no_such_key" && node !== undefined && (node.op === "." || node.op === "[]")) {
    const owner = types.messageOf(typeOfNode(node.args[0]) ?? "");
    const name = node.op === "." ? node.args[1] : undefined;
    if (owner !== undefined && name !== undefined) {
      const near = nearestName(
        name,
        owner.fields.map((field) => field.name),
      );
      return {
        reason: "UNKNOWN_FIELD",
        message: `${owner.name} has no field "${name}"`,
        ...place,
        expected: `a field of ${owner.name}`,
        found: name,
        ...(near === undefined ? {} : { suggestion: near }),
      };
    }
  }
  const text = types.display(summary ?? String(error));
  const conversion = /dyn/.test(text) ? "; a dyn value needs a conversion such as string(…)" : "";
  return { reason: "WRONG_TYPE", message: `${text}${conversion}`, ...place, ...expectationOf(text) };
}

/** Characters of what was found. */
const foundMax = 200;

/** What the checker's sentences say of what is expected and what was found. */
const sentences: readonly [RegExp, (match: RegExpExecArray) => { expected: string; found: string }][] = [
  [
    /^no such overload: (.+) (\S+) (.+)$/,
    ([, left, op, right]) => ({
      expected: left === right ? `types that have ${op}` : `the same type on both sides of ${op}`,
      found: `${left} ${op} ${right}`,
    }),
  ],
  [
    /^no such overload: ([-!])(.+)$/,
    ([, op, type]) => ({ expected: op === "!" ? "bool" : "int or double", found: type! }),
  ],
  [
    /^found no matching overload for '(.*?)([A-Za-z_]\w*)\((.*)\)'$/,
    ([, on, name, args]) => ({
      expected: `what ${name}() takes`,
      found: `${on}${name}(${args})`,
    }),
  ],
  [/must have the same type, got '(.+)' and '(.+)'$/, ([, one, other]) => ({ expected: one!, found: other! })],
  [/must be (\S+), got '(.+)'$/, ([, expected, found]) => ({ expected: expected!, found: found! })],
];

function expectationOf(text: string): { expected: string; found: string } {
  for (const [form, read] of sentences) {
    const match = form.exec(text);
    if (match) return read(match);
  }
  return { expected: "another type", found: text.slice(0, foundMax) };
}

/** Every operation of an expression. */
function* nodesOf(ast: ASTNode): Generator<ASTNode> {
  const open: unknown[] = [ast];
  while (open.length > 0) {
    const node = open.pop();
    if (Array.isArray(node)) open.push(...node);
    if (typeof node !== "object" || node === null || !("op" in node)) continue;
    open.push((node as ASTNode).args);
    yield node as ASTNode;
  }
}

/** Calls of constants that fail whenever they run: a pattern that is none, a duration without a unit. */
function faultsOfConstants(ast: ASTNode, source: string): ExpressionProblem[] {
  const problems: ExpressionProblem[] = [];
  for (const node of nodesOf(ast)) {
    const { op, start, end } = node;
    const constant = constantOf(node, source);
    const fault = constant === undefined ? undefined : faultOfConstant(constant);
    if (fault !== undefined && (op === "call" || op === "rcall")) {
      const found = source.slice(start, end);
      problems.push({ reason: "INVALID_VALUE", message: fault, start, end, expected: "a value that it takes", found });
    }
  }
  return problems;
}

/** Indexes of another type than what they index has: the checker lets some through that the engine then knows no key for. */
function faultsOfIndexes(ast: ASTNode, types: ScopeTypes): ExpressionProblem[] {
  const problems: ExpressionProblem[] = [];
  for (const node of nodesOf(ast)) {
    const { op, args, start, end } = node;
    if (op !== "[]") continue;
    const [operand, index] = args as [ASTNode, ASTNode];
    const indexed = typeOfNode(operand) ?? "dyn";
    const expected = listItem(indexed) === undefined ? mapItems(indexed)?.[0] : "int";
    const found = typeOfNode(index) ?? "dyn";
    // A dyn may be anything, and single letters stand for types that a literal leaves open.
    if (expected === undefined || found === expected || [expected, found].some((type) => /^(dyn|[A-Z])$/.test(type)))
      continue;
    const message = `the index is ${types.display(found)}, and ${types.display(indexed)} is indexed by ${expected}`;
    problems.push({ reason: "WRONG_TYPE", message, start, end, expected, found: types.display(found) });
  }
  return problems;
}

/** Literal keys of a map that stand in it twice: the engine makes no map of them. */
function faultsOfKeys(ast: ASTNode, source: string): ExpressionProblem[] {
  const problems: ExpressionProblem[] = [];
  for (const { op, args } of nodesOf(ast)) {
    if (op !== "map") continue;
    const seen = new Set<string>();
    for (const [key] of args) {
      if (key.op !== "value") continue;
      const name = `${typeof key.args} ${String(key.args)}`;
      const found = source.slice(key.start, key.end);
      const place = { start: key.start, end: key.end, found, expected: "each key once" };
      if (seen.has(name)) problems.push({ reason: "CONFLICT", message: `the key ${found} is given twice`, ...place });
      seen.add(name);
    }
  }
  return problems;
}

function constantOf(node: ASTNode, source: string): string | undefined {
  const isValue = (part: ASTNode) => part.op === "value";
  const text = (part: { start: number; end: number }) => source.slice(part.start, part.end);
  if (node.op === "call") return node.args[1].length > 0 && node.args[1].every(isValue) ? text(node) : undefined;
  if (node.op !== "rcall" || node.args[0] !== "matches") return undefined;
  const pattern = node.args[2][0];
  return pattern !== undefined && isValue(pattern) ? `''.matches(${text(pattern)})` : undefined;
}

/**
 * has(steps.a.output.text) is false, not an error, when step a was skipped. The engine would fail on the missing output, so the
 * test for it is written out.
 */
function withPresenceTests(source: string, reading: Reading): string {
  let text = source;
  for (const { start, end, step } of [...reading.presenceTests].sort((a, b) => b.start - a.start)) {
    text = `${text.slice(0, start)}(has(steps.${step}.output) && ${text.slice(start, end)})${text.slice(end)}`;
  }
  return text;
}

/**
 * What the validation rules of a contract may cost. They are run on the event loop, where nobody can stop them, over messages that anybody sends.
 *
 *   registration   patterns are compiled and weighed, loops within loops are counted: what has no bound in practice is refused
 *   a message      the work is estimated from its size (cel/cost.ts) before a rule runs; a message that would take too long breaks its contract
 *
 * The rules that buf.validate brings itself take time in proportion to the message; only expressions (`cel`, `cel_expression`, predefined ones) can
 * take more.
 */
import { type DescMessage, getOption, hasOption, type Message, type Registry } from "@bufbuild/protobuf";
import {
  type FieldRules,
  field as fieldOption,
  message as messageOption,
  predefined,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { type ASTNode, parse } from "@marcbachmann/cel-js";
import { costOf, type Sizes } from "./cel/cost.js";
import { macros } from "./cel/functions.js";
import { compilePattern } from "./cel/patterns.js";
import { comprehensionDepthMax } from "./cel/syntax.js";
import { reachable } from "./fingerprint.js";

/** Parts of rules that are visited for one message: a third of a second on a busy machine for most rules, a second or two for the worst. */
export const ruleCostMax = 3_000_000;
/** Sizes of messages that are tried for being cheap whatever they hold; none is larger. */
const sizeMax = 1 << 26;
/** Parts of a rule whose work does not depend on sizes. */
const fixedCost = 50;

interface Rule {
  /** "acme.order.v1.Order.lines", or the type. */
  place: string;
  id: string;
  estimate(sizes: Sizes): number;
}

export interface RulesCost {
  /** Why the rules are refused; undefined: they are not. */
  fault: string | undefined;
  /** What is wrong with a message of so many bytes; undefined: its rules can be run. */
  excess(message: Message, bytes: number): string | undefined;
}

/** Reads the rules of everything that the message can contain. */
export function rulesCostOf(desc: DescMessage, registry: Registry): RulesCost {
  const rules: Rule[] = [];
  const faults: string[] = [];
  const add = (place: string, { id, expression }: { id: string; expression: string }): void => {
    const ast = parsed(expression);
    const fault = ast && faultOf(ast);
    if (fault !== undefined) faults.push(`${place}: rule ${JSON.stringify(id || expression)} ${fault}`);
    const cost = ast && costOf(ast);
    const estimate = ast ? (sizes: Sizes) => cost?.estimate(sizes) ?? fixedCost : guessOf(expression);
    rules.push({ place, id: id || expression, estimate });
  };
  const addPattern = (place: string, pattern: string): void => {
    const fault = faultOfPattern(pattern);
    if (fault !== undefined) faults.push(`${place}: string.pattern ${fault}`);
  };
  for (const type of reachable([desc])) {
    if (type.kind !== "message") continue;
    const own = hasOption(type, messageOption) ? getOption(type, messageOption) : undefined;
    for (const rule of own?.cel ?? []) add(type.typeName, rule);
    for (const expression of own?.celExpression ?? []) add(type.typeName, { id: "", expression });
    for (const one of type.fields) {
      if (!hasOption(one, fieldOption)) continue;
      readField(`${type.typeName}.${one.name}`, getOption(one, fieldOption), add, addPattern);
    }
  }
  for (const extension of registry) {
    if (extension.kind !== "extension" || !hasOption(extension, predefined)) continue;
    for (const rule of getOption(extension, predefined).cel) add(extension.typeName, rule);
  }
  const safe = safeBytes(rules);
  return {
    fault: faults.length === 0 ? undefined : faults.slice(0, faultsShownMax).join("; "),
    excess: (message, bytes) => (bytes <= safe ? undefined : excessOf(rules, message, bytes)),
  };
}

/** Faults that one refusal lists. */
const faultsShownMax = 5;

type Add = (place: string, rule: { id: string; expression: string }) => void;

function readField(
  place: string,
  rules: FieldRules,
  add: Add,
  addPattern: (place: string, text: string) => void,
): void {
  for (const rule of rules.cel) add(place, rule);
  for (const expression of rules.celExpression) add(place, { id: "", expression });
  const { type } = rules;
  if (type.case === "string" && type.value.pattern !== "") addPattern(place, type.value.pattern);
  const within =
    type.case === "repeated" ? [type.value.items] : type.case === "map" ? [type.value.keys, type.value.values] : [];
  for (const one of within) if (one) readField(place, one, add, addPattern);
}

/** Its syntax tree; undefined: it has none, or one that only the validator knows. */
function parsed(expression: string): ASTNode | undefined {
  try {
    return parse(expression).ast;
  } catch {
    return undefined;
  }
}

/** The work of an expression without a tree: every loop in it within the others. */
function guessOf(expression: string): Rule["estimate"] {
  const loops = expression.match(/\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(/g)?.length ?? 0;
  return ({ bytes, longest }) => expression.length * (1 + bytes / 16) * (1 + longest()) ** Math.min(loops, 4);
}

/** What is wrong with an expression whatever it reads. */
function faultOf(ast: ASTNode): string | undefined {
  const open: { node: unknown; depth: number }[] = [{ node: ast, depth: 0 }];
  while (open.length > 0) {
    const { node, depth } = open.pop()!;
    if (Array.isArray(node)) open.push(...node.map((one) => ({ node: one as unknown, depth })));
    if (typeof node !== "object" || node === null || !("op" in node)) continue;
    const one = node as ASTNode;
    let inner = depth;
    if (one.op === "rcall") {
      const [name, , args] = one.args;
      if (macros.has(name)) inner += 1;
      if (inner > comprehensionDepthMax) {
        return `nests ${inner} of all(), exists(), exists_one(), map() and filter(); at most ${comprehensionDepthMax}: check the inner lists by rules of their own messages`;
      }
      const pattern = name === "matches" && args[0]?.op === "value" ? args[0].args : undefined;
      const fault = typeof pattern === "string" ? faultOfPattern(pattern) : undefined;
      if (fault !== undefined) return `matches ${fault}`;
    }
    open.push({ node: one.args, depth: inner });
  }
  return undefined;
}

function faultOfPattern(pattern: string): string | undefined {
  try {
    compilePattern(pattern);
    return undefined;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return `can't be used: ${why}; write it in RE2's syntax, with smaller repetitions`;
  }
}

/** Messages of at most this size may hold what they like. */
function safeBytes(rules: readonly Rule[]): number {
  if (rules.length === 0) return Number.POSITIVE_INFINITY;
  let safe = 0;
  for (let bytes = 64; bytes <= sizeMax; bytes *= 2) {
    if (workOf(rules, { bytes, longest: bytes, messages: bytes, depth: 1 }).total > ruleCostMax) return safe;
    safe = bytes;
  }
  return Number.POSITIVE_INFINITY;
}

interface Shape {
  bytes: number;
  /** Longest list or map. */
  longest: number;
  /** Messages, the outermost included. */
  messages: number;
  /** Messages around the innermost one. */
  depth: number;
}

/**
 * All rules, and the dearest. A rule runs once for each message that it is about: their sizes add up to that of the whole, once for each level, and the
 * estimate is convex.
 */
function workOf(rules: readonly Rule[], { bytes, longest, messages, depth }: Shape): { total: number; worst: Rule } {
  const whole: Sizes = { bytes, longest: () => longest, measure: () => undefined };
  const empty: Sizes = { bytes: 0, longest: () => 0, measure: () => undefined };
  let [total, worst, most] = [0, rules[0]!, 0];
  for (const rule of rules) {
    const work = depth * rule.estimate(whole) + messages * rule.estimate(empty);
    total += work;
    if (work > most) [worst, most] = [rule, work];
  }
  return { total, worst };
}

function excessOf(rules: readonly Rule[], message: Message, bytes: number): string | undefined {
  const shape: Shape = { bytes, longest: 0, messages: 0, depth: 1 };
  lookThrough(message, 1, shape);
  const { total, worst } = workOf(rules, shape);
  if (total <= ruleCostMax) return undefined;
  const about = `about ${Math.round(total).toLocaleString("en")} parts of them, at most ${ruleCostMax.toLocaleString("en")} are visited`;
  return (
    `its validation rules would take too long over ${bytes} bytes with lists of up to ${shape.longest}: ${about}; ` +
    `most of it is rule ${JSON.stringify(worst.id)} of ${worst.place}: send less, or let the rule go over less`
  );
}

/** Counts what a decoded message holds. Fields of messages count as lists do: that is never much. */
function lookThrough(value: unknown, depth: number, shape: Shape): void {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return;
  const isMessage = "$typeName" in value;
  if (isMessage) {
    shape.messages += 1;
    shape.depth = Math.max(shape.depth, depth);
  }
  const items: unknown[] = Array.isArray(value) ? value : Object.values(value);
  if (items.length > shape.longest) shape.longest = items.length;
  for (const item of items) if (typeof item === "object") lookThrough(item, isMessage ? depth + 1 : depth, shape);
}

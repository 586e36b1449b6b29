/** Dotted paths in expressions, and which of them a condition guards. */
import type { ASTNode } from "@marcbachmann/cel-js";

/** One part of a dotted path, with the place of its name. */
export interface Part {
  name: string;
  start: number;
  end: number;
}

/** All of both. */
export function union<T>(a: ReadonlySet<T>, b: ReadonlySet<T>): ReadonlySet<T> {
  return b.size === 0 ? a : new Set([...a, ...b]);
}

/** The names of `a.b.c`, with their places; undefined if the node is anything else. */
export function partsOf(node: ASTNode): Part[] | undefined {
  const parts: Part[] = [];
  let at: ASTNode = node;
  while (at.op === ".") {
    parts.push({ name: at.args[1], start: at.end - at.args[1].length, end: at.end });
    at = at.args[0];
  }
  if (at.op !== "id") return undefined;
  parts.push({ name: at.args, start: at.start, end: at.end });
  return parts.reverse();
}

/** The step whose output `has(steps.<id>.output…)` tests; `deeper`: it asks for something inside the output. */
export function guardedStep(node: ASTNode): { id: string; deeper: boolean } | undefined {
  if (node.op !== "call" || node.args[0] !== "has") return undefined;
  const parts = node.args[1][0] === undefined ? undefined : partsOf(node.args[1][0]);
  if (parts === undefined || parts[0]!.name !== "steps" || parts[2]?.name !== "output") return undefined;
  return { id: parts[1]!.name, deeper: parts.length > 3 };
}

/**
 * What is there when the node has the given value: ids of steps whose outputs exist, and dotted paths that are set.
 */
export function guardsOf(node: ASTNode, value: boolean): ReadonlySet<string> {
  switch (node.op) {
    case "!_":
      return guardsOf(node.args, !value);
    case "&&":
    case "||":
      if (value !== (node.op === "&&")) return nothing;
      return union(guardsOf(node.args[0], value), guardsOf(node.args[1], value));
    case "==":
    case "!=":
      return value === (node.op === "!=") ? comparedWithNull(node.args[0], node.args[1]) : nothing;
    default:
      return value ? presenceOf(node) : nothing;
  }
}

const nothing: ReadonlySet<string> = new Set();

/** What a has() that holds says. */
function presenceOf(node: ASTNode): ReadonlySet<string> {
  if (node.op !== "call" || node.args[0] !== "has" || node.args[1][0] === undefined) return nothing;
  const step = guardedStep(node);
  const path = dotted(node.args[1][0]);
  return new Set([...(step === undefined ? [] : [step.id]), ...(path === undefined ? [] : [path])]);
}

/** The path that is not null. */
function comparedWithNull(left: ASTNode, right: ASTNode): ReadonlySet<string> {
  const isNull = (side: ASTNode): boolean => side.op === "value" && side.args === null;
  const path = isNull(right) ? dotted(left) : isNull(left) ? dotted(right) : undefined;
  return path === undefined ? nothing : new Set([path]);
}

/** `a.b` and more; a name alone says nothing. */
function dotted(node: ASTNode): string | undefined {
  const parts = partsOf(node);
  return parts === undefined || parts.length < 2 ? undefined : parts.map((part) => part.name).join(".");
}

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

/** Steps whose outputs exist when the node has the given value. */
export function guardsOf(node: ASTNode, value: boolean): ReadonlySet<string> {
  if (node.op === "!_") return guardsOf(node.args, !value);
  if ((node.op === "&&" && value) || (node.op === "||" && !value)) {
    return union(guardsOf(node.args[0], value), guardsOf(node.args[1], value));
  }
  const step = value ? guardedStep(node) : undefined;
  return step === undefined ? new Set() : new Set([step.id]);
}

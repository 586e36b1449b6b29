/**
 * Reads that may give null: a wrapper field (google.protobuf.StringValue and the like) that is not set reads as null, and null has none of the
 * operators and functions of what is wrapped. So it has to be asked for, as an output that may be missing has:
 *
 *   has(input.note) ? input.note : ''       input.note != null && input.note.startsWith('a')
 *
 * Without that a null may only be compared, or be the value: then what it is for decides (a wrapper or a Value takes it).
 */
import type { DescField } from "@bufbuild/protobuf";
import type { ASTNode } from "@marcbachmann/cel-js";
import { typeOfNode, wrappedScalar } from "./assignable.js";
import { macros } from "./functions.js";
import { guardsOf, partsOf, union } from "./paths.js";
import type { ExpressionProblem } from "./reading.js";
import { celTypeOfScalar, type ScopeTypes } from "./scope-types.js";

/** A part of an expression that gives null where nobody guards it. */
export interface NullPlace {
  start: number;
  end: number;
  /** What is read. */
  text: string;
}

export interface Nulls {
  problems: ExpressionProblem[];
  /** The value as a whole may be null, by this read. */
  whole?: NullPlace;
  /** Something in the list or map that the expression makes may be, by this read. */
  inside?: NullPlace;
}

/** Finds them in a checked expression. `guards` are what is known to be set where it is evaluated. */
export function nullsOf(ast: ASTNode, source: string, types: ScopeTypes, guards: ReadonlySet<string>): Nulls {
  const walker = new Walker(source, types);
  walker.walk(ast, "value", guards);
  return walker.found;
}

/** `value`: it is the value of the expression; `item`: it is in it; `compared`: null is as good as any; `used`: null has no use. */
type Use = "value" | "item" | "compared" | "used";

/** The field that a part of a checked expression reads; undefined: it reads none, or none that is known. */
export function fieldOf(node: ASTNode, types: ScopeTypes): DescField | undefined {
  if (node.op !== ".") return undefined;
  const owner = types.messageOf(typeOfNode(node.args[0]) ?? "");
  return owner?.fields.find((field) => field.name === node.args[1]);
}

const defaults: Readonly<Record<string, string>> = {
  ...{ string: "''", bytes: "b''", bool: "false", int: "0", uint: "0u", double: "0.0" },
};

class Walker {
  readonly found: Nulls = { problems: [] };

  constructor(
    private readonly source: string,
    private readonly types: ScopeTypes,
  ) {}

  walk(node: ASTNode, use: Use, guards: ReadonlySet<string>): void {
    switch (node.op) {
      case "value":
      case "id":
        return;
      case ".":
        this.read(node, use, guards);
        return this.walk(node.args[0], "used", guards);
      case "==":
      case "!=":
        for (const side of node.args) this.walk(side, "compared", guards);
        return;
      case "&&":
      case "||": {
        const [left, right] = node.args;
        this.walk(left, "used", guards);
        return this.walk(right, "used", union(guards, guardsOf(left, node.op === "&&")));
      }
      case "?:": {
        const [condition, then, otherwise] = node.args;
        this.walk(condition, "used", guards);
        this.walk(then, use, union(guards, guardsOf(condition, true)));
        return this.walk(otherwise, use, union(guards, guardsOf(condition, false)));
      }
      case "list":
        for (const item of node.args) this.walk(item, inside(use), guards);
        return;
      case "map":
        for (const [key, value] of node.args) {
          this.walk(key, "used", guards);
          this.walk(value, inside(use), guards);
        }
        return;
      case "!_":
      case "-_":
        return this.walk(node.args, "used", guards);
      case "call":
        if (node.args[0] !== "has") for (const arg of node.args[1]) this.walk(arg, "used", guards);
        return;
      case "rcall":
        return this.method(node, use, guards);
      default:
        for (const part of node.args as [ASTNode, ASTNode]) this.walk(part, "used", guards);
    }
  }

  private method(node: ASTNode & { op: "rcall" }, use: Use, guards: ReadonlySet<string>): void {
    const [name, receiver, args] = node.args;
    this.walk(receiver, "used", guards);
    const variable = args[0];
    if (!macros.has(name) || variable?.op !== "id") {
      for (const arg of args) this.walk(arg, "used", guards);
      return;
    }
    // What was known of another variable of that name says nothing of this one.
    const known = new Set([...guards].filter((guard) => !guard.startsWith(`${variable.args}.`)));
    const [first, second] = args.slice(1);
    if (second !== undefined && first !== undefined) {
      this.walk(first, "used", known);
      this.walk(second, inside(use), union(known, guardsOf(first, true)));
    } else if (first !== undefined) this.walk(first, name === "map" ? inside(use) : "used", known);
  }

  private read(node: ASTNode & { op: "." }, use: Use, guards: ReadonlySet<string>): void {
    const field = fieldOf(node, this.types);
    const wrapped = field?.fieldKind === "message" ? wrappedScalar(field.message) : undefined;
    if (wrapped === undefined || use === "compared") return;
    const path = partsOf(node)?.map((part) => part.name);
    if (path !== undefined && guards.has(path.join("."))) return;
    const text = this.source.slice(node.start, node.end);
    const place: NullPlace = { start: node.start, end: node.end, text };
    if (use === "value") this.found.whole ??= place;
    else if (use === "item") this.found.inside ??= place;
    else this.found.problems.push(guardProblem(place, defaults[celTypeOfScalar(wrapped)] ?? "''"));
  }
}

const inside = (use: Use): Use => (use === "value" || use === "item" ? "item" : "used");

/** The problem of a null that nobody takes. */
export function guardProblem({ start, end, text }: NullPlace, otherwise: string): ExpressionProblem {
  return {
    reason: "MISSING_GUARD",
    message: `${text} may be unset and is null then: write has(${text}) ? ${text} : ${otherwise}`,
    ...{ start, end, found: `${text}, which may be null`, expected: `has(${text}) before it` },
    suggestion: `has(${text}) ? ${text} : ${otherwise}`,
  };
}

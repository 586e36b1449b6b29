/**
 * How much an expression may cost, estimated from what it reads, before it runs: nobody can stop it on the event loop once it does.
 *
 * The unit is a visited part of the expression, a few microseconds at worst. The estimate is an upper bound in the sizes at hand: texts and
 * lists that the expression names are measured, everything else counts as all that it reads. What a comprehension does for one element grows at
 * least in proportion to the element (it is convex), so over elements of S bytes together it costs at most what one element of S bytes
 * costs, and for the others what an empty one does.
 */
import type { ASTNode } from "@marcbachmann/cel-js";
import { typeOfNode } from "./assignable.js";
import { macros } from "./functions.js";
import { partsOf } from "./paths.js";
import { patternWeight, patternWeightMax } from "./patterns.js";

/** Elements of a list or map, and bytes of it, or of a text. */
export interface Extent {
  count: number;
  bytes: number;
}

/** What is known of the values that expressions read. */
export interface Sizes {
  /** Of all of them together. */
  bytes: number;
  /** Longest list or map in them. */
  longest(): number;
  /** Of what a dotted path leads to; undefined: not known. */
  measure(path: readonly string[]): Extent | undefined;
}

/** Of constants: nothing is read. */
export const noSizes: Sizes = { bytes: 0, longest: () => 0, measure: () => undefined };

export interface Cost {
  /** It may take more than time in proportion to what it reads. */
  steep: boolean;
  estimate(sizes: Sizes): number;
}

/** The cost of a checked expression; undefined: it does not depend on the sizes of what it reads. */
export function costOf(ast: ASTNode): Cost | undefined {
  const growth = growthOf(ast);
  if (growth === "none") return undefined;
  const estimate = (sizes: Sizes): number => {
    const visit = new Visit(sizes, new Map());
    visit.extentOf(ast);
    return visit.cost;
  };
  return { steep: growth === "steep", estimate };
}

type Growth = "none" | "linear" | "steep";

const steepMethods = new Set([...macros, "matches", "split", "replace", "join"]);
const searches = new Set(["contains", "startsWith", "endsWith", "indexOf", "lastIndexOf"]);
const scalarTypes = new Set(
  "int uint double bool null type google.protobuf.Timestamp google.protobuf.Duration".split(" "),
);

const isScalar = (node: ASTNode): boolean => scalarTypes.has(typeOfNode(node) ?? "");
const isLiteral = (node: ASTNode | undefined): boolean => node?.op === "value";

function growthOf(ast: ASTNode): Growth {
  let growth: Growth = "none";
  const open: unknown[] = [ast];
  while (open.length > 0) {
    const node = open.pop();
    if (Array.isArray(node)) open.push(...node);
    if (typeof node !== "object" || node === null || !("op" in node)) continue;
    const own = ownGrowth(node as ASTNode);
    if (own === "steep") return own;
    if (own === "linear") growth = own;
    open.push((node as ASTNode).args);
  }
  return growth;
}

function ownGrowth(node: ASTNode): Growth {
  switch (node.op) {
    case "rcall": {
      const [name, , args] = node.args;
      if (steepMethods.has(name) || (searches.has(name) && !isLiteral(args[0]))) return "steep";
      return "linear";
    }
    case "call":
      return node.args[0] === "has" || node.args[1].every(isScalar) ? "none" : "linear";
    case "in":
      return "linear";
    case "+":
    case "==":
    case "!=":
    case "<":
    case "<=":
    case ">":
    case ">=":
      return isScalar(node.args[0]) || isScalar(node.args[1]) ? "none" : "linear";
    default:
      return "none";
  }
}

/** Bytes that a primitive operation of the engine goes over in the time of one part: copying and comparing, and looking at each. */
const bytesCopied = 16;
const bytesSeen = 4;
const scalar: Extent = { count: 0, bytes: 8 };
/** Making a formatter for a time zone. */
const zoneCost = 50;

class Visit {
  cost = 0;

  constructor(
    private readonly sizes: Sizes,
    private readonly bound: ReadonlyMap<string, Extent>,
  ) {}

  extentOf(node: ASTNode): Extent {
    this.cost += 1;
    const extent = this.extent(node);
    return isScalar(node) ? scalar : extent;
  }

  private extent(node: ASTNode): Extent {
    switch (node.op) {
      case "value":
        return { count: 0, bytes: sizeOfLiteral(node.args) };
      case "id":
      case ".":
        return this.path(node);
      case "[]": {
        const whole = this.extentOf(node.args[0]);
        this.extentOf(node.args[1]);
        return this.partOf(whole);
      }
      case "!_":
      case "-_":
        return this.extentOf(node.args);
      case "?:": {
        const [, then, otherwise] = node.args.map((part) => this.extentOf(part)) as [Extent, Extent, Extent];
        return { count: Math.max(then.count, otherwise.count), bytes: Math.max(then.bytes, otherwise.bytes) };
      }
      case "list":
        return { count: node.args.length, bytes: sum(node.args.map((item) => this.extentOf(item).bytes)) };
      case "map": {
        const parts = node.args.flat().map((part) => this.extentOf(part).bytes);
        return { count: node.args.length, bytes: sum(parts) };
      }
      case "call":
        return this.call(node.args[0], node.args[1]);
      case "rcall": {
        const [name, receiver, args] = node.args;
        return macros.has(name) && args[0]?.op === "id"
          ? this.comprehension(name, this.extentOf(receiver), args[0].args, args.slice(1))
          : this.method(name, this.extentOf(receiver), args);
      }
      default: {
        const [left, right] = node.args as [ASTNode, ASTNode];
        return this.operation(node.op, this.extentOf(left), this.extentOf(right));
      }
    }
  }

  private path(node: ASTNode): Extent {
    const names = partsOf(node)?.map((part) => part.name);
    if (names === undefined) return node.op === "." ? this.partOf(this.extentOf(node.args[0])) : scalar;
    const own = this.bound.get(names[0]!);
    if (own !== undefined) return names.length === 1 ? own : this.partOf(own);
    return this.sizes.measure(names) ?? { count: this.sizes.longest(), bytes: this.sizes.bytes };
  }

  /** Something inside: a list in it may be as long as the longest, and every element has at least a byte. */
  private partOf({ bytes }: Extent): Extent {
    return { count: Math.min(bytes, this.sizes.longest()), bytes };
  }

  private operation(op: string, left: Extent, right: Extent): Extent {
    switch (op) {
      case "+":
        this.cost += (left.bytes + right.bytes) / bytesCopied + right.count;
        return { count: left.count + right.count, bytes: left.bytes + right.bytes };
      case "in":
        this.cost += right.count + right.bytes / bytesCopied;
        return scalar;
      case "&&":
      case "||":
        return scalar;
      default:
        this.cost += Math.min(left.bytes, right.bytes) / bytesCopied + Math.min(left.count, right.count);
        return scalar;
    }
  }

  private call(name: string, args: readonly ASTNode[]): Extent {
    const bytes = name === "has" ? 0 : sum(args.map((arg) => this.extentOf(arg).bytes));
    // Lists know their length; texts are counted in characters.
    if (name !== "size" || typeOfNode(args[0]!) === "string") this.cost += bytes / bytesSeen;
    // The longest text of a number or a time is shorter.
    return { count: 0, bytes: Math.max(bytes, 64) };
  }

  private method(name: string, { count, bytes }: Extent, args: readonly ASTNode[]): Extent {
    const given = args.map((arg) => this.extentOf(arg).bytes);
    const first = given[0] ?? 0;
    switch (name) {
      case "split": {
        const parts = bytes / textLength(args[0], 1) + 1;
        this.cost += parts + bytes / bytesCopied;
        return { count: parts, bytes };
      }
      case "join": {
        const whole = bytes + count * first;
        this.cost += count + whole / bytesCopied;
        return { count: 0, bytes: whole };
      }
      case "replace": {
        const whole = bytes + (bytes / textLength(args[0], 1) + 1) * (given[1] ?? 0);
        this.cost += (bytes + whole) / bytesCopied;
        return { count: 0, bytes: whole };
      }
      case "matches": {
        const literal = textOf(args[0]);
        // A text of ten bytes can stand for a thousand parts.
        const weight = literal === undefined ? Math.min(patternWeightMax, first * 100) : patternWeight(literal);
        this.cost += bytes * (1 + weight / 32) + (literal === undefined ? weight : 0);
        return scalar;
      }
      case "unique": // of validation rules: looks for each element among the others
        this.cost += (count * count) / bytesCopied;
        return scalar;
      default:
        if (searches.has(name)) this.cost += (bytes / bytesCopied) * (1 + first / bytesCopied);
        else this.cost += bytes / bytesSeen + (name.startsWith("get") && args.length > 0 ? zoneCost : 0);
        return { count, bytes };
    }
  }

  private comprehension(name: string, over: Extent, variable: string, bodies: readonly ASTNode[]): Extent {
    const all = this.body(bodies, variable, this.partOf(over));
    const others = Math.max(0, over.count - 1);
    const empty = others === 0 ? all : this.body(bodies, variable, { count: 0, bytes: 0 });
    this.cost += over.count + all.cost + others * empty.cost;
    if (name === "filter") return over;
    return name === "map" ? { count: over.count, bytes: all.bytes + others * empty.bytes } : scalar;
  }

  private body(bodies: readonly ASTNode[], variable: string, element: Extent): { cost: number; bytes: number } {
    const inner = new Visit(this.sizes, new Map(this.bound).set(variable, element));
    const bytes = sum(bodies.map((body) => inner.extentOf(body).bytes));
    return { cost: inner.cost, bytes };
  }
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);

const textOf = (node: ASTNode | undefined): string | undefined =>
  node?.op === "value" && typeof node.args === "string" ? node.args : undefined;

/** Characters of a literal text, at least `least`; `least` of any other. */
const textLength = (node: ASTNode | undefined, least: number): number => Math.max(least, textOf(node)?.length ?? 0);

function sizeOfLiteral(value: unknown): number {
  return typeof value === "string" || value instanceof Uint8Array ? value.length : scalar.bytes;
}

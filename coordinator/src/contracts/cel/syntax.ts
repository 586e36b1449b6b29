/**
 * What an expression says, found by walking its syntax tree: which outputs it reads, which of them are guarded, how much work it is,
 * and every name that does not exist, each with its place.
 *
 * The checker that runs afterwards (check.ts) knows types, but stops at the first mistake and can't say what was meant. So names along
 * `input…`, `steps.<id>.output…` and `run…` are resolved here, against the descriptors.
 */
import type { DescField, DescMessage } from "@bufbuild/protobuf";
import type { ASTNode } from "@marcbachmann/cel-js";
import { nearestName } from "@taskmesh/runtime";
import { functions, macros, methods } from "./functions.js";
import { guardedStep, guardsOf, type Part, partsOf, union } from "./paths.js";
import type { BarePath, ExpressionProblem, Reading } from "./reading.js";
import {
  callbackFields,
  eachFields,
  errorFields,
  isWellKnown,
  runFields,
  type ScopeTypes,
  type StepOutput,
} from "./scope-types.js";

/** Deepest nesting of all(), exists(), exists_one(), map() and filter(): work grows with the power of it. */
export const comprehensionDepthMax = 2;

export interface ReadOptions {
  /** Steps whose outputs are known to exist where the expression is evaluated. */
  guarded?: ReadonlySet<string>;
  /** A bare path from an output that may be missing leaves the target unset, so it needs no guard. */
  bareAllowed: boolean;
  /** The step that the expression belongs to: it can't read itself. */
  self?: string;
}

export function readExpression(ast: ASTNode, types: ScopeTypes, options: ReadOptions): Reading {
  const reader = new Reader(types, options.self);
  const guards = options.guarded ?? new Set<string>();
  const bare = reader.bareOf(ast);
  reader.walk(ast, { guards, bound: new Set(), depth: 0, whole: options.bareAllowed && bare !== undefined });
  return { ...reader.reading, bare };
}

/** Where the walk stands. `whole`: the node is the whole expression and a bare path. */
interface Place {
  guards: ReadonlySet<string>;
  bound: ReadonlySet<string>;
  depth: number;
  whole: boolean;
}

class Reader {
  readonly reading: Reading = {
    problems: [],
    steps: new Set(),
    input: false,
    run: false,
    each: false,
    error: false,
    bare: undefined,
    depth: 0,
    nodes: 0,
    opaque: false,
    presenceTests: [],
  };

  constructor(
    private readonly types: ScopeTypes,
    private readonly self: string | undefined,
  ) {}

  walk(node: ASTNode, place: Place): undefined {
    this.reading.nodes++;
    const inner = place.whole && node.op !== "." ? { ...place, whole: false } : place;
    switch (node.op) {
      case "value":
        return;
      case "id":
      case ".":
      case "[]":
        return this.path(node, place);
      case "&&":
      case "||": {
        const [left, right] = node.args;
        this.walk(left, inner);
        const known = guardsOf(left, node.op === "&&");
        return this.walk(right, { ...inner, guards: union(inner.guards, known) });
      }
      case "?:": {
        const [condition, then, otherwise] = node.args;
        this.walk(condition, inner);
        this.walk(then, { ...inner, guards: union(inner.guards, guardsOf(condition, true)) });
        return this.walk(otherwise, { ...inner, guards: union(inner.guards, guardsOf(condition, false)) });
      }
      case "list":
        for (const item of node.args) this.walk(item, inner);
        return;
      case "map":
        for (const [key, value] of node.args) {
          this.walk(key, inner);
          this.walk(value, inner);
        }
        return;
      case "!_":
      case "-_":
        return this.walk(node.args, inner);
      case "call":
        return this.call(node, inner);
      case "rcall":
        return this.methodCall(node, inner);
      case ".?":
      case "[?]":
        return this.problem("SYNTAX", "optional access is not part of this CEL profile; use has()", node, {
          expected: "has()",
          found: node.op,
        });
      default:
        this.walk(node.args[0], inner);
        this.walk(node.args[1], inner);
    }
  }

  /** The bare path that the expression is, if it is one. */
  bareOf(node: ASTNode): BarePath | undefined {
    const parts = partsOf(node);
    if (parts === undefined) return undefined;
    const root = parts[0]!.name;
    const step = root === "steps" ? this.types.steps.get(parts[1]?.name ?? "") : undefined;
    if (step?.each) return undefined;
    if (root !== "input" && (step === undefined || parts[2]?.name !== "output")) return undefined;
    const fields: DescField[] = [];
    let desc: DescMessage | undefined = step?.output ?? this.types.input;
    for (const part of parts.slice(step === undefined ? 1 : 3)) {
      const field: DescField | undefined = desc?.fields.find((f) => f.name === part.name);
      if (field === undefined) return undefined;
      fields.push(field);
      desc = field.fieldKind === "message" && !isWellKnown(field.message) ? field.message : undefined;
    }
    return { source: step?.index ?? -1, fields };
  }

  /** A path of names and indexes: resolves the names at its beginning, walks into the rest. */
  private path(node: ASTNode, place: Place): undefined {
    const parts = partsOf(node);
    if (parts !== undefined) return this.names(parts, node, place);
    if (node.op === ".") {
      this.walk(node.args[0], place);
    } else if (node.op === "[]") {
      const [operand, index] = node.args;
      if (operand.op === "id" && operand.args === "steps" && !place.bound.has("steps")) {
        return this.problem("UNKNOWN_STEP", "steps can't be indexed: write steps.<id>.output", node, {
          expected: "steps.<id>.output",
          found: "steps[…]",
        });
      }
      this.walk(operand, { ...place, whole: false });
      this.walk(index, { ...place, whole: false });
    }
  }

  private names(parts: Part[], node: ASTNode, place: Place): undefined {
    const root = parts[0]!;
    if (place.bound.has(root.name)) return;
    if (root.name === "input") {
      this.reading.input = true;
      if (this.types.opaque.has("input")) this.reading.opaque = true;
      else this.fields(this.types.input, parts.slice(1));
    } else if (root.name === "steps") {
      this.stepNames(parts, node, place);
    } else if (root.name === "run") {
      this.reading.run = true;
      this.knownField("run", parts[1], runFields);
    } else if (root.name === "error" && this.types.errors !== undefined) {
      this.reading.error = true;
      this.knownField("error", parts[1], errorFields);
    } else if (root.name === "callback") {
      this.callbackNames(parts);
    } else if (root.name === "each" && this.types.each) {
      this.eachNames(parts, this.types.each);
    } else this.unknownName(root, parts.length === 1 && node.start === root.start);
  }

  private callbackNames([root, id, field]: Part[]): undefined {
    // Made of the run's own secret, so it is no constant.
    this.reading.run = true;
    const { callbacks } = this.types;
    if (id === undefined || field === undefined) {
      const message = "callback alone has no value: write callback.<id>.url or callback.<id>.token";
      const rest = { expected: "callback.<id>.url", found: "callback" };
      return this.problem("UNKNOWN_FIELD", message, id ?? root!, rest);
    }
    if (!callbacks.has(id.name)) {
      const near = nearestName(id.name, callbacks);
      return this.problem("UNKNOWN_STEP", `there is no step "${id.name}" that waits for a callback`, id, {
        expected: oneOf(callbacks) || "a step that waits for a callback",
        found: id.name,
        ...suggested(near),
      });
    }
    if (callbackFields[field.name] === undefined) this.unknownField("callback", field, Object.keys(callbackFields));
  }

  private knownField(owner: string, field: Part | undefined, fields: Readonly<Record<string, string>>): undefined {
    if (field !== undefined && fields[field.name] === undefined) this.unknownField(owner, field, Object.keys(fields));
  }

  private stepNames(parts: Part[], node: ASTNode, place: Place): undefined {
    const [root, id, output] = [parts[0]!, parts[1], parts[2]];
    if (id === undefined) {
      const rest = { expected: "steps.<id>.output", found: "steps" };
      return this.problem("UNKNOWN_STEP", "steps alone has no value: write steps.<id>.output", root, rest);
    }
    const step = this.types.steps.get(id.name);
    if (id.name === this.self) {
      const rest = { expected: "input, or another step", found: `steps.${id.name}` };
      return this.problem("SELF_REFERENCE", `step "${id.name}" can't read its own output`, node, rest);
    }
    if (this.types.opaque.has(`steps.${id.name}`)) {
      this.reading.opaque = true;
      return;
    }
    if (step === undefined) {
      const near = nearestName(id.name, this.types.steps.keys());
      return this.problem("UNKNOWN_STEP", `there is no step "${id.name}"`, id, {
        expected: oneOf(this.types.steps.keys()) || "the id of a step",
        found: id.name,
        ...suggested(near),
      });
    }
    if (output?.name !== "output") {
      const message = `step "${id.name}" has nothing to read but its output`;
      return this.problem("UNKNOWN_FIELD", message, output ?? id, {
        expected: `steps.${id.name}.output`,
        found: output?.name ?? `steps.${id.name}`,
        ...suggested("output"),
      });
    }
    this.reading.steps.add(step.index);
    if (step.skippable && !place.guards.has(step.id) && !place.whole) this.missingGuard(step, node);
    if (!step.each) return this.fields(step.output, parts.slice(3));
    const next = parts[3];
    if (next === undefined || step.each[0] === "map") return;
    const message = `step "${id.name}" is a fan-out, its output a list: it has no field "${next.name}"`;
    const expected = `${id.name}.output[0].${next.name}, or map(), all(), exists()`;
    this.problem("WRONG_TYPE", message, next, { expected, found: "a list" });
  }

  private eachNames(parts: Part[], each: NonNullable<ScopeTypes["each"]>, owner = "each"): undefined {
    this.reading.each = true;
    const fields = eachFields(each);
    const field = parts[1];
    if (field === undefined) return;
    const type = fields[field.name];
    if (type === undefined) return this.unknownField(owner, field, Object.keys(fields));
    if (field.name === "outer" && each.outer) return this.eachNames(parts.slice(1), each.outer, `${owner}.outer`);
    const desc = this.types.messageOf(type);
    if (desc !== undefined) this.fields(desc, parts.slice(2));
  }

  private missingGuard(step: StepOutput, node: ASTNode): undefined {
    const test = `has(steps.${step.id}.output)`;
    const message = `step "${step.id}" may be skipped and then has no output: write ${test} ? … : …`;
    const found = `steps.${step.id}.output, which may be missing`;
    this.problem("MISSING_GUARD", message, node, { expected: test, found });
  }

  private fields(desc: DescMessage, parts: readonly Part[]): undefined {
    let message: DescMessage = desc;
    for (const [index, part] of parts.entries()) {
      const field = message.fields.find((f) => f.name === part.name);
      if (field === undefined)
        return this.unknownField(
          message.name,
          part,
          message.fields.map((f) => f.name),
        );
      const last = index === parts.length - 1;
      if (field.fieldKind === "map" || (field.message !== undefined && isWellKnown(field.message))) return;
      if (field.fieldKind === "message") message = field.message;
      else if (!last) {
        const next = parts[index + 1]!;
        const kind = field.fieldKind === "list" ? "a list" : "not a message";
        const rest = { expected: `"${part.name}" as a whole, which is ${kind}`, found: next.name };
        return this.problem("WRONG_TYPE", `"${part.name}" is ${kind} and has no field "${next.name}"`, next, rest);
      } else return;
    }
  }

  private unknownField(owner: string, part: Part, candidates: readonly string[]): undefined {
    const near = nearestName(part.name, candidates);
    this.problem("UNKNOWN_FIELD", `${owner} has no field "${part.name}"`, part, {
      found: part.name,
      expected: oneOf(candidates) || `a field of ${owner}`,
      ...suggested(near),
    });
  }

  private unknownName(part: Part, alone: boolean): undefined {
    if (part.name === "each")
      return this.problem("UNKNOWN_NAME", 'only the input of a fan-out reads "each"', part, {
        expected: "a step with each",
        found: "each",
      });
    const known = ["input", "steps", "run", "callback", ...(this.types.errors === undefined ? [] : ["error"])];
    const near = nearestName(part.name, known);
    const quoted = alone ? `'${part.name}'` : undefined;
    const hint = near ?? quoted;
    const reason =
      near === undefined && quoted !== undefined ? "text needs quotes" : "expressions read input, steps and run";
    const message = `unknown name "${part.name}"; ${reason}`;
    this.problem("UNKNOWN_NAME", message, part, { expected: oneOf(known), found: part.name, ...suggested(hint) });
  }

  private call(node: ASTNode & { op: "call" }, place: Place): undefined {
    const [name, args] = node.args;
    if (!functions.has(name)) {
      const near = nearestName(name, functions);
      return this.problem("UNKNOWN_FUNCTION", `there is no function "${name}"`, node, {
        expected: oneOf(functions),
        found: name,
        ...suggested(near),
      });
    }
    if (name !== "has" || args.length !== 1) {
      for (const arg of args) this.walk(arg, place);
      return;
    }
    const step = guardedStep(node);
    const output = step === undefined ? undefined : this.types.steps.get(step.id);
    if (output === undefined || step === undefined) return this.walk(args[0]!, place);
    // has() is the guard itself: what it asks for needs none.
    if (step.deeper && output.skippable && !place.guards.has(step.id)) {
      this.reading.presenceTests.push({ start: node.start, end: node.end, step: step.id });
    }
    this.walk(args[0]!, { ...place, guards: union(place.guards, new Set([step.id])) });
  }

  private methodCall(node: ASTNode & { op: "rcall" }, place: Place): undefined {
    const [name, receiver, args] = node.args;
    if (
      receiver.op === "id" &&
      !place.bound.has(receiver.args) &&
      ["cel", "optional", "math", "strings"].includes(receiver.args)
    ) {
      const found = `${receiver.args}.${name}()`;
      const rest = { expected: "a function of this CEL profile", found };
      return this.problem("UNKNOWN_FUNCTION", `${found} is not part of this CEL profile`, node, rest);
    }
    if (!methods.has(name)) {
      const near = nearestName(name, methods);
      this.problem("UNKNOWN_FUNCTION", `there is no method "${name}"`, node, {
        expected: "a method of this CEL profile",
        found: name,
        ...suggested(near),
      });
    }
    this.walk(receiver, place);
    const variable = args[0];
    if (!macros.has(name) || variable?.op !== "id") {
      for (const arg of args) this.walk(arg, place);
      return;
    }
    const depth = place.depth + 1;
    this.reading.depth = Math.max(this.reading.depth, depth);
    if (depth > comprehensionDepthMax) {
      const message = `${name}() nests more than ${comprehensionDepthMax} deep; do a part of the work in a step of its own`;
      const rest = { expected: `at most ${comprehensionDepthMax} inside each other`, found: `${depth}` };
      return this.problem("TOO_LARGE", message, node, rest);
    }
    const taken = ["input", "steps", "run", "callback", "each"].includes(variable.args);
    if (taken || (variable.args === "error" && this.types.errors !== undefined)) {
      const rest = { expected: "another name", found: variable.args };
      return this.problem("INVALID_NAME", `"${variable.args}" is taken; name the variable differently`, variable, rest);
    }
    const inner = { ...place, depth, bound: union(place.bound, new Set([variable.args])) };
    for (const arg of args.slice(1)) this.walk(arg, inner);
  }

  private problem(
    reason: string,
    message: string,
    at: { start: number; end: number },
    rest: Pick<ExpressionProblem, "expected" | "found" | "suggestion"> = {},
  ): undefined {
    if (this.reading.problems.length >= problemsMax) return;
    this.reading.problems.push({ reason, message, start: at.start, end: at.end, ...rest });
  }
}

/** One expression's problems beyond this tell nothing new. */
const problemsMax = 20;

/** The candidates, where they are few. */
function oneOf(names: Iterable<string>): string {
  const list = [...names];
  return list.length === 0 || list.length > 20 ? "" : `one of ${list.join(", ")}`;
}

const suggested = (name: string | undefined) => (name === undefined ? {} : { suggestion: name });

/**
 * Why the value of an expression can't be put into a field, and which part of the expression it is: types (assignable.ts), and what a
 * literal, an enum or a null shows before anything runs.
 */
import { type DescEnum, type DescField, ScalarType } from "@bufbuild/protobuf";
import type { ASTNode } from "@marcbachmann/cel-js";
import { nearestName } from "@taskmesh/runtime";
import { describeTarget, isAssignable, isItem, type Target, typeOfNode, wrappedScalar } from "./assignable.js";
import { integerRanges } from "./convert.js";
import { fieldOf, guardProblem, nullsOf } from "./nulls.js";
import type { ExpressionProblem } from "./reading.js";
import type { ScopeTypes } from "./scope-types.js";

/** What is put where. */
export interface Fitting {
  ast: ASTNode;
  type: string;
  source: string;
  target: Target;
  types: ScopeTypes;
  guards: ReadonlySet<string>;
  /** A path and nothing else: it leaves the target unset when it is unset itself. */
  bare: boolean;
  /** Of what is set, "shop.v1.Order.total". */
  name: string;
}

/** The first reason why it does not fit; undefined: it does. */
export function misfitOf(fitting: Fitting): ExpressionProblem | undefined {
  const { ast, type, target, types, source, guards, bare } = fitting;
  const misfit = partMisfit(ast, type, target, fitting, false);
  if (misfit !== undefined || types.stored === true) return misfit;
  const { problems, whole, inside } = nullsOf(ast, source, types, guards);
  if (problems[0] !== undefined) return problems[0];
  if (whole !== undefined && !bare && !takesNull(target)) return guardProblem(whole, zeroOf(target));
  if (inside !== undefined && !holdsNulls(target)) return guardProblem(inside, zeroOf(target));
  return undefined;
}

const messageName = (target: Target): string => (target.kind === "message" ? target.message.typeName : "");

const takesNull = (target: Target): boolean =>
  target.kind === "message" &&
  (wrappedScalar(target.message) !== undefined || target.message.typeName === "google.protobuf.Value");

const jsonTypes = new Set(["google.protobuf.Value", "google.protobuf.Struct", "google.protobuf.ListValue"]);

/** JSON has a null of its own, at any depth. */
function holdsNulls(target: Target): boolean {
  if (target.kind === "list" || target.kind === "map") return jsonTypes.has(messageName(target.item));
  return jsonTypes.has(messageName(target));
}

function zeroOf(target: Target): string {
  if (target.kind === "list" || target.kind === "map") return zeroOf(target.item);
  if (target.kind === "enum") return "0";
  switch (target.kind === "scalar" ? target.scalar : wrappedScalar(target.message)) {
    case ScalarType.STRING:
      return "''";
    case ScalarType.BYTES:
      return "b''";
    case ScalarType.BOOL:
      return "false";
    default:
      return "0";
  }
}

function partMisfit(
  node: ASTNode,
  type: string,
  target: Target,
  fitting: Fitting,
  asItem: boolean,
): ExpressionProblem | undefined {
  const { types } = fitting;
  const within = (part: ASTNode, into: Target, item: boolean): ExpressionProblem | undefined =>
    partMisfit(part, typeOfNode(part) ?? type, into, fitting, item);
  if (node.op === "?:") return firstOf(node.args.slice(1), (branch) => within(branch, target, asItem));
  if (target.kind === "list" && node.op === "list")
    return firstOf(node.args, (item) => within(item, target.item, true));
  if (target.kind === "map" && node.op === "map") {
    const key: Target = { kind: "scalar", scalar: target.key };
    return firstOf(node.args, ([name, value]) => within(name, key, false) ?? within(value, target.item, true));
  }
  const fits = asItem ? isItem(node, target, types) : isAssignable(node, type, target, types);
  if (!fits) return wrongType(node, types.display(type), target, fitting);
  return types.stored === true ? undefined : valueMisfit(node, target, fitting);
}

function firstOf<T, R>(items: readonly T[], find: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}

function wrongType(node: ASTNode, found: string, target: Target, { name }: Fitting): ExpressionProblem {
  const expected = describeTarget(target);
  const hint = found === "dyn" ? "; convert it, for example with string(…) or int(…)" : "";
  const message = `${name} is ${expected}, and the expression gives ${found}${hint}`;
  return { reason: "WRONG_TYPE", message, start: node.start, end: node.end, expected, found };
}

/** What is wrong with a literal, or with a field of another enum. */
function valueMisfit(node: ASTNode, target: Target, fitting: Fitting): ExpressionProblem | undefined {
  if (target.kind === "list" || target.kind === "map") return enumMisfit(node, target.item, fitting);
  if (target.kind === "enum") return enumMisfit(node, target, fitting) ?? enumLiteralMisfit(node, target.enum, fitting);
  const scalar = target.kind === "scalar" ? target.scalar : wrappedScalar(target.message);
  const range = scalar === undefined ? undefined : integerRanges.get(scalar);
  const value = integerOf(node);
  if (range === undefined || value === undefined || (value >= range.low && value <= range.high)) return undefined;
  const expected = `${range.low} to ${range.high}`;
  return invalidValue(node, `${value} does not fit into ${ScalarType[scalar!].toLowerCase()}`, expected, fitting);
}

function enumMisfit(node: ASTNode, target: Target, { types, source, name }: Fitting): ExpressionProblem | undefined {
  const field: DescField | undefined = fieldOf(node, types);
  if (target.kind !== "enum" || field?.enum === undefined || field.enum.typeName === target.enum.typeName)
    return undefined;
  const { start, end } = node;
  const [expected, found] = [target.enum.typeName, field.enum.typeName];
  const message = `${name} is ${expected}, and ${source.slice(start, end)} is ${found}: two enums have nothing but numbers in common`;
  const suggestion = field.fieldKind === "enum" ? `int(${source.slice(start, end)})` : undefined;
  return { reason: "WRONG_TYPE", message, start, end, expected, found, ...(suggestion ? { suggestion } : {}) };
}

function enumLiteralMisfit(node: ASTNode, desc: DescEnum, fitting: Fitting): ExpressionProblem | undefined {
  const names = desc.values.map((value) => value.name);
  const expected = `one of ${names.slice(0, 20).join(", ")}`;
  if (node.op === "value" && typeof node.args === "string") {
    const text = node.args;
    if (names.includes(text)) return undefined;
    const near = nearestName(text, names);
    const problem = invalidValue(node, `${JSON.stringify(text)} is no value of ${desc.typeName}`, expected, fitting);
    return near === undefined ? problem : { ...problem, suggestion: `'${near}'` };
  }
  const number = integerOf(node);
  if (number === undefined) return undefined;
  const isValue = desc.open ? BigInt.asIntN(32, number) === number : desc.value[Number(number)] !== undefined;
  return isValue ? undefined : invalidValue(node, `${number} is no value of ${desc.typeName}`, expected, fitting);
}

function invalidValue(node: ASTNode, message: string, expected: string, { source }: Fitting): ExpressionProblem {
  const { start, end } = node;
  return { reason: "INVALID_VALUE", message, start, end, expected, found: source.slice(start, end) };
}

/** The value of an integer literal. */
function integerOf(node: ASTNode): bigint | undefined {
  if (node.op === "-_") {
    const value = integerOf(node.args);
    return value === undefined ? undefined : -value;
  }
  if (node.op !== "value") return undefined;
  if (typeof node.args === "bigint") return node.args;
  const { value } = (node.args ?? {}) as { value?: unknown };
  return typeof value === "bigint" ? value : undefined;
}

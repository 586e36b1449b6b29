/**
 * Whether a value of a CEL type may be put into a protobuf field, decided when the chain is saved.
 *
 * Strict, with the conversions that lose nothing and that everybody expects: integer literals fit every number, an enum takes its
 * number or its name, a wrapper takes what it wraps, Struct, Value and ListValue take whatever has a JSON form. All others ask for
 * an explicit conversion: `dyn` is nobody's type.
 */
import { type DescEnum, type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import type { ASTNode } from "@marcbachmann/cel-js";
import { celTypeOfScalar, type ScopeTypes } from "./scope-types.js";

/** What a field holds, or one item of it. */
export type Target =
  | { kind: "scalar"; scalar: ScalarType }
  | { kind: "enum"; enum: DescEnum }
  | { kind: "message"; message: DescMessage }
  | { kind: "list"; item: Target }
  | { kind: "map"; key: ScalarType; item: Target };

/** The target that a field is. */
export function targetOf(field: DescField): Target {
  const item = itemOf(field);
  if (field.fieldKind === "list") return { kind: "list", item };
  return field.fieldKind === "map" ? { kind: "map", key: field.mapKey, item } : item;
}

function itemOf(field: DescField): Target {
  if (field.message !== undefined) return { kind: "message", message: field.message };
  return field.enum !== undefined ? { kind: "enum", enum: field.enum } : { kind: "scalar", scalar: field.scalar! };
}

/** The target's type as a .proto file says it. */
export function describeTarget(target: Target): string {
  switch (target.kind) {
    case "scalar":
      return ScalarType[target.scalar].toLowerCase();
    case "enum":
      return target.enum.typeName;
    case "message":
      return target.message.typeName;
    case "list":
      return `repeated ${describeTarget(target.item)}`;
    case "map":
      return `map<${ScalarType[target.key].toLowerCase()}, ${describeTarget(target.item)}>`;
  }
}

/** Whether the expression `node`, of the CEL type `type`, fits. */
export function isAssignable(node: ASTNode, type: string, target: Target, types: ScopeTypes): boolean {
  if (node.op === "?:") {
    return node.args.slice(1).every((branch) => isAssignable(branch, typeOfNode(branch) ?? type, target, types));
  }
  switch (target.kind) {
    case "scalar":
      return isScalar(node, type, target.scalar);
    case "enum":
      return type === "int" || type === "string";
    case "message":
      return isMessage(node, type, target.message, types);
    case "list": {
      if (node.op === "list") {
        return node.args.every((item) => isItem(item, target.item, types));
      }
      const item = listItem(type);
      return item !== undefined && fitsType(item, target.item, types);
    }
    case "map": {
      if (node.op === "map") {
        return node.args.every(
          ([key, value]) =>
            fitsType(typeOfNode(key) ?? "dyn", { kind: "scalar", scalar: target.key }, types) &&
            isItem(value, target.item, types),
        );
      }
      const [key, value] = mapItems(type) ?? [];
      if (key === undefined || value === undefined) return false;
      return fitsType(key, { kind: "scalar", scalar: target.key }, types) && fitsType(value, target.item, types);
    }
  }
}

/** Whether it fits as an item of a list or map: one can't be unset, so a wrapper there takes no null. */
export function isItem(node: ASTNode, target: Target, types: ScopeTypes): boolean {
  const type = typeOfNode(node) ?? "dyn";
  const isWrapper = target.kind === "message" && wrappedScalar(target.message) !== undefined;
  return !(isWrapper && type === "null") && isAssignable(node, type, target, types);
}

/** The same without an expression to look into. */
function fitsType(type: string, target: Target, types: ScopeTypes): boolean {
  switch (target.kind) {
    case "scalar":
      return type === celTypeOfScalar(target.scalar);
    case "enum":
      return type === "int" || type === "string";
    case "message":
      return fitsMessage(type, target.message, types);
    case "list":
    case "map":
      return false; // lists of lists and maps of maps don't exist in protobuf
  }
}

function isScalar(node: ASTNode, type: string, scalar: ScalarType): boolean {
  const wanted = celTypeOfScalar(scalar);
  return type === wanted || ((wanted === "double" || wanted === "uint") && isIntLiteral(node));
}

const isIntLiteral = (node: ASTNode): boolean =>
  node.op === "-_" ? isIntLiteral(node.args) : node.op === "value" && typeof node.args === "bigint";

function isMessage(node: ASTNode, type: string, message: DescMessage, types: ScopeTypes): boolean {
  const wrapped = wrappedScalar(message);
  if (wrapped !== undefined) return type === "null" || isScalar(node, type, wrapped);
  return fitsMessage(type, message, types);
}

function fitsMessage(type: string, message: DescMessage, types: ScopeTypes): boolean {
  switch (message.typeName) {
    case "google.protobuf.Value":
      return type !== "type";
    case "google.protobuf.Struct": {
      const [key] = mapItems(type) ?? [];
      return key === "string" || key === "K";
    }
    case "google.protobuf.ListValue":
      return listItem(type) !== undefined;
    case "google.protobuf.Any":
      return false;
    case "google.protobuf.Timestamp":
    case "google.protobuf.Duration":
      return type === message.typeName;
  }
  const wrapped = wrappedScalar(message);
  if (wrapped !== undefined) return type === "null" || type === celTypeOfScalar(wrapped);
  // Two revisions of one type are compatible on the wire: registration refuses others.
  return types.messageOf(type)?.typeName === message.typeName;
}

/** What a wrapper type such as google.protobuf.StringValue wraps. */
export function wrappedScalar(message: DescMessage): ScalarType | undefined {
  if (!message.typeName.startsWith("google.protobuf.") || !message.typeName.endsWith("Value")) return undefined;
  return message.fields.length === 1 ? message.fields[0]!.scalar : undefined;
}

/** Type that the checker found for a part of an expression. It is kept on the node, but not declared. */
export function typeOfNode(node: ASTNode): string | undefined {
  return (node as { checkedType?: { name: string } }).checkedType?.name;
}

/** What a list of this type holds. */
export function listItem(type: string): string | undefined {
  if (type === "list") return "dyn"; // the checker's short name of list<dyn>
  return type.startsWith("list<") && type.endsWith(">") ? type.slice(5, -1) : undefined;
}

/** Key and value of a map of this type. */
export function mapItems(type: string): [string, string] | undefined {
  if (type === "map") return ["dyn", "dyn"];
  if (!type.startsWith("map<") || !type.endsWith(">")) return undefined;
  const comma = type.indexOf(","); // keys are never generic
  return [type.slice(4, comma).trim(), type.slice(comma + 1, -1).trim()];
}

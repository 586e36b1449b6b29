/**
 * What a chain does with fields: which ones its expressions read, which ones they set, and which messages they pass on whole.
 *
 * Found by compiling the chain, so it is as exact as the type check: `x.total` within `orders.map(x, x.total)` reads Order.total because
 * `x` is an Order. A message that is passed on whole is one use, whatever it holds.
 */
import type { DescField, DescMessage } from "@bufbuild/protobuf";
import type { ASTNode } from "@marcbachmann/cel-js";
import type { ChainSpec } from "@taskmesh/proto";
import { listItem, mapItems, typeOfNode } from "./cel/assignable.js";
import type { CheckedExpression } from "./cel/check.js";
import { partsOf } from "./cel/paths.js";
import { isWellKnown, type ScopeTypes } from "./cel/scope-types.js";
import { type ChainEnvironment, compileChain } from "./compile-chain.js";
import type { Place } from "./compile-message.js";
import { reachable } from "./fingerprint.js";

/** One place that uses a field or a whole message. */
export interface Use {
  kind: "read" | "write" | "pass";
  stepId: string;
  /** Path in the ChainSpec. */
  path: string;
  /** Full name of the message type, and of the field in it; of a message that is passed on "". */
  type: string;
  field: string;
  /** Number of the field, 0 of a whole message. */
  number: number;
  expression: string;
  start: number;
  end: number;
  /** "steps.<id>" or "input" where the value comes from there by a path alone, else "". */
  source: string;
  /** Of a message that is passed on: the types that it may hold, itself included. */
  holds: ReadonlySet<string>;
}

/** Uses of one chain that are kept. */
const usesMax = 20_000;

/** Everything that the chain uses, in its own order. The chain must compile in the environment; what has problems is left out. */
export function usesOf(spec: ChainSpec, environment: ChainEnvironment): Use[] {
  const uses: Use[] = [];
  const add = (use: Use): void => void (uses.length < usesMax && uses.push(use));
  compileChain(spec, {
    ...environment,
    uses: {
      target: ({ path, stepId }, field, expression) =>
        add({
          ...{ kind: "write", stepId, path, expression, start: 0, end: expression.length, source: "", holds: nothing },
          ...{ type: field.parent.typeName, field: field.name, number: field.number },
        }),
      expression: (place, text, expression, types) => {
        for (const use of readsOf(place, text, expression, types)) add(use);
      },
    },
  });
  return uses;
}

const nothing: ReadonlySet<string> = new Set();

function readsOf(place: Place, text: string, { ast, type }: CheckedExpression, types: ScopeTypes): Use[] {
  const { path, stepId } = place;
  const uses: Use[] = [];
  const base = { stepId, path, expression: text };
  for (const node of nodesOf(ast)) {
    const read = node.op === "." ? fieldRead(node, types) : undefined;
    if (read === undefined) continue;
    const { field, source } = read;
    uses.push({
      ...{ ...base, kind: "read", start: node.start, end: node.end, source, holds: nothing },
      ...{ type: field.parent.typeName, field: field.name, number: field.number },
    });
  }
  const whole = messageOf(ast, types) ?? types.messageOf(itemOf(type));
  if (whole !== undefined && !isWellKnown(whole)) {
    const holds = new Set(reachable([whole]).map((one) => one.typeName));
    const { source } = rootOf(ast, types) ?? { source: "" };
    uses.push({
      ...{ ...base, kind: "pass", start: 0, end: text.length, source, holds },
      ...{ type: whole.typeName, field: "", number: 0 },
    });
  }
  return uses;
}

/** Every node of the tree; outer ones first. */
function nodesOf(ast: ASTNode): ASTNode[] {
  const found: ASTNode[] = [];
  const open: unknown[] = [ast];
  while (open.length > 0) {
    const node = open.pop();
    if (Array.isArray(node)) open.push(...node.toReversed());
    else if (typeof node === "object" && node !== null && "op" in node) {
      found.push(node as ASTNode);
      open.push((node as ASTNode).args);
    }
  }
  return found;
}

function fieldRead(node: ASTNode, types: ScopeTypes): { field: DescField; source: string } | undefined {
  if (node.op !== ".") return undefined;
  const [operand, name] = node.args;
  const owner = messageOf(operand, types);
  const field = owner?.fields.find((candidate) => candidate.name === name);
  return field && { field, source: rootOf(operand, types)?.source ?? "" };
}

/** The message that a node stands for: what the checker found, else (it does not look into has()) where its path leads. */
function messageOf(node: ASTNode, types: ScopeTypes): DescMessage | undefined {
  return types.messageOf(typeOfNode(node) ?? "") ?? rootOf(node, types)?.message;
}

/** A path that begins at `input` or at the output of a step which is no fan-out, and the message that it leads to, if it does. */
function rootOf(node: ASTNode, types: ScopeTypes): { source: string; message: DescMessage | undefined } | undefined {
  const names = partsOf(node)?.map((part) => part.name);
  if (names === undefined) return undefined;
  const [first, id = "", output] = names;
  const step = first === "steps" && output === "output" ? types.steps.get(id) : undefined;
  if (first !== "input" && (step === undefined || step.each !== undefined)) return undefined;
  let message: DescMessage | undefined = step?.output ?? types.input;
  for (const name of names.slice(step === undefined ? 1 : 3)) {
    const field: DescField | undefined = message?.fields.find((candidate) => candidate.name === name);
    message = field?.fieldKind === "message" ? field.message : undefined;
  }
  return { source: step === undefined ? "input" : `steps.${id}`, message };
}

/** What a list or map holds; other types are themselves. */
const itemOf = (type: string): string => listItem(type) ?? mapItems(type)?.[1] ?? type;

/** Whether a use is of the field: reads or sets it, or passes on what may hold it. `field` 0: of any field of the type. */
export function isUseOf(use: Use, type: string, number: number): boolean {
  if (use.kind === "pass") return use.holds.has(type);
  return use.type === type && (number === 0 || use.number === number);
}

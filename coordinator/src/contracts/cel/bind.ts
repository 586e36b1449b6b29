/**
 * From the expressions of one message (a step's input, the chain's output) to a function that encodes it.
 *
 * Each field takes the cheapest way that gives the right answer:
 *   literal     encoded when the chain is compiled
 *   projection  a bare path onto a field of the same type: copied on the wire (projection.ts)
 *   evaluation  everything else: sources decoded once per message, the engine, one conversion, one encoding for all such fields
 *
 * Work that may take long is not done here unless the caller says so (`force`): the answer is `deferred` when a payload is not in
 * memory, or when a comprehension or a regular expression would go over more than `inlineCostMax`.
 */
import {
  create,
  type DescField,
  type DescMessage,
  fromBinary,
  type JsonValue,
  type Message,
  toBinary,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { TimestampSchema, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { messageFromJson } from "@taskmesh/runtime";
import type { Evaluated, Scope, Value } from "../../engine/plan.js";
import { callbackPath, callbackToken } from "../callback-token.js";
import type { CheckedExpression } from "./check.js";
import { Budget, OverBudget, setField } from "./convert.js";
import { type CelInput, isCelError, runPlan } from "./engine-values.js";
import { errorVariable } from "./error-variable.js";
import { decodeItems } from "./items.js";
import { isRequired, partialOf } from "./partial.js";
import { compileProjection, MessageWriter, type Projection, project } from "./projection.js";
import type { ScopeTypes } from "./scope-types.js";
import { inlineCostMax, isTooCostly } from "./sizes.js";

/** Bound of a forced evaluation's result; its time is bounded by the thread that runs it. */
const forcedWorkMax = 10_000_000;

/** What a field is set to. */
export type FieldSource =
  | { kind: "constant"; field: DescField; bytes: Uint8Array }
  | { kind: "expression"; field: DescField; expression: CheckedExpression };

export interface BindOptions {
  /** Of the message that is made, for errors: `step "pick"`. */
  label: string;
  /** Evaluate whatever it costs, and use no projections' shortcut for missing bytes. */
  force: boolean;
  /** Turns projections off, to compare them with evaluation in tests. */
  projections?: boolean;
}

type Binder = (scope: Scope) => Evaluated<Uint8Array>;

interface Copy {
  source: number;
  projection: Projection;
}

interface Evaluation {
  field: DescField;
  expression: CheckedExpression;
}

/** Encodes a literal under its field; or says why it is no value of it. */
export function encodeLiteral(desc: DescMessage, field: DescField, value: JsonValue): Uint8Array | { message: string } {
  const read = messageFromJson(desc, { [field.jsonName]: value });
  if (read.ok) return encodePart(desc, read.message);
  return { message: read.violations[0]?.message ?? "not a value of this field" };
}

/** Encodes a message in which required fields are left to others; or says why something in it has no encoding. */
function encodePart(desc: DescMessage, message: Message): Uint8Array | { message: string } {
  try {
    return toBinary(partialOf(desc), message);
  } catch (error) {
    return { message: error instanceof Error ? error.message : String(error) };
  }
}

/** Encodes an expression that reads nothing under its field; or says why it has no value for it. */
export function encodeConstant(
  desc: DescMessage,
  field: DescField,
  expression: CheckedExpression,
): Uint8Array | { message: string } {
  const result = runPlan(expression.run, {});
  if (isCelError(result)) return { message: result.message };
  const message = reflect(desc, create(desc));
  try {
    setField(message, field, result, new Budget(inlineCostMax));
    return encodePart(desc, message.message);
  } catch (error) {
    return { message: error instanceof Error ? error.message : String(error) };
  }
}

/** Compiles the fields of one message. */
export function compileBinding(
  target: DescMessage,
  fields: readonly FieldSource[],
  types: ScopeTypes,
  options: BindOptions,
): Binder {
  const constants: Uint8Array[] = [];
  const copies: Copy[] = [];
  const evaluations: Evaluation[] = [];
  const outputs = outputsByIndex(types);
  for (const source of [...fields].sort((a, b) => a.field.number - b.field.number)) {
    if (source.kind === "constant") {
      constants.push(source.bytes);
      continue;
    }
    const { bare } = source.expression.reading;
    const whole = bare === undefined ? "" : (bare.source < 0 ? types.input : outputs[bare.source]!).typeName;
    const projection =
      bare === undefined || options.projections === false || isRequired(source.field)
        ? undefined
        : compileProjection(bare.fields, whole, source.field);
    if (projection !== undefined && bare !== undefined) copies.push({ source: bare.source, projection });
    else evaluations.push(source);
  }
  const constant = Buffer.concat(constants);
  const evaluate = evaluations.length === 0 ? undefined : compileEvaluations(target, evaluations, types, options);
  return (scope) => {
    // Evaluations first: they may refuse, and use the time that a refused copy would have cost.
    const evaluated = evaluate?.(scope);
    if (evaluated !== undefined && evaluated.kind !== "value") return evaluated;
    writer.start();
    writer.write(constant);
    for (const { source, projection } of copies) {
      const value = source < 0 ? scope.input : scope.outputs[source];
      if (value === undefined) continue;
      if (value.bytes === undefined) return deferred;
      if (!project(projection, value.bytes, writer))
        return failed(options.label, "", "the payload that it reads is malformed");
    }
    if (evaluated !== undefined) writer.write(evaluated.value);
    return { kind: "value", value: writer.finish() };
  };
}

/** Compiles a condition. */
export function compileCondition(
  expression: CheckedExpression,
  types: ScopeTypes,
  options: BindOptions,
): (scope: Scope) => Evaluated<boolean> {
  const variables = compileVariables([expression], types);
  return (scope) => {
    const read = variables(scope);
    return read.kind === "value" ? decide(expression, read.value, types, options) : read;
  };
}

/** Compiles conditions of which the first that holds counts: its number from 1; 0 if none holds. */
export function compileChoice(
  expressions: readonly CheckedExpression[],
  types: ScopeTypes,
  options: BindOptions,
): (scope: Scope) => Evaluated<number> {
  const variables = compileVariables(expressions, types);
  return (scope) => {
    const read = variables(scope);
    if (read.kind !== "value") return read;
    for (const [at, expression] of expressions.entries()) {
      const held = decide(expression, read.value, types, options);
      if (held.kind !== "value") return held;
      if (held.value) return { kind: "value", value: at + 1 };
    }
    return { kind: "value", value: 0 };
  };
}

function decide(
  expression: CheckedExpression,
  variables: Variables,
  types: ScopeTypes,
  options: BindOptions,
): Evaluated<boolean> {
  if (!options.force && isTooCostly(expression, variables, types)) return deferred;
  const result = runPlan(expression.run, variables.bindings);
  if (isCelError(result)) return failed(options.label, expression.source, result.message);
  return typeof result === "boolean"
    ? { kind: "value", value: result }
    : failed(options.label, expression.source, "the condition is neither true nor false");
}

const writer = new MessageWriter();
const deferred = { kind: "deferred" } as const;

export function failed(
  label: string,
  expression: string,
  reason: string,
): { kind: "failed"; error: { reason: "EXPRESSION_FAILED"; message: string } } {
  const shown = expression.length > 200 ? `${expression.slice(0, 200)}…` : expression;
  const message = `${label}: ${reason.slice(0, 500)}${shown === "" ? "" : ` (in ${shown})`}`;
  return { kind: "failed", error: { reason: "EXPRESSION_FAILED", message } };
}

function outputsByIndex(types: ScopeTypes): DescMessage[] {
  const outputs: DescMessage[] = [];
  for (const step of types.steps.values()) outputs[step.index] = step.output;
  return outputs;
}

function compileEvaluations(
  target: DescMessage,
  evaluations: readonly Evaluation[],
  types: ScopeTypes,
  options: BindOptions,
): Binder {
  const variables = compileVariables(
    evaluations.map((evaluation) => evaluation.expression),
    types,
  );
  return (scope) => {
    const read = variables(scope);
    if (read.kind !== "value") return read;
    const message = reflect(target, create(target));
    // Work in proportion to what was read is always allowed: decoding it was no less.
    const budget = new Budget((options.force ? forcedWorkMax : inlineCostMax) + read.value.bytes);
    for (const { field, expression } of evaluations) {
      if (!options.force && isTooCostly(expression, read.value, types)) return deferred;
      if (!isBareSet(expression, read.value) && !isRequired(field)) continue;
      const label = `${options.label}, field "${field.name}"`;
      const result = runPlan(expression.run, read.value.bindings);
      if (isCelError(result)) return failed(label, expression.source, result.message);
      try {
        setField(message, field, result, budget);
      } catch (error) {
        if (error instanceof OverBudget && !options.force) return deferred;
        return failed(label, expression.source, error instanceof Error ? error.message : String(error));
      }
    }
    const bytes = encodePart(target, message.message);
    return bytes instanceof Uint8Array ? { kind: "value", value: bytes } : failed(options.label, "", bytes.message);
  };
}

/** Sources as the engine takes them. */
export interface Variables {
  bindings: Record<string, CelInput>;
  /** By step index; -1 is `input`. */
  messages: Map<number, ReflectMessage>;
  /** Of all sources together. */
  bytes: number;
  /** The longest list in them, once somebody needed it. */
  longest?: number;
  /** Items of the fan-outs among the sources. */
  items: number;
}

/** A function that decodes what the expressions read, each source once. */
export function compileVariables(
  expressions: readonly CheckedExpression[],
  types: ScopeTypes,
): (scope: Scope) => Evaluated<Variables> {
  const steps = [...types.steps.values()].filter((step) => expressions.some((e) => e.reading.steps.has(step.index)));
  const input = expressions.some((e) => e.reading.input);
  const withRun = expressions.some((e) => e.reading.run);
  const withEach = expressions.some((e) => e.reading.each);
  /** The item of a fan-out, on top of what is the same for all of them. */
  const ofItem = (scope: Scope, variables: Variables): Evaluated<Variables> => {
    if (!withEach || !scope.each) return { kind: "value", value: variables };
    const { output } = scope.each;
    if (output && output.bytes === undefined) return deferred;
    try {
      variables.bindings["each"] = eachVariable(scope.each, types.each);
    } catch (error) {
      return failed("payload", "", error instanceof Error ? error.message : String(error));
    }
    return { kind: "value", value: variables };
  };
  const key = {};
  const withError = expressions.some((e) => e.reading.error);
  return (scope) => {
    const known = scope.memo?.get(key) as Variables | undefined;
    if (known) return ofItem(scope, known);
    const variables: Variables = { bindings: {}, messages: new Map(), bytes: 0, items: 0 };
    const decode = (index: number, desc: DescMessage, value: Value): ReflectMessage | undefined => {
      if (value.bytes === undefined) return undefined;
      const message = reflect(desc, fromBinary(desc, value.bytes));
      variables.messages.set(index, message);
      variables.bytes += value.bytes.length;
      return message;
    };
    try {
      if (input) {
        const message = decode(-1, types.input, scope.input);
        if (message === undefined) return deferred;
        variables.bindings["input"] = message;
      }
      const outputs = new Map<string, Map<string, CelInput>>();
      for (const step of steps) {
        const value = scope.outputs[step.index];
        if (step.each && value?.bytes) {
          const { value: items, count } = decodeItems(value.bytes, step.output, step.each);
          outputs.set(step.id, new Map([["output", items]]));
          variables.items = Math.max(variables.items, count);
          variables.bytes += value.bytes.length;
          continue;
        }
        // An output that does not exist is a step without the key `output`: has() is false.
        const output = value === undefined ? undefined : decode(step.index, step.output, value);
        if (value !== undefined && output === undefined) return deferred;
        outputs.set(step.id, new Map(output === undefined ? [] : [["output", output]]));
      }
      variables.bindings["steps"] = outputs;
    } catch (error) {
      return failed("payload", "", error instanceof Error ? error.message : String(error));
    }
    if (withRun) variables.bindings["run"] = runVariable(scope);
    if (withRun && types.callbacks.size > 0) variables.bindings["callback"] = callbackVariable(scope, types);
    if (withError) variables.bindings["error"] = errorVariable(scope.error, types.errors ?? []);
    scope.memo?.set(key, variables);
    return ofItem(scope, variables);
  };
}

function eachVariable(
  { value, index, key, outer, output }: NonNullable<Scope["each"]>,
  types: ScopeTypes["each"],
): Map<string, CelInput> {
  const each = new Map<string, CelInput>([
    ["value", value as CelInput],
    ["index", BigInt(index)],
  ]);
  if (key !== undefined) each.set("key", key);
  if (outer) each.set("outer", eachVariable(outer, types?.outer));
  const desc = types?.output?.desc;
  if (output?.bytes && desc) each.set("output", reflect(desc, fromBinary(desc, output.bytes)));
  return each;
}

function runVariable({ run: { id, namespace, method, acceptedAtMs } }: Scope): Map<string, CelInput> {
  const acceptedAt = reflect(TimestampSchema, timestampFromMs(acceptedAtMs));
  return new Map<string, CelInput>([
    ["id", id],
    ["namespace", namespace],
    ["method", method],
    ["accepted_at", acceptedAt],
  ]);
}

function callbackVariable({ run: { id, secret } }: Scope, types: ScopeTypes): Map<string, CelInput> {
  const entries = [...types.callbacks].map((stepId): [string, CelInput] => {
    const token = callbackToken(id, secret ?? "", stepId);
    const url = `${types.publicUrl}${callbackPath(token)}`;
    return [
      stepId,
      new Map<string, CelInput>([
        ["url", url],
        ["token", token],
      ]),
    ];
  });
  return new Map(entries);
}

/** Whether a bare path leads to something; all other expressions are evaluated in any case. */
function isBareSet(expression: CheckedExpression, variables: Variables): boolean {
  const { bare } = expression.reading;
  if (bare === undefined) return true;
  let message = variables.messages.get(bare.source);
  for (const [index, field] of bare.fields.entries()) {
    if (message === undefined || !message.isSet(field)) return false;
    if (index < bare.fields.length - 1) message = message.get(field) as ReflectMessage;
  }
  return message !== undefined;
}

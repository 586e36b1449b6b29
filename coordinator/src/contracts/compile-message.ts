/**
 * Checks and compiles the expressions that make up one message: the input of a step, or the output of a chain.
 */
import { type DescField, type DescMessage, getExtension, hasExtension, type JsonValue } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import type { ChainProblem, Expression } from "@taskmesh/proto";
import { nearestName } from "@taskmesh/runtime";
import { describeTarget, targetOf } from "./cel/assignable.js";
import { encodeConstant, encodeLiteral, type FieldSource } from "./cel/bind.js";
import { type CheckedExpression, checkExpression } from "./cel/check.js";
import { misfitOf } from "./cel/misfit.js";
import { guardProblem, nullsOf } from "./cel/nulls.js";
import { compileProjection } from "./cel/projection.js";
import type { ExpressionProblem } from "./cel/reading.js";
import type { ScopeTypes, StepOutput } from "./cel/scope-types.js";
import { isCostlyConstant } from "./cel/sizes.js";
import { meshFiles } from "./descriptors.js";

/** Where problems go; `at` is the part of a ChainProblem that names the place. */
export interface Report {
  (problem: Partial<ChainProblem> & { reason: string; path: string; message: string }): void;
  /** Tells of what works and will surprise. */
  readonly warn?: ((problem: Parameters<Report>[0]) => void) | undefined;
  /** Hears of every expression that has no problem, and of every field that is set. */
  readonly uses?: UseListener | undefined;
}

/** A problem with every field that it does not name empty. */
export const problemOf = (problem: Parameters<Report>[0]): ChainProblem => ({
  ...{ stepId: "", field: "", expression: "", start: 0, end: 0, expected: "", found: "", suggestion: "" },
  ...problem,
});

/** Who wants to know what a chain reads and writes (lineage.ts). */
export interface UseListener {
  expression(place: Place, source: string, expression: CheckedExpression, types: ScopeTypes): void;
  target(place: Place, field: DescField, source: string): void;
}

export interface MessageMapping {
  target: DescMessage;
  fields: Readonly<Record<string, Expression>>;
  /** Path in the ChainSpec, "steps[2].input". */
  path: string;
  stepId: string;
  types: ScopeTypes;
  /** Steps whose outputs are known to exist. */
  guarded: ReadonlySet<string>;
  /** The step that the message is for. */
  self?: string;
  /** Where a field is written below `path`, where its name does not tell. */
  pathOf?: ((field: string) => string) | undefined;
}

export interface CheckedMessage {
  sources: FieldSource[];
  /** Indexes of the steps that are read. */
  reads: Set<number>;
}

export function checkMapping(mapping: MessageMapping, report: Report): CheckedMessage {
  const { target, path, stepId, pathOf = (name) => name } = mapping;
  const result: CheckedMessage = { sources: [], reads: new Set() };
  const oneofs = new Map<string, string>();
  for (const [name, expression] of Object.entries(mapping.fields)) {
    const place = { path: `${path}.${pathOf(name)}`, stepId, field: name };
    const field = target.fields.find((candidate) => candidate.name === name);
    if (field === undefined) {
      report({ ...place, reason: "UNKNOWN_FIELD", found: name, ...unknownField(target, name) });
      continue;
    }
    const other = field.oneof === undefined ? undefined : oneofs.get(field.oneof.name);
    if (other !== undefined) {
      const message = `"${other}" and "${name}" can't both be set: they are members of one oneof`;
      report({ ...place, reason: "CONFLICT", message });
    }
    if (field.oneof !== undefined) oneofs.set(field.oneof.name, name);
    report.uses?.target(place, field, expression.kind?.$case === "cel" ? expression.kind.value : "");
    const source = checkField(mapping, field, expression, place, report, result.reads);
    if (source !== undefined) result.sources.push(source);
  }
  for (const field of target.fields) {
    if (Object.hasOwn(mapping.fields, field.name) || !isRequired(field)) continue;
    const message = `${target.name}.${field.name} is required and is not set`;
    const expected = describeTarget(targetOf(field));
    report({ path: `${path}.${field.name}`, stepId, field: field.name, reason: "MISSING_FIELD", message, expected });
  }
  return result;
}

function unknownField(target: DescMessage, name: string): { message: string; expected: string; suggestion: string } {
  const names = target.fields.map((field) => field.name);
  const suggestion = target.fields.find((field) => field.jsonName === name)?.name ?? nearestName(name, names) ?? "";
  const expected = names.length === 0 ? "no field at all" : `one of ${names.slice(0, 20).join(", ")}`;
  return { message: `${target.name} has no field "${name}"`, expected, suggestion };
}

/** Where something stands in a chain. */
export interface Place {
  path: string;
  stepId: string;
  field: string;
}

function checkField(
  mapping: MessageMapping,
  field: DescField,
  expression: Expression,
  place: Place,
  report: Report,
  reads: Set<number>,
): FieldSource | undefined {
  const target = targetOf(field);
  const expected = describeTarget(target);
  if (expression.kind === undefined) {
    report({ ...place, reason: "MISSING_VALUE", message: "neither an expression nor a literal", expected });
    return undefined;
  }
  if (expression.kind.$case === "literal") {
    const bytes = encodeLiteral(mapping.target, field, expression.kind.value as JsonValue);
    if (bytes instanceof Uint8Array) return { kind: "constant", field, bytes };
    const found = clip(JSON.stringify(expression.kind.value) ?? "nothing");
    report({ ...place, reason: "WRONG_TYPE", message: bytes.message, expected, found });
    return undefined;
  }
  const source = expression.kind.value;
  const checked = checkCel(scopeOf(mapping), source, place, report, true);
  if (checked === undefined) return undefined;
  for (const step of checked.reading.steps) reads.add(step);
  const problem = fieldProblem(mapping, field, checked);
  if (problem !== undefined) {
    report({ ...place, expression: source, ...definite(problem) });
    return undefined;
  }
  const { steps, input, run, each, error, depth } = checked.reading;
  const varies = steps.size > 0 || input || run || each || error;
  if (varies || depth > 0 || isCostlyConstant(checked)) return { kind: "expression", field, expression: checked };
  const bytes = encodeConstant(mapping.target, field, checked);
  if (bytes instanceof Uint8Array) return { kind: "constant", field, bytes };
  const whole = { expression: source, start: 0, end: source.length, found: clip(source) };
  report({ ...place, ...whole, reason: "INVALID_VALUE", message: bytes.message, expected });
  return undefined;
}

/** Why a checked expression can't be the value of the field; undefined: it can. */
function fieldProblem(
  { target, types, guarded }: MessageMapping,
  field: DescField,
  checked: CheckedExpression,
): ExpressionProblem | undefined {
  const { ast, type, source, reading } = checked;
  const { bare } = reading;
  const step = bare === undefined ? undefined : outputAt(types, bare.source);
  if (types.stored !== true && step?.skippable === true && isRequired(field) && !guarded.has(step.id)) {
    const test = `has(steps.${step.id}.output)`;
    const message = `${target.name}.${field.name} is required, and step "${step.id}" may be skipped: guard it with ${test}`;
    const place = { start: 0, end: source.length, found: `${source}, which may be unset`, expected: test };
    return { reason: "MISSING_GUARD", message, ...place, suggestion: `${test} ? ${source} : …` };
  }
  if (isCopied(checked, field, types)) return undefined;
  const name = `${target.name}.${field.name}`;
  const into = { target: targetOf(field), types, guards: guarded, bare: bare !== undefined, name };
  return misfitOf({ ast, type, source, ...into });
}

const outputAt = (types: ScopeTypes, index: number): StepOutput | undefined =>
  [...types.steps.values()].find((step) => step.index === index);

/** A path onto a field that is written alike fits whatever CEL makes of its type: an Any is copied as it is. */
function isCopied({ reading: { bare } }: CheckedExpression, field: DescField, types: ScopeTypes): boolean {
  if (bare === undefined) return false;
  const whole = bare.source < 0 ? types.input : outputAt(types, bare.source)?.output;
  return compileProjection(bare.fields, whole?.typeName ?? "", field) !== undefined;
}

function scopeOf({ types, guarded, self }: MessageMapping): Parameters<typeof checkCel>[0] {
  return { types, guarded, ...(self === undefined ? {} : { self }) };
}

/** Checks an expression and reports its problems; undefined if it has any. */
export function checkCel(
  { types, ...scope }: { types: ScopeTypes; guarded: ReadonlySet<string>; self?: string },
  source: string,
  place: Place,
  report: Report,
  bareAllowed: boolean,
): CheckedExpression | undefined {
  const result = checkExpression(source, types, { ...scope, bareAllowed });
  // What is to be a field's value is looked at together with the field.
  const nulls = result.ok && !bareAllowed ? unguarded(result.value, types, scope.guarded) : [];
  if (result.ok && nulls.length === 0) {
    report.uses?.expression(place, source, result.value, types);
    return result.value;
  }
  const problems = result.ok ? nulls : result.problems;
  for (const problem of problems) report({ ...place, expression: source, ...definite(problem) });
  return undefined;
}

/** Reads that may be null, of an expression that has to have a value. */
function unguarded(checked: CheckedExpression, types: ScopeTypes, guards: ReadonlySet<string>): ExpressionProblem[] {
  if (types.stored === true) return [];
  const { problems, whole } = nullsOf(checked.ast, checked.source, types, guards);
  return whole === undefined ? problems : [...problems, guardProblem(whole, "false")];
}

const definite = (problem: ExpressionProblem) => ({ expected: "", found: "", suggestion: "", ...problem });

const clip = (text: string): string => (text.length > 100 ? `${text.slice(0, 100)}…` : text);

/** Whether a message without the field breaks its contract: proto2 `required`, or (buf.validate.field).required. */
function isRequired(field: DescField): boolean {
  if (field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED) return true;
  const extension = meshFiles()
    .get("buf/validate/validate.proto")
    ?.extensions.find((candidate) => candidate.name === "field");
  const options = field.proto.options;
  if (extension === undefined || options === undefined || !hasExtension(options, extension)) return false;
  return (getExtension(options, extension) as { required?: boolean }).required === true;
}

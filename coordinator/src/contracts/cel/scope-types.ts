/**
 * The types that expressions of one chain see: `input`, `steps.<id>.output` and `run`, as the checker (cel-js) knows them.
 *
 * The checker knows a type by its name alone, while two steps may have different revisions of one type. So types that are equal
 * in all they contain share a name, and a further revision gets a name of its own ("acme.v1.Item'2" is not shown to anybody).
 */
import { type DescField, type DescMessage, type Registry, ScalarType } from "@bufbuild/protobuf";
import { Environment } from "@marcbachmann/cel-js";
import { typeFingerprint } from "../fingerprint.js";

/** Bounds of one expression's syntax tree. Above them nothing is checked, so they bound the work of saving a chain too. */
export const nodesMax = 1_000;
export const depthMax = 48;

/** The output of a step, as expressions read it. */
export interface StepOutput {
  id: string;
  /** Index in the chain. */
  index: number;
  output: DescMessage;
  registry: Registry;
  /** The step has a condition, so there may be no output. */
  skippable: boolean;
  /** A fan-out: its output is a list, or a map by string, of `output`; of fan-outs within one another, the outermost first. */
  each?: readonly ("list" | "map")[];
}

/** What `each` is inside of a fan-out. */
export interface EachTypes {
  /** The checker's type of `each.value`. */
  value: string;
  /** There is an `each.key`. */
  keyed: boolean;
  /** Where the item is over: the checker's type of what it has put out, `each.output`, and the message's own. */
  output?: { type: string; desc: DescMessage };
  /** The fan-out around it: `each.outer`. */
  outer?: EachTypes;
}

export interface ScopeTypes {
  readonly environment: Environment;
  /** Inside of a fan-out. */
  readonly each?: EachTypes;
  /** Inside of a fan-out: the scope around all of them. */
  readonly around?: ScopeTypes;
  readonly input: DescMessage;
  readonly steps: ReadonlyMap<string, StepOutput>;
  /** "input" and "steps.<id>" whose types are not known, because of a problem that was reported elsewhere. */
  readonly opaque: ReadonlySet<string>;
  /** Ids of the callback steps: `callback.<id>.url` and `.token`. */
  readonly callbacks: ReadonlySet<string>;
  /** Where the gateways are reached from outside. */
  readonly publicUrl: string;
  /** Where expressions answer a failure and so read `error`: who knows the types of its details. */
  readonly errors?: readonly Registry[];
  /**
   * The chain is a stored version: what was saved goes on as it is, so rules that are younger than it don't count (nulls, literals out of
   * range, enums for each other).
   */
  readonly stored?: boolean;
  /** The message type that the checker knows under this name. */
  messageOf(celType: string): DescMessage | undefined;
  /** The checker's type of what one call of the step puts out; undefined: no such step. */
  outputOf(stepId: string): string | undefined;
  /** A text of the checker with its own names made readable. */
  display(text: string): string;
}

/** Fields of `run`. */
export const runFields: Readonly<Record<string, string>> = {
  id: "string",
  namespace: "string",
  method: "string",
  accepted_at: "google.protobuf.Timestamp",
};

/** Fields of `callback.<id>`. */
export const callbackFields: Readonly<Record<string, string>> = { url: "string", token: "string" };
/** Fields of `error`; the details are messages of types that only the action knows. */
export const errorFields: Readonly<Record<string, string>> = {
  reason: "string",
  message: "string",
  details: "list<dyn>",
};

export function createScopeTypes(
  input: { desc: DescMessage; registry: Registry },
  steps: readonly StepOutput[],
  opaque: ReadonlySet<string> = new Set(),
  callbacks: { ids: readonly string[]; publicUrl: string } = { ids: [], publicUrl: "" },
  errors?: readonly Registry[],
): ScopeTypes {
  const environment = new Environment({
    unlistedVariablesAreDyn: false,
    homogeneousAggregateLiterals: false,
    limits: { maxAstNodes: nodesMax, maxDepth: depthMax },
  });
  for (const signature of extraFunctions) environment.registerFunction(signature, never);
  // A wrapper that is not set is null, and everybody may ask.
  for (const type of nullable) environment.registerOperator(`${type} == null`, never);
  const names = new TypeNames(environment);
  const stepFields: Record<string, string> = {};
  const outputTypes = new Map<string, string>();
  for (const step of steps) {
    const name = `taskmesh_step_${step.id}`;
    const output = names.register(step.output, step.registry);
    outputTypes.set(step.id, output);
    const wrapped = (type: string, kind: "list" | "map"): string =>
      kind === "list" ? `list<${type}>` : `map<string, ${type}>`;
    const fields = { output: (step.each ?? []).reduceRight(wrapped, output) };
    environment.registerType(name, { ctor: class {}, fields });
    stepFields[step.id] = name;
  }
  environment.registerType("taskmesh_steps", { ctor: class {}, fields: stepFields });
  environment.registerType("taskmesh_run", { ctor: class {}, fields: { ...runFields } });
  environment.registerType("taskmesh_callback", { ctor: class {}, fields: { ...callbackFields } });
  const callbackSteps = Object.fromEntries(callbacks.ids.map((id) => [id, "taskmesh_callback"]));
  environment.registerType("taskmesh_callbacks", { ctor: class {}, fields: callbackSteps });
  environment.registerVariable("callback", "taskmesh_callbacks");
  environment.registerVariable("input", names.register(input.desc, input.registry));
  environment.registerVariable("steps", "taskmesh_steps");
  environment.registerVariable("run", "taskmesh_run");
  if (errors !== undefined) {
    environment.registerType("taskmesh_error", { ctor: class {}, fields: { ...errorFields } });
    environment.registerVariable("error", "taskmesh_error");
  }
  return {
    environment,
    input: input.desc,
    steps: new Map(steps.map((step) => [step.id, step])),
    opaque,
    callbacks: new Set(callbacks.ids),
    publicUrl: callbacks.publicUrl,
    ...(errors === undefined ? {} : { errors }),
    messageOf: (celType) => names.messages.get(celType),
    outputOf: (stepId) => outputTypes.get(stepId),
    display: (text) => names.display(text),
  };
}

/** The same scope inside of a fan-out, or of one more. */
export function withEach(types: ScopeTypes, each: Omit<EachTypes, "outer">): ScopeTypes {
  const { around = types } = types;
  const environment = around.environment.clone();
  const inside: EachTypes = { ...each, ...(types.each ? { outer: types.each } : {}) };
  environment.registerVariable("each", registerEach(environment, inside, ""));
  return { ...types, environment, each: inside, around };
}

/** What wrappers wrap. */
const nullable = ["string", "bytes", "bool", "int", "uint", "double"];

function registerEach(environment: Environment, each: EachTypes, suffix: string): string {
  const name = `taskmesh_each${suffix}`;
  const fields: Record<string, string> = {};
  if (each.outer) fields["outer"] = registerEach(environment, each.outer, `${suffix}_outer`);
  for (const [field, type] of Object.entries(eachFields(each))) fields[field] ??= type;
  environment.registerType(name, { ctor: class {}, fields });
  return name;
}

/** What `each` has: the checker's type of each field but of `outer`. */
export const eachFields = ({ value, keyed, output, outer }: EachTypes): Record<string, string> => ({
  value,
  ...(keyed ? { key: "string" } : {}),
  index: "int",
  ...(output === undefined ? {} : { output: output.type }),
  ...(outer ? { outer: "" } : {}),
});

/** Functions that the engine has and the checker lacks. */
const extraFunctions = [
  "string(google.protobuf.Timestamp): string",
  "string(google.protobuf.Duration): string",
  "int(google.protobuf.Timestamp): int",
  "int(uint): int",
  "string.charAt(int): string",
  "string.replace(string, string): string",
  "string.replace(string, string, int): string",
];

/** The checker only checks; what it knows is never run. */
const never = (): never => {
  throw new Error("cel-js evaluates nothing here");
};

/** Types of the checker for types that JSON or CEL has a form of its own for. */
const wellKnownTypes = new Map([
  ["google.protobuf.Timestamp", "google.protobuf.Timestamp"],
  ["google.protobuf.Duration", "google.protobuf.Duration"],
  ["google.protobuf.Struct", "map<string, dyn>"],
  ["google.protobuf.Value", "dyn"],
  ["google.protobuf.ListValue", "list<dyn>"],
  ["google.protobuf.Any", "dyn"],
  ["google.protobuf.DoubleValue", "double"],
  ["google.protobuf.FloatValue", "double"],
  ["google.protobuf.Int64Value", "int"],
  ["google.protobuf.UInt64Value", "uint"],
  ["google.protobuf.Int32Value", "int"],
  ["google.protobuf.UInt32Value", "uint"],
  ["google.protobuf.BoolValue", "bool"],
  ["google.protobuf.StringValue", "string"],
  ["google.protobuf.BytesValue", "bytes"],
]);

/** Type of the checker for a scalar. */
export function celTypeOfScalar(scalar: ScalarType): string {
  switch (scalar) {
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return "double";
    case ScalarType.BOOL:
      return "bool";
    case ScalarType.STRING:
      return "string";
    case ScalarType.BYTES:
      return "bytes";
    case ScalarType.UINT64:
    case ScalarType.UINT32:
    case ScalarType.FIXED64:
    case ScalarType.FIXED32:
      return "uint";
    case ScalarType.INT64:
    case ScalarType.INT32:
    case ScalarType.SFIXED64:
    case ScalarType.SFIXED32:
    case ScalarType.SINT64:
    case ScalarType.SINT32:
      return "int";
  }
}

/** Whether CEL sees messages of the type as something other than a message with fields. */
export const isWellKnown = (desc: DescMessage): boolean => wellKnownTypes.has(desc.typeName);

class TypeNames {
  readonly messages = new Map<string, DescMessage>();
  private readonly byMeaning = new Map<string, string>();
  private readonly byDesc = new Map<DescMessage, string>();
  private readonly shown = new Map<string, string>();

  constructor(private readonly environment: Environment) {}

  /** The checker's name of a message type, which is registered with all that it contains. */
  register(desc: DescMessage, registry: Registry): string {
    const wellKnown = wellKnownTypes.get(desc.typeName);
    if (wellKnown !== undefined) return wellKnown;
    const existing = this.byDesc.get(desc) ?? this.byMeaning.get(typeFingerprint(desc, registry));
    if (existing !== undefined) {
      this.byDesc.set(desc, existing);
      return existing;
    }
    // The checker takes single capital letters for type parameters.
    let name = desc.typeName.length === 1 ? `${desc.typeName}_` : desc.typeName;
    for (let n = 2; this.messages.has(name); n++) name = `${desc.typeName}_revision_${n}`;
    this.messages.set(name, desc);
    this.byDesc.set(desc, name);
    this.byMeaning.set(typeFingerprint(desc, registry), name);
    if (name !== desc.typeName) this.shown.set(name, desc.typeName);
    const fields: Record<string, string> = {};
    for (const field of desc.fields) fields[field.name] = this.fieldType(field, registry);
    this.environment.registerType(name, { ctor: class {}, fields });
    return name;
  }

  display(text: string): string {
    let result = text.replaceAll("google.protobuf.", "");
    for (const [name, shown] of this.shown) result = result.replaceAll(name, shown);
    return result
      .replaceAll("taskmesh_steps", "steps")
      .replaceAll("taskmesh_run", "run")
      .replaceAll(/taskmesh_callbacks?/g, "callback")
      .replaceAll(/taskmesh_each((?:_outer)*)/g, (_, outer: string) => `each${outer.replaceAll("_", ".")}`)
      .replaceAll("taskmesh_error", "error")
      .replaceAll(/taskmesh_step_(\w+)/g, "steps.$1");
  }

  private fieldType(field: DescField, registry: Registry): string {
    const item = field.message
      ? this.register(field.message, registry)
      : field.enum !== undefined
        ? "int"
        : celTypeOfScalar(field.scalar!);
    if (field.fieldKind === "list") return `list<${item}>`;
    if (field.fieldKind === "map") return `map<${celTypeOfScalar(field.mapKey)}, ${item}>`;
    return item;
  }
}

/**
 * Contracts that chains declare inline: field names and types become a .proto file that nobody has to write.
 *
 * Field numbers are the server's business. They stay fixed by name from the first save: a field keeps its number for as long as it
 * keeps its name and type; a removed or retyped field's number is reserved and never used again; a new field gets the next
 * number. So clients with the stubs of an earlier save go on working.
 */
import {
  create,
  createFileRegistry,
  type DescEnum,
  type DescField,
  type DescFile,
  type DescMessage,
  ScalarType,
} from "@bufbuild/protobuf";
import * as wkt from "@bufbuild/protobuf/wkt";
import { guardLocalNames, nearestName } from "@taskmesh/runtime";
import { type Contract, ContractRefused, isReservedService, splitMethod } from "./contract.js";
import { contractOf, dependenciesFirst, meshFiles } from "./descriptors.js";

export interface ContractDeclaration {
  /** Full method name. */
  name: string;
  /** Field name to type: a scalar, a full message or enum name, "repeated T" or "map<K, V>". */
  input: Readonly<Record<string, string>>;
  output: Readonly<Record<string, string>>;
}

export interface DeclareEnvironment {
  /** The contract of the chain's newest version. */
  previous?: Contract | undefined;
  /** A registered message or enum by full name. Well-known types need not be found. */
  resolveType?: ((name: string) => DescMessage | DescEnum | undefined) | undefined;
  /** The name may be of a reserved package. */
  allowReserved?: boolean;
}

export interface DeclareProblem {
  reason: string;
  /** Path in the ChainContract: "name", "input.url". */
  path: string;
  message: string;
  expected?: string;
  found?: string;
  suggestion?: string;
}

/** The declared contract, or every problem of the declaration. */
export function declareContract(
  declaration: ContractDeclaration,
  environment: DeclareEnvironment = {},
): { contract?: Contract; problems: DeclareProblem[] } {
  const problems: DeclareProblem[] = [];
  const method = splitMethod(declaration.name);
  if (method === undefined) {
    problems.push({
      reason: "INVALID_NAME",
      path: "name",
      message: `"${declaration.name}" is not a full method name such as acme.pages.v1.Pages/Check`,
      expected: "package.Service/Method",
      found: declaration.name,
    });
    return { problems };
  }
  if (isReservedService(method.service) && !environment.allowReserved) {
    const message = `the package of ${method.service} is reserved; use a package of your own`;
    problems.push({ reason: "SERVICE_RESERVED", path: "name", message });
    return { problems };
  }
  const imports = new Imports(environment.resolveType);
  const fieldsOf = (side: "input" | "output") => {
    const message = { side, fields: declaration[side], previous: environment.previous?.[side] };
    return declareMessage(message, imports, problems);
  };
  const input = fieldsOf("input");
  const output = fieldsOf("output");
  if (problems.length > 0) return { problems };
  try {
    return { contract: build(method, { input, output }, imports), problems };
  } catch (cause) {
    if (!(cause instanceof ContractRefused)) throw cause;
    return { problems: [{ reason: cause.reason, path: "", message: cause.message }] };
  }
}

/** Fields of one declared message at most; more is no chain's interface. */
const fieldsMax = 500;

interface MessageDeclaration {
  side: "input" | "output";
  fields: Readonly<Record<string, string>>;
  previous: DescMessage | undefined;
}

function declareMessage(
  { side, fields, previous }: MessageDeclaration,
  imports: Imports,
  problems: DeclareProblem[],
): wkt.DescriptorProto {
  const entries = Object.entries(fields);
  const proto = create(wkt.DescriptorProtoSchema, { name: side });
  if (entries.length > fieldsMax) {
    problems.push({
      reason: "TOO_LARGE",
      path: side,
      message: `${entries.length} fields; at most ${fieldsMax} are allowed`,
    });
    return proto;
  }
  const jsonNames = new Map<string, string>();
  for (const [name, text] of entries) {
    const path = `${side}.${name}`;
    const fault = faultOfName(name, jsonNames);
    if (fault !== undefined) problems.push({ reason: "INVALID_NAME", path, message: fault });
    const type = imports.parse(text);
    if ("message" in type) problems.push({ reason: "UNKNOWN_TYPE", path, found: text, ...type });
    else if (fault === undefined) addField(proto, name, type);
  }
  number(proto, previous);
  return proto;
}

const fieldNames = /^[a-z][a-z0-9_]{0,63}$/i;

function faultOfName(name: string, jsonNames: Map<string, string>): string | undefined {
  if (!fieldNames.test(name)) {
    return `${JSON.stringify(name.slice(0, 80))} is not a field name: letters, digits and underscores, starting with a letter, at most 64`;
  }
  const json = jsonNameOf(name);
  const other = jsonNames.get(json);
  jsonNames.set(json, name);
  return other === undefined ? undefined : `"${name}" and "${other}" have the same JSON name "${json}"`;
}

const jsonNameOf = (name: string): string => name.replace(/_+(.?)/g, (_, next: string) => next.toUpperCase());

/** A type as a field is declared with it. */
interface FieldType {
  base: ScalarType | DescMessage | DescEnum;
  repeated: boolean;
  key?: ScalarType;
}

const scalars = new Map<string, ScalarType>(
  Object.entries(ScalarType)
    .filter((entry): entry is [string, ScalarType] => typeof entry[1] === "number")
    .map(([name, value]) => [name.toLowerCase(), value]),
);

const keyTypes = [...scalars.keys()].filter((name) => !["double", "float", "bytes"].includes(name));

/** Parses types, and collects the files that the found ones come from. */
class Imports {
  readonly files = new Map<string, DescFile>();

  constructor(private readonly resolve: DeclareEnvironment["resolveType"]) {}

  parse(text: string): FieldType | { message: string; expected: string; suggestion?: string } {
    const repeated = /^\s*repeated\s+(\S.*)$/.exec(text);
    if (repeated !== null) return this.named(repeated[1]!, { repeated: true });
    const map = /^\s*map\s*<\s*([^,<>\s]+)\s*,\s*([^,<>\s]+)\s*>\s*$/.exec(text);
    if (map === null) return this.named(text, { repeated: false });
    const key = scalars.get(map[1]!);
    if (key === undefined || !keyTypes.includes(map[1]!)) {
      return { message: `"${map[1]}" can't be the key of a map`, expected: `a key of ${keyTypes.join(", ")}` };
    }
    return this.named(map[2]!, { repeated: true, key });
  }

  private named(text: string, rest: Omit<FieldType, "base">): ReturnType<Imports["parse"]> {
    const name = text.trim().replace(/^\./, "");
    const scalar = scalars.get(name);
    if (scalar !== undefined) return { base: scalar, ...rest };
    const base = wellKnown(name) ?? this.resolve?.(name);
    if (base === undefined) {
      const near = otherNames.get(name.toLowerCase()) ?? nearestName(name, scalars.keys());
      return {
        message: `"${name.slice(0, 120)}" is no type: not a protobuf scalar, and no registered message or enum has this full name`,
        expected: 'a scalar, a full message or enum name, "repeated T" or "map<K, V>"',
        ...(near === undefined ? {} : { suggestion: near }),
      };
    }
    for (const file of dependenciesFirst(base.file)) {
      const other = this.files.get(file.proto.name);
      if (other !== undefined && other !== file && !sameText(other, file)) {
        return {
          message: `"${name}" comes with another revision of ${file.proto.name} than a type of an earlier field`,
          expected: "types that are registered together",
        };
      }
      if (other === undefined) this.files.set(file.proto.name, file);
    }
    // A type of an equal file that another contract brought is the same type; the objects of the first one are used.
    return { base, ...rest };
  }
}

/** What other languages call scalars. */
const otherNames: ReadonlyMap<string, string> = new Map([
  ...["boolean", "logical"].map((name) => [name, "bool"] as const),
  ...["int", "integer", "long"].map((name) => [name, "int64"] as const),
  ...["uint", "ulong", "unsigned"].map((name) => [name, "uint64"] as const),
  ...["number", "float64", "decimal"].map((name) => [name, "double"] as const),
  ...["str", "text", "char"].map((name) => [name, "string"] as const),
  ...["timestamp", "datetime", "date", "time"].map((name) => [name, "google.protobuf.Timestamp"] as const),
  ["duration", "google.protobuf.Duration"],
  ...["json", "any", "object"].map((name) => [name, "google.protobuf.Value"] as const),
]);

function sameText(a: DescFile, b: DescFile): boolean {
  const bytes = (file: DescFile) => {
    const { sourceCodeInfo: _, ...rest } = file.proto;
    return JSON.stringify(rest, (_key, value) => (typeof value === "bigint" ? String(value) : value));
  };
  return bytes(a) === bytes(b);
}

function wellKnown(name: string): DescMessage | DescEnum | undefined {
  if (!name.startsWith("google.protobuf.")) return undefined;
  for (const file of meshFiles().values()) {
    const found = [...file.messages, ...file.enums].find((type) => type.typeName === name);
    if (found !== undefined) return found;
  }
  return undefined;
}

function addField(proto: wkt.DescriptorProto, name: string, type: FieldType): void {
  if (type.key === undefined) {
    proto.field.push(fieldProto(name, type.base, type.repeated));
    return;
  }
  const entry = `${jsonNameOf(name).replace(/^./, (c) => c.toUpperCase())}Entry`;
  proto.nestedType.push(
    create(wkt.DescriptorProtoSchema, {
      name: entry,
      field: [fieldProto("key", type.key, false, 1), fieldProto("value", type.base, false, 2)],
      options: { mapEntry: true },
    }),
  );
  const field = fieldProto(name, ScalarType.STRING, true);
  field.type = wkt.FieldDescriptorProto_Type.MESSAGE;
  field.typeName = entry; // made absolute when the message has its name
  proto.field.push(field);
}

function fieldProto(name: string, base: FieldType["base"], repeated: boolean, number = 0): wkt.FieldDescriptorProto {
  const label = repeated ? wkt.FieldDescriptorProto_Label.REPEATED : wkt.FieldDescriptorProto_Label.OPTIONAL;
  const field = create(wkt.FieldDescriptorProtoSchema, { name, number, jsonName: jsonNameOf(name), label });
  // The numbers of ScalarType are those of FieldDescriptorProto.Type.
  if (typeof base === "number") field.type = base as number as wkt.FieldDescriptorProto_Type;
  else {
    const { MESSAGE, ENUM } = wkt.FieldDescriptorProto_Type;
    field.type = base.kind === "message" ? MESSAGE : ENUM;
    field.typeName = `.${base.typeName}`;
  }
  return field;
}

/** Gives numbers: those of the previous revision where name and type are the same, else unused ones. */
function number(proto: wkt.DescriptorProto, previous: DescMessage | undefined): void {
  const reserved = new Set<number>();
  for (const range of previous?.proto.reservedRange ?? []) {
    for (let n = range.start; n < range.end && n - range.start < fieldsMax * 10; n++) reserved.add(n);
  }
  const before = new Map<string, DescField>((previous?.fields ?? []).map((field) => [field.name, field]));
  for (const field of before.values()) reserved.add(field.number);
  let last = Math.max(0, ...reserved);
  for (const field of proto.field) {
    const old = before.get(field.name);
    if (old !== undefined && typeText(old) === typeTextOf(field, proto)) {
      field.number = old.number;
      reserved.delete(old.number);
    } else field.number = ++last;
  }
  proto.reservedRange = [...reserved]
    .sort((a, b) => a - b)
    .map((start) => create(wkt.DescriptorProto_ReservedRangeSchema, { start, end: start + 1 }));
}

function typeText(field: DescField): string {
  const base = field.message?.typeName ?? field.enum?.typeName ?? field.scalar;
  if (field.fieldKind === "map") return `map ${field.mapKey} ${base}`;
  return `${field.fieldKind === "list" ? "repeated " : ""}${base}`;
}

function typeTextOf(field: wkt.FieldDescriptorProto, parent: wkt.DescriptorProto): string {
  const base = (f: wkt.FieldDescriptorProto) => (f.typeName === "" ? f.type : f.typeName.slice(1));
  const entry = parent.nestedType.find((nested) => nested.name === field.typeName);
  if (entry !== undefined) return `map ${entry.field[0]!.type} ${base(entry.field[1]!)}`;
  return `${field.label === wkt.FieldDescriptorProto_Label.REPEATED ? "repeated " : ""}${base(field)}`;
}

function build(
  method: { service: string; rpc: string },
  sides: { input: wkt.DescriptorProto; output: wkt.DescriptorProto },
  imports: Imports,
): Contract {
  const dot = method.service.lastIndexOf(".");
  const packageName = dot < 0 ? "" : method.service.slice(0, dot);
  const prefix = packageName === "" ? "" : `${packageName}.`;
  const taken = new Set<string>();
  for (const file of imports.files.values()) {
    for (const type of [...file.messages, ...file.enums, ...file.services]) taken.add(type.typeName);
  }
  if (taken.has(method.service)) {
    throw new ContractRefused(
      "CHAIN_INVALID",
      `service ${method.service} is declared in a file that the contract's types come from`,
    );
  }
  // Types that the fields name may already have the usual name.
  const rpcName = taken.has(`${prefix}${method.rpc}Request`) || taken.has(`${prefix}${method.rpc}Response`);
  const base = rpcName ? `${method.service.slice(dot + 1)}${method.rpc}` : method.rpc;
  const name = { input: `${base}Request`, output: `${base}Response` };
  for (const side of ["input", "output"] as const) {
    sides[side].name = name[side];
    for (const field of sides[side].field) {
      if (field.typeName !== "" && !field.typeName.startsWith(".")) {
        field.typeName = `.${prefix}${name[side]}.${field.typeName}`;
      }
    }
  }
  const file = create(wkt.FileDescriptorProtoSchema, {
    name: `${method.service.replaceAll(".", "/")}/${method.rpc}.chain.proto`,
    package: packageName,
    syntax: "proto3",
    dependency: [...imports.files.keys()],
    messageType: [sides.input, sides.output],
    service: [
      {
        name: method.service.slice(dot + 1),
        method: [{ name: method.rpc, inputType: `.${prefix}${name.input}`, outputType: `.${prefix}${name.output}` }],
      },
    ],
  });
  const registry = createFileRegistry(file, (path) => imports.files.get(path));
  guardLocalNames([registry.getFile(file.name)!]);
  return contractOf(registry.getService(method.service)!.methods[0]!, registry);
}

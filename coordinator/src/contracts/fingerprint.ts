/**
 * The fingerprint of a contract: equal for contracts between which no message can tell a difference, different otherwise.
 *
 * It covers what is reachable from the rpc by types: the method, its input and output messages, their fields and enums, and
 * the options that authors write (validation rules, action options, http rules). It leaves out what changes no message:
 * comments, file names, imports, language options, unrelated types. Features of editions count as what they resolve to, so a
 * file moved from proto3 to an edition keeps its fingerprint. Types of google.protobuf count by name: they never change.
 *
 * The form that is hashed is JSON of nested arrays in a fixed order. Changing it would give every stored contract a new
 * revision, so it carries a version.
 */
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type Message,
  type Registry,
  toBinary,
} from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { isGroup, sha256 } from "@taskmesh/runtime";

type Json = string | number | boolean | null | Json[];

const formVersion = "taskmesh contract 1";

/** SHA-256 in hex over the canonical form of everything that the method's messages are made of. */
export function fingerprintOf(method: DescMethod, registry: Registry): string {
  const types = reachable([method.input, method.output]);
  return hash([
    formVersion,
    method.parent.typeName,
    method.name,
    method.methodKind,
    method.input.typeName,
    method.output.typeName,
    method.idempotency,
    optionsForm(method.proto.options, registry),
    types.map((type) => typeForm(type, registry)),
    ruleForms(types, registry),
  ]);
}

/** The same over one message type and what it contains. */
export function typeFingerprint(desc: DescMessage, registry: Registry): string {
  return hash([formVersion, desc.typeName, reachable([desc]).map((type) => typeForm(type, registry))]);
}

const hash = (form: Json): string => sha256(Buffer.from(JSON.stringify(form))).toString("hex");

/** Types that messages of `roots` are made of, the roots included, sorted by name. */
export function reachable(roots: readonly DescMessage[]): (DescMessage | DescEnum)[] {
  const found = new Map<string, DescMessage | DescEnum>();
  const open: DescMessage[] = [...roots];
  for (let desc = open.pop(); desc !== undefined; desc = open.pop()) {
    if (found.has(desc.typeName) || desc.typeName.startsWith("google.protobuf.")) continue;
    found.set(desc.typeName, desc);
    for (const field of desc.fields) {
      if (field.message !== undefined) open.push(field.message);
      if (field.enum !== undefined) found.set(field.enum.typeName, field.enum);
    }
  }
  return [...found.values()].sort((a, b) => (a.typeName < b.typeName ? -1 : 1));
}

function typeForm(type: DescMessage | DescEnum, registry: Registry): Json {
  if (type.kind === "enum") {
    const values = type.values.map(
      (value): Json => [value.number, value.name, optionsForm(value.proto.options, registry)],
    );
    return ["enum", type.typeName, type.open, values, optionsForm(type.proto.options, registry)];
  }
  const fields = [...type.fields].sort((a, b) => a.number - b.number).map((field) => fieldForm(field, registry));
  const oneofs = type.oneofs.map((oneof): Json => [oneof.name, optionsForm(oneof.proto.options, registry)]);
  return ["message", type.typeName, fields, oneofs, optionsForm(type.proto.options, registry)];
}

function fieldForm(field: DescField, registry: Registry): Json {
  return [
    field.number,
    field.name,
    field.jsonName,
    field.fieldKind,
    field.scalar ?? field.message?.typeName ?? field.enum?.typeName ?? null,
    field.fieldKind === "map" ? field.mapKey : null,
    field.presence,
    field.fieldKind === "list" && field.packed,
    field.oneof?.name ?? null,
    field.proto.defaultValue,
    optionsForm(field.proto.options, registry),
    // Behind the rest, so that contracts without groups keep their fingerprints.
    ...(isGroup(field) ? ["group"] : []),
  ];
}

/**
 * Custom options by number. protobuf-es keeps them as unknown fields in the order of the file; options that the registry knows are
 * read and written again, so that the way a compiler split or ordered them leaves no trace.
 */
function optionsForm(options: Message | undefined, registry: Registry): Json {
  const records = options?.$unknown ?? [];
  if (options === undefined || records.length === 0) return null;
  const byNumber = new Map<number, { wireType: WireType; data: Uint8Array }[]>();
  for (const record of records) byNumber.set(record.no, [...(byNumber.get(record.no) ?? []), record]);
  return [...byNumber]
    .sort(([a], [b]) => a - b)
    .map(([number, values]) => {
      const extension = registry.get(options.$typeName);
      const known = extension?.kind === "message" ? registry.getExtensionFor(extension, number) : undefined;
      const type = known?.fieldKind === "message" ? known.message : undefined;
      const bytes =
        type !== undefined && values.every((value) => value.wireType === WireType.LengthDelimited)
          ? normalised(type, values)
          : Buffer.concat(values.map((value) => value.data));
      return [number, Buffer.from(bytes).toString("base64")];
    });
}

function normalised(type: DescMessage, values: { data: Uint8Array }[]): Uint8Array {
  const bodies = values.map((value) => new BinaryReader(value.data).bytes());
  return toBinary(type, fromBinary(type, Buffer.concat(bodies)));
}

/**
 * Rules that authors predefined by extending buf.validate's messages: fields name them by number, so what they say belongs to the
 * meaning of every field. All of the registry's are taken, if any type has rules at all.
 */
function ruleForms(types: readonly (DescMessage | DescEnum)[], registry: Registry): Json {
  if (types.every((type) => type.kind === "enum")) return [];
  const known = formsByRegistry.get(registry);
  if (known !== undefined) return known;
  const forms: [string, number, Json][] = [];
  for (const type of registry) {
    if (type.kind !== "extension" || !type.extendee.typeName.startsWith("buf.validate.")) continue;
    forms.push([type.extendee.typeName, type.number, optionsForm(type.proto.options, registry)]);
  }
  forms.sort((a, b) => (a[0] === b[0] ? a[1] - b[1] : a[0] < b[0] ? -1 : 1));
  formsByRegistry.set(registry, forms);
  return forms;
}

/** Contracts of one file share their registry, and it has every type of the file. */
const formsByRegistry = new WeakMap<Registry, Json>();

/** Whether any option of the message type, or of a type that it contains, is a rule of buf.validate. */
export function hasRules(desc: DescMessage): boolean {
  return reachable([desc]).some((type) => {
    if (type.kind === "enum") return false;
    const options = [
      type.proto.options,
      ...type.fields.map((f) => f.proto.options),
      ...type.oneofs.map((o) => o.proto.options),
    ];
    return options.some((o) => o?.$unknown?.some((record) => record.no === validateExtension) ?? false);
  });
}

/** Number of every extension through which buf.validate hangs rules on options. */
const validateExtension = 1159;

/** A contract as JSON that people and programs can read without a protobuf library. */
import { type DescEnum, type DescField, type DescMessage, type JsonObject, ScalarType } from "@bufbuild/protobuf";
import { isSensitiveField } from "@taskmesh/runtime";
import { commentOf } from "./comments.js";
import type { Contract } from "./contracts.js";

/** Types shown of one contract; more are left to the descriptor set. */
const TYPES_MAX = 200;

/** The types that a contract is made of: its input and output first, then what they hold. */
export function contractTypes(contract: Contract): { messages: DescMessage[]; enums: DescEnum[] } {
  const messages = new Set<DescMessage>();
  const enums = new Set<DescEnum>();
  const waiting = [contract.input, contract.output];
  for (let at = 0; at < waiting.length && messages.size + enums.size < TYPES_MAX; at++) {
    const message = waiting[at]!;
    if (messages.has(message) || isWellKnown(message)) continue;
    messages.add(message);
    for (const field of message.fields) {
      if (field.message !== undefined) waiting.push(field.message);
      if (field.enum !== undefined && !isWellKnown(field.enum)) enums.add(field.enum);
    }
  }
  return { messages: [...messages], enums: [...enums] };
}

/** Types that everyone knows by name. */
function isWellKnown(desc: DescMessage | DescEnum): boolean {
  return desc.typeName.startsWith("google.");
}

/** Fields with their JSON names, types and comments, by message. */
export function describeContract(contract: Contract): JsonObject {
  const { messages, enums } = contractTypes(contract);
  return {
    id: contract.id,
    method: contract.method,
    inputType: contract.input.typeName,
    outputType: contract.output.typeName,
    description: contract.rpc === undefined ? "" : commentOf(contract.rpc),
    messages: Object.fromEntries(messages.map((message) => [message.typeName, describeMessage(message)])),
    enums: Object.fromEntries(
      enums.map((desc) => [
        desc.typeName,
        { description: commentOf(desc), values: desc.values.map((value) => value.name) },
      ]),
    ),
  };
}

function describeMessage(message: DescMessage): JsonObject {
  return { description: commentOf(message), fields: message.fields.map(describeField) };
}

function describeField(field: DescField): JsonObject {
  return {
    name: field.jsonName,
    protoName: field.name,
    number: field.number,
    type: typeOf(field),
    ...(field.oneof === undefined ? {} : { oneof: field.oneof.name }),
    ...(isSensitiveField(field) ? { sensitive: true } : {}),
    description: commentOf(field),
  };
}

/** "string", "repeated acme.v1.Item", "map<string, int32>". */
export function typeOf(field: DescField): string {
  const single = field.message?.typeName ?? field.enum?.typeName ?? scalarName(field.scalar);
  if (field.fieldKind === "list") return `repeated ${single}`;
  return field.fieldKind === "map" ? `map<${scalarName(field.mapKey)}, ${single}>` : single;
}

function scalarName(scalar: ScalarType | undefined): string {
  return scalar === undefined ? "" : ScalarType[scalar].toLowerCase();
}

/** A contract written as a .proto file, for reading; comments included where the descriptors carry them. */
import type { DescEnum, DescField, DescMessage } from "@bufbuild/protobuf";
import { isSensitiveField } from "@taskmesh/runtime";
import { commentOf } from "./comments.js";
import { contractTypes, typeOf } from "./contract-view.js";
import { type Contract, returnsStream, splitMethod } from "./contracts.js";

/** The rpc with every type that it needs. Types are written with their full names, so one text holds several packages. */
export function printContract(contract: Contract): string {
  const [service, rpc] = splitMethod(contract.method);
  const { messages, enums } = contractTypes(contract);
  const returned = `${returnsStream(contract) ? "stream " : ""}${contract.output.typeName}`;
  const head = [
    ...comment(contract.rpc === undefined ? "" : commentOf(contract.rpc), "  "),
    `  rpc ${rpc}(${contract.input.typeName}) returns (${returned});`,
  ];
  const blocks = [[`service ${service} {`, ...head, "}"], ...messages.map(printMessage), ...enums.map(printEnum)];
  return `${blocks.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

function printMessage(message: DescMessage): string[] {
  const lines = [...comment(commentOf(message), ""), `message ${message.typeName} {`];
  for (const member of message.members) {
    if (member.kind === "field") {
      lines.push(...printField(member, "  "));
      continue;
    }
    lines.push(...comment(commentOf(member), "  "), `  oneof ${member.name} {`);
    for (const field of member.fields) lines.push(...printField(field, "    "));
    lines.push("  }");
  }
  return [...lines, "}"];
}

function printField(field: DescField, indent: string): string[] {
  const label = field.proto.proto3Optional ? "optional " : "";
  const options = isSensitiveField(field) ? " [(taskmesh.v1.sensitive) = true]" : "";
  const line = `${indent}${label}${typeOf(field)} ${field.name} = ${field.number}${options};`;
  return [...comment(commentOf(field), indent), line];
}

function printEnum(desc: DescEnum): string[] {
  const values = desc.values.flatMap((value) => [
    ...comment(commentOf(value), "  "),
    `  ${value.name} = ${value.number};`,
  ]);
  return [...comment(commentOf(desc), ""), `enum ${desc.typeName} {`, ...values, "}"];
}

function comment(text: string, indent: string): string[] {
  return text === "" ? [] : text.split("\n").map((line) => `${indent}// ${line.trim()}`.trimEnd());
}

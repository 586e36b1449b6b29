/** Where things are declared, and on which side of an action their values travel. */
import type { DescEnum, DescField, DescMessage, DescMethod, DescOneof } from "@bufbuild/protobuf";
import type { Contract } from "../contract.js";
import { reachable } from "../fingerprint.js";
import type { Side } from "./violation.js";

/** What may have changed. */
export type Declared = DescMessage | DescEnum | DescField | DescOneof | DescMethod;

/** A type of a contract, with the sides on which values of it travel. */
export interface ReachedType {
  type: DescMessage | DescEnum;
  sides: readonly Side[];
}

/** Every type of a contract's messages by full name; those of google.protobuf never change and are left out. */
export function reachedTypes(contract: Contract): Map<string, ReachedType> {
  const found = new Map<string, { type: DescMessage | DescEnum; sides: Side[] }>();
  for (const side of ["input", "output"] as const) {
    for (const type of reachable([contract[side]])) {
      const known = found.get(type.typeName);
      if (known) known.sides.push(side);
      else found.set(type.typeName, { type, sides: [side] });
    }
  }
  return found;
}

/** Import path of the file that declares it. */
export function fileOf(declared: Declared): string {
  return fileDescOf(declared).proto.name;
}

/** Line of the declaration, counted from 1; 0 if the descriptors don't say. */
export function lineOf(declared: Declared): number {
  const path = pathOf(declared);
  const locations = fileDescOf(declared).proto.sourceCodeInfo?.location ?? [];
  const found = locations.find(
    (location) => location.path.length === path.length && location.path.every((part, at) => part === path[at]),
  );
  // Spans of nothing are what a compiler leaves behind that keeps comments and drops places, as `taskmesh gen` does.
  const known = found?.span.some((part) => part !== 0) ?? false;
  return known ? (found?.span[0] ?? 0) + 1 : 0;
}

function fileDescOf(declared: Declared): DescMessage["file"] {
  return declared.kind === "message" || declared.kind === "enum"
    ? declared.file
    : declared.kind === "rpc"
      ? declared.parent.file
      : (declared.parent as DescMessage).file;
}

/** The path of a declaration, in the numbers of descriptor.proto. */
function pathOf(declared: Declared): number[] {
  switch (declared.kind) {
    case "message":
      return declared.parent
        ? [...pathOf(declared.parent), 3, declared.parent.nestedMessages.indexOf(declared)]
        : [4, declared.file.proto.messageType.indexOf(declared.proto)];
    case "enum":
      return declared.parent
        ? [...pathOf(declared.parent), 4, declared.parent.nestedEnums.indexOf(declared)]
        : [5, declared.file.proto.enumType.indexOf(declared.proto)];
    case "field":
      return [...pathOf(declared.parent), 2, declared.parent.proto.field.indexOf(declared.proto)];
    case "oneof":
      return [...pathOf(declared.parent), 8, declared.parent.proto.oneofDecl.indexOf(declared.proto)];
    case "rpc":
      return [
        6,
        declared.parent.file.proto.service.indexOf(declared.parent.proto),
        2,
        declared.parent.proto.method.indexOf(declared.proto),
      ];
  }
}

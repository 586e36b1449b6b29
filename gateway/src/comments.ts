/** Comments of declarations, from the source info that descriptors may carry. */
import type {
  DescEnum,
  DescEnumValue,
  DescField,
  DescFile,
  DescMessage,
  DescMethod,
  DescOneof,
} from "@bufbuild/protobuf";

/** A declaration that may have a comment. */
export type Commented = DescMessage | DescField | DescOneof | DescEnum | DescEnumValue | DescMethod;

/** The comment above a declaration; empty if the descriptors carry none. */
export function commentOf(desc: Commented): string {
  const file = fileOf(desc);
  let comments = known.get(file);
  if (comments === undefined) {
    comments = readComments(file);
    known.set(file, comments);
  }
  return comments.get(pathOf(desc).join(".")) ?? "";
}

const known = new WeakMap<DescFile, Map<string, string>>();

function readComments(file: DescFile): Map<string, string> {
  const locations = file.proto.sourceCodeInfo?.location ?? [];
  const comments = locations.filter((location) => location.leadingComments !== "");
  return new Map(comments.map((location) => [location.path.join("."), trim(location.leadingComments)]));
}

function trim(comment: string): string {
  return comment
    .split("\n")
    .map((line) => line.trim())
    .join("\n")
    .trim();
}

function fileOf(desc: Commented): DescFile {
  switch (desc.kind) {
    case "message":
    case "enum":
      return desc.file;
    case "enum_value":
      return desc.parent.file;
    case "field":
    case "oneof":
      return desc.parent.file;
    case "rpc":
      return desc.parent.file;
  }
}

/** Field numbers and indexes that lead to the declaration in its FileDescriptorProto. */
function pathOf(desc: Commented): number[] {
  switch (desc.kind) {
    case "message":
      return desc.parent === undefined
        ? [4, desc.file.proto.messageType.indexOf(desc.proto)]
        : [...pathOf(desc.parent), 3, desc.parent.proto.nestedType.indexOf(desc.proto)];
    case "enum":
      return desc.parent === undefined
        ? [5, desc.file.proto.enumType.indexOf(desc.proto)]
        : [...pathOf(desc.parent), 4, desc.parent.proto.enumType.indexOf(desc.proto)];
    case "enum_value":
      return [...pathOf(desc.parent), 2, desc.parent.proto.value.indexOf(desc.proto)];
    case "field":
      return [...pathOf(desc.parent), 2, desc.parent.proto.field.indexOf(desc.proto)];
    case "oneof":
      return [...pathOf(desc.parent), 8, desc.parent.proto.oneofDecl.indexOf(desc.proto)];
    case "rpc": {
      const service = desc.parent.file.proto.service.indexOf(desc.parent.proto);
      return [6, service, 2, desc.parent.proto.method.indexOf(desc.proto)];
    }
  }
}

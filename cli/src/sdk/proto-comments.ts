/** Leading comments of the declarations of a file, by full name. */
import type { DescriptorProto, EnumDescriptorProto, FileDescriptorProto } from "@bufbuild/protobuf/wkt";

export interface Comments {
  /** The lines above a declaration; members have their parent's name and a dot before theirs. */
  of(name: string): readonly string[];
}

/** Reads them; none where the descriptor has no source information. */
export function createComments(file: FileDescriptorProto): Comments {
  const texts = new Map<string, readonly string[]>();
  const byPath = new Map<string, string>();
  for (const { path, leadingComments } of file.sourceCodeInfo?.location ?? [])
    if (leadingComments.trim() !== "") byPath.set(path.join("."), leadingComments);
  const add = (name: string, ...path: number[]): void => {
    const text = byPath.get(path.join("."));
    if (text !== undefined)
      texts.set(
        name,
        text
          .trimEnd()
          .split("\n")
          .map((line) => line.trim()),
      );
  };
  const scope = file.package === "" ? "" : `${file.package}.`;
  const addEnum = (desc: EnumDescriptorProto, prefix: string, path: number[]): void => {
    add(`${prefix}${desc.name}`, ...path);
    for (const [index, value] of desc.value.entries()) add(`${prefix}${desc.name}.${value.name}`, ...path, 2, index);
  };
  const addMessage = (desc: DescriptorProto, prefix: string, path: number[]): void => {
    const own = `${prefix}${desc.name}.`;
    add(`${prefix}${desc.name}`, ...path);
    for (const [index, field] of desc.field.entries()) add(`${own}${field.name}`, ...path, 2, index);
    for (const [index, oneof] of desc.oneofDecl.entries()) add(`${own}${oneof.name}`, ...path, 8, index);
    for (const [index, nested] of desc.nestedType.entries()) addMessage(nested, own, [...path, 3, index]);
    for (const [index, nested] of desc.enumType.entries()) addEnum(nested, own, [...path, 4, index]);
  };
  for (const [index, desc] of file.messageType.entries()) addMessage(desc, scope, [4, index]);
  for (const [index, desc] of file.enumType.entries()) addEnum(desc, scope, [5, index]);
  for (const [index, desc] of file.extension.entries()) add(`${scope}${desc.name}`, 7, index);
  for (const [at, service] of file.service.entries()) {
    add(`${scope}${service.name}`, 6, at);
    for (const [index, rpc] of service.method.entries()) add(`${scope}${service.name}.${rpc.name}`, 6, at, 2, index);
  }
  return { of: (name) => texts.get(name) ?? [] };
}

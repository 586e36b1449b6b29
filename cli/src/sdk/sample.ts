/** An input for the example call: something in every plain field, as protobuf JSON. */
import { type DescMessage, ScalarType } from "@bufbuild/protobuf";

/** Messages within messages that are filled. */
const depthMax = 2;

type Json = string | number | boolean | { [name: string]: Json };

/** The sample; lists, maps, bytes and well-known types are left out, and of a oneof all but its first member. */
export function sampleInput(message: DescMessage, depth = 0): { [name: string]: Json } {
  const sample: { [name: string]: Json } = {};
  for (const field of message.fields) {
    if (field.fieldKind === "list" || field.fieldKind === "map") continue;
    if (field.oneof && field.oneof.fields[0] !== field) continue;
    if (field.message) {
      const wanted = depth < depthMax && !field.message.typeName.startsWith("google.");
      if (wanted) sample[field.jsonName] = sampleInput(field.message, depth + 1);
      continue;
    }
    if (field.enum) {
      const value = field.enum.values.find(({ number }) => number !== 0) ?? field.enum.values[0];
      if (value) sample[field.jsonName] = value.name;
    } else if (field.scalar === ScalarType.STRING) sample[field.jsonName] = field.name.replaceAll("_", " ");
    else if (field.scalar === ScalarType.BOOL) sample[field.jsonName] = true;
    else if (field.scalar !== ScalarType.BYTES) sample[field.jsonName] = 1;
  }
  return sample;
}

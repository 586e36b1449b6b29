/** Options of descriptors as the text format writes them: the known ones, and extensions that the files declare. */
import {
  createRegistry,
  type DescEnum,
  type DescExtension,
  type DescField,
  type DescMessage,
  getExtension,
  hasExtension,
  type Message,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { file_google_protobuf_descriptor } from "@bufbuild/protobuf/wkt";

export interface OptionPrinter {
  /** "name = value" for each option that is set. `kind` is a message of google/protobuf/descriptor.proto, "FieldOptions". */
  of(options: Message | undefined, kind: string): string[];
}

const known = createRegistry(file_google_protobuf_descriptor);

/** A printer that knows these extensions. */
export function createOptionPrinter(extensions: readonly DescExtension[]): OptionPrinter {
  /** Names and values of all that is set, extensions in the brackets that `nameOf` gives them. */
  const entriesOf = (desc: DescMessage, message: Message, nameOf: (extension: DescExtension) => string): Entry[] => {
    const fields = reflect(desc, message);
    const own = desc.fields
      .filter((field) => field.name !== "uninterpreted_option" && fields.isSet(field))
      .flatMap((field) => fieldTexts(field, fields.get(field)).map((text): Entry => [field.name, text]));
    const extended = extensions
      .filter((one) => one.extendee.typeName === desc.typeName && hasExtension(message, one))
      .flatMap((one) => valuesOf(one, getExtension(message, one)).map((text): Entry => [nameOf(one), text]));
    return [...own, ...extended];
  };

  /** One text for each value of a field; reflect gives messages as reflections. */
  const fieldTexts = (field: DescField, value: unknown): string[] => {
    if (field.fieldKind === "list") return [...(value as Iterable<unknown>)].map((item) => one(field, unwrapped(item)));
    if (field.fieldKind === "map") {
      return [...(value as Iterable<[unknown, unknown]>)].map(
        ([key, item]) => `{ key: ${scalar(key)} value: ${one(field, unwrapped(item))} }`,
      );
    }
    return [one(field, unwrapped(value))];
  };

  /** One text for each value of an extension. */
  const valuesOf = (extension: DescExtension, value: unknown): string[] =>
    (extension.fieldKind === "list" ? (value as unknown[]) : [value]).map((item) => one(extension, item));

  const one = ({ message, enum: desc }: Typed, value: unknown): string => {
    if (desc) return desc.values.find(({ number }) => number === value)?.name ?? String(value);
    if (!message) return scalar(value);
    const entries = entriesOf(message, value as Message, ({ typeName }) => `[${typeName}]`);
    return entries.length === 0 ? "{}" : `{ ${entries.map(([name, text]) => `${name}: ${text}`).join(" ")} }`;
  };

  return {
    of(options, kind) {
      if (options === undefined) return [];
      const desc = known.getMessage(`google.protobuf.${kind}`)!;
      return entriesOf(desc, options, ({ typeName }) => `(${typeName})`).map(([name, text]) => `${name} = ${text}`);
    },
  };
}

type Entry = [name: string, text: string];

interface Typed {
  message?: DescMessage | undefined;
  enum?: DescEnum | undefined;
}

const unwrapped = (value: unknown): unknown =>
  typeof value === "object" && value !== null && "message" in value && "desc" in value
    ? (value as { message: unknown }).message
    : value;

function scalar(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (value instanceof Uint8Array) return `"${[...value].map(escapedByte).join("")}"`;
  if (typeof value === "number" && !Number.isFinite(value))
    return Number.isNaN(value) ? "nan" : value < 0 ? "-inf" : "inf";
  return String(value);
}

const escapedByte = (byte: number): string => `\\x${byte.toString(16).padStart(2, "0")}`;

/** A string literal of a .proto file. */
export function quote(text: string): string {
  const escaped = [...Buffer.from(text)].map((byte) => {
    if (byte === 0x22 || byte === 0x5c) return `\\${String.fromCharCode(byte)}`;
    if (byte === 0x0a) return "\\n";
    return byte < 0x20 || byte === 0x7f ? escapedByte(byte) : byte;
  });
  return `"${Buffer.concat(escaped.map((part) => (typeof part === "number" ? Buffer.from([part]) : Buffer.from(part)))).toString("utf8")}"`;
}

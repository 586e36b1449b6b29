/**
 * A .proto file from its descriptor: what a compiler reads as the same descriptor again, comments and custom options included.
 *
 * Type names are written in full with a leading dot, so that no scope can shadow them.
 */
import {
  type DescEnum,
  type DescExtension,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescOneof,
  type DescService,
  isFieldSet,
  ScalarType,
} from "@bufbuild/protobuf";
import { Edition, type FieldDescriptorProto_Label, FieldDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { type Comments, createComments } from "./proto-comments.js";
import { type OptionPrinter, quote } from "./proto-options.js";

const requiredLabel: FieldDescriptorProto_Label = 2;
/** Highest field number, which `max` stands for in ranges. */
const fieldNumberMax = 536_870_911;

/** Prints one file. `options` knows the extensions that its options may use. */
export function printProtoFile(file: DescFile, options: OptionPrinter): string {
  return new FilePrinter(file, options).print();
}

class FilePrinter {
  readonly #lines: string[] = [];
  readonly #proto2: boolean;
  readonly #comments: Comments;
  #depth = 0;

  constructor(
    private readonly file: DescFile,
    private readonly options: OptionPrinter,
  ) {
    this.#proto2 = file.edition === Edition.EDITION_PROTO2;
    this.#comments = createComments(file.proto);
  }

  print(): string {
    const { proto } = this.file;
    this.#line(`syntax = "${this.#proto2 ? "proto2" : "proto3"}";`);
    this.#line("");
    if (proto.package !== "") this.#line(`package ${proto.package};`);
    if (proto.package !== "") this.#line("");
    for (const [index, path] of proto.dependency.entries()) {
      const kind = proto.publicDependency.includes(index) ? "public " : "";
      this.#line(`import ${kind}${quote(path)};`);
    }
    for (const option of this.options.of(proto.options, "FileOptions")) this.#line(`option ${option};`);
    for (const one of this.file.services) this.#service(one);
    for (const one of this.file.messages) this.#message(one, true);
    for (const one of this.file.enums) this.#enum(one, true);
    this.#extensions(this.file.extensions);
    return `${this.#lines
      .join("\n")
      .replace(/\n{3,}/g, "\n\n")
      .trimEnd()}\n`;
  }

  #line(text: string): void {
    this.#lines.push(text === "" ? "" : `${"  ".repeat(this.#depth)}${text}`);
  }

  #block(head: string, body: () => void): void {
    const at = this.#lines.length;
    this.#line(`${head} {`);
    this.#depth += 1;
    body();
    this.#depth -= 1;
    if (this.#lines.length === at + 1) this.#lines[at] += "}";
    else this.#line("}");
  }

  /** The comment that stands above a declaration. */
  #about(name: string): void {
    for (const text of this.#comments.of(name)) this.#line(`//${text === "" ? "" : ` ${text}`}`);
  }

  #service(service: DescService): void {
    this.#line("");
    this.#about(service.typeName);
    this.#block(`service ${service.name}`, () => {
      for (const option of this.options.of(service.proto.options, "ServiceOptions")) this.#line(`option ${option};`);
      for (const rpc of service.methods) {
        this.#about(`${service.typeName}.${rpc.name}`);
        const input = `${rpc.proto.clientStreaming ? "stream " : ""}.${rpc.input.typeName}`;
        const output = `${rpc.proto.serverStreaming ? "stream " : ""}.${rpc.output.typeName}`;
        const head = `rpc ${rpc.name}(${input}) returns (${output})`;
        const options = this.options.of(rpc.proto.options, "MethodOptions");
        if (options.length === 0) this.#line(`${head};`);
        else
          this.#block(head, () => {
            for (const option of options) this.#line(`option ${option};`);
          });
      }
    });
  }

  #message(message: DescMessage, top: boolean): void {
    if (top) this.#line("");
    this.#about(message.typeName);
    this.#block(`message ${message.name}`, () => {
      const { proto } = message;
      for (const option of this.options.of(proto.options, "MessageOptions")) this.#line(`option ${option};`);
      const reserved = proto.reservedRange.map(({ start, end }) => rangeText(start, end - 1, fieldNumberMax));
      this.#reserved(reserved, proto.reservedName);
      for (const { start, end } of proto.extensionRange)
        this.#line(`extensions ${rangeText(start, end - 1, fieldNumberMax)};`);
      for (const one of message.nestedEnums) this.#enum(one, false);
      for (const one of message.nestedMessages) if (!one.proto.options?.mapEntry) this.#message(one, false);
      for (const member of message.members) {
        if (member.kind === "oneof") this.#oneof(member);
        else this.#field(member, this.#labelOf(member), `${message.typeName}.${member.name}`);
      }
      this.#extensions(message.nestedExtensions);
    });
  }

  #oneof(oneof: DescOneof): void {
    this.#about(`${oneof.parent.typeName}.${oneof.name}`);
    this.#block(`oneof ${oneof.name}`, () => {
      for (const option of this.options.of(oneof.proto.options, "OneofOptions")) this.#line(`option ${option};`);
      for (const field of oneof.fields) this.#field(field, "", `${oneof.parent.typeName}.${field.name}`);
    });
  }

  #extensions(extensions: readonly DescExtension[]): void {
    for (const extension of extensions) {
      if (this.#depth === 0) this.#line("");
      this.#block(`extend .${extension.extendee.typeName}`, () =>
        this.#field(extension, this.#labelOf(extension), extension.typeName),
      );
    }
  }

  #labelOf(field: DescField | DescExtension): string {
    if (field.fieldKind === "map") return "";
    if (field.fieldKind === "list") return "repeated ";
    if (this.#proto2) return field.proto.label === requiredLabel ? "required " : "optional ";
    return field.proto.proto3Optional ? "optional " : "";
  }

  #field(field: DescField | DescExtension, label: string, name: string): void {
    const { proto } = field;
    const options = this.options.of(proto.options, "FieldOptions");
    if (isFieldSet(proto, FieldDescriptorProtoSchema.field.defaultValue)) {
      const text = field.scalar === ScalarType.STRING ? quote(proto.defaultValue) : proto.defaultValue;
      options.unshift(`default = ${field.scalar === ScalarType.BYTES ? `"${proto.defaultValue}"` : text}`);
    }
    if (field.kind === "field" && proto.jsonName !== "" && proto.jsonName !== jsonNameOf(field.name))
      options.push(`json_name = ${quote(proto.jsonName)}`);
    this.#about(name);
    const tail = options.length === 0 ? "" : ` [${options.join(", ")}]`;
    this.#line(`${label}${typeText(field)} ${field.name} = ${field.number}${tail};`);
  }

  #enum(desc: DescEnum, top: boolean): void {
    if (top) this.#line("");
    this.#about(desc.typeName);
    this.#block(`enum ${desc.name}`, () => {
      const { proto } = desc;
      for (const option of this.options.of(proto.options, "EnumOptions")) this.#line(`option ${option};`);
      // The end of an enum's range belongs to it, unlike a message's.
      this.#reserved(
        proto.reservedRange.map(({ start, end }) => rangeText(start, end, 2 ** 31 - 1)),
        proto.reservedName,
      );
      for (const value of desc.values) {
        this.#about(`${desc.typeName}.${value.name}`);
        const options = this.options.of(value.proto.options, "EnumValueOptions");
        this.#line(`${value.name} = ${value.number}${options.length === 0 ? "" : ` [${options.join(", ")}]`};`);
      }
    });
  }

  #reserved(ranges: readonly string[], names: readonly string[]): void {
    if (ranges.length > 0) this.#line(`reserved ${ranges.join(", ")};`);
    if (names.length > 0) this.#line(`reserved ${names.map(quote).join(", ")};`);
  }
}

function rangeText(first: number, last: number, max: number): string {
  if (first === last) return String(first);
  return `${first} to ${last >= max ? "max" : last}`;
}

/** The JSON name that compilers derive. */
const jsonNameOf = (name: string): string =>
  name.replace(/_+([a-zA-Z0-9])?/g, (_, next: string) => (next ?? "").toUpperCase());

function typeText(field: DescField | DescExtension): string {
  const single = field.message
    ? `.${field.message.typeName}`
    : field.enum
      ? `.${field.enum.typeName}`
      : scalarText(field.scalar);
  return field.fieldKind === "map" ? `map<${scalarText(field.mapKey)}, ${single}>` : single;
}

const scalarText = (scalar: ScalarType | undefined): string =>
  scalar === undefined ? "" : ScalarType[scalar].toLowerCase();

/** For tests: descriptor sets of small services. */
import { create, toBinary } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

/** A service `<package>.<Name>Actions` with one method `Run`, in a file of the given name. */
export interface TestService {
  package: string;
  service?: string;
  file?: string;
  /** Fields of the input besides `text`, in order. */
  inputFields?: string[];
  imports?: TestImport[];
}

/** An imported file with one message `Shared`, used by the input. */
export interface TestImport {
  file: string;
  package: string;
  fields: string[];
}

/** Encoded FileDescriptorSet of services. */
export function descriptorSet(...services: TestService[]): Buffer {
  const files = new Map<string, FileDescriptorProto>();
  for (const service of services) {
    for (const imported of service.imports ?? []) {
      const message = { name: "Shared", field: imported.fields.map(stringField) };
      files.set(imported.file, create(FileDescriptorProtoSchema, { ...fileOf(imported), messageType: [message] }));
    }
    const file = serviceFile(service);
    files.set(file.name, file);
  }
  return Buffer.from(toBinary(FileDescriptorSetSchema, create(FileDescriptorSetSchema, { file: [...files.values()] })));
}

/** Full name of the method of a test service. */
export const methodOf = (service: TestService): string => `${service.package}.${service.service ?? "TestActions"}/Run`;

const fileOf = (file: { file: string; package: string }) => ({
  name: file.file,
  package: file.package,
  syntax: "proto3",
});

const stringField = (name: string, index: number) => ({
  name,
  number: index + 1,
  label: FieldDescriptorProto_Label.OPTIONAL,
  type: FieldDescriptorProto_Type.STRING,
});

function serviceFile(service: TestService): FileDescriptorProto {
  const name = service.file ?? `${service.package.replaceAll(".", "/")}/actions.proto`;
  const fields = ["text", ...(service.inputFields ?? [])].map(stringField);
  const shared = (service.imports ?? []).map((imported, index) => ({
    name: `shared_${index}`,
    number: fields.length + index + 1,
    label: FieldDescriptorProto_Label.OPTIONAL,
    type: FieldDescriptorProto_Type.MESSAGE,
    typeName: `.${imported.package}.Shared`,
  }));
  return create(FileDescriptorProtoSchema, {
    ...fileOf({ file: name, package: service.package }),
    dependency: (service.imports ?? []).map((imported) => imported.file),
    messageType: [
      { name: "RunRequest", field: [...fields, ...shared] },
      { name: "RunResponse", field: [stringField("text", 0)] },
    ],
    service: [
      {
        name: service.service ?? "TestActions",
        method: [
          { name: "Run", inputType: `.${service.package}.RunRequest`, outputType: `.${service.package}.RunResponse` },
        ],
      },
    ],
  });
}

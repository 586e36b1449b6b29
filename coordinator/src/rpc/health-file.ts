/**
 * The descriptor of grpc.health.v1, for reflection. The one that comes with the health library has relative type names, which no
 * client can link.
 */
import { create } from "@bufbuild/protobuf";
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";

const pkg = "grpc.health.v1";
const request = `.${pkg}.HealthCheckRequest`;
const response = `.${pkg}.HealthCheckResponse`;

/** grpc/health/v1/health.proto. */
export const healthFile: FileDescriptorProto = create(FileDescriptorProtoSchema, {
  name: "grpc/health/v1/health.proto",
  package: pkg,
  syntax: "proto3",
  messageType: [
    {
      name: "HealthCheckRequest",
      field: [{ name: "service", number: 1, type: Type.STRING, label: Label.OPTIONAL, jsonName: "service" }],
    },
    {
      name: "HealthCheckResponse",
      field: [
        {
          name: "status",
          number: 1,
          type: Type.ENUM,
          typeName: `${response}.ServingStatus`,
          label: Label.OPTIONAL,
          jsonName: "status",
        },
      ],
      enumType: [
        {
          name: "ServingStatus",
          value: ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"].map((name, number) => ({ name, number })),
        },
      ],
    },
    { name: "HealthListRequest" },
    {
      name: "HealthListResponse",
      field: [
        {
          name: "statuses",
          number: 1,
          type: Type.MESSAGE,
          typeName: `.${pkg}.HealthListResponse.StatusesEntry`,
          label: Label.REPEATED,
          jsonName: "statuses",
        },
      ],
      nestedType: [
        {
          name: "StatusesEntry",
          options: { mapEntry: true },
          field: [
            { name: "key", number: 1, type: Type.STRING, label: Label.OPTIONAL, jsonName: "key" },
            {
              name: "value",
              number: 2,
              type: Type.MESSAGE,
              typeName: response,
              label: Label.OPTIONAL,
              jsonName: "value",
            },
          ],
        },
      ],
    },
  ],
  service: [
    {
      name: "Health",
      method: [
        { name: "Check", inputType: request, outputType: response },
        { name: "List", inputType: `.${pkg}.HealthListRequest`, outputType: `.${pkg}.HealthListResponse` },
        { name: "Watch", inputType: request, outputType: response, serverStreaming: true },
      ],
    },
  ],
});

/** C++: the example, its build, the README. */
import { localName, metadataSection, methodName, readme, type SdkProject, stem } from "./project.js";

const scope = (name: string): string => (name === "" ? "" : `::${name.replaceAll(".", "::")}`);

export function cppFiles(project: SdkProject): Record<string, string> {
  const { example, sample } = project;
  const input = `${scope(example.input.file.proto.package)}::${localName(example.input).replaceAll(".", "_")}`;
  const output = `${scope(example.output.file.proto.package)}::${localName(example.output).replaceAll(".", "_")}`;
  const service = `${scope(example.parent.file.proto.package)}::${example.parent.name}`;
  const source = `// Calls ${methodName(example)}: build/example '<input as JSON>'
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <iostream>
#include <random>
#include <string>

#include "${stem(example.parent.file)}.grpc.pb.h"

int main(int argc, char** argv) {
  const auto env = [](const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? otherwise : value);
  };
  ${input} request;
  const std::string json = argc > 1 ? argv[1] : ${JSON.stringify(sample)};
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &request);
  if (!parsed.ok()) {
    std::cerr << parsed.ToString() << std::endl;
    return 1;
  }
  grpc::ClientContext context;
  std::random_device random;
  context.AddMetadata("taskmesh-idempotency-key", std::to_string(random()) + "-" + std::to_string(random()));
  if (const auto name = env("TASKMESH_NAMESPACE", ""); !name.empty()) context.AddMetadata("taskmesh-namespace", name);
  if (const auto token = env("TASKMESH_TOKEN", ""); !token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  const auto channel = grpc::CreateChannel(env("TASKMESH_ADDRESS", "127.0.0.1:7400"), grpc::InsecureChannelCredentials());
  ${output} response;
  const grpc::Status status = ${service}::NewStub(channel)->${example.name}(&context, request, &response);
  if (!status.ok()) {
    std::cerr << status.error_code() << ": " << status.error_message() << std::endl;
    return 1;
  }
  std::string text;
  (void)google::protobuf::util::MessageToJsonString(response, &text);
  std::cout << text << std::endl;
}
`;
  const cmake = `cmake_minimum_required(VERSION 3.16)
project(mesh_client CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(PkgConfig REQUIRED)
pkg_check_modules(GRPC REQUIRED IMPORTED_TARGET grpc++ protobuf)
file(GLOB_RECURSE GENERATED gen/*.cc)
add_executable(example example.cc \${GENERATED})
target_include_directories(example PRIVATE gen)
target_link_libraries(example PRIVATE PkgConfig::GRPC)
`;
  const run = `\`\`\`console\n$ sh generate.sh\n$ cmake -B build && cmake --build build\n$ TASKMESH_ADDRESS=127.0.0.1:7400 build/example '${sample}'\n\`\`\`\n\nDebian, Ubuntu: \`apt-get install cmake pkg-config libgrpc++-dev libprotobuf-dev\`.`;
  return {
    "example.cc": source,
    "CMakeLists.txt": cmake,
    "README.md": readme(project, "C++", [["Run the example", run], metadataSection]),
  };
}

/** Python, Ruby, PHP: the example and the README. */
import { localName, metadataSection, methodName, pascalPackage, readme, type SdkProject, stem } from "./project.js";

const runSection = (setup: string, run: string, sample: string): [string, string] => [
  "Run the example",
  `\`\`\`console\n$ sh generate.sh\n$ ${setup}\n$ TASKMESH_ADDRESS=127.0.0.1:7400 ${run} '${sample}'\n\`\`\``,
];

/** A Python module of generated code, and the name by which the example imports it. */
function pythonModule(path: string, suffix: string): { from: string; name: string } {
  const parts = `${path.replaceAll("-", "_")}${suffix}`.split("/");
  return { from: parts.slice(0, -1).join("."), name: parts.at(-1)! };
}

export function pythonFiles(project: SdkProject): Record<string, string> {
  const { example, sample } = project;
  const modules = [
    pythonModule(stem(example.input.file), "_pb2"),
    pythonModule(stem(example.parent.file), "_pb2_grpc"),
  ];
  const imports = modules.map(({ from, name }) => (from === "" ? `import ${name}` : `from ${from} import ${name}`));
  const [messages, stubs] = modules;
  const source = `"""Calls ${methodName(example)}: python3 example.py '<input as JSON>'"""

import os
import sys
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "gen"))

import grpc
from google.protobuf import json_format

${imports.join("\n")}

request = json_format.Parse(sys.argv[1] if len(sys.argv) > 1 else ${JSON.stringify(sample)}, ${messages!.name}.${localName(example.input)}())
metadata = [("taskmesh-idempotency-key", str(uuid.uuid4()))]
for variable, name, prefix in (("TASKMESH_NAMESPACE", "taskmesh-namespace", ""), ("TASKMESH_TOKEN", "authorization", "Bearer ")):
    if os.environ.get(variable):
        metadata.append((name, prefix + os.environ[variable]))

with grpc.insecure_channel(os.environ.get("TASKMESH_ADDRESS", "127.0.0.1:7400")) as channel:
    stub = ${stubs!.name}.${example.parent.name}Stub(channel)
    try:
        response, call = stub.${example.name}.with_call(request, metadata=metadata)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    print("run", dict(call.initial_metadata()).get("taskmesh-run-id"), file=sys.stderr)
    print(json_format.MessageToJson(response, indent=None))
`;
  return {
    "example.py": source,
    "README.md": readme(project, "Python", [
      runSection("python3 -m pip install grpcio protobuf", "python3 example.py", sample),
      metadataSection,
    ]),
  };
}

export function rubyFiles(project: SdkProject): Record<string, string> {
  const { example, sample } = project;
  const scope = (file: Parameters<typeof pascalPackage>[0]): string => ["", ...pascalPackage(file)].join("::");
  const source = `# Calls ${methodName(example)}: ruby example.rb '<input as JSON>'
$LOAD_PATH.unshift(File.join(__dir__, "gen"))
require "securerandom"
require "${stem(example.parent.file)}_services_pb"
require "${stem(example.input.file)}_pb"

request = ${scope(example.input.file)}::${localName(example.input).replaceAll(".", "::")}.decode_json(ARGV[0] || ${JSON.stringify(sample)})
metadata = { "taskmesh-idempotency-key" => SecureRandom.uuid }
metadata["taskmesh-namespace"] = ENV["TASKMESH_NAMESPACE"] if ENV["TASKMESH_NAMESPACE"]
metadata["authorization"] = "Bearer #{ENV["TASKMESH_TOKEN"]}" if ENV["TASKMESH_TOKEN"]
stub = ${scope(example.parent.file)}::${example.parent.name}::Stub.new(ENV.fetch("TASKMESH_ADDRESS", "127.0.0.1:7400"), :this_channel_is_insecure)
begin
  puts stub.${snakeCase(example.name)}(request, metadata: metadata).to_json
rescue GRPC::BadStatus => error
  abort "#{error.code}: #{error.details}"
end
`;
  return {
    "example.rb": source,
    "README.md": readme(project, "Ruby", [runSection("gem install grpc", "ruby example.rb", sample), metadataSection]),
  };
}

const snakeCase = (name: string): string =>
  name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replace(/([A-Z]+)([A-Z][a-z])/g, "$1_$2")
    .toLowerCase();

export function phpFiles(project: SdkProject): Record<string, string> {
  const { example, sample } = project;
  const scope = (file: Parameters<typeof pascalPackage>[0]): string => ["", ...pascalPackage(file)].join("\\");
  const source = `<?php
// Calls ${methodName(example)}: php example.php '<input as JSON>'
require __DIR__ . '/vendor/autoload.php';

$request = new ${scope(example.input.file)}\\${localName(example.input).replaceAll(".", "\\")}();
$request->mergeFromJsonString($argv[1] ?? ${phpText(sample)});
$metadata = ['taskmesh-idempotency-key' => [bin2hex(random_bytes(16))]];
if (getenv('TASKMESH_NAMESPACE')) {
    $metadata['taskmesh-namespace'] = [getenv('TASKMESH_NAMESPACE')];
}
if (getenv('TASKMESH_TOKEN')) {
    $metadata['authorization'] = ['Bearer ' . getenv('TASKMESH_TOKEN')];
}
$client = new ${scope(example.parent.file)}\\${example.parent.name}Client(
    getenv('TASKMESH_ADDRESS') ?: '127.0.0.1:7400',
    ['credentials' => Grpc\\ChannelCredentials::createInsecure()]
);
[$response, $status] = $client->${example.name}($request, $metadata)->wait();
if ($status->code !== Grpc\\STATUS_OK) {
    fwrite(STDERR, "{$status->code}: {$status->details}\\n");
    exit(1);
}
echo $response->serializeToJsonString(), "\\n";
`;
  const composer = {
    require: { php: ">=8.1", "grpc/grpc": "^1.57", "google/protobuf": "^4.0" },
    autoload: { "psr-4": { "": "gen/" } },
  };
  return {
    "example.php": source,
    "composer.json": `${JSON.stringify(composer, null, 2)}\n`,
    "README.md": readme(project, "PHP", [
      runSection("pecl install grpc && composer install", "php example.php", sample),
      metadataSection,
    ]),
  };
}

const phpText = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

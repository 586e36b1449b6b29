/**
 * Languages whose stubs come from protoc and its plugins. Each writes into gen/; the example calls one method with input from the command
 * line, so that a project can be tried at once.
 */
import type { DescFile } from "@bufbuild/protobuf";
import { cppFiles } from "./language-cpp.js";
import { goFiles, goMappings } from "./language-go.js";
import { csharpFiles, javaFiles } from "./language-managed.js";
import { phpFiles, pythonFiles, rubyFiles } from "./language-scripts.js";
import type { Language, SdkProject, Tool } from "./project.js";

/** Languages that `taskmesh sdk generate --lang` takes, TypeScript besides. */
export type LanguageName = "python" | "go" | "java" | "ruby" | "php" | "csharp" | "cpp";

const protoc: Tool = {
  command: ["protoc", "--version"],
  install:
    "protoc: apt-get install protobuf-compiler libprotobuf-dev, brew install protobuf, or github.com/protocolbuffers/protobuf/releases",
};

const plugin = (name: string, install: string): Tool => ({ command: ["which", name], install: `${name}: ${install}` });
const grpcPlugins = "apt-get install protobuf-compiler-grpc, brew install grpc";

/** Everything but what the language's own protobuf library brings. */
const sources = (project: SdkProject): string => project.protos.join(" ");

/** protoc with plugins that are looked up on PATH. */
const protocLine = (outs: string, project: SdkProject, files = sources(project)): string =>
  `mkdir -p gen && \${PROTOC:-protoc} ${includes} ${outs} ${files}`;

/** The project's own files; then google/protobuf, which some packages of protoc come without. */
const includes = "-Iproto -Iinclude";

const withPlugin = (name: string, out: string): string =>
  `--plugin=protoc-gen-grpc=$(which ${name}) --grpc_out=${out}gen`;

export const languages: Readonly<Record<LanguageName, Language>> = {
  python: {
    title: "Python",
    tools: [
      {
        command: ["python3", "-c", "import grpc_tools.protoc"],
        install: "grpcio-tools: python3 -m pip install grpcio grpcio-tools",
      },
    ],
    command: (project) =>
      `mkdir -p gen && python3 -m grpc_tools.protoc -Iproto --python_out=gen --pyi_out=gen --grpc_python_out=gen ${sources(project)}`,
    files: pythonFiles,
    setup: "python3 -m pip install grpcio protobuf",
    run: "python3 example.py ",
  },
  go: {
    title: "Go",
    tools: [
      protoc,
      plugin("protoc-gen-go", "go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.10"),
      plugin("protoc-gen-go-grpc", "go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0"),
    ],
    command: (project) => {
      const mapped = goMappings(project).map(([path, name]) => [
        `--go_opt=M${path}=${name}`,
        `--go-grpc_opt=M${path}=${name}`,
      ]);
      const outs = `--go_out=. --go_opt=module=meshclient --go-grpc_out=. --go-grpc_opt=module=meshclient ${mapped.flat().join(" ")}`;
      return protocLine(
        outs,
        project,
        goMappings(project)
          .map(([path]) => path)
          .join(" "),
      );
    },
    files: goFiles,
    setup: "go mod tidy",
    run: "go run . ",
  },
  java: {
    title: "Java",
    tools: [
      protoc,
      plugin(
        "protoc-gen-grpc-java",
        "from Maven Central, io.grpc:protoc-gen-grpc-java, for your platform; executable, on PATH",
      ),
    ],
    command: (project) => protocLine(`--java_out=gen ${withPlugin("protoc-gen-grpc-java", "")}`, project),
    files: javaFiles,
    setup: "mvn -q compile",
    run: "mvn -q exec:java -Dexec.args=",
  },
  ruby: {
    title: "Ruby",
    tools: [
      {
        command: ["sh", "-c", "which grpc_tools_ruby_protoc || { which protoc && which grpc_ruby_plugin; }"],
        install: `grpc_tools_ruby_protoc: gem install grpc grpc-tools; or grpc_ruby_plugin and protoc: ${grpcPlugins}`,
      },
    ],
    // Gems bring the one, packages of the system the other.
    command: (project) =>
      `if which grpc_tools_ruby_protoc > /dev/null; then mkdir -p gen && grpc_tools_ruby_protoc ${includes} --ruby_out=gen --grpc_out=gen ${sources(project)}
else ${protocLine(`--ruby_out=gen ${withPlugin("grpc_ruby_plugin", "")}`, project)}
fi`,
    files: rubyFiles,
    setup: "gem install grpc",
    run: "ruby example.rb ",
  },
  php: {
    title: "PHP",
    tools: [protoc, plugin("grpc_php_plugin", grpcPlugins)],
    command: (project) => protocLine(`--php_out=gen ${withPlugin("grpc_php_plugin", "")}`, project),
    files: phpFiles,
    setup: "pecl install grpc && composer install",
    run: "php example.php ",
  },
  csharp: {
    title: "C#",
    tools: [protoc, plugin("grpc_csharp_plugin", grpcPlugins)],
    command: (project) => protocLine(`--csharp_out=gen ${withPlugin("grpc_csharp_plugin", "")}`, project),
    files: csharpFiles,
    setup: "dotnet restore",
    run: "dotnet run -- ",
  },
  cpp: {
    title: "C++",
    tools: [protoc, plugin("grpc_cpp_plugin", grpcPlugins)],
    command: (project) => protocLine(`--cpp_out=gen ${withPlugin("grpc_cpp_plugin", "")}`, project),
    files: cppFiles,
    setup: "cmake -B build && cmake --build build",
    run: "build/example ",
  },
};

/** What they import of google/protobuf: every language's library has its code, and not every protoc its text. */
export function wellKnownOf(files: Iterable<DescFile>): DescFile[] {
  const found = new Map<string, DescFile>();
  const seen = new Set<string>();
  const visit = (file: DescFile): void => {
    if (seen.has(file.proto.name)) return;
    seen.add(file.proto.name);
    if (file.proto.name.startsWith("google/protobuf/")) found.set(file.proto.name, file);
    for (const dependency of file.dependencies) visit(dependency);
  };
  for (const file of files) visit(file);
  return [...found.values()];
}

/** Files that stubs are generated of: those of the mesh alone, and what they import beyond google/protobuf. */
export function protosOf(files: readonly DescFile[]): string[] {
  const found = new Set<string>();
  const visit = (file: DescFile): void => {
    if (file.proto.name.startsWith("google/protobuf/") || found.has(file.proto.name)) return;
    found.add(file.proto.name);
    for (const dependency of file.dependencies) visit(dependency);
  };
  for (const file of files) visit(file);
  return [...found].sort();
}

/** Java and C#: their build tools fetch protoc and its plugins, so that a build needs neither on PATH. */
import type { DescFile, DescMessage } from "@bufbuild/protobuf";
import {
  localName,
  metadataSection,
  methodName,
  pascalCase,
  pascalPackage,
  readme,
  type SdkProject,
  stem,
} from "./project.js";

const javaPackage = (file: DescFile): string => file.proto.options?.javaPackage || file.proto.package;

/** The class that protoc puts the messages of a file into, unless the file asks for one each. */
function javaOuterClass(file: DescFile): string {
  const { options } = file.proto;
  if (options?.javaOuterClassname) return options.javaOuterClassname;
  const name = pascalCase(stem(file).slice(stem(file).lastIndexOf("/") + 1));
  const taken = [...file.messages, ...file.enums, ...file.services].some((one) => one.name === name);
  return taken ? `${name}OuterClass` : name;
}

function javaType(message: DescMessage): string {
  const { file } = message;
  const outer = file.proto.options?.javaMultipleFiles ? [] : [javaOuterClass(file)];
  return [javaPackage(file), ...outer, localName(message)].filter((part) => part !== "").join(".");
}

export function javaFiles(project: SdkProject): Record<string, string> {
  const { example, sample } = project;
  const service = [javaPackage(example.parent.file), `${example.parent.name}Grpc`]
    .filter((part) => part !== "")
    .join(".");
  const call = example.name.slice(0, 1).toLowerCase() + example.name.slice(1);
  const source = `import com.google.protobuf.util.JsonFormat;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.util.UUID;

/** Calls ${methodName(example)}; the first argument is its input as JSON. */
public final class Example {
  public static void main(String[] args) throws Exception {
    var input = ${javaType(example.input)}.newBuilder();
    JsonFormat.parser().merge(args.length > 0 ? args[0] : ${JSON.stringify(sample)}, input);
    var address = System.getenv().getOrDefault("TASKMESH_ADDRESS", "127.0.0.1:7400");
    var metadata = new Metadata();
    put(metadata, "taskmesh-idempotency-key", UUID.randomUUID().toString());
    put(metadata, "taskmesh-namespace", System.getenv("TASKMESH_NAMESPACE"));
    var token = System.getenv("TASKMESH_TOKEN");
    put(metadata, "authorization", token == null ? null : "Bearer " + token);
    var channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
    try {
      var stub = ${service}.newBlockingStub(channel)
          .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
      System.out.println(JsonFormat.printer().print(stub.${call}(input.build())));
    } catch (StatusRuntimeException error) {
      System.err.println(error.getStatus());
      System.exit(1);
    } finally {
      channel.shutdown();
    }
  }

  private static void put(Metadata metadata, String name, String value) {
    if (value != null) metadata.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value);
  }
}
`;
  const run = `Maven fetches protoc and its plugin; \`sh generate.sh\` is for builds of your own.\n\n\`\`\`console\n$ mvn -q compile\n$ TASKMESH_ADDRESS=127.0.0.1:7400 mvn -q exec:java -Dexec.args='${sample}'\n\`\`\``;
  return {
    "src/main/java/Example.java": source,
    "pom.xml": pom,
    "README.md": readme(project, "Java", [["Run the example", run], metadataSection]),
  };
}

const dependency = (group: string, name: string, version: string): string =>
  `    <dependency><groupId>${group}</groupId><artifactId>${name}</artifactId><version>${version}</version></dependency>`;

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>client</groupId>
  <artifactId>mesh-client</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.release>17</maven.compiler.release>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
    <exec.mainClass>Example</exec.mainClass>
  </properties>
  <dependencies>
${[
  dependency("io.grpc", "grpc-netty-shaded", "1.68.1"),
  dependency("io.grpc", "grpc-protobuf", "1.68.1"),
  dependency("io.grpc", "grpc-stub", "1.68.1"),
  dependency("com.google.protobuf", "protobuf-java-util", "3.25.5"),
  dependency("javax.annotation", "javax.annotation-api", "1.3.2"),
].join("\n")}
  </dependencies>
  <build>
    <extensions>
      <extension><groupId>kr.motd.maven</groupId><artifactId>os-maven-plugin</artifactId><version>1.7.1</version></extension>
    </extensions>
    <plugins>
      <plugin>
        <groupId>org.xolstice.maven.plugins</groupId>
        <artifactId>protobuf-maven-plugin</artifactId>
        <version>0.6.1</version>
        <configuration>
          <protoSourceRoot>proto</protoSourceRoot>
          <protocArtifact>com.google.protobuf:protoc:3.25.5:exe:\${os.detected.classifier}</protocArtifact>
          <pluginId>grpc-java</pluginId>
          <pluginArtifact>io.grpc:protoc-gen-grpc-java:1.68.1:exe:\${os.detected.classifier}</pluginArtifact>
        </configuration>
        <executions><execution><goals><goal>compile</goal><goal>compile-custom</goal></goals></execution></executions>
      </plugin>
      <!-- Older Mavens come with one that knows no release. -->
      <plugin>
        <groupId>org.apache.maven.plugins</groupId><artifactId>maven-compiler-plugin</artifactId><version>3.13.0</version>
      </plugin>
      <plugin><groupId>org.codehaus.mojo</groupId><artifactId>exec-maven-plugin</artifactId><version>3.5.0</version></plugin>
    </plugins>
  </build>
</project>
`;

const csharpNamespace = (file: DescFile): string =>
  file.proto.options?.csharpNamespace || pascalPackage(file).join(".");

export function csharpFiles(project: SdkProject): Record<string, string> {
  const { example, sample } = project;
  const inNamespace = (file: DescFile, name: string): string =>
    ["global::", csharpNamespace(file), csharpNamespace(file) === "" ? "" : ".", name].join("");
  const input = inNamespace(example.input.file, localName(example.input).replaceAll(".", ".Types."));
  const { name } = example.parent;
  const source = `// Calls ${methodName(example)}: dotnet run -- '<input as JSON>'
using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;

var input = ${input}.Parser.ParseJson(args.Length > 0 ? args[0] : ${JSON.stringify(sample)});
var address = Environment.GetEnvironmentVariable("TASKMESH_ADDRESS") ?? "127.0.0.1:7400";
var headers = new Metadata { { "taskmesh-idempotency-key", Guid.NewGuid().ToString() } };
if (Environment.GetEnvironmentVariable("TASKMESH_NAMESPACE") is { } space) headers.Add("taskmesh-namespace", space);
if (Environment.GetEnvironmentVariable("TASKMESH_TOKEN") is { } token) headers.Add("authorization", $"Bearer {token}");
using var channel = GrpcChannel.ForAddress($"http://{address}");
var client = new ${inNamespace(example.parent.file, `${name}.${name}Client`)}(channel);
try
{
    Console.WriteLine(JsonFormatter.Default.Format(await client.${example.name}Async(input, headers)));
    return 0;
}
catch (RpcException error)
{
    Console.Error.WriteLine($"{error.StatusCode}: {error.Status.Detail}");
    return 1;
}
`;
  const reference = (package_: string, version: string): string =>
    `    <PackageReference Include="${package_}" Version="${version}" />`;
  const csproj = `<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>net8.0</TargetFramework>
    <Nullable>enable</Nullable>
    <ImplicitUsings>enable</ImplicitUsings>
    <EnableDefaultCompileItems>false</EnableDefaultCompileItems>
  </PropertyGroup>
  <ItemGroup>
    <Compile Include="Program.cs" />
    <Protobuf Include="proto/**/*.proto" ProtoRoot="proto" GrpcServices="Client" />
${[reference("Google.Protobuf", "3.28.3"), reference("Grpc.Net.Client", "2.66.0"), reference("Grpc.Tools", "2.67.0")].join("\n")}
  </ItemGroup>
</Project>
`;
  const run = `The package Grpc.Tools brings protoc and its plugin; \`sh generate.sh\` is for builds of your own.\n\n\`\`\`console\n$ TASKMESH_ADDRESS=127.0.0.1:7400 dotnet run -- '${sample}'\n\`\`\``;
  return {
    "Program.cs": source,
    "MeshClient.csproj": csproj,
    "README.md": readme(project, "C#", [["Run the example", run], metadataSection]),
  };
}

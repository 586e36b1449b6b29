/** Go: packages of the generated code, the example, the README. */
import type { DescFile } from "@bufbuild/protobuf";
import { localName, metadataSection, methodName, pascalCase, readme, type SdkProject, stem } from "./project.js";

/** Files that have Go packages of their own, which `go mod tidy` fetches. */
const published = /^(google\/(api|rpc|type)|buf\/validate)\//;

const folderOf = (path: string): string => (path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "root");
const packageOf = (path: string): string => `meshclient/gen/${folderOf(path)}`;

/** Import path of the package of each file that is generated. */
export const goMappings = (project: SdkProject): [path: string, name: string][] =>
  project.protos.filter((path) => !published.test(path)).map((path) => [path, packageOf(path)]);

const aliasOf = (file: DescFile): string => `pb_${stem(file).replace(/[^A-Za-z0-9]+/g, "_")}`;
const goName = (name: string): string => name.split(".").map(pascalCase).join("_");

export function goFiles(project: SdkProject): Record<string, string> {
  const { example, sample } = project;
  const files = [...new Set([example.parent.file, example.input.file])];
  // Files of one folder are one package.
  const byPackage = new Map(files.map((file) => [packageOf(file.proto.name), aliasOf(file)]));
  const imports = [...byPackage].map(([path, alias]) => `\t${alias} "${path}"`).sort();
  const alias = (file: DescFile): string => byPackage.get(packageOf(file.proto.name))!;
  const source = `// Calls ${methodName(example)}: go run . '<input as JSON>'
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

${imports.join("\n")}
)

func main() {
	address, input := os.Getenv("TASKMESH_ADDRESS"), ${goText(sample)}
	if address == "" {
		address = "127.0.0.1:7400"
	}
	if len(os.Args) > 1 {
		input = os.Args[1]
	}
	request := new(${alias(example.input.file)}.${goName(localName(example.input))})
	if err := protojson.Unmarshal([]byte(input), request); err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(context.Background(), "taskmesh-idempotency-key", rand.Text())
	if namespace := os.Getenv("TASKMESH_NAMESPACE"); namespace != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "taskmesh-namespace", namespace)
	}
	if token := os.Getenv("TASKMESH_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	var header metadata.MD
	response, err := ${alias(example.parent.file)}.New${goName(example.parent.name)}Client(conn).${goName(example.name)}(ctx, request, grpc.Header(&header))
	if err != nil {
		log.Fatal(err)
	}
	log.Println("run", header.Get("taskmesh-run-id"))
	fmt.Println(protojson.Format(response))
}
`;
  const run = `\`\`\`console\n$ sh generate.sh\n$ go mod tidy\n$ TASKMESH_ADDRESS=127.0.0.1:7400 go run . '${sample}'\n\`\`\``;
  return {
    "main.go": source,
    "go.mod": "module meshclient\n\ngo 1.24\n",
    "README.md": readme(project, "Go", [["Run the example", run], metadataSection]),
  };
}

const goText = (text: string): string => (text.includes("`") ? JSON.stringify(text) : `\`${text}\``);

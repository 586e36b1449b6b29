/** What every generated project is made of: the contracts on disk, one method as the example, files, and what is left to do. */
import type { DescFile, DescMethod } from "@bufbuild/protobuf";

/** A project to generate. */
export interface SdkProject {
  /** Where the mesh was asked. */
  origin: string;
  /** Namespace of the contracts; empty: the credential's. */
  namespace: string;
  methods: readonly string[];
  /** Files that the mesh alone has. */
  files: readonly DescFile[];
  /** Paths of .proto files to generate stubs of, in proto/. */
  protos: readonly string[];
  /** The method of the example. */
  example: DescMethod;
  /** Input of the example as JSON text. */
  sample: string;
}

/** A program that generates or runs stubs. */
export interface Tool {
  /** What is asked whether it is there. */
  command: readonly [string, ...string[]];
  /** What to do when it is not. */
  install: string;
}

/** A language other than TypeScript: what is written, what generates the stubs, how the example is run. */
export interface Language {
  title: string;
  tools: readonly Tool[];
  /** The shell line that makes gen/ of proto/. */
  command(project: SdkProject): string;
  /** Files of the project, by path. */
  files(project: SdkProject): Record<string, string>;
  /** Installs what the example needs at run time. */
  setup: string;
  /** Runs the example. */
  run: string;
}

/** "acme.pages.v1.PageActions/Score". */
export const methodName = (rpc: DescMethod): string => `${rpc.parent.typeName}/${rpc.name}`;

/** "ScoreRequest", "Outer.Inner": the name of a type within its file's package. */
export function localName(type: { typeName: string; file: DescFile }): string {
  const scope = type.file.proto.package;
  return scope === "" ? type.typeName : type.typeName.slice(scope.length + 1);
}

/** "page_actions" and "fetch-page" as "PageActions" and "FetchPage". */
export const pascalCase = (text: string): string =>
  text.replace(/(?:^|[^A-Za-z0-9]+)([A-Za-z0-9])/g, (_, first: string) => first.toUpperCase());

/** "acme.pages.v1" as ["Acme", "Pages", "V1"]. */
export const pascalPackage = (file: DescFile): string[] =>
  file.proto.package === "" ? [] : file.proto.package.split(".").map(pascalCase);

/** Path without .proto. */
export const stem = (file: DescFile): string => file.proto.name.replace(/\.proto$/, "");

/** The README of a project. */
export function readme(
  project: SdkProject,
  title: string,
  sections: readonly (readonly [heading: string, text: string])[],
): string {
  const about = `Client of ${project.methods.length} contract${project.methods.length === 1 ? "" : "s"} of the mesh at ${project.origin}, in ${title}. \
Made by \`taskmesh sdk generate\`; \`proto/\` holds the contracts as they are registered.`;
  const list = project.methods.map((method) => `- \`${method}\``).join("\n");
  const body = sections.map(([heading, text]) => `## ${heading}\n\n${text}`).join("\n\n");
  return `# Mesh client\n\n${about}\n\n${list}\n\n${body}\n`;
}

/** What every call can say, for the READMEs of stock stubs. */
export const metadataSection: readonly [string, string] = [
  "Calls are durable runs",
  `The stubs are stock ones. Each call starts a run that goes on whatever happens to the caller; what there is to say about it goes into metadata:

| metadata | meaning |
|---|---|
| \`taskmesh-idempotency-key\` | calls with one key and one input are one run: send it, and repeat a call that ended with UNAVAILABLE |
| \`taskmesh-async\` | \`true\`: answers at once with an empty message; the same call under the same key without it waits for the result |
| \`taskmesh-namespace\`, \`authorization\` | the namespace, and \`Bearer <token>\` |
| \`taskmesh-label\`, \`taskmesh-priority\` | \`key=value\`; -100 to 100 |

The answer's initial metadata has \`taskmesh-run-id\`. The deadline of a call is that of its run. A failed run is \`ABORTED\`; the trailer \`grpc-status-details-bin\`
is a \`google.rpc.Status\` with \`google.rpc.ErrorInfo\` (reason) and the details of the action.`,
];

/** A TypeScript client: types by ts-proto, and a promise for each method. */
import { readFileSync } from "node:fs";
import type { DescService } from "@bufbuild/protobuf";
import { compileTypes } from "../generate.js";
import { localName, methodName, pascalCase, pascalPackage, readme, type SdkProject, stem } from "./project.js";

/** Files of the mesh that the client itself needs. */
export const clientProtos = ["google/rpc/status.proto", "google/rpc/error_details.proto", "taskmesh/v1/run.proto"];

const template = (name: string): string =>
  readFileSync(new URL(`../../templates/sdk/${name}`, import.meta.url), "utf8");

/** Versions that this program itself was tested with. */
function versions(): Record<string, string> {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { dependencies: Record<string, string> }).dependencies;
}

/** The project's files, by path; types come from the .proto files in `protoFolder`. */
export async function typescriptFiles(project: SdkProject, protoFolder: string): Promise<Record<string, string>> {
  const types = await compileTypes(protoFolder, [...project.protos]);
  const generated = Object.fromEntries([...types].map(([name, source]) => [`src/gen/${name}`, source]));
  return {
    ...generated,
    "src/client.ts": template("client.ts"),
    "src/mesh.ts": meshModule(project),
    "src/example.ts": exampleModule(project),
    "package.json": packageJson(),
    "tsconfig.json": tsconfig,
    ".gitignore": "node_modules/\ndist/\n",
    "README.md": readmeOf(project),
  };
}

function packageJson(): string {
  const known = versions();
  const pick = (names: string[]) => Object.fromEntries(names.map((name) => [name, known[name] ?? "*"]));
  const manifest = {
    name: "mesh-client",
    private: true,
    type: "module",
    scripts: { check: "tsc", example: "tsx src/example.ts" },
    dependencies: pick(["@bufbuild/protobuf", "@grpc/grpc-js"]),
    devDependencies: { "@types/node": "^20.19.0", ...pick(["tsx"]), typescript: "^7.0.0" },
  };
  return `${JSON.stringify(manifest, null, 2)}\n`;
}

const tsconfig = `${JSON.stringify(
  {
    compilerOptions: {
      target: "ES2022",
      module: "NodeNext",
      strict: true,
      noUncheckedIndexedAccess: true,
      exactOptionalPropertyTypes: true,
      noEmit: true,
      skipLibCheck: true,
      types: ["node"],
    },
    include: ["src"],
  },
  null,
  2,
)}\n`;

/** Services of the chosen methods, each with the methods that were chosen. */
function servicesOf(project: SdkProject): { service: DescService; property: string; methods: string[] }[] {
  const chosen = new Set(project.methods);
  const services = project.files
    .flatMap((file) => file.services)
    .map((service) => ({
      service,
      methods: service.methods
        .filter((rpc) => chosen.has(methodName(rpc)) && rpc.methodKind === "unary")
        .map(({ name }) => name),
    }))
    .filter(({ methods }) => methods.length > 0);
  return services.map(({ service, methods }) => {
    const shared = services.filter((other) => other.service.name === service.name).length > 1;
    const name = shared ? [...pascalPackage(service.file), service.name].join("") : service.name;
    return { service, methods, property: uncapitalized(name) };
  });
}

const uncapitalized = (text: string): string => text.slice(0, 1).toLowerCase() + text.slice(1);

function meshModule(project: SdkProject): string {
  const services = servicesOf(project);
  const imports = services.map(({ service, property }) => {
    const local = pascalCase(property);
    const name = `${service.name}Service`;
    const given = local === service.name ? name : `${name} as ${local}Service`;
    return `import { ${given} } from "./gen/${stem(service.file)}.js";`;
  });
  const members = services.flatMap(({ service, property, methods }) => [
    `    /** ${service.typeName} */`,
    `    ${property}: {`,
    ...methods.map(
      (name) =>
        `      ${uncapitalized(name)}: callable(connection, ${pascalCase(property)}Service.${uncapitalized(name)}),`,
    ),
    "    },",
  ]);
  return `/** The contracts of the mesh at ${project.origin}, as methods. Made by \`taskmesh sdk generate\`. */
import { callable, connect, type MeshOptions } from "./client.js";
${imports.join("\n")}

/** What \`openMesh\` gives. */
export type Mesh = ReturnType<typeof openMesh>;

/** Opens a connection. Close it when it is no longer needed. */
export function openMesh(options: MeshOptions = {}) {
  const connection = connect(${project.namespace === "" ? "options" : `{ namespace: ${JSON.stringify(project.namespace)}, ...options }`});
  return {
${members.join("\n")}
    close(): void {
      connection.client.close();
    },
  };
}
`;
}

function exampleModule(project: SdkProject): string {
  const { example } = project;
  const { property } = servicesOf(project).find(({ service }) => service === example.parent)!;
  const input = typeName(example.input);
  const output = typeName(example.output);
  const call = `mesh.${property}.${uncapitalized(example.name)}`;
  const types = new Map<string, string[]>();
  for (const type of [example.input, example.output]) {
    const path = `./gen/${stem(type.file)}.js`;
    types.set(path, [...new Set([...(types.get(path) ?? []), typeName(type)])]);
  }
  const imports = [...types].map(([path, names]) => `import { ${names.sort().join(", ")} } from "${path}";`);
  return `/** ${methodName(example)}, called: waits for the result, then once more without waiting. \`npm run example -- '<input as JSON>'\` */
import { MeshError } from "./client.js";
${imports.join("\n")}
import { openMesh } from "./mesh.js";

const input = ${input}.fromJSON(JSON.parse(process.argv[2] ?? ${JSON.stringify(project.sample)}));
const mesh = openMesh();
try {
  const output = await ${call}(input);
  console.log(JSON.stringify(${output}.toJSON(output)));

  const started = await ${call}.start(input, { labels: { from: "example" } });
  console.log(\`run \${started.runId} is on record\`);
  console.log(JSON.stringify(${output}.toJSON(await started.result({ timeoutMs: 60_000 }))));
} catch (error) {
  if (!(error instanceof MeshError)) throw error;
  console.error(\`\${error.reason}: \${error.message}\`);
  for (const { field, description } of error.violations) console.error(\`  \${field}: \${description}\`);
  process.exitCode = 1;
} finally {
  mesh.close();
}
`;
}

/** ts-proto writes nested types with underscores. */
const typeName = (type: Parameters<typeof localName>[0]): string => localName(type).replaceAll(".", "_");

function readmeOf(project: SdkProject): string {
  const { example } = project;
  const { property } = servicesOf(project).find(({ service }) => service === example.parent)!;
  const call = `mesh.${property}.${uncapitalized(example.name)}`;
  return readme(project, "TypeScript", [
    [
      "Run the example",
      `\`\`\`console\n$ npm install\n$ TASKMESH_ADDRESS=127.0.0.1:7400 npm run example -- '${project.sample}'\n\`\`\``,
    ],
    [
      "Use it",
      `\`\`\`ts
import { MeshError } from "./src/client.js";
import { openMesh } from "./src/mesh.js";

const mesh = openMesh({ address: "127.0.0.1:7400" });
const output = await ${call}(input);                    // waits for the result
const started = await ${call}.start(input);             // on record; started.runId
const later = await started.result({ timeoutMs: 60_000 });
await started.cancel("not needed any more");
\`\`\`

Options of a call: \`idempotencyKey\`, \`labels\`, \`priority\`, \`timeoutMs\`, \`signal\`. Calls are repeated by themselves while no coordinator answers, under one idempotency key: that is one run.`,
    ],
    [
      "Failures",
      `A call that does not succeed rejects with a \`MeshError\`. Its \`reason\` is what to act on: \`RUN_FAILED\` (then \`failure\` is what the action said, with a reason of its own, and
\`detail("acme.v1.Type", Type)\` reads its typed details), \`RUN_EXPIRED\`, \`RUN_CANCELLED\`, \`INPUT_INVALID\` (\`violations\` name the fields), \`UNAVAILABLE\` and others.`,
    ],
  ]);
}

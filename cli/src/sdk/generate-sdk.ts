/**
 * `taskmesh sdk generate`: a client project for contracts of a live mesh.
 *
 *   mesh ──contracts──► proto/ ──generator──► stubs, README, example
 *
 * The stubs of TypeScript are made here. Those of other languages are made by protoc and its plugins where this machine has them; where not,
 * everything else is written all the same, and the answer says what to install and what to run.
 */
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import type { DescExtension, DescFile, DescMethod } from "@bufbuild/protobuf";
import type { Api } from "../api.js";
import { childEnvironment } from "../config.js";
import { CliError, exitCode, usageError } from "../exit.js";
import { shippedProtos } from "../generate.js";
import { type LanguageName, languages, protosOf, wellKnownOf } from "./languages.js";
import { type ChosenContracts, fetchContracts } from "./mesh-contracts.js";
import { methodName, type SdkProject } from "./project.js";
import { printProtoFile } from "./proto-file.js";
import { createOptionPrinter } from "./proto-options.js";
import { sampleInput } from "./sample.js";
import { clientProtos, typescriptFiles } from "./typescript.js";

const run = promisify(execFile);
/** Time for a generator, and for asking whether it is there. */
const generatorTimeoutMs = 120_000;
const askTimeoutMs = 20_000;

/** Names that `--lang` takes. */
export const languageNames = ["ts", ...Object.keys(languages)] as const;

export interface SdkOptions {
  /** One of `languageNames`, or `typescript`. */
  language: string;
  /** Methods, services or packages; none: everything but the mesh's own. */
  wanted: readonly string[];
  /** Folder that is written. */
  out: string;
  /** Where generators are looked for and run in; default: this process's. */
  env?: NodeJS.ProcessEnv;
}

export interface GeneratedSdk {
  out: string;
  language: string;
  methods: readonly string[];
  /** Paths below `out`. */
  files: string[];
  /** What is missing on this machine; empty: the stubs are there. */
  missing: string[];
  /** What to run next, in `out`. */
  next: string[];
}

/** Marks a folder as generated, so that it may be written again. */
const markFile = ".taskmesh-sdk";

/**
 * Asks the mesh and writes the project.
 * @throws CliError: (usage) an unknown language or a folder that holds something else; (not found) a name that the mesh does not have; (bad) a
 * generator that failed, or contracts that contradict each other.
 */
export async function generateSdk(api: Api, options: SdkOptions): Promise<GeneratedSdk> {
  const language = options.language === "typescript" ? "ts" : options.language;
  if (!(languageNames as readonly string[]).includes(language)) {
    throw usageError(
      `"${options.language}" is no language of the generator`,
      `Say one of: ${languageNames.join(", ")}.`,
    );
  }
  refuseForeignFolder(options.out);
  const contracts = await fetchContracts(api, options.wanted);
  const project = toProject(api, contracts, language);
  const target = resolve(options.out);
  rmSync(target, { recursive: true, force: true });
  writeProtos(join(target, "proto"), contracts, language);
  const written =
    language === "ts"
      ? await writeTypescript(target, project)
      : await writeOther(target, project, language as LanguageName, { ...childEnvironment(), ...options.env });
  writeFileSync(join(target, markFile), "Made by taskmesh sdk generate; written anew as a whole.\n");
  const files = readdirSync(target, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(target.length + 1)
        .replaceAll("\\", "/"),
    )
    .sort();
  return { out: options.out, language, methods: contracts.methods, files, ...written };
}

function refuseForeignFolder(out: string): void {
  const target = resolve(out);
  if (!existsSync(target) || readdirSync(target).length === 0 || existsSync(join(target, markFile))) return;
  throw usageError(`${out} holds files that this command did not write`, "Choose another folder: --out <folder>");
}

function toProject(api: Api, { methods, files }: ChosenContracts, language: string): SdkProject {
  const example = exampleOf(methods, files);
  return {
    origin: api.connection.url.origin,
    namespace: api.connection.namespace ?? "",
    methods,
    files,
    protos:
      language === "ts"
        ? [...files.map((file) => file.proto.name), ...clientProtos]
        : protosOf(files).filter((path) => !leftOut(language).has(path)),
    example,
    sample: JSON.stringify(sampleInput(example.input)),
  };
}

/** The first chosen method that a plain call can make. */
function exampleOf(methods: readonly string[], files: readonly DescFile[]): DescMethod {
  const rpcs = new Map(
    files
      .flatMap((file) => file.services)
      .flatMap((service) => service.methods)
      .map((rpc) => [methodName(rpc), rpc]),
  );
  const found = methods.map((method) => rpcs.get(method)).find((rpc) => rpc?.methodKind === "unary");
  if (found) return found;
  throw new CliError(exitCode.bad, "none of the chosen contracts declares a unary rpc in its files");
}

/** proto/: the mesh's own files as text, and the shipped ones that they or the client import. */
function writeProtos(folder: string, { files, registry }: ChosenContracts, language: string): void {
  const left = leftOut(language);
  const extensions = [...registry].filter((one): one is DescExtension => one.kind === "extension");
  const options = createOptionPrinter(extensions.filter(({ file }) => !left.has(file.proto.name)));
  for (const file of files) write(join(folder, file.proto.name), withoutImports(printProtoFile(file, options), left));
  const shipped = shippedProtos();
  const needed = new Set(protosOf(files).filter((path) => shipped.has(path) && !left.has(path)));
  if (language === "ts") for (const path of clientProtos) needed.add(path);
  for (const path of needed) copyWithImports(path, shipped, folder, needed);
  if (language === "ts") return;
  // Beside proto/, all of which builds compile.
  const include = join(dirname(folder), "include");
  for (const file of wellKnownOf(files)) write(join(include, file.proto.name), printProtoFile(file, options));
}

/** Files that the language's generator refuses: it takes proto3 alone. They declare options of contracts, which stubs don't need. */
const leftOut = (language: string): ReadonlySet<string> =>
  new Set(language === "php" ? ["buf/validate/validate.proto"] : []);

const withoutImports = (text: string, paths: ReadonlySet<string>): string =>
  [...paths].reduce((rest, path) => rest.replace(`import "${path}";\n`, ""), text);

function copyWithImports(
  path: string,
  shipped: ReadonlyMap<string, string>,
  folder: string,
  needed: Set<string>,
): void {
  const from = shipped.get(path);
  if (from === undefined) return;
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  cpSync(from, join(folder, path));
  // A Set's iteration reaches what is added during it.
  for (const [, imported] of readFileSync(from, "utf8").matchAll(/^import (?:public )?"([^"]+)";/gm))
    needed.add(imported!);
}

function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

type Written = Pick<GeneratedSdk, "missing" | "next">;

async function writeTypescript(target: string, project: SdkProject): Promise<Written> {
  const files = await typescriptFiles(project, join(target, "proto"));
  for (const [path, text] of Object.entries(files)) write(join(target, path), text);
  return { missing: [], next: ["npm install", `npm run example -- '${project.sample}'`] };
}

async function writeOther(
  target: string,
  project: SdkProject,
  name: LanguageName,
  env: NodeJS.ProcessEnv,
): Promise<Written> {
  const language = languages[name];
  for (const [path, text] of Object.entries(language.files(project))) write(join(target, path), text);
  const line = language.command(project);
  const needs = language.tools.map(({ install }) => `#   ${install}`).join("\n");
  write(
    join(target, "generate.sh"),
    `#!/bin/sh\n# Makes gen/ of proto/. Needs:\n${needs}\nset -e\ncd "$(dirname "$0")"\n${line}\n`,
  );
  write(join(target, ".gitignore"), "gen/\nbuild/\nvendor/\nbin/\nobj/\ntarget/\n");
  const found = await Promise.all(
    language.tools.map(async (tool) => ({ tool, there: await isThere(tool.command, env) })),
  );
  const compiler = await findCompiler(env);
  const missing = found
    .filter(({ tool, there }) => !there && !(tool.command[0] === "protoc" && compiler !== undefined))
    .map(({ tool }) => tool.install);
  const last = [language.setup, `${language.run}'${project.sample}'`];
  if (missing.length > 0) return { missing, next: ["sh generate.sh", ...last] };
  try {
    const withCompiler = { ...env, ...(compiler === undefined ? {} : { PROTOC: compiler }) };
    await run("/bin/sh", ["generate.sh"], { cwd: target, timeout: generatorTimeoutMs, env: withCompiler });
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim() || (error as Error).message;
    throw new CliError(exitCode.bad, `the generator of ${language.title} failed: ${said}`, { cause: error });
  }
  return { missing: [], next: last };
}

const isThere = (command: readonly [string, ...string[]], env: NodeJS.ProcessEnv): Promise<boolean> =>
  run(command[0], command.slice(1), { timeout: askTimeoutMs, env }).then(
    () => true,
    () => false,
  );

/** protoc, or the one within Python's grpcio-tools; undefined: neither. */
async function findCompiler(env: NodeJS.ProcessEnv): Promise<string | undefined> {
  if (await isThere(["protoc", "--version"], env)) return "protoc";
  return (await isThere(["python3", "-c", "import grpc_tools.protoc"], env))
    ? "python3 -m grpc_tools.protoc"
    : undefined;
}

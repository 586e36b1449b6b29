/**
 * `taskmesh gen`: TypeScript (ts-proto) and an embedded descriptor set from the author's .proto files, with no network and no other tool.
 *
 * The files are copied beside those that Taskmesh ships (options, validation rules, google types) into a workspace of their own,
 * because buf only sees modules below one folder, and the author's folder should hold nothing but their own files.
 */
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { embedDescriptors, generatedMark, ownFiles } from "./embed-descriptors.js";
import { CliError, exitCode, usageError } from "./exit.js";

export interface GenerateOptions {
  /** The project. */
  folder: string;
  /** Root of the .proto files; default: proto/ if there is one, else the project. */
  proto?: string | undefined;
  /** Folder that is written, relative to the project. */
  out: string;
}

export interface Generated {
  out: string;
  files: string[];
  /** Full names of the services found. */
  services: string[];
}

/** Folders that never hold an author's contracts. */
const skippedFolders = /^(node_modules|gen|dist|\..*)$/;
/** More than any project has; stops a run in the wrong folder, such as a home directory. */
const protoFilesMax = 2_000;
const bufTimeoutMs = 120_000;

/** The same options as Taskmesh's own types: lossless integers and durations, checked unions, services of grpc-js. */
const typeOptions = [
  "outputServices=grpc-js",
  "esModuleInterop=true",
  "importSuffix=.js",
  "env=node",
  "forceLong=bigint",
  "oneof=unions-value",
  "useOptionals=messages",
  "useDate=false",
  "unrecognizedEnum=false",
];

function findProtoFiles(root: string): string[] {
  const found: string[] = [];
  const visit = (folder: string) => {
    for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (entry.isDirectory() && !skippedFolders.test(entry.name)) visit(join(folder, entry.name));
      if (entry.isFile() && entry.name.endsWith(".proto")) found.push(relative(root, join(folder, entry.name)));
      if (found.length > protoFilesMax) throw usageError(`${root} holds more than ${protoFilesMax} .proto files`);
    }
  };
  visit(root);
  return found.map((name) => name.replaceAll("\\", "/"));
}

function locateProtos(options: GenerateOptions): { root: string; names: string[] } {
  const nested = join(options.folder, "proto");
  const root = resolve(options.proto ?? (existsSync(nested) ? nested : options.folder));
  if (!existsSync(root)) throw usageError(`no folder ${options.proto ?? root}`);
  const names = findProtoFiles(root);
  if (names.length === 0) {
    throw usageError(
      `no .proto files in ${relative(".", root) || "this folder"}`,
      "Write an example with: npx taskmesh init",
    );
  }
  return { root, names };
}

/** Folder of an installed package, wherever the package manager put it. */
function packageFolder(name: string, resolved: string): string {
  for (let folder = dirname(resolved); folder !== dirname(folder); folder = dirname(folder)) {
    const manifest = join(folder, "package.json");
    if (existsSync(manifest) && (JSON.parse(readFileSync(manifest, "utf8")) as { name?: string }).name === name)
      return folder;
  }
  throw new Error(`the package ${name} is not installed completely`);
}

/** The .proto files that Taskmesh ships (its own, google/api, google/rpc, buf/validate): where each is, by import path. */
export function shippedProtos(): Map<string, string> {
  const shipped = packageFolder("@taskmesh/proto", fileURLToPath(import.meta.resolve("@taskmesh/proto")));
  const found = new Map<string, string>();
  for (const name of findProtoFiles(join(shipped, "taskmesh")))
    found.set(`taskmesh/${name}`, join(shipped, "taskmesh", name));
  for (const name of findProtoFiles(join(shipped, "third_party"))) found.set(name, join(shipped, "third_party", name));
  return found;
}

/** The author's files as module "user", the shipped ones that they don't bring themselves as module "mesh". */
function makeWorkspace(workspace: string, root: string, names: string[]): void {
  for (const name of names) {
    mkdirSync(dirname(join(workspace, "user", name)), { recursive: true });
    cpSync(join(root, name), join(workspace, "user", name));
  }
  const own = new Set(names);
  for (const [target, from] of shippedProtos()) {
    if (own.has(target)) continue;
    mkdirSync(dirname(join(workspace, "mesh", target)), { recursive: true });
    cpSync(from, join(workspace, "mesh", target));
  }
  writeFileSync(join(workspace, "buf.yaml"), "version: v2\nmodules:\n  - path: user\n  - path: mesh\n");
  const plugin = join(dirname(createRequire(import.meta.url).resolve("ts-proto/package.json")), "protoc-gen-ts_proto");
  const template = {
    version: "v2",
    inputs: [{ directory: "user" }],
    plugins: [
      {
        local: [process.execPath, plugin],
        out: "out",
        strategy: "all",
        include_imports: true,
        include_wkt: true,
        opt: typeOptions,
      },
    ],
  };
  writeFileSync(join(workspace, "buf.gen.yaml"), JSON.stringify(template));
}

/** buf names files by their place in the workspace; people know them by theirs. */
const explain = (said: string, root: string): string =>
  said
    .trim()
    .split("\n")
    .map((line) => line.replace(/^user\//, root === "" ? "" : `${root}/`).replace(/^([^:\s]+:\d+:\d+):/, "$1 "))
    .join("\n");

function runBuf(workspace: string, shownRoot: string, args: string[]): Promise<void> {
  const binary = join(dirname(createRequire(import.meta.url).resolve("@bufbuild/buf/package.json")), "bin", "buf");
  const options = { cwd: workspace, timeout: bufTimeoutMs, maxBuffer: 64 << 20 };
  return new Promise((done, failed) => {
    execFile(process.execPath, [binary, ...args], options, (error, stdout, stderr) => {
      if (!error) return done();
      const said = explain(`${stdout}${stderr}`, shownRoot);
      failed(new CliError(exitCode.bad, said === "" ? `buf ended with: ${error.message}` : said, { cause: error }));
    });
  });
}

/** The generated files that the author's own need: what is imported only for its options brings thousands of lines that nobody reads. */
function neededFiles(folder: string, names: string[]): string[] {
  const needed = new Set<string>();
  const queue = names.map((name) => name.replace(/\.proto$/, ".ts"));
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (needed.has(name) || !existsSync(join(folder, name))) continue;
    needed.add(name);
    const source = readFileSync(join(folder, name), "utf8");
    for (const [, imported] of source.matchAll(/from "(\.{1,2}\/[^"]+)\.js"/g)) {
      queue.push(join(dirname(name), `${imported}.ts`).replaceAll("\\", "/"));
    }
  }
  return [...needed].sort();
}

/** Puts the new files in place of the old ones. A folder that something else wrote is left alone. */
function replaceOutput(target: string, shown: string, files: Map<string, string>): void {
  const mark = join(target, "descriptors.ts");
  if (existsSync(target) && readdirSync(target).length > 0) {
    const ours = existsSync(mark) && readFileSync(mark, "utf8").startsWith(generatedMark);
    if (!ours)
      throw usageError(
        `${shown} holds files that taskmesh gen did not write`,
        "Empty it, or choose another: --out <folder>",
      );
    rmSync(target, { recursive: true });
  }
  for (const [name, source] of files) {
    mkdirSync(dirname(join(target, name)), { recursive: true });
    writeFileSync(join(target, name), source);
  }
}

/** The author's files, compiled. */
export interface Compiled {
  /** Encoded FileDescriptorSet of the files alone, with source information. */
  descriptorSet: Uint8Array;
  /** Where the files are, relative to the present folder; "" for itself. */
  root: string;
  files: string[];
}

/**
 * Compiles the .proto files of a folder, and writes nothing there.
 * @throws CliError (bad) with file, line and column for a .proto that does not compile; (usage) for folders that can't be used.
 */
export async function compile(folder: string): Promise<Compiled> {
  if (!existsSync(folder)) throw usageError(`no folder ${folder}`);
  const { root, names } = locateProtos({ folder, out: "" });
  const workspace = mkdtempSync(join(tmpdir(), "taskmesh-compile-"));
  try {
    makeWorkspace(workspace, root, names);
    const shownRoot = relative(".", root).replaceAll("\\", "/");
    await runBuf(workspace, shownRoot, ["build", "user", "--as-file-descriptor-set", "-o", "image.binpb"]);
    const set = ownFiles(readFileSync(join(workspace, "image.binpb")), new Set(names));
    return { descriptorSet: set, root: shownRoot, files: names };
  } finally {
    rmSync(workspace, { recursive: true, force: true });
  }
}

/**
 * Generates everything, or nothing.
 * @throws CliError (bad) with file, line and column for a .proto that does not compile; (usage) for folders that can't be used.
 */
export async function generate(options: GenerateOptions): Promise<Generated> {
  const { root, names } = locateProtos(options);
  if (names.includes("descriptors.proto"))
    throw usageError("descriptors.proto would collide with gen/descriptors.ts: rename it");
  const workspace = mkdtempSync(join(tmpdir(), "taskmesh-gen-"));
  try {
    makeWorkspace(workspace, root, names);
    const shownRoot = relative(".", root).replaceAll("\\", "/");
    await runBuf(workspace, shownRoot, ["build", "user", "--as-file-descriptor-set", "-o", "image.binpb"]);
    await runBuf(workspace, shownRoot, ["generate"]);
    const embedded = embedDescriptors(readFileSync(join(workspace, "image.binpb")), new Set(names));
    const files = new Map([["descriptors.ts", embedded.source]]);
    for (const name of neededFiles(join(workspace, "out"), names)) {
      files.set(name, readFileSync(join(workspace, "out", name), "utf8"));
    }
    const shown = join(options.folder, options.out);
    replaceOutput(resolve(shown), shown, files);
    return { out: shown, files: [...files.keys()], services: embedded.services };
  } finally {
    rmSync(workspace, { recursive: true, force: true });
  }
}

/** TypeScript of the named files below `root` and of what they import, by path. @throws CliError (bad) for what does not compile. */
export async function compileTypes(root: string, names: string[]): Promise<Map<string, string>> {
  const workspace = mkdtempSync(join(tmpdir(), "taskmesh-types-"));
  try {
    makeWorkspace(workspace, root, names);
    await runBuf(workspace, root, ["generate"]);
    const folder = join(workspace, "out");
    return new Map(neededFiles(folder, names).map((name) => [name, readFileSync(join(folder, name), "utf8")]));
  } finally {
    rmSync(workspace, { recursive: true, force: true });
  }
}

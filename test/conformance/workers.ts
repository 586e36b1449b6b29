/**
 * The workers of this folder, ready to start: the SDK's, and those of plain generated stubs, built once where their toolchains are and kept
 * (prepared-folder.ts).
 */
import { execFile } from "node:child_process";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { preparedFolder } from "../fixtures/prepared-folder.js";
import { findBinary } from "../fixtures/process.js";
import { pythonStubs, pythonWithGrpc } from "../fixtures/python.js";

const run = promisify(execFile);
const folder = import.meta.dirname;
const root = join(folder, "..", "..");
const protoFolder = join(root, "proto");
/** Files of the mesh that a worker speaks, and what they import. */
const meshProtos = ["registry", "relay", "run", "message", "payload", "options", "retry"].map(
  (name) => `taskmesh/v1/${name}.proto`,
);
const ownProto = "conformance/v1/conformance.proto";
const buildTimeoutMs = 400_000;

/** A command for /bin/sh; or why the worker can't be had on this machine. */
export type WorkerCommand = { command: string } | { missing: string };

const contractText = (): Promise<string> => readFile(join(folder, "conformance.proto"), "utf8");

/** The SDK's. */
export const typescriptWorker = (): WorkerCommand => ({
  command: `${process.execPath} --import tsx --conditions=@taskmesh/source ${join(folder, "typescript/worker.ts")}`,
});

/** Python with grpcio. */
export async function pythonWorker(): Promise<WorkerCommand> {
  try {
    const python = await pythonWithGrpc();
    const protos = await preparedFolder("worker-protos", await protoTexts(), layProtos);
    const stubs = await pythonStubs(python, protos, [...meshProtos, ownProto]);
    return { command: `env PYTHONPATH=${stubs} ${python} ${join(folder, "python/worker.py")}` };
  } catch (error) {
    return { missing: `a Python worker can't be had here: ${messageOf(error)}` };
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Go with grpc-go: stubs by the generators that go.mod names, the binary by `go build`. */
export async function goWorker(): Promise<WorkerCommand> {
  const go = findBinary(["go"]);
  if (!go) return { missing: "go is not installed (https://go.dev/dl, 1.24 or newer)" };
  try {
    return { command: await buildGo(go) };
  } catch (error) {
    return { missing: `a Go worker can't be built here: ${messageOf(error)}` };
  }
}

const goSources = ["main.go", "actions.go", "payloads.go", "session.go", "work.go", "go.mod", "go.sum"];
const goModule = "taskmesh.example/conformance";

async function buildGo(go: string): Promise<string> {
  const own = await Promise.all(goSources.map((name) => readFile(join(folder, "go", name), "utf8")));
  const { stdout: version } = await run(go, ["version"]);
  const built = await preparedFolder("go-worker", [version, ...own, ...(await protoTexts())], async (making) => {
    const inFolder = { cwd: making, timeout: buildTimeoutMs, maxBuffer: 16 << 20 };
    for (const name of goSources) await cp(join(folder, "go", name), join(making, name));
    await layProtos(join(making, "proto"));
    const plugins = ["google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"];
    await mkdir(join(making, "bin"));
    await run(go, ["build", "-o", join(making, "bin"), ...plugins], inFolder);
    const names = [...meshProtos, ownProto].map((path) => `M${path}=${goModule}/gen/${dirname(path)}`);
    const plugin = (name: string) => ({
      local: join(making, "bin", name),
      out: ".",
      opt: [`module=${goModule}`, ...names],
    });
    const inputs = [{ directory: "proto" }];
    const template = { version: "v2", inputs, plugins: ["protoc-gen-go", "protoc-gen-go-grpc"].map(plugin) };
    await writeFile(join(making, "buf.gen.yaml"), JSON.stringify(template));
    await run(join(root, "node_modules/.bin/buf"), ["generate"], inFolder);
    await run(go, ["build", "-o", join(making, "bin", "worker"), "."], inFolder);
  });
  return join(built, "bin", "worker");
}

/** Everything that the stubs are made of. */
const protoTexts = (): Promise<string[]> =>
  Promise.all([...meshProtos.map((path) => readFile(join(protoFolder, path), "utf8")), contractText()]);

async function layProtos(target: string): Promise<void> {
  for (const path of meshProtos) {
    await mkdir(dirname(join(target, path)), { recursive: true });
    await cp(join(protoFolder, path), join(target, path));
  }
  await mkdir(dirname(join(target, ownProto)), { recursive: true });
  await writeFile(join(target, ownProto), await contractText());
}

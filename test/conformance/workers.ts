/**
 * The workers of this folder, ready to start: the SDK's, and those of plain generated stubs, prepared where their toolchains are. What is
 * prepared is kept in the temporary folder, under a name made of everything that it is made of.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { findBinary } from "../fixtures/process.js";
import { preparePython } from "../fixtures/python.js";

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
  const peer = await preparePython({ mesh: meshProtos, own: { [ownProto]: await contractText() } });
  if ("missing" in peer) return peer;
  return { command: `env PYTHONPATH=${peer.stubs} ${peer.python} ${join(folder, "python/worker.py")}` };
}

/** Go with grpc-go: stubs by the generators that go.mod names, the binary by `go build`. */
export async function goWorker(): Promise<WorkerCommand> {
  const go = findBinary(["go", "/usr/local/go/bin/go"]);
  if (!go) return { missing: "go is not installed" };
  try {
    return { command: await buildGo(go) };
  } catch (error) {
    return { missing: `a Go worker can't be built here: ${error instanceof Error ? error.message : String(error)}` };
  }
}

const goSources = ["main.go", "actions.go", "payloads.go", "session.go", "work.go", "go.mod", "go.sum"];
const goModule = "taskmesh.example/conformance";

async function buildGo(go: string): Promise<string> {
  const sources = await Promise.all([
    ...goSources.map((name) => readFile(join(folder, "go", name), "utf8")),
    ...meshProtos.map((path) => readFile(join(protoFolder, path), "utf8")),
    contractText(),
  ]);
  const digest = createHash("sha256").update(sources.join("\n")).digest("hex").slice(0, 16);
  const built = join(tmpdir(), `taskmesh-go-worker-${digest}`);
  if (existsSync(built)) return built;
  const making = await mkdtemp(join(tmpdir(), "taskmesh-go-making-"));
  const env = { ...process.env, GOFLAGS: "-mod=mod" };
  const inFolder = { cwd: making, env, timeout: buildTimeoutMs, maxBuffer: 16 << 20 };
  for (const name of goSources) await cp(join(folder, "go", name), join(making, name));
  await layProtos(join(making, "proto"));
  for (const tool of ["google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"])
    await run(go, ["build", "-o", `${making}/bin/`, tool], inFolder);
  const paths = [...meshProtos, ownProto];
  const names = paths.map((path) => `M${path}=${goModule}/gen/${dirname(path)}`);
  const plugin = (name: string) => ({
    local: join(making, "bin", name),
    out: ".",
    opt: [`module=${goModule}`, ...names],
  });
  const template = {
    version: "v2",
    inputs: [{ directory: "proto" }],
    plugins: ["protoc-gen-go", "protoc-gen-go-grpc"].map(plugin),
  };
  await writeFile(join(making, "buf.gen.yaml"), JSON.stringify(template));
  await run(join(root, "node_modules/.bin/buf"), ["generate"], inFolder);
  await run(go, ["build", "-o", "worker", "."], inFolder);
  await rename(join(making, "worker"), built);
  await rm(making, { recursive: true, force: true });
  return built;
}

async function layProtos(target: string): Promise<void> {
  for (const path of meshProtos) {
    await mkdir(dirname(join(target, path)), { recursive: true });
    await cp(join(protoFolder, path), join(target, path));
  }
  await mkdir(dirname(join(target, ownProto)), { recursive: true });
  await writeFile(join(target, ownProto), await contractText());
}

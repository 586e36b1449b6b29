/** `taskmesh dev`: an embedded mesh that says where it is, until it is told to stop. */
import { existsSync, readdirSync } from "node:fs";
import {
  ConfigError,
  createLogger,
  defaultGrpcAddress,
  defaultHttpAddress,
  type Environment,
  isLoopback,
  parseAddress,
  runService,
  startTelemetry,
} from "@taskmesh/runtime";
import { childEnvironment } from "../config.js";
import { CliError, exitCode, usageError } from "../exit.js";
import type { Output } from "../output.js";
import { showDuration } from "../show.js";
import { createEmbeddedMesh, type EmbeddedMesh } from "./embedded-mesh.js";

export interface DevOptions {
  data: string;
  grpcAddress?: string | undefined;
  httpAddress?: string | undefined;
  httpAllow: string[];
}

/** Options beat the environment. What the environment leaves open gets the values that suit one person at one machine. */
function devEnvironment(options: DevOptions, base: Environment): Environment {
  const env: Record<string, string | undefined> = {
    // Metrics are for those who ask: a second mesh on this machine must not fail on the first one's port.
    TASKMESH_METRICS_ADDRESS: "off",
    // A person reads this terminal; trouble is worth a line, routine is not.
    TASKMESH_LOG_LEVEL: "warn",
    ...Object.fromEntries(Object.entries(base).filter(([, value]) => value !== undefined && value !== "")),
  };
  if (options.grpcAddress !== undefined) env.TASKMESH_GRPC_ADDRESS = options.grpcAddress;
  if (options.httpAddress !== undefined) env.TASKMESH_HTTP_ADDRESS = options.httpAddress;
  if (options.httpAllow.length > 0) env.TASKMESH_HTTP_ALLOW = options.httpAllow.join(",");
  // Whoever can call a mesh on loopback can call everything else there too, so refusing it would protect nothing.
  const addresses = [env.TASKMESH_GRPC_ADDRESS ?? defaultGrpcAddress, env.TASKMESH_HTTP_ADDRESS ?? defaultHttpAddress];
  if (addresses.every((address) => isLoopback(parseAddress(address)?.host ?? ""))) {
    env.TASKMESH_HTTP_ALLOW ??= "127.0.0.0/8,::1/128";
  }
  return env;
}

/** What could not start, for a person. */
function explain(error: unknown, options: DevOptions): unknown {
  if (error instanceof ConfigError) return usageError(error.message);
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if (at instanceof CliError) return at;
    const { code, address, port } = at as NodeJS.ErrnoException & { address?: string; port?: number };
    if (code === "EADDRINUSE" || /EADDRINUSE/.test(at.message)) {
      const where = port === undefined ? at.message : `${address ?? "127.0.0.1"}:${port} is taken by another program`;
      return new CliError(exitCode.refused, where, {
        hint: "Choose other ports: taskmesh dev --grpc-address 127.0.0.1:7401 --http-address 127.0.0.1:7481",
        cause: error,
      });
    }
    if (code === "EACCES" || code === "EROFS") {
      return new CliError(exitCode.refused, at.message, {
        hint: "Use a folder of your own: taskmesh dev --data <folder>",
      });
    }
  }
  return new CliError(exitCode.refused, `the mesh in ${options.data} could not start: ${(error as Error).message}`, {
    cause: error,
  });
}

/** What a person in this folder would do next. */
function nextSteps(): string[] {
  if (existsSync("worker.ts")) return ["npx taskmesh gen && npx tsx worker.ts"];
  if (readdirSync(".").some((name) => name.endsWith(".proto"))) return ["npx taskmesh gen"];
  return ["npx taskmesh init"];
}

function announce(mesh: EmbeddedMesh, options: DevOptions, out: Output, startedMs: number): void {
  const { bold, dim, green } = out.colors;
  const { grpcAddress, url, builtinActionCount } = mesh;
  out.document({ grpcAddress, url, data: options.data, pid: process.pid, builtinActions: builtinActionCount });
  out.line(`${green("Taskmesh runs")} ${dim(`(ready after ${showDuration(startedMs)})`)}

  gRPC  ${bold(grpcAddress.padEnd(24))} workers, and your services as plain gRPC
  REST  ${bold(url.padEnd(24))} curl, and this program
  data  ${bold(options.data.padEnd(24))} runs and contracts; they survive restarts and kill -9

${builtinActionCount} built-in actions are served. Next, in a second terminal:
  npx taskmesh actions list
  ${nextSteps().join("\n  ")}

Ctrl-C stops the mesh.`);
}

/**
 * Runs an embedded mesh until SIGINT or SIGTERM, then stops it.
 * @throws CliError when it can't start; the message says what to do.
 */
export async function runEmbeddedMesh(options: DevOptions, out: Output): Promise<void> {
  const began = performance.now();
  const env = devEnvironment(options, childEnvironment());
  const telemetry = await startTelemetry("taskmesh-dev", env);
  let mesh: EmbeddedMesh;
  try {
    mesh = createEmbeddedMesh({ data: options.data, env });
    await mesh.start();
  } catch (error) {
    await telemetry.stop();
    throw explain(error, options);
  }
  announce(mesh, options, out, performance.now() - began);
  const code = await runService(mesh, { log: createLogger("dev"), stopTimeoutMs: mesh.stopTimeoutMs });
  await telemetry.stop();
  if (code !== 0)
    throw new CliError(exitCode.refused, "the mesh did not stop cleanly; nothing that it had accepted is lost");
  out.line("Stopped.");
}

/**
 * The first ten minutes of a newcomer, command by command: an empty folder, the packed packages, and what the README says to type.
 * Only the ports differ, so that the test can run beside a mesh of the machine's owner.
 */
import { type ExecFileException, execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePorts } from "../fixtures/ports.js";
import { ServerProcess } from "../fixtures/process.js";

const root = join(import.meta.dirname, "..", "..");
const work = mkdtempSync(join(tmpdir(), "taskmesh-first-minutes-"));
const folder = join(work, "project");
/** Built, packed and installed once; the commands themselves are timed by the test's own limit. */
const installTimeoutMs = 300_000;
/** The tour takes a minute at most on a machine that does nothing else; this only ends one that hangs. */
const tourTimeoutMs = 240_000;
const readyTimeoutMs = 120_000;

const environment: Record<string, string | undefined> = { ...process.env, NO_COLOR: "1", NODE_OPTIONS: undefined };
const processes: ServerProcess[] = [];
let origin = "";

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command as a person would; the exit code is part of the answer. */
function run(command: string, args: string[], cwd = folder): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(command, args, { cwd, env: environment, maxBuffer: 32 << 20 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : Number((error as ExecFileException).code ?? 1);
      resolve({ code, stdout, stderr });
    });
  });
}

async function must(command: string, args: string[], cwd = folder): Promise<string> {
  const { code, stdout, stderr } = await run(command, args, cwd);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}:\n${stdout}${stderr}`);
  return stdout;
}

function launch(command: string, args: string[]): ServerProcess {
  const started = new ServerProcess(command, args, { cwd: folder, env: environment });
  processes.push(started);
  return started;
}

async function startDev(): Promise<ServerProcess> {
  const dev = launch("npx", ["taskmesh", "dev"]);
  await dev.ready("the mesh", () => dev.output.includes("Taskmesh runs"), readyTimeoutMs);
  return dev;
}

beforeAll(async () => {
  const tarballs = join(work, "packages");
  await must(process.execPath, [join(root, ".ci/pack.mjs"), "--out", tarballs], root);
  await must("mkdir", ["-p", folder], work);
  const files = readdirSync(tarballs).map((name) => join(tarballs, name));
  await must("npm", ["i", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error", ...files]);
  const [grpc, http] = await freePorts(2);
  origin = `http://127.0.0.1:${http}`;
  environment.TASKMESH_GRPC_ADDRESS = environment.TASKMESH_ADDRESS = `127.0.0.1:${grpc}`;
  environment.TASKMESH_HTTP_ADDRESS = `127.0.0.1:${http}`;
  environment.TASKMESH_URL = origin;
}, installTimeoutMs);

afterAll(async () => {
  for (const one of processes) one.signal("SIGKILL");
  await Promise.all(processes.map((one) => one.exited()));
  rmSync(work, { recursive: true, force: true });
});

async function serveOnePage(): Promise<{ url: string; close(): Promise<void> }> {
  const server = createServer((_request, response) => {
    response.writeHead(200, { "content-type": "text/html" });
    response.end("<html><body><p>five words <b>in this page</html>");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://localhost:${(server.address() as AddressInfo).port}/`;
  return { url, close: () => new Promise((resolve) => void server.close(() => resolve())) };
}

const callScore = async (): Promise<unknown> => {
  const response = await fetch(`${origin}/v1/acme.pages.v1.PageActions/Score`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: '{"text":"a b"}',
  });
  return response.json();
};

describe("the first ten minutes", () => {
  let dev: ServerProcess;
  let runId = "";

  it(
    "lead from an empty folder to a chain that runs on the newcomer's own action",
    async () => {
      await must("npx", ["taskmesh", "init"]);
      expect(readdirSync(folder)).toEqual(
        expect.arrayContaining(["pages.proto", "worker.ts", "worker.test.ts", "chain.yaml"]),
      );
      const unreachable = await run("npx", ["taskmesh", "actions", "list"]);
      expect(unreachable.code).toBe(3);
      expect(unreachable.stderr).toContain("npx taskmesh dev");

      dev = await startDev();
      await must("npx", ["taskmesh", "gen"]);
      const worker = launch("npx", ["tsx", "worker.ts"]);
      await worker.ready("the worker", () => worker.output.includes("registered acme"), readyTimeoutMs);
      expect(worker.output).toContain("registered acme.pages.v1.PageActions/Score, 10 slots");
      expect(await callScore()).toEqual({ words: 2 });

      const chain = readFileSync(join(folder, "chain.yaml"), "utf8");
      writeFileSync(join(folder, "chain.yaml"), chain.replace("steps.pick.output.text", "steps.pick.output.txt"));
      const typo = await run("npx", ["taskmesh", "chains", "apply", "chain.yaml"]);
      expect(typo.stderr).toContain(
        'chain.yaml:17:38 step score, text: SelectResponse has no field "txt"; did you mean "text"?',
      );
      expect(typo.code).toBe(1);
      writeFileSync(join(folder, "chain.yaml"), chain);
      expect(await must("npx", ["taskmesh", "chains", "apply", "chain.yaml"])).toContain("acme.pages.v1.Pages/Check");

      const page = await serveOnePage();
      const input = JSON.stringify({ url: page.url });
      const start = ["taskmesh", "runs", "start", "acme.pages.v1.Pages/Check", "--input", input, "--watch", "--json"];
      const lines = (await must("npx", start)).trim().split("\n");
      await page.close();
      const last = JSON.parse(lines.at(-1) ?? "{}") as { runId: string; output: unknown };
      expect(last.output).toEqual({ words: 5, report: `${page.url}: 5` });
      runId = last.runId;
    },
    tourTimeoutMs,
  );

  it("give a worker whose own test and types hold", { timeout: tourTimeoutMs }, async () => {
    await must("npx", ["tsx", "--test", "worker.test.ts"]);
    await must(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", folder]);
  });

  it("refuse a second mesh on the same folder, and name the first", async () => {
    const second = await run("npx", [
      "taskmesh",
      "dev",
      "--grpc-address",
      "127.0.0.1:0",
      "--http-address",
      "127.0.0.1:0",
    ]);
    expect(second.stderr).toMatch(/\.taskmesh is in use by process \d+/);
    expect(second.code).toBe(5);
  });

  it("keep every run through kill -9 of the mesh", { timeout: tourTimeoutMs }, async () => {
    const delay = ["runs", "start", "taskmesh.time.v1.TimeActions/Delay", "--input", '{"duration":"2s"}', "--json"];
    const { runId: underWay } = JSON.parse(await must("npx", ["taskmesh", ...delay])) as { runId: string };
    dev.signal("SIGKILL");
    await dev.exited();
    dev = await startDev();
    const { stdout } = await run("npx", ["taskmesh", "runs", "result", runId, "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({ words: 5 });
    // What was under way ends well, although its worker died with the mesh.
    await must("npx", ["taskmesh", "runs", "result", underWay, "--wait"]);
    // The worker joins again by itself.
    await dev.ready(
      "the worker to be back",
      async () => JSON.stringify(await callScore()) === '{"words":2}',
      readyTimeoutMs,
    );
  });

  it("end with Ctrl-C", async () => {
    dev.signal("SIGINT");
    await dev.exited();
    expect(dev.output).toContain("Stopped.");
  });
});

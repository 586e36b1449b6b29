/**
 * What the Dockerfile does, step by step, without a container engine: collect, install production dependencies alone, and run each role from
 * there as another user, who can't write to it. The servers run as the compose file has them: nats-server in operator mode, a token.
 */
import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { chmod, lstat, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { allSettings } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { type NatsFixture, startNats } from "../fixtures/nats.js";
import { freePorts } from "../fixtures/ports.js";
import { type PostgresFixture, startPostgres } from "../fixtures/postgres.js";
import { ServerProcess } from "../fixtures/process.js";
import { imageNode } from "../fixtures/tools.js";

const run = promisify(execFile);
const root = join(import.meta.dirname, "..", "..");
const setUpTimeoutMs = 300_000;
const token = "a-token-of-the-image-test";

let work: string;
let node: string;
let app: string;
/** The same, built once more. */
let twin: string;
let keys: string;
let nats: NatsFixture;
let postgres: PostgresFixture;
const roles: ServerProcess[] = [];

/** Who the image runs as: not root, where root runs the test. */
const nobody = (): { uid?: number; gid?: number } => {
  if (userInfo().uid !== 0) return {};
  const id = (flag: string): number => Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" }));
  return { uid: id("-u"), gid: id("-g") };
};

function start(role: string, env: Record<string, string>): ServerProcess {
  const { PATH, HOME } = process.env;
  const process_ = new ServerProcess(node, [join(app, role)], {
    cwd: app,
    env: { PATH, HOME, NODE_ENV: "production", TASKMESH_TOKEN: token, ...env },
    ...nobody(),
  });
  roles.push(process_);
  return process_;
}

const healthy = (role: string, env: Record<string, string>): Promise<boolean> =>
  run(node, [join(app, "deploy/healthcheck.mjs"), role], {
    env: { ...process.env, ...env },
    ...nobody(),
  }).then(
    () => true,
    () => false,
  );

/** The steps of the Dockerfile. */
async function build(folder: string): Promise<void> {
  await run(process.execPath, [join(root, "deploy/collect.mjs"), folder]);
  const only = ["coordinator", "gateway", "actions"].flatMap((role) => ["--workspace", role]);
  const install = ["ci", "--omit=dev", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", ...only];
  await run("npm", install, { cwd: folder, maxBuffer: 32 << 20 });
  const env = { ...process.env, SOURCE_DATE_EPOCH: "1750000000" };
  await run(process.execPath, [join(root, "deploy/finish.mjs"), folder], { env });
}

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "taskmesh-image-"));
  await chmod(work, 0o755);
  app = join(work, "app");
  twin = join(work, "twin");
  node = await imageNode();
  keys = join(work, "keys");
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  await run(process.execPath, [tsc, "-b"], { cwd: root });
  await Promise.all([build(app), build(twin)]);
  await run(process.execPath, [join(app, "deploy/nats-keys.mjs"), keys]);
  const who = nobody();
  if (who.uid !== undefined) await run("chown", ["-R", `${who.uid}:${who.gid}`, keys]);
  await run("chmod", ["-R", "a-w", app]);
  const authentication = readFileSync(join(keys, "nats-auth.conf"), "utf8");
  [nats, postgres] = await Promise.all([startNats({ config: authentication }), startPostgres()]);
}, setUpTimeoutMs);

afterAll(async () => {
  for (const role of roles) {
    role.signal("SIGTERM");
    await role.exited();
  }
  await nats?.dispose();
  await postgres?.dispose();
  await run("chmod", ["-R", "u+w", work]);
  await rm(work, { recursive: true, force: true });
});

describe("the image", () => {
  it("has no development dependency and no source", async () => {
    const packages = await readdir(join(app, "node_modules"));
    for (const name of ["typescript", "vitest", "tsx", "@biomejs"]) expect(packages).not.toContain(name);
    for (const folder of ["coordinator", "gateway", "actions", "runtime"]) {
      expect(await readdir(join(app, folder))).not.toContain("src");
    }
    expect((await stat(join(app, "coordinator/dist/main.js"))).mode & 0o222).toBe(0);
    const files = await readdir(app, { recursive: true });
    expect(files.filter((file) => /\.(map|d\.[mc]?ts)$/.test(file))).toEqual([]);
  });

  it("is the same, byte by byte and with the same times, when it is built again", async () => {
    const [one, other] = await Promise.all([treeOf(app), treeOf(twin)]);
    expect(one.length).toBeGreaterThan(1_000);
    expect(one.filter((line, at) => line !== other[at])).toEqual([]);
    expect(other.length).toBe(one.length);
  });

  it("has a bill of materials that lists what is installed", async () => {
    const bill = JSON.parse(await readFile(join(app, "sbom.cdx.json"), "utf8")) as Bill;
    expect(bill).toMatchObject({ bomFormat: "CycloneDX", metadata: { timestamp: "2025-06-15T15:06:40.000Z" } });
    const installed = (await readdir(join(app, "node_modules"), { recursive: true }))
      .filter((file) => /^(@[^/]+\/)?[^/@]+\/package\.json$/.test(file))
      .map(
        (file) =>
          JSON.parse(readFileSync(join(app, "node_modules", file), "utf8")) as { name: string; version: string },
      );
    const listed = new Set(bill.components.map(({ name, version }) => `${name}@${version}`));
    expect(installed.length).toBeGreaterThan(50);
    expect(installed.filter(({ name, version }) => !listed.has(`${name}@${version}`))).toEqual([]);
    const refs = new Set(bill.components.map((component) => component["bom-ref"]));
    for (const { name, licenses, hashes } of bill.components) {
      expect(licenses?.length, name).toBe(1);
      expect(hashes?.length === 1 || name.startsWith("@taskmesh/"), name).toBe(true);
    }
    for (const { ref, dependsOn } of bill.dependencies) {
      expect(refs, ref).toContain(ref);
      for (const other of dependsOn) expect(refs, `${ref} needs`).toContain(other);
    }
    expect(bill.dependencies.find(({ ref }) => ref.includes("taskmesh/gateway"))?.dependsOn.join()).toContain(
      "fastify@",
    );
    const { stdout } = await run(process.execPath, [join(root, "deploy/sbom.mjs"), app], { maxBuffer: 32 << 20 });
    expect((JSON.parse(stdout) as Bill).components).toEqual(bill.components);
  });

  it("runs every role as a user who can't write to it, against a nats-server in operator mode", async () => {
    const [grpc, http, metrics, health, workerMetrics, nowhere] = await freePorts(6);
    const address = { TASKMESH_GRPC_ADDRESS: `127.0.0.1:${grpc}` };
    const gatewayAddress = { TASKMESH_HTTP_ADDRESS: `127.0.0.1:${http}` };
    expect(await healthy("coordinator", address)).toBe(false);
    const coordinator = start("coordinator/dist/main.js", {
      ...address,
      TASKMESH_METRICS_ADDRESS: `127.0.0.1:${metrics}`,
      DATABASE_URL: await postgres.createDatabase(),
      NATS_URL: nats.url,
      // As the compose file has it: one name for workers inside, one for those outside; a worker takes the one that it can reach.
      NATS_WORKER_URL: `nats://127.0.0.1:${nowhere},${nats.url}`,
      NATS_CREDENTIALS_FILE: join(keys, "coordinator.creds"),
      NATS_ACCOUNT_SEED_FILE: join(keys, "signing.seed"),
    });
    await coordinator.ready("the coordinator", () => healthy("coordinator", address), 60_000);
    const dial = { TASKMESH_ADDRESS: `127.0.0.1:${grpc}` };
    const gateway = start("gateway/dist/main.js", { ...gatewayAddress, ...dial });
    await gateway.ready("the gateway", () => healthy("gateway", gatewayAddress), 60_000);
    const probed = { TASKMESH_HEALTH_ADDRESS: `127.0.0.1:${health}` };
    expect(await healthy("worker", probed)).toBe(false);
    const counted = { TASKMESH_WORKER_METRICS_ADDRESS: `127.0.0.1:${workerMetrics}` };
    const actions = start("actions/dist/main.js", { ...dial, ...probed, ...counted });
    await actions.ready("the worker", () => healthy("worker", probed), 60_000);
    expect(actions.output).not.toContain("RELAY");
    const url = `http://127.0.0.1:${http}/v1/taskmesh.text.v1.TextActions/Render`;
    const body = JSON.stringify({ template: "hello {{who}}", values: { who: "image" } });
    const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
    const answer = await fetch(url, { method: "POST", headers, body });
    expect(await answer.json()).toMatchObject({ text: "hello image" });
    for (const port of [metrics, http, workerMetrics]) {
      expect((await fetch(`http://127.0.0.1:${port}/metrics`, { headers })).status).toBe(200);
    }
  }, 200_000);
});

describe("the compose file", () => {
  interface Role {
    command?: string[];
    environment?: Record<string, string>;
    read_only?: boolean;
    image: string;
  }
  const composed = parse(readFileSync(join(root, "deploy/compose/compose.yaml"), "utf8"), { merge: true }) as {
    services: Record<string, Role>;
  };
  const ours = Object.entries(composed.services).filter(([, { command }]) => command?.[0]?.endsWith("main.js"));

  it("sets only variables that exist, and runs files that the image has", async () => {
    const known = new Set(
      allSettings.flatMap((settings) =>
        Object.values(settings).map((setting) => (setting as { variable: string }).variable),
      ),
    );
    expect(ours.map(([name]) => name).sort()).toEqual(["actions", "coordinator-1", "coordinator-2", "gateway"]);
    for (const [name, { command, environment, read_only }] of ours) {
      expect((await stat(join(app, command![0]!))).isFile(), name).toBe(true);
      expect(read_only, name).toBe(true);
      const unknown = Object.keys(environment ?? {}).filter((variable) => {
        const plain = variable.replace(/_FILE$/, "");
        return !known.has(plain) && !plain.startsWith("OTEL_");
      });
      expect(unknown, name).toEqual([]);
    }
  });

  it("mounts configuration files that exist", async () => {
    const text = readFileSync(join(root, "deploy/compose/compose.yaml"), "utf8");
    const mounted = [...text.matchAll(/["\s](\.\.?\/[^:"\s]+):\//g)].map(([, path]) => path!);
    expect(mounted.length).toBeGreaterThan(5);
    for (const path of mounted) await expect(stat(join(root, "deploy/compose", path)), path).resolves.toBeTruthy();
  });
});

interface Bill {
  components: { "bom-ref": string; name: string; version: string; licenses?: unknown[]; hashes?: unknown[] }[];
  dependencies: { ref: string; dependsOn: string[] }[];
}

/** A line for each file of a tree: path, kind, time and content. One at a time, for the sake of the limit of open files. */
async function treeOf(folder: string): Promise<string[]> {
  const lines: string[] = [];
  for (const path of (await readdir(folder, { recursive: true })).sort()) {
    const entry = await lstat(join(folder, path));
    const kind = entry.isFile() ? "file" : entry.isSymbolicLink() ? "link" : "folder";
    const hash = createHash("sha256");
    if (entry.isFile()) hash.update(readFileSync(join(folder, path)));
    lines.push(`${path} ${kind} ${entry.mtimeMs} ${hash.digest("hex")}`);
  }
  return lines;
}

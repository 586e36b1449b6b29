/**
 * What the Dockerfile does, step by step, without a container engine: collect, install production dependencies alone, and run each role from
 * there as another user, who can't write to it: as the compose file says, and as the pods of the chart, which take over from each other.
 */
import { execFile, execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { chmod, lstat, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { RunStatus } from "@taskmesh/proto";
import { allSettings } from "@taskmesh/runtime";
import connect from "postgres";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { chart, type Manifest, render } from "../deploy/manifests.js";
import { type NatsFixture, startNats } from "../fixtures/nats.js";
import { startCollector } from "../fixtures/otlp-collector.js";
import { Pod } from "../fixtures/pods.js";
import { freePort, freePorts } from "../fixtures/ports.js";
import { type PostgresFixture, startPostgres } from "../fixtures/postgres.js";
import { ServerProcess, waitFor } from "../fixtures/process.js";
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
/** Keys of nats-server, as text. */
const keyText = (file: string): string => readFileSync(join(keys, file), "utf8");
let nats: NatsFixture;
let postgres: PostgresFixture;
const roles: ServerProcess[] = [];

/** Who the image runs as: not root, where root runs the test. */
const nobody = (): { uid?: number; gid?: number } => {
  if (userInfo().uid !== 0) return {};
  const id = (flag: string): number => Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" }));
  return { uid: id("-u"), gid: id("-g") };
};

function start([file = "", ...args]: readonly string[], env: Record<string, string>): ServerProcess {
  const { PATH, HOME } = process.env;
  const process_ = new ServerProcess(node, [join(app, file), ...args], {
    cwd: app,
    env: { PATH, HOME, NODE_ENV: "production", ...env },
    ...nobody(),
  });
  roles.push(process_);
  return process_;
}

/** What a container's health command says. */
const healthy = ([, , file, ...args]: readonly string[], env: Record<string, string>): Promise<boolean> =>
  run(node, [join(app, file ?? ""), ...args], { env: { ...process.env, ...env }, ...nobody() }).then(
    () => true,
    () => false,
  );

interface Role {
  command: string[];
  environment: Record<string, string>;
  read_only?: boolean;
  healthcheck: { test: string[] };
  stop_grace_period: string;
}
const composed = parse(readFileSync(join(root, "deploy/compose/compose.yaml"), "utf8"), { merge: true }) as {
  services: Record<string, Role>;
};
const ours = Object.entries(composed.services).filter(([, { command }]) => command?.[0]?.endsWith("main.js"));

/** Environments of the compose file's roles, with what is here in place of what a container has for itself. */
async function environments(names: Record<string, string>): Promise<Map<string, Record<string, string>>> {
  const listens = /^(?:0\.0\.0\.0|127\.0\.0\.1):(\d+)$/;
  const places = new Map(Object.entries(names));
  for (const [name, { environment }] of ours) {
    for (const value of Object.values(environment)) {
      const [, port] = listens.exec(value) ?? [];
      if (port) places.set(`${name}:${port}`, `127.0.0.1:${await freePort()}`);
    }
  }
  const here = (name: string, value: string): string => {
    const own = value.replace(listens, `${name}:$1`);
    return [...places].reduce((text, [from, to]) => text.replaceAll(from, to), own);
  };
  return new Map(
    ours.map(([name, { environment }]) => {
      const entries = Object.entries(environment).map(([variable, value]) => [variable, here(name, value)] as const);
      return [name, Object.fromEntries(entries)];
    }),
  );
}

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
});

describe("the compose file", () => {
  it("starts a mesh of roles that are healthy, serve, send spans and stop in time, by a user who can't write to them", async () => {
    const collector = await startCollector();
    const [nowhere] = await freePorts(1);
    const environment = await environments({
      [`\${TASKMESH_TOKEN:-only-for-trying-it-out}`]: token,
      "postgres://taskmesh:taskmesh@postgres:5432/taskmesh": await postgres.createDatabase(),
      // A worker takes the one that it can reach.
      "nats://nats:4222,nats://127.0.0.1:4222": `nats://127.0.0.1:${nowhere},${nats.url}`,
      "nats://nats:4222": nats.url,
      "/keys/": `${keys}/`,
      "http://otel-collector:4318": collector.url,
    });
    const begin = async (name: string): Promise<ServerProcess> => {
      const { command, healthcheck } = composed.services[name]!;
      const env = environment.get(name)!;
      const role = start(command, env);
      await role.ready(name, () => healthy(healthcheck.test, env), 60_000);
      return role;
    };
    expect(await healthy(composed.services["gateway"]!.healthcheck.test, environment.get("gateway")!)).toBe(false);
    const coordinators = await Promise.all(["coordinator-1", "coordinator-2"].map(begin));
    const [gateway, actions] = await Promise.all([begin("gateway"), begin("actions")]);
    expect(actions.output).not.toContain("RELAY");
    const http = environment.get("gateway")!["TASKMESH_HTTP_ADDRESS"];
    const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
    const answer = await fetch(`http://${http}/v1/taskmesh.text.v1.TextActions/Render`, {
      method: "POST",
      headers,
      body: JSON.stringify({ template: "hello {{who}}", values: { who: "image" } }),
    });
    expect(await answer.json()).toMatchObject({ text: "hello image" });
    for (const [name, env] of environment) {
      const served = env["TASKMESH_METRICS_ADDRESS"] ?? env["TASKMESH_WORKER_METRICS_ADDRESS"] ?? http;
      expect((await fetch(`http://${served}/metrics`, { headers })).status, name).toBe(200);
    }
    const graceMs = Number.parseInt(composed.services["gateway"]!.stop_grace_period, 10) * 1_000;
    const end = async (role: ServerProcess): Promise<void> => {
      role.signal("SIGTERM");
      await waitFor("the end of a role", () => role.ended, graceMs);
      expect(role.exitCode, role.output).toBe(0);
    };
    await Promise.all([gateway, actions].map(end));
    await Promise.all(coordinators.map(end));
    // The last ones are sent while it stops.
    for (const name of ["coordinator", "gateway", "worker"])
      expect(collector.received.join(), name).toContain(`taskmesh-${name}`);
    await collector.stop();
  }, 200_000);

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

describe("the chart's pods", () => {
  it("take over from those before them as in a rolling upgrade: no call is dropped and no attempt spent", async () => {
    const url = await postgres.createDatabase();
    const objects = await render("-f", join(chart, "ci/minimal.yaml"));
    const object = (kind: string, file: string): Manifest => {
      const found = objects.find((one) => one.kind === kind && JSON.stringify(one.spec).includes(`"args":["${file}"`));
      if (!found) throw new Error(`no ${kind} runs ${file}`);
      return found;
    };
    const grpcPorts = await freePorts(2);
    const coordinators = grpcPorts.map((port) => `127.0.0.1:${port}`).join();
    const release = (version: number, kind: string, role: string): Promise<Pod> => {
      const file = `${role}/dist/main.js`;
      return Pod.start(object(kind, file), {
        folder: join(work, `pod-${version}-${kind}-${role}`),
        run: start,
        secrets: {
          "taskmesh-token": { token },
          "taskmesh-database": { url },
          "taskmesh-nats": {
            "coordinator.creds": keyText("coordinator.creds"),
            "signing.seed": keyText("signing.seed"),
          },
        },
        names: {
          "nats://nats.infra:4222": nats.url,
          "mesh-1-taskmesh-coordinator-headless:7400": coordinators,
          "mesh-1-taskmesh-coordinator:7400": coordinators,
        },
        ports: { grpc: grpcPorts[version]! },
      });
    };
    const serving: Pod[] = [];
    const upgrade = async (role: string, before?: Pod): Promise<Pod> => {
      const next = await release(before ? 1 : 0, "Deployment", role);
      await next.ready();
      if (role === "gateway") serving.push(next);
      if (!before) return next;
      // Callers hear of its end a moment after it has begun.
      if (role === "gateway") setTimeout(() => serving.splice(serving.indexOf(before), 1), 1_000);
      expect(await before.retire(), `${role}: ${before.output}`).toBe(0);
      return next;
    };
    const roles = ["coordinator", "gateway", "actions"];
    const migrate = async (version: number): Promise<void> => {
      const job = await release(version, "Job", "coordinator");
      expect(await job.ended(), job.output).toBe(0);
    };
    await migrate(0);
    const old = await Promise.all(roles.map((role) => upgrade(role)));
    let isOver = false;
    const statuses: number[] = [];
    const caller = async (): Promise<void> => {
      for (let i = 0; !isOver; i++) {
        const address = serving[i % serving.length]!.address("http");
        const { status } = await fetch(`http://${address}/v1/taskmesh.time.v1.TimeActions/Delay`, {
          method: "POST",
          headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
          body: JSON.stringify({ duration: "0.2s" }),
        });
        statuses.push(status);
      }
    };
    const callers = Promise.all(Array.from({ length: 10 }, caller));
    callers.catch(() => {});
    await waitFor("the first calls", () => statuses.length > 10, 60_000);
    await migrate(1);
    await Promise.all(roles.map((role, i) => upgrade(role, old[i])));
    const before = statuses.length;
    await waitFor("calls to those that took over", () => statuses.length > before + 20, 60_000);
    isOver = true;
    await callers;
    // 202: the gateway stopped before the run was over, and told its id.
    expect(statuses.filter((status) => status !== 200 && status !== 202)).toEqual([]);
    const sql = connect(url, { max: 1, onnotice: () => {} });
    const live = async (): Promise<number> => (await sql`select 1 from runs where ended_at is null`).length;
    await waitFor("every run to end", async () => (await live()) === 0, 60_000, 200);
    const [made] = await sql`
      select count(*)::int as runs, count(*) filter (where status = ${RunStatus.RUN_STATUS_SUCCEEDED})::int as succeeded,
        (select max(attempt)::int from events) as attempts from runs`;
    await sql.end();
    expect(made).toEqual({ runs: statuses.length, succeeded: statuses.length, attempts: 1 });
  }, 200_000);
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

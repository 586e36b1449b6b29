/** `taskmesh doctor` and the coordinator's start, against good servers and against servers that are wrong on purpose. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { type Coordinator, createCoordinator } from "@taskmesh/coordinator";
import { ConfigError, coordinatorConfig, type Finding, setLogLevel } from "@taskmesh/runtime";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkNode, diagnose } from "../../cli/src/doctor.js";
import { type NatsFixture, startNats } from "../fixtures/nats.js";
import { freePort } from "../fixtures/ports.js";
import { type PostgresFixture, startPostgres } from "../fixtures/postgres.js";
import { waitFor } from "../fixtures/process.js";

const root = join(import.meta.dirname, "..", "..");
const weekMs = 7 * 24 * 3600 * 1000;
let nats: NatsFixture;
let server: PostgresFixture;
let sql: postgres.Sql;
let env: Record<string, string>;
let coordinator: Coordinator | undefined;

beforeAll(async () => {
  setLogLevel("silent");
  [nats, server] = await Promise.all([startNats(), startPostgres()]);
  const databaseUrl = await server.createDatabase();
  sql = postgres(databaseUrl, { max: 1, onnotice: () => {} });
  env = {
    DATABASE_URL: databaseUrl,
    NATS_URL: nats.url,
    TASKMESH_GRPC_ADDRESS: "127.0.0.1:0",
    TASKMESH_METRICS_ADDRESS: "off",
  };
});
afterAll(async () => {
  await coordinator?.stop();
  await sql?.end();
  await Promise.all([nats?.dispose(), server?.dispose()]);
});

const start = async (extra: Record<string, string> = {}): Promise<void> => {
  coordinator = createCoordinator(coordinatorConfig({ ...env, ...extra }));
  await coordinator.start();
};
const stop = async (): Promise<void> => {
  await coordinator?.stop();
  coordinator = undefined;
};

/** "area, check" of every finding of a level. */
const named = (findings: readonly Finding[], level: Finding["level"]): string[] =>
  findings.filter((one) => one.level === level).map(({ area, check }) => `${area}, ${check}`);

const failures = async (extra: Record<string, string> = {}): Promise<string[]> =>
  named(await diagnose({ ...env, ...extra }), "fail");

/** Changes settings of the server until the answer is called; undefined: as they were. */
async function setServer(settings: Record<string, string | undefined>): Promise<void> {
  for (const [name, value] of Object.entries(settings)) {
    await sql.unsafe(value === undefined ? `alter system reset ${name}` : `alter system set ${name} = '${value}'`);
  }
  await sql`select pg_reload_conf()`;
  await waitFor("the server to have read its configuration", async () => {
    for (const [name, value] of Object.entries(settings)) {
      const [row] = await sql`select current_setting(${name}) as now`;
      if (row?.["now"] !== (value ?? "on")) return false;
    }
    return true;
  });
}

const unsafe = { fsync: "off", full_page_writes: "off", synchronous_commit: "off" };
const reset = { fsync: undefined, full_page_writes: undefined, synchronous_commit: undefined };

describe("the doctor", () => {
  it("finds nothing wrong before the first start, and says that nothing is there yet", async () => {
    const findings = await diagnose(env);
    expect(named(findings, "fail")).toEqual([]);
    expect(findings.find(({ check }) => check === "schema")).toMatchObject({ level: "warn" });
    expect(await sql`select 1 from pg_class where relname = 'runs'`).toEqual([]);
  });

  it("finds nothing wrong with a mesh that works", async () => {
    await start();
    const findings = await diagnose(env);
    expect(named(findings, "fail")).toEqual([]);
    expect(findings.find(({ check }) => check === "live coordinators")).toMatchObject({ found: "1", level: "ok" });
    expect(named(findings, "ok")).toEqual(
      expect.arrayContaining([
        "postgres, fsync",
        "postgres, rights",
        "postgres, schema",
        "postgres, partitions",
        "clock, Postgres against this machine",
        "nats, stream TASKMESH_START",
        "nats, stream TASKMESH_DONE",
        "nats, consumers of TASKMESH_DONE",
      ]),
    );
    for (const finding of findings) expect(finding.level === "ok").toBe(finding.fix === undefined);
  });

  it("finds streams and consumers that are missing or changed", async () => {
    await stop();
    // A coordinator that lives by its row, and mends nothing.
    await sql`insert into coordinators (id, address, last_beat_at) values ('c0', 'nowhere', now() + interval '1 hour')`;
    const nc = await connect({ servers: nats.url });
    const jsm = await jetstreamManager(nc);
    await jsm.streams.delete("TASKMESH_START");
    await jsm.streams.add({ name: "TASKMESH_START", subjects: ["start.>"] });
    expect(await failures()).toEqual(["nats, stream TASKMESH_START", "nats, consumers of TASKMESH_DONE"]);
    await jsm.streams.delete("TASKMESH_DONE");
    expect(await failures()).toEqual(["nats, stream TASKMESH_START", "nats, stream TASKMESH_DONE"]);
    await jsm.streams.delete("TASKMESH_START");
    await nc.close();
    await sql`delete from coordinators`;
  });

  it("finds unsafe settings, missing rights, missing weeks and a schema that is behind", async () => {
    await setServer({ ...unsafe, autovacuum: "off" });
    expect(await failures()).toEqual([
      "postgres, autovacuum",
      "postgres, fsync",
      "postgres, full_page_writes",
      "postgres, synchronous_commit",
    ]);
    await setServer({ ...reset, autovacuum: undefined });
    await sql`create role stranger login`;
    await sql`grant usage on schema drizzle to stranger`;
    await sql`grant select on all tables in schema public, drizzle to stranger`;
    const stranger = env["DATABASE_URL"]!.replace("//postgres@", "//stranger@");
    expect(await failures({ DATABASE_URL: stranger })).toEqual(["postgres, rights"]);
    const week = Math.floor(Date.now() / weekMs) + 1;
    await sql.unsafe(`drop table runs_w${week}`);
    await sql`delete from drizzle.__drizzle_migrations where id = (select max(id) from drizzle.__drizzle_migrations)`;
    const findings = await diagnose(env);
    expect(named(findings, "fail")).toEqual(["postgres, schema"]);
    expect(named(findings, "warn")).toContain("postgres, partitions");
  });

  it("finds servers that are away, and every fault of the configuration", async () => {
    const port = await freePort();
    const away = { DATABASE_URL: `postgres://u:secret@127.0.0.1:${port}/d`, NATS_URL: `nats://127.0.0.1:${port}` };
    expect(await failures(away)).toEqual(["postgres, connection", "nats, connection"]);
    const faulty = { NATS_URL: "", TASKMESH_GRPC_ADDRESS: "0.0.0.0:7400", TASKMESH_URL: `http://127.0.0.1:${port}` };
    expect((await failures(faulty)).filter((one) => !one.startsWith("postgres"))).toEqual([
      "configuration, NATS_URL",
      "configuration, TASKMESH_GRPC_ADDRESS",
      "gateway, readiness",
    ]);
  });

  it.each([
    ["18.0.0", "fail"],
    ["20.19.9", "fail"],
    ["20.20.0", "warn"],
    ["24.0.0", "ok"],
  ])("takes Node %s for %s", (version, level) => {
    expect(checkNode(version)).toMatchObject([{ level }]);
  });

  it("is a command with exit codes, a table for people and JSON for programs", async () => {
    const port = await freePort();
    const args = ["--import", "tsx", "--conditions=@taskmesh/source", join(root, "cli/src/main.ts"), "doctor"];
    const run = (extra: string[]): Promise<{ code: number; out: string }> =>
      new Promise((resolve) => {
        const options = {
          cwd: root,
          env: { ...process.env, ...env, NATS_URL: `nats://127.0.0.1:${port}`, NO_COLOR: "1" },
        };
        execFile(process.execPath, [...args, ...extra], options, (error, out) =>
          resolve({ code: error === null ? 0 : Number(error.code), out }),
        );
      });
    const [text, json] = await Promise.all([run([]), run(["--json"])]);
    expect([text.code, json.code]).toEqual([1, 1]);
    expect(text.out).toContain("Start it, or correct NATS_URL");
    expect(JSON.parse(json.out)).toMatchObject({ ok: false });
  });
});

describe("the start of a coordinator", () => {
  it("is refused by a database that loses what it confirmed, unless that is allowed", async () => {
    env["DATABASE_URL"] = await server.createDatabase();
    await setServer(unsafe);
    const error = await start().catch((thrown: unknown) => thrown);
    await stop();
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).faults.map(({ problem }) => problem.split(" ")[0])).toEqual([
      "fsync",
      "full_page_writes",
      "synchronous_commit",
    ]);
    expect((error as Error).message).toContain("TASKMESH_ALLOW_UNSAFE_DATABASE=true");
    await start({ TASKMESH_ALLOW_UNSAFE_DATABASE: "true" });
    await stop();
    await setServer(reset);
    await start();
    await stop();
  });
});

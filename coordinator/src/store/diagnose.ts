/** Looks at a database without changing anything: what a coordinator needs there, and whether it is so. */
import { readdirSync } from "node:fs";
import { type Finding, findingsOf, type Lane } from "@taskmesh/runtime";
import type { Db } from "./db.js";
import { durabilityFaults, readDurability } from "./durability.js";
import { countMigrations, migrationsFolder } from "./migrate.js";
import { partitionsOf, weekMs } from "./partitions.js";
import { readLiveLanes } from "./registry.js";

/** What else of the mesh the database tells. */
export interface DatabaseDiagnosis {
  findings: Finding[];
  /** Ids of the live coordinators; undefined: it could not be read. */
  coordinators: string[] | undefined;
  /** Lanes with live workers. */
  lanes: Lane[];
}

type Add = ReturnType<typeof findingsOf>["add"];

/** Milliseconds that a clock may differ from the database's: nothing rests on it, but logs and ids get hard to read. */
const skewMaxMs = 1_000;
/** A coordinator beats every 2 s; one that is silent for longer than this is lapsed. */
const coordinatorTimeoutMs = 10_000;

/** Never rejects: what can't be looked at is a finding. */
export async function diagnoseDatabase(db: Db): Promise<DatabaseDiagnosis> {
  const { list, add } = findingsOf("postgres");
  const result: DatabaseDiagnosis = { findings: list, coordinators: undefined, lanes: [] };
  try {
    await checkServer(db, add);
    await checkDurability(db, add);
    list.push(await clockFinding(db));
    if (!(await checkSchema(db, add))) return { ...result, coordinators: [] };
    await checkRights(db, add);
    await checkPartitions(db, add);
    return { ...result, ...(await readMesh(db, list)) };
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error);
    add("connection", found, { level: "fail", fix: "Start the server, or correct DATABASE_URL." });
    return result;
  }
}

async function checkServer(db: Db, add: Add): Promise<void> {
  const [server] = await db.query<{
    number: number;
    version: string;
    recovering: boolean;
    connections: number;
    vacuum: string;
    tls: boolean;
    remote: boolean;
  }>(
    `select current_setting('server_version_num')::int as number, current_setting('server_version') as version,
      pg_is_in_recovery() as recovering, current_setting('max_connections')::int as connections,
      current_setting('autovacuum') as vacuum, coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false) as tls,
      coalesce(not (inet_client_addr() <<= '127.0.0.0/8' or inet_client_addr() = '::1'), false) as remote`,
  );
  if (!server) throw new Error("the database answered nothing");
  const old = { level: "fail", fix: "Install Postgres 15 or newer." } as const;
  add("version", `Postgres ${server.version}`, server.number < 150_000 && old);
  const standby = {
    level: "fail",
    fix: "Name the primary in DATABASE_URL (target_session_attrs, or your proxy's writer).",
  } as const;
  add(
    "role of the server",
    server.recovering ? "a standby that can't be written to" : "primary",
    server.recovering && standby,
  );
  const few = {
    level: "warn",
    fix: "A coordinator uses up to 13: raise max_connections to 13 a coordinator and some more.",
  } as const;
  add("max_connections", String(server.connections), server.connections < 30 && few);
  const bloat = { level: "fail", fix: "Turn autovacuum on: tables grow and slow down without end." } as const;
  add("autovacuum", server.vacuum, server.vacuum === "off" && bloat);
  const plain = server.remote && !server.tls;
  const encrypt = {
    level: "warn",
    fix: "Turn ssl on in Postgres and add sslmode=verify-full to DATABASE_URL.",
  } as const;
  add("encryption", plain ? "plain, to another machine" : server.tls ? "TLS" : "this machine alone", plain && encrypt);
}

async function checkDurability(db: Db, add: Add): Promise<void> {
  const settings = await readDurability(db);
  const faults = new Map(durabilityFaults(settings).map((fault) => [fault.setting, fault]));
  for (const [name, value] of Object.entries({
    fsync: settings.fsync,
    full_page_writes: settings.fullPageWrites,
    synchronous_commit: settings.synchronousCommit,
  })) {
    const fault = faults.get(name);
    add(name, value, fault && { level: "fail", fix: fault.fix });
  }
  const [standbys] = await db.query<{ names: string }>("select current_setting('synchronous_standby_names') as names");
  const names = standbys?.names ?? "";
  const weak = names !== "" && ["local", "remote_write"].includes(settings.synchronousCommit);
  const fix = "Set synchronous_commit = on: otherwise a failover may lose runs that were accepted.";
  add(
    "synchronous standbys",
    names || "none: the loss of the server's disk loses what no backup has",
    weak && { level: "warn", fix },
  );
}

/** The database's clock against this process's, to half of the time that the question took. */
async function clockFinding(db: Db): Promise<Finding> {
  const before = Date.now();
  const [row] = await db.query<{ now: number }>("select (extract(epoch from clock_timestamp()) * 1000)::float8 as now");
  const after = Date.now();
  const skewMs = Math.round((row?.now ?? 0) - (before + after) / 2);
  const { list, add } = findingsOf("clock");
  const fix = "Synchronise the clocks (NTP). Deadlines go by the database's, logs and traces by each machine's.";
  const off = Math.abs(skewMs) > skewMaxMs + (after - before) / 2;
  add("Postgres against this machine", `${skewMs} ms`, off && { level: "warn", fix });
  return list[0]!;
}

async function checkSchema(db: Db, add: Add): Promise<boolean> {
  const here = readdirSync(migrationsFolder).filter((file) => file.endsWith(".sql")).length;
  const there = await countMigrations(db);
  const found = `${there} of the ${here} migrations of this version`;
  if (there > here) {
    const fix =
      "A newer version has run here. One version apart is fine while you upgrade; finish it, or use the newer program.";
    add("schema", `${there} migrations; this version knows ${here}`, { level: "warn", fix });
  } else if (there < here) {
    const fix = "Start a coordinator of this version, or run it with the argument migrate.";
    add("schema", found, { level: there === 0 ? "warn" : "fail", fix });
  } else add("schema", found);
  return there > 0;
}

async function checkRights(db: Db, add: Add): Promise<void> {
  const [row] = await db.query<{ owner: boolean; create: boolean; write: boolean }>(
    `select pg_has_role(current_user, c.relowner, 'member') as owner, has_schema_privilege(c.relnamespace, 'create') as create,
      has_table_privilege(c.oid, 'select, insert, update, delete') as write from pg_class c where c.oid = 'runs'::regclass`,
  );
  const lacking = Object.entries({
    "ownership of the tables": row?.owner,
    "create in the schema": row?.create,
    "writing to runs": row?.write,
  })
    .filter(([, has]) => !has)
    .map(([right]) => right);
  const fix =
    "Connect as the role that made the tables, or grant it: weeks of partitions are made and dropped all the time.";
  add(
    "rights",
    lacking.length > 0 ? `lacks ${lacking.join(", ")}` : "all that is needed",
    lacking.length > 0 && { level: "fail", fix },
  );
}

async function checkPartitions(db: Db, add: Add): Promise<void> {
  const { runs, events } = await partitionsOf(db);
  const week = Math.floor(Date.now() / weekMs);
  const missing = [week, week + 1].filter((one) => !(runs.has(one) && events.has(one)));
  const fix =
    "A live coordinator makes them every six hours: see its log. Runs go to the default partition meanwhile, which is never dropped.";
  const found =
    missing.length > 0
      ? `none for ${missing.length === 2 ? "this week and the next" : "a week that is near"}`
      : `${runs.size} weeks`;
  add("partitions", found, missing.length > 0 && { level: "warn", fix });
}

async function readMesh(db: Db, list: Finding[]): Promise<Pick<DatabaseDiagnosis, "coordinators" | "lanes">> {
  const mesh = findingsOf("mesh");
  const rows = await db.query<{ id: string; live: boolean }>(
    "select id, last_beat_at >= now() - $1::float8 * interval '1 millisecond' as live from coordinators order by id",
    [coordinatorTimeoutMs],
  );
  const coordinators = rows.filter(({ live }) => live).map(({ id }) => id);
  const lanes = await readLiveLanes(db);
  const none = { level: "warn", fix: "Start a coordinator." } as const;
  mesh.add("live coordinators", String(coordinators.length), coordinators.length === 0 && none);
  const idle = { level: "warn", fix: "Start a worker: runs wait until one serves their actions." } as const;
  mesh.add(
    "task queues with live workers",
    String(new Set(lanes.map(({ queueId }) => queueId)).size),
    lanes.length === 0 && idle,
  );
  list.push(...mesh.list);
  return { coordinators, lanes };
}

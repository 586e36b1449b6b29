/** Whether the database keeps what it confirms: everything that the mesh promises rests on it. */
import { ConfigError, type ConfigFault } from "@taskmesh/runtime";
import type { Db } from "./db.js";

/** The server's settings as sessions of this role see them. */
export interface DurabilitySettings {
  fsync: string;
  fullPageWrites: string;
  synchronousCommit: string;
}

export async function readDurability(db: Db): Promise<DurabilitySettings> {
  const [row] = await db.query<DurabilitySettings>(
    `select current_setting('fsync') as fsync, current_setting('full_page_writes') as "fullPageWrites",
      current_setting('synchronous_commit') as "synchronousCommit"`,
  );
  if (!row) throw new Error("the database answered nothing");
  return row;
}

const fix = "Turn it on in the server's configuration";

/** Settings with which commits that were confirmed can be lost or files torn, when the server or its machine dies. */
export function durabilityFaults(settings: DurabilitySettings): { setting: string; problem: string; fix: string }[] {
  const { fsync, fullPageWrites, synchronousCommit } = settings;
  const faults = [];
  if (fsync === "off") {
    const problem = "fsync is off: a power cut or a crash of the machine can destroy the whole database";
    faults.push({ setting: "fsync", problem, fix: `${fix} (fsync = on).` });
  }
  if (fullPageWrites === "off") {
    const problem = "full_page_writes is off: a power cut can tear pages that no recovery mends";
    faults.push({ setting: "full_page_writes", problem, fix: `${fix} (full_page_writes = on).` });
  }
  if (synchronousCommit === "off") {
    const problem = "synchronous_commit is off: a crash of the server loses runs that were accepted";
    const roles = "or of this role or database (alter role … reset synchronous_commit)";
    faults.push({ setting: "synchronous_commit", problem, fix: `${fix}, ${roles}.` });
  }
  return faults;
}

/**
 * Refuses a database that may lose what it confirmed, unless that is allowed. Embedded databases pass: they promise less.
 * @throws ConfigError with every such setting.
 */
export async function refuseUnsafe(db: Db, allowed: boolean): Promise<void> {
  if (db.kind !== "postgres" || allowed) return;
  const faults = durabilityFaults(await readDurability(db)).map(
    ({ problem, fix }): ConfigFault => ({
      variable: "DATABASE_URL",
      problem,
      fix: `${fix} Where the data may be lost: TASKMESH_ALLOW_UNSAFE_DATABASE=true.`,
    }),
  );
  if (faults.length > 0) throw new ConfigError(faults);
}

/**
 * What dropped weeks leave behind in other tables, found by what is stored alone: so a round that was cut off anywhere is finished by
 * the next one.
 */
import type { Db } from "./db.js";
import { uuidAt } from "./partitions.js";
import { slackMs } from "./payload-uses.js";
import { sideTables } from "./retention-weeks.js";

/** Rows that one statement deletes. */
const rowsMax = 5_000;

/** Deletes rows of runs that are gone; `beforeMs`: when the oldest week that is left began. Answers how many, at most a batch. */
export async function deleteOrphans(db: Db, table: OrphanTable, beforeMs: number): Promise<number> {
  // Runs of before are all in the default partition, so no other is looked at.
  const rows = await db.query(
    `delete from ${table} where ctid = any(array(
       select t.ctid from ${table} t where t.run_id < $1::uuid
         and not exists (select from runs_default r where r.id = t.run_id) limit ${rowsMax}))
     returning 1 as one`,
    [uuidAt(beforeMs)],
  );
  return rows.length;
}

export const orphanTables = ["events_default", ...sideTables] as const;
export type OrphanTable = (typeof orphanTables)[number];

/** Deletes idempotency keys that have expired. Answers how many, at most a batch. */
export async function deleteExpiredKeys(db: Db): Promise<number> {
  // Locked before they are deleted: a start may be taking an expired key over.
  const rows = await db.query(
    `delete from idempotency_keys where ctid = any(array(
       select ctid from idempotency_keys where expires_at < now() order by expires_at limit ${rowsMax} for update skip locked))
     returning 1 as one`,
  );
  return rows.length;
}

/** Payloads that one statement deletes, with up to 64 chunks each. */
const payloadsMax = 50;
/** Rows of the default partitions that are searched at a time. */
const searchedMax = 1_000;

/**
 * Deletes payloads that were last used before the oldest week that is left, but for those that a run names which was moved out of its week:
 * no other history can name them (U2 of payload-uses.ts). Answers how many.
 */
export async function deleteUnusedPayloads(db: Db, beforeMs: number, signal: AbortSignal): Promise<number> {
  const before = beforeMs - slackMs;
  const unused = "reference is not null and used_at < to_timestamp($1::float8 / 1000)";
  const [any] = await db.query(`select 1 as one from payloads where ${unused} limit 1`, [before]);
  if (!any) return 0;
  for await (const references of namedReferences(db, beforeMs)) {
    if (signal.aborted) return 0;
    // What still is named counts as used now, so it is not searched for again for weeks.
    await db.query(
      `update payloads set used_at = now() where ${unused} and reference = any(string_to_array($2::text, ','))`,
      [before, references.join(",")],
    );
  }
  let deleted = 0;
  for (let count = payloadsMax; count === payloadsMax && !signal.aborted; deleted += count) {
    const rows = await db.query(
      `delete from payloads where id in (
         select id from payloads where ${unused} order by used_at limit ${payloadsMax} for update skip locked)
       returning 1 as one`,
      [before],
    );
    count = rows.length;
  }
  return deleted;
}

/** References are SHA-256 in hex; whatever looks like one counts. */
const referenceForm = /(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])/g;

/** All references that runs of the default partitions name, a page of rows at a time. */
async function* namedReferences(db: Db, before: number): AsyncGenerator<string[]> {
  // An envelope with a reference is short. Of the open items, only those of runs that were moved.
  const short = (column: string): string => `octet_length(${column}) < 1024`;
  const sources = [
    { table: "events_default", key: ["run_id::uuid", "seq::int"], bytes: "payload", where: short("payload") },
    { table: "runs_default", key: ["id::uuid"], bytes: "state", where: "wakeup_at is not null" },
    {
      table: "step_items",
      key: ["run_id::uuid", "step::int", "item::int"],
      bytes: "input",
      where: `${short("input")} and run_id < '${uuidAt(before)}'::uuid`,
    },
  ];
  for (const source of sources) {
    for (let after: string[] | undefined = firstKey.slice(0, source.key.length); after; ) {
      const page = await readPage(db, source, after);
      if (page.references.length > 0) yield page.references;
      after = page.next;
    }
  }
}

const firstKey = ["00000000-0000-0000-0000-000000000000", "-1", "-1"];

async function readPage(
  db: Db,
  { table, key, bytes, where }: { table: string; key: string[]; bytes: string; where: string },
  after: string[],
): Promise<{ references: string[]; next: string[] | undefined }> {
  const columns = key.map((column) => column.slice(0, column.indexOf("::"))).join(", ");
  const behind = key.map((column, i) => `$${i + 1}::text${column.slice(column.indexOf("::"))}`).join(", ");
  const rows = await db.query<{ key: string; bytes: Uint8Array }>(
    `select concat_ws(' ', ${columns}) as key, ${bytes} as bytes from ${table}
      where (${columns}) > (${behind}) and ${where} order by ${columns} limit ${searchedMax}`,
    after,
  );
  const found = new Set(rows.flatMap((row) => Buffer.from(row.bytes).toString("latin1").match(referenceForm) ?? []));
  const next = rows.length === searchedMax ? rows.at(-1)?.key.split(" ") : undefined;
  return { references: [...found], next };
}

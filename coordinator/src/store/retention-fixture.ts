/** For tests of retention: weeks of the past with runs in them. */
import { randomBytes } from "node:crypto";
import { childSession } from "../engine/children.js";
import type { Value } from "../engine/plan.js";
import { planOf, type RunBench } from "../engine/plan-fixture.js";
import type { Database, Db } from "./db.js";
import { makePartition, partitionsOf, weekMs } from "./partitions.js";
import { createPayloadUses } from "./payload-uses.js";
import { putPayload } from "./payloads.js";
import { type Retained, type RetainOptions, retain } from "./retention.js";
import { commit, idAt, newRun, writeOf } from "./store-fixture.js";

const plan = planOf({ a: {} });

/** Now, and instants before it, in milliseconds. */
export const nowMs = Date.now();
export const weeksAgo = (weeks: number): number => nowMs - weeks * weekMs;

/** An empty mesh with partitions for these weeks, and the namespace `slow` (id 2) that keeps its runs for 400 days. */
export async function makePast(db: Db, weeks: readonly number[]): Promise<void> {
  for (const table of ["runs", "events", "payloads", "bindings", "attempt_logs", "idempotency_keys", "chores"])
    await db.query(`delete from ${table}`);
  await db.query("insert into namespaces (id, name, retention_days) values (2, 'slow', 400) on conflict do nothing");
  const known = await partitionsOf(db);
  for (const table of ["runs", "events"] as const) {
    const wanted = new Set(weeks.map((ago) => Math.floor(weeksAgo(ago) / weekMs)));
    for (const week of wanted) if (!known[table].has(week)) await makePartition(db, table, week);
  }
}

export interface PastRun {
  namespaceId?: number;
  /** Default true. */
  ended?: boolean;
  /** Its input, by reference. */
  input?: Value;
}

/** Stores a run that was accepted so many weeks ago and, unless it lives, ended then; with a log. */
export async function pastRun(db: Db, weeks: number, options: PastRun = {}): Promise<RunBench> {
  const at = weeksAgo(weeks);
  const { namespaceId = 1, ended = true, input } = options;
  const bench = newRun(plan, { id: idAt(at), nowMs: at, namespaceId, ...(input ? { input } : {}) });
  const writes = [writeOf(bench)];
  await createPayloadUses(db)({ coordinatorId: "c1", writes, batchNo: 0, pending: [], confirmed: [] });
  await commit(db, writes);
  await db.query(
    "insert into attempt_logs (run_id, step, item, attempt, lines) values ($1::uuid, 0, 0, 1, '\\x01'::bytea)",
    [bench.run.id],
  );
  if (ended) {
    bench.complete("a", "done");
    await commit(db, [writeOf(bench)]);
  }
  return bench;
}

/** Makes a stored run the one that a step of `parent` waits for. */
export async function waitFor(db: Db, parent: RunBench, child: RunBench): Promise<void> {
  await db.query(
    `insert into bindings (run_id, step, item, step_id, attempt, lease, session_id, started_at)
      values ($1::uuid, 0, 0, 'a', 1, $2::text, '${childSession}', now())`,
    [parent.run.id, child.run.id],
  );
}

/** A large payload that was put so many weeks ago. */
export async function pastPayload(db: Db, weeks: number): Promise<Value> {
  const bytes = randomBytes(1_000);
  const reference = await putPayload(db, 1, bytes);
  await db.query("update payloads set used_at = to_timestamp($1::float8 / 1000) where reference = $2::text", [
    weeksAgo(weeks),
    reference,
  ]);
  return { contract: "c", sizeBytes: bytes.length, sha256: Buffer.from(reference, "hex"), reference };
}

/** One round of retention, now. */
export const round = (db: Db, options: Partial<RetainOptions> = {}): Promise<Retained> =>
  retain(db, { nowMs, signal: new AbortController().signal, ...options });

/** Ids of the runs that are stored, and of those that rows of other tables name. */
export async function stored(db: Db): Promise<{ runs: string[]; events: string[]; logs: string[]; weeks: string[] }> {
  const ids = async (text: string): Promise<string[]> => (await db.query<{ id: string }>(text)).map(({ id }) => id);
  return {
    runs: await ids("select id::text as id from runs order by 1"),
    events: await ids("select distinct run_id::text as id from events order by 1"),
    logs: await ids("select run_id::text as id from attempt_logs order by 1"),
    weeks: await ids("select relname::text as id from pg_class where relname ~ '^(runs|events)_w[0-9]+$' order by 1"),
  };
}

/** The database, but its n-th statement from now on fails, and all behind it: what a process that is killed there asked for. */
export function cutAfter(db: Database, statements: number): Database {
  let left = statements;
  const wrap = <T extends Db>(inner: T): T => ({
    ...inner,
    query: async (text: string, params?: readonly unknown[]) => {
      if (left-- <= 0) throw new Error("cut off");
      return inner.query(text, params);
    },
    transaction: <R>(work: (tx: Db) => Promise<R>) => inner.transaction((tx) => work(wrap(tx))),
  });
  return wrap(db);
}

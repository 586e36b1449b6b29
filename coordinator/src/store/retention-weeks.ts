/**
 * Takes runs away whose namespace has kept them long enough.
 *
 * A run is *over due* when it ended before its namespace's retention began, and no step waits for it as its child. A week of partitions in
 * which few other runs are left is dropped: those are moved to the default partition in the same transaction. A week with more of them
 * loses its over due runs in batches instead.
 *
 * D1. A run that is live, kept or waited for is never deleted, whatever happens at the same time: a drop reads the live runs under
 *     the lock that it moves them under, and keeps every run that its scan did not find over due.
 * D2. What is written to a week that goes meanwhile fails (42P01) and is written again by the partitioned tables' names.
 */
import { childSession } from "../engine/children.js";
import { arrayOf, type Db } from "./db.js";
import { partitionsOf } from "./partitions.js";

/** A week that has partitions, and their names. */
export interface Week {
  week: number;
  runs: string;
  events: string;
}

/** Days by namespace, as text that changes with any of them. */
export async function readPolicy(db: Db): Promise<{ text: string; daysMin: number }> {
  const [row] = await db.query<{ text: string; min: number }>(
    "select string_agg(id || ':' || retention_days, ',' order by id) as text, min(retention_days) as min from namespaces",
  );
  return { text: row?.text ?? "", daysMin: row?.min ?? Number.POSITIVE_INFINITY };
}

/** The weeks that have partitions, oldest first. Both tables have one or none has: strays of a week are in both defaults (partitions.ts). */
export async function readWeeks(db: Db): Promise<Week[]> {
  const { runs, events } = await partitionsOf(db);
  return [...runs]
    .filter((week) => events.has(week))
    .sort((a, b) => a - b)
    .map((week) => ({ week, runs: `runs_w${week}`, events: `events_w${week}` }));
}

/** Runs that one look reads. */
const pageMax = 5_000;

/** A page of the runs of a table behind $2, by id, and whether each is over due at $1 (now in milliseconds). */
const pageOf = (table: string): string => `page as materialized (
  select r.id, r.last_seq, coalesce(b.lease is null
    and r.ended_at < to_timestamp($1::float8 / 1000) - n.retention_days * interval '24 hours', false) as due
  from (select * from ${table} where id > $2::uuid order by id limit ${pageMax}) r
  join namespaces n on n.id = r.namespace_id
  left join bindings b on b.session_id = '${childSession}' and b.lease = r.id::text)`;

/** Runs of a table that are not over due, at most `max` + 1; the look ends there. */
export async function keptRuns(db: Db, table: string, nowMs: number, max: number): Promise<string[]> {
  const kept: string[] = [];
  for (let after = firstId; kept.length <= max; ) {
    const [page] = await db.query<{ last: string | null; kept: string | null }>(
      `with ${pageOf(table)}
       select (select id::text from page order by id desc limit 1) as last,
         (select string_agg(id::text, ',') from (select id from page where not due order by id limit $3::int) k) as kept`,
      [nowMs, after, max + 1],
    );
    if (!page?.last) return kept;
    if (page.kept) kept.push(...page.kept.split(","));
    after = page.last;
  }
  return kept.slice(0, max + 1);
}

const firstId = "00000000-0000-0000-0000-000000000000";

/** Whether these runs have at most `max` history rows. */
export async function historyFits(db: Db, table: string, ids: readonly string[], max: number): Promise<boolean> {
  if (ids.length === 0) return true;
  const [row] = await db.query<{ n: number }>(
    `select count(*)::int as n from (select from ${table} where run_id = any($1::uuid[]) limit $2::int) e`,
    [arrayOf(ids), max + 1],
  );
  return (row?.n ?? 0) <= max;
}

/** Others wait behind this lock while it is waited for. */
const lockTimeoutMs = 1_000;

/**
 * Drops a week; the runs `kept` and all that live are moved. False: something changed since the week was looked at, look again.
 * Rejects with 55P03 when the tables are busy.
 */
export async function dropWeek(
  db: Db,
  { week, runs, events }: Week,
  { kept, policy }: { kept: readonly string[]; policy: string },
): Promise<{ moved: number } | undefined> {
  return db.transaction(async (tx) => {
    await tx.query(`set local lock_timeout = ${lockTimeoutMs}`);
    // No namespace keeps its runs for longer from here to the end of the transaction.
    await tx.query("select from namespaces order by id for share");
    if ((await readPolicy(tx)).text !== policy) return undefined;
    // Of the parents alone: commits to this week's successors go on, what reads by the parents' names waits.
    await tx.query("lock table only runs, only events in access exclusive mode");
    if (!(await readWeeks(tx)).some((one) => one.week === week)) return undefined;
    const live = await tx.query<{ id: string }>(`select id::text as id from ${runs} where wakeup_at is not null`);
    const ids = arrayOf([...new Set([...kept, ...live.map(({ id }) => id)])]);
    for (const [table, part, id] of [
      ["runs", runs, "id"],
      ["events", events, "run_id"],
    ] as const) {
      await tx.query(`alter table ${table} detach partition ${part}`);
      await tx.query(`insert into ${table} select * from ${part} where ${id} = any($1::uuid[])`, [ids]);
      await tx.query(`drop table ${part}`);
    }
    return { moved: ids === "{}" ? 0 : ids.split(",").length };
  });
}

/** Runs and history rows that one transaction deletes; a run with a longer history goes alone. */
const deletedRunsMax = 500;
const deletedEventsMax = 20_000;

/** Everything but history that names a run. */
export const sideTables = [
  "attempt_logs",
  "attempt_reports",
  "step_items",
  "ready_steps",
  "bindings",
  "assignments",
  "assignment_claims",
  "run_successors",
  "custom_ids",
] as const;

/**
 * Deletes a batch of over due runs of a table, in id order from behind `afterId`. `next`: where to go on, undefined behind the last run.
 */
export async function deleteRuns(
  db: Db,
  { runs, events }: Pick<Week, "runs" | "events">,
  nowMs: number,
  afterId: string = firstId,
): Promise<{ deleted: number; next: string | undefined }> {
  return db.transaction(async (tx) => {
    const rows = await tx.query<{ id: string; last: string; rest: boolean }>(
      `with ${pageOf(runs)},
       due as materialized (
         select id, row_number() over w as no, sum(last_seq) over w as events from page where due window w as (order by id)),
       gone as (
         delete from ${runs} t using due
         where t.id = due.id and (due.no = 1 or (due.no <= ${deletedRunsMax} and due.events <= ${deletedEventsMax})) returning t.id)
       select gone.id::text as id, (select id::text from page order by id desc limit 1) as last,
         (select count(*) from due) > (select count(*) from gone) as rest
       from (select 1) one left join gone on true`,
      [nowMs, afterId],
    );
    const ids = rows.flatMap(({ id }) => id ?? []);
    if (ids.length > 0) {
      for (const table of [events, ...sideTables])
        await tx.query(`delete from ${table} where run_id = any($1::uuid[])`, [arrayOf(ids)]);
    }
    const [first] = rows;
    return { deleted: ids.length, next: first?.rest ? afterId : (first?.last ?? undefined) };
  });
}

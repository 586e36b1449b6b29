/** Sections of a commit that only operated or BROKEN runs have (see commit.ts). */
import type { Effect } from "../engine/run-event.js";
import type { RunWrite } from "./commit.js";
import type { Section } from "./commit-parts.js";
import { arrayOf, textArray } from "./db.js";

/** Whether a write changes the columns `priority` and `labels`. */
const changesColumns = ({ effects }: RunWrite): boolean => effects.some(({ kind }) => kind === "columns");

/** Columns that an update sets beside those of every one. */
export interface MoreColumns {
  params: unknown[];
  /** Of the parameters, numbered from `first`. */
  types(first: number): string;
  names: string;
  sets: string;
}

/** The columns `priority` and `labels`, if one of the writes changes them. */
export function changedColumns(writes: readonly RunWrite[]): MoreColumns | undefined {
  if (!writes.some(changesColumns)) return undefined;
  return {
    params: [
      arrayOf(writes.map((write) => (changesColumns(write) ? write.run.priority : null))),
      textArray(writes.map((write) => (changesColumns(write) ? JSON.stringify(write.run.labels) : null))),
    ],
    types: (first) => `, $${first}::smallint[], $${first + 1}::text[]`,
    names: ", priority, labels",
    sets: ", priority = coalesce(u.priority, r.priority), labels = coalesce(u.labels::jsonb, r.labels)",
  };
}

type BrokenEffect = Extract<Effect, { kind: "broken" | "mended" }>;

/** What the batch leaves of each run's row in broken_runs: its last word counts. */
function lastWords(writes: readonly RunWrite[]): { write: RunWrite; effect: BrokenEffect }[] {
  return writes.flatMap((write) => {
    const effect = write.effects.findLast((e): e is BrokenEffect => e.kind === "broken" || e.kind === "mended");
    return effect ? [{ write, effect }] : [];
  });
}

/** Rows of runs that broke. */
export function brokenRows(writes: readonly RunWrite[]): Section | undefined {
  const rows = lastWords(writes).flatMap(({ write, effect }) => (effect.kind === "broken" ? [{ write, effect }] : []));
  if (rows.length === 0) return undefined;
  return {
    name: "broke",
    params: [
      arrayOf(rows.map(({ write }) => write.run.id)),
      arrayOf(rows.map(({ write }) => write.run.namespaceId)),
      textArray(rows.map(({ write }) => write.method)),
      textArray(rows.map(({ effect }) => effect.step.method)),
      textArray(rows.map(({ effect }) => effect.step.id)),
      textArray(rows.map(({ effect }) => effect.reason)),
      arrayOf(rows.map(({ write }) => write.run.nowMs)),
      textArray(rows.map(({ write }) => write.run.starter ?? null)),
    ],
    sql: (n) => `broke as (
  insert into broken_runs (run_id, namespace_id, method, action, step_id, reason, broken_at, starter)
  select b.run_id, b.namespace_id, b.method, b.action, b.step_id, b.reason, to_timestamp(b.at / 1000), b.starter
  from unnest($${n}::uuid[], $${n + 1}::int[], $${n + 2}::text[], $${n + 3}::text[], $${n + 4}::text[], $${n + 5}::text[],
    $${n + 6}::float8[], $${n + 7}::text[]) as b(run_id, namespace_id, method, action, step_id, reason, at, starter)
  where b.run_id in (select id from ok)
  on conflict (run_id) do update set action = excluded.action, step_id = excluded.step_id, reason = excluded.reason,
    broken_at = excluded.broken_at)`,
  };
}

/** Rows of runs that are BROKEN no more. */
export function mendedRows(writes: readonly RunWrite[]): Section | undefined {
  const rows = lastWords(writes).filter(({ effect }) => effect.kind === "mended");
  if (rows.length === 0) return undefined;
  return {
    name: "mended",
    params: [arrayOf(rows.map(({ write }) => write.run.id))],
    sql: (n) => `mended as (
  delete from broken_runs b using unnest($${n}::uuid[]) as x(run_id)
  where b.run_id = x.run_id and x.run_id in (select id from ok))`,
  };
}

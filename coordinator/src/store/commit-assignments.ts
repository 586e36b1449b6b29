/** The part of a batch that keeps people's inboxes: a row an open assignment, and one for whoever has claimed it. */
import type { Effect } from "../engine/run-event.js";
import type { RunWrite } from "./commit.js";
import type { Section } from "./commit-parts.js";
import { lastEffects, removal } from "./commit-places.js";
import { arrayOf, textArray } from "./db.js";

const kinds: readonly Effect["kind"][] = ["assign", "unassign", "take", "give-back"];

/** Sections of the statement; none in nearly every batch. */
export function assignmentSections(writes: RunWrite[]): (Section | undefined)[] {
  if (!writes.some(({ effects }) => effects.some(({ kind }) => kinds.includes(kind)))) return [];
  return [
    opened(writes),
    removal("closed_assignments", "assignments", lastEffects(writes, "unassign")),
    taken(writes),
    removal("given_back", "assignment_claims", lastEffects(writes, "give-back")),
  ];
}

function opened(writes: RunWrite[]): Section | undefined {
  const rows = lastEffects(writes, "assign");
  if (rows.length === 0) return undefined;
  return {
    name: "opened",
    params: [
      arrayOf(rows.map(({ run }) => run.id)),
      arrayOf(rows.map(({ effect }) => effect.step.index)),
      arrayOf(rows.map(({ run }) => run.namespaceId)),
      textArray(rows.map(({ effect }) => effect.step.id)),
      textArray(rows.map(({ effect }) => effect.step.contract)),
      textArray(rows.map(({ effect }) => JSON.stringify(effect.terms))),
      arrayOf(rows.map(({ effect }) => effect.openedAtMs)),
      arrayOf(rows.map(({ effect }) => effect.dueAtMs || null)),
    ],
    sql: (n) => `opened as (
  insert into assignments (run_id, step, item, namespace_id, step_id, contract, terms, opened_at, due_at)
  select o.run_id, o.step, 0, o.namespace_id, o.step_id, o.contract, o.terms::jsonb, to_timestamp(o.opened / 1000), to_timestamp(o.due / 1000)
  from unnest($${n}::uuid[], $${n + 1}::smallint[], $${n + 2}::int[], $${n + 3}::text[], $${n + 4}::text[], $${n + 5}::text[],
    $${n + 6}::float8[], $${n + 7}::float8[]) as o(run_id, step, namespace_id, step_id, contract, terms, opened, due)
  where o.run_id in (select id from ok)
  on conflict (run_id, step, item) do update set terms = excluded.terms, opened_at = excluded.opened_at, due_at = excluded.due_at)`,
  };
}

function taken(writes: RunWrite[]): Section | undefined {
  const rows = lastEffects(writes, "take");
  if (rows.length === 0) return undefined;
  return {
    name: "taken",
    params: [
      arrayOf(rows.map(({ run }) => run.id)),
      arrayOf(rows.map(({ effect }) => effect.step.index)),
      textArray(rows.map(({ effect }) => effect.person)),
    ],
    sql: (n) => `taken as (
  insert into assignment_claims (run_id, step, item, person)
  select t.run_id, t.step, 0, t.person from unnest($${n}::uuid[], $${n + 1}::smallint[], $${n + 2}::text[]) as t(run_id, step, person)
  where t.run_id in (select id from ok)
  on conflict (run_id, step, item) do update set person = excluded.person)`,
  };
}

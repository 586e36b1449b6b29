/** SQL about runs that steps started: the rows of `bindings` that name a child instead of a session. */
import { EventKind } from "@taskmesh/proto";
import { childSession } from "../engine/children.js";
import type { Db } from "./db.js";

/** A step whose current attempt is a run. */
export interface ChildRow {
  runId: string;
  stepId: string;
  /** Of a fan-out. */
  item: number;
  attempt: number;
  childId: string;
  /** Whether the child is stored. */
  started: boolean;
  ended: boolean;
}

/** Whether the run is stored. */
export async function runExists(db: Db, runId: string): Promise<boolean> {
  const rows = await db.query("select 1 from runs where id = $1::uuid", [runId]);
  return rows.length > 0;
}

/** A page of steps that have waited for a child for `oldMs`, by child; `children` that run are among them. */
export function readChildren(
  db: Db,
  page: { oldMs: number; afterChildId: string; limit: number },
): Promise<ChildRow[]> {
  // Materialized, so that no other lease is ever read as an id.
  return db.query<ChildRow>(
    `with c as materialized (
       select b.run_id, b.step_id, b.item, b.attempt, b.lease from bindings b
       where b.session_id = '${childSession}' and b.lease > $2::text
         and b.started_at < now() - $1::float8 * interval '1 millisecond' order by b.lease limit $3::int)
     select c.run_id::text as "runId", c.step_id as "stepId", c.item, c.attempt, c.lease as "childId",
       r.id is not null as started, r.ended_at is not null as ended
     from c left join runs r on r.id = c.lease::uuid order by c.lease`,
    [page.oldMs, page.afterChildId, page.limit],
  );
}

/**
 * A page of the runs that items of a fan-out step began, that live, and that no attempt is any more, by id. `bindings` names those that one is;
 * the history all that ever began.
 */
export async function readLeftChildren(
  db: Db,
  page: { runId: string; step: number; afterChildId: string; limit: number },
): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    `with begun as materialized (
       select convert_from(e.body, 'UTF8')::jsonb->>'n' as id from events e
       where e.run_id = $1::uuid and e.step = $2::smallint and e.kind = ${EventKind.EVENT_KIND_CHILD_STARTED})
     select c.id from begun c join runs r on r.id = c.id::uuid
     where r.ended_at is null and c.id > $3::text
       and not exists (select 1 from bindings b where b.run_id = $1::uuid and b.step = $2::smallint and b.lease = c.id)
     order by c.id limit $4::int`,
    [page.runId, page.step, page.afterChildId, page.limit],
  );
  return rows.map(({ id }) => id);
}

/**
 * A child is stored only while its step's attempt names it. The row is locked, so that a parent which lets go of it at the same time waits, and
 * then finds the child to stop.
 */
export const wantedChildren = `
wanted as materialized (
  select b.lease::uuid as id from bindings b join n on n.parent = b.run_id and n.id::text = b.lease for share of b),`;

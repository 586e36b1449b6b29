/**
 * What the mesh does now and then, one coordinator at a time, by a claim with an end: one that dies leaves its claim to the next.
 *
 * A claim spares others the same work. It is no lock: a holder that was paused may go on beside the next one, so what a chore
 * does must bear that.
 */
import type { Db } from "./db.js";

/** Takes the chore if it is due, for `holdMs`; false: it is not, or another holds it. */
export async function claimChore(db: Db, name: string, holder: string, holdMs: number): Promise<boolean> {
  const rows = await db.query(
    `insert into chores as c (name, holder, due_at)
      values ($1::text, $2::text, clock_timestamp() + $3::float8 * interval '1 millisecond')
    on conflict (name) do update set holder = excluded.holder, due_at = excluded.due_at where c.due_at <= clock_timestamp()
    returning 1 as one`,
    [name, holder, holdMs],
  );
  return rows.length > 0;
}

/** Holds a claimed chore for `holdMs` from now, or makes it due after that long when it is done; false: another has it by now. */
export async function holdChore(db: Db, name: string, holder: string, holdMs: number): Promise<boolean> {
  const rows = await db.query(
    `update chores set due_at = clock_timestamp() + $3::float8 * interval '1 millisecond'
      where name = $1::text and holder = $2::text returning 1 as one`,
    [name, holder, holdMs],
  );
  return rows.length > 0;
}

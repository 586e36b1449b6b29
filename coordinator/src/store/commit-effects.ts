/** Sections of a commit about its effects (see commit.ts). */
import type { Commit } from "./commit.js";
import type { Section } from "./commit-parts.js";
import { arrayOf } from "./db.js";

/** The row that says which runs have effects to perform; that of a confirmed batch is written over. */
export function pendingEffects(commit: Commit): Section | undefined {
  if (commit.pending.length === 0) return undefined;
  return {
    name: "pending",
    params: [commit.coordinatorId, commit.batchNo, arrayOf(commit.pending)],
    sql: (n) => `pending as (
  insert into effect_batches (coordinator_id, no, run_ids) values ($${n}::text, $${n + 1}::bigint, $${n + 2}::uuid[])
  on conflict (coordinator_id, no) do update set run_ids = excluded.run_ids)`,
  };
}

/** Takes the rows away whose effects can be lost no more. */
export function confirmedEffects(commit: Commit): Section | undefined {
  if (commit.confirmed.length === 0) return undefined;
  return {
    name: "confirmed",
    params: [commit.coordinatorId, arrayOf(commit.confirmed)],
    sql: (n) => `confirmed as (
  delete from effect_batches b using unnest($${n + 1}::bigint[]) as c(no) where b.coordinator_id = $${n}::text and b.no = c.no)`,
  };
}

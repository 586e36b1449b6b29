/** Reads of people's inboxes; commit-assignments.ts writes them. */
import type { AssignmentTerms } from "../engine/plan.js";
import { type Db, textArray } from "./db.js";

/** One open assignment. */
export interface AssignmentRow {
  runId: string;
  step: number;
  stepId: string;
  /** The chain. */
  method: string;
  contract: string;
  terms: AssignmentTerms;
  claimedBy: string;
  openedAtMs: number;
  dueAtMs: number;
}

export interface AssignmentFilter {
  namespaceId: number;
  /** Of older runs, or of further steps of this one. */
  after?: { runId: string; step: number };
  runId?: string;
  /** What the person may claim, or has. */
  person?: string;
  groups?: readonly string[];
  unclaimed?: boolean;
  stepId?: string;
  limit: number;
}

/** A page of open assignments, those of the newest runs first. */
export async function listAssignments(db: Db, filter: AssignmentFilter): Promise<AssignmentRow[]> {
  const where = ["a.namespace_id = $1::int"];
  const params: unknown[] = [filter.namespaceId];
  const add = (value: unknown, condition: (parameter: string) => string): void => {
    params.push(value);
    where.push(condition(`$${params.length}`));
  };
  if (filter.after) {
    params.push(filter.after.runId, filter.after.step);
    const [run, step] = [`$${params.length - 1}::uuid`, `$${params.length}::int`];
    where.push(`(a.run_id < ${run} or (a.run_id = ${run} and a.step > ${step}))`);
  }
  if (filter.runId !== undefined) add(filter.runId, (p) => `a.run_id = ${p}::uuid`);
  if (filter.stepId !== undefined) add(filter.stepId, (p) => `a.step_id = ${p}::text`);
  if (filter.unclaimed) where.push("c.person is null");
  if (filter.person !== undefined || (filter.groups?.length ?? 0) > 0) {
    params.push(filter.person ?? "", textArray(filter.groups ?? []));
    const [person, groups] = [`$${params.length - 1}::text`, `$${params.length}::text[]`];
    where.push(`(c.person = ${person} or (c.person is null and (
      (jsonb_array_length(a.terms->'assignees') = 0 and jsonb_array_length(a.terms->'groups') = 0)
      or jsonb_exists(a.terms->'assignees', ${person}) or jsonb_exists_any(a.terms->'groups', ${groups}))))`);
  }
  params.push(filter.limit);
  const ms = (column: string): string => `(extract(epoch from ${column}) * 1000)::float8`;
  const rows = await db.query<Omit<AssignmentRow, "terms" | "dueAtMs"> & { terms: string; dueAtMs: number | null }>(
    `select a.run_id::text as "runId", a.step, a.step_id as "stepId", r.method, a.contract, a.terms::text as terms,
      coalesce(c.person, '') as "claimedBy", ${ms("a.opened_at")} as "openedAtMs", ${ms("a.due_at")} as "dueAtMs"
    from assignments a join runs r on r.id = a.run_id
    left join assignment_claims c on c.run_id = a.run_id and c.step = a.step and c.item = a.item
    where ${where.join(" and ")} order by a.run_id desc, a.step limit $${params.length}::int`,
    params,
  );
  return rows.map((row) => ({
    ...row,
    terms: JSON.parse(row.terms) as AssignmentTerms,
    dueAtMs: row.dueAtMs ?? 0,
  }));
}

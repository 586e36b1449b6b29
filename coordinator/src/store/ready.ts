/** The ready queue: steps that wait in Postgres until a lane has room, so that no carrier ever holds a backlog. */
import type { Db } from "./db.js";
import { textArray } from "./db.js";

export interface ReadyStep {
  runId: string;
  step: number;
  /** Of a fan-out step; 0 otherwise. */
  item: number;
}

/** The queues that have something waiting. */
export async function waitingQueues(db: Db): Promise<{ namespaceId: number; taskQueue: string }[]> {
  return db.query(
    `select distinct namespace_id as "namespaceId", task_queue as "taskQueue" from (
      select namespace_id, task_queue from ready_steps limit 10000) as waiting`,
  );
}

/**
 * Takes the best waiting steps of a queue that a lane can serve: higher priority first, then older. They stay in the queue, hidden from other
 * coordinators for `holdMs`, until the commit of their dispatch removes them.
 */
export async function claimReady(
  db: Db,
  queue: { namespaceId: number; taskQueue: string; callees: readonly string[]; limit: number; holdMs: number },
): Promise<ReadyStep[]> {
  return db.query(
    `update ready_steps q set claimed_until = now() + $5::float8 * interval '1 millisecond' from (
      select run_id, step, item from ready_steps
      where namespace_id = $1::int and task_queue = $2::text and callee = any($3::text[])
        and (claimed_until is null or claimed_until < now())
      order by priority desc, ready_at limit $4::int for update skip locked) as best
    where q.run_id = best.run_id and q.step = best.step and q.item = best.item
    returning q.run_id::text as "runId", q.step::int as step, q.item`,
    [queue.namespaceId, queue.taskQueue, textArray(queue.callees), queue.limit, queue.holdMs],
  );
}

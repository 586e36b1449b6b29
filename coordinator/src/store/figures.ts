/** The numbers of the whole mesh that metrics show, read when somebody asks for them. */
import type { Db } from "./db.js";

export interface Figures {
  /** Steps in the ready queue, counted up to `readyMax`. */
  readySteps: number;
  /** How long the oldest due wake-up has been waiting, in seconds; 0: none is due. */
  sweeperLagSeconds: number;
  slots: number;
  freeSlots: number;
  /** Live sessions by TransportKind. */
  sessions: { transport: number; count: number }[];
}

/** Counting goes through the rows one by one, and beyond this the exact number tells nothing more. */
const readyMax = 100_000;

export async function readFigures(db: Db): Promise<Figures> {
  const [row] = await db.query<Omit<Figures, "sessions">>(
    `select
       (select count(*) from (select 1 from ready_steps limit ${readyMax}) as waiting)::int as "readySteps",
       coalesce((select greatest(0, extract(epoch from clock_timestamp() - min(wakeup_at))) from runs
         where wakeup_at is not null), 0)::float8 as "sweeperLagSeconds",
       (select coalesce(sum(slots), 0) from session_queues)::int as slots,
       (select coalesce(sum(free), 0) from session_queues)::int as "freeSlots"`,
  );
  const sessions = await db.query<{ transport: number; count: number }>(
    "select transport::int as transport, count(*)::int as count from sessions group by transport",
  );
  return { readySteps: 0, sweeperLagSeconds: 0, slots: 0, freeSlots: 0, ...row, sessions };
}

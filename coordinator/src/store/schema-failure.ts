/** Table for those who operate runs: which are BROKEN, and why. */
import { index, integer, pgTable, text, timestamp, uuid } from "drizzle-orm/pg-core";

const instant = (name: string) => timestamp(name, { withTimezone: true });

/** One row a BROKEN run, by what broke it first, so that they can be grouped without reading their states. */
export const brokenRuns = pgTable(
  "broken_runs",
  {
    runId: uuid("run_id").primaryKey(),
    namespaceId: integer("namespace_id").notNull(),
    method: text("method").notNull(),
    /** The callee of the step. */
    action: text("action").notNull(),
    stepId: text("step_id").notNull(),
    /** Of the failure. */
    reason: text("reason").notNull(),
    brokenAt: instant("broken_at").notNull(),
  },
  // Groups are counted, and their runs paged through, in this order.
  (t) => [index("broken_runs_by_group").on(t.namespaceId, t.reason, t.action, t.method, t.runId)],
);

/** Tables for those who operate runs: which are BROKEN and why, and operations over many of them. */
import { sql } from "drizzle-orm";
import { customType, index, integer, pgTable, text, timestamp, uuid } from "drizzle-orm/pg-core";

const bytea = customType<{ data: Uint8Array }>({ dataType: () => "bytea" });

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
    /** Who started the run, or the one above it. */
    starter: text("starter"),
  },
  // Groups are counted, and their runs paged through, in this order.
  (t) => [index("broken_runs_by_group").on(t.namespaceId, t.reason, t.action, t.method, t.runId)],
);

/** Operations over many runs. A coordinator works on one page by page; the cursor says where the next one goes on. */
export const bulkOperations = pgTable(
  "bulk_operations",
  {
    id: uuid("id").primaryKey(),
    namespaceId: integer("namespace_id").notNull(),
    /** An encoded taskmesh.v1.StartBulkOperationRequest. */
    request: bytea("request").notNull(),
    /** Runs up to this id were worked on. */
    cursor: uuid("cursor"),
    /** Runs behind this id came after the operation and are none of it. */
    lastId: uuid("last_id").notNull(),
    changed: integer("changed").notNull().default(0),
    unchanged: integer("unchanged").notNull().default(0),
    failed: integer("failed").notNull().default(0),
    lastFailure: text("last_failure").notNull().default(""),
    createdAt: instant("created_at").notNull().defaultNow(),
    endedAt: instant("ended_at"),
    /** Who works on it, and until when nobody else may. */
    claim: uuid("claim"),
    claimedUntil: instant("claimed_until"),
  },
  // Whoever looks for work sees only what is open.
  (t) => [index("bulk_operations_open").on(t.claimedUntil).where(sql`ended_at is null`)],
);

/** The table behind estimates: how long the callables of the mesh take. */
import { integer, pgTable, primaryKey, real, text, timestamp } from "drizzle-orm/pg-core";

/** One row a callable, rewritten every few seconds while attempts of it end. Losing it costs estimates and nothing else. */
export const callDurations = pgTable(
  "call_durations",
  {
    namespaceId: integer("namespace_id").notNull(),
    method: text("method").notNull(),
    /** Milliseconds of the attempts that succeeded last, newest first; a bounded number. */
    recentMs: real("recent_ms").array().notNull(),
    at: timestamp("at", { withTimezone: true }).notNull(),
  },
  (t) => [primaryKey({ columns: [t.namespaceId, t.method] })],
);

/** Tables of runs that were made from others, and of ids that callers chose. Ordinary runs have no row in either. */
import { customType, index, integer, pgTable, primaryKey, text, uuid } from "drizzle-orm/pg-core";

const bytea = customType<{ data: Uint8Array }>({ dataType: () => "bytea" });

/** Which runs were made from a run; the way back is in the state of each. */
export const runSuccessors = pgTable(
  "run_successors",
  {
    runId: uuid("run_id").notNull(),
    successorId: uuid("successor_id").notNull(),
  },
  (t) => [primaryKey({ columns: [t.runId, t.successorId] })],
);

/** The run that has a custom id, or had it last. */
export const customIds = pgTable(
  "custom_ids",
  {
    namespaceId: integer("namespace_id").notNull(),
    name: text("name").notNull(),
    runId: uuid("run_id").notNull(),
    /** The run that had it before: a start takes it from no other. */
    holder: uuid("holder"),
    /** SHA-256 over the caller's key, method and input; null: there was no key. */
    requestHash: bytea("request_hash"),
  },
  (t) => [
    // At most one run has an id, whoever else asks for it at the same time.
    primaryKey({ columns: [t.namespaceId, t.name] }),
    // Retention deletes by it.
    index("custom_ids_by_run").on(t.runId),
  ],
);

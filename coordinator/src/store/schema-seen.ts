/** Tables of the memory across runs (SeenService). Rows are written once and never changed; a memory ends with its namespace. */
import { customType, integer, pgTable, primaryKey, text, timestamp, unique } from "drizzle-orm/pg-core";

const bytea = customType<{ data: Uint8Array }>({ dataType: () => "bytea" });

/** Memories: one per method that runs were started with, and name. */
export const seenSets = pgTable(
  "seen_sets",
  {
    id: integer("id").primaryKey().generatedAlwaysAsIdentity(),
    namespaceId: integer("namespace_id").notNull(),
    method: text("method").notNull(),
    name: text("name").notNull(),
  },
  // Callers that race for a new memory must agree on its id.
  (t) => [unique("seen_sets_key").on(t.namespaceId, t.method, t.name)],
);

/** What each memory has seen. */
export const seenKeys = pgTable(
  "seen_keys",
  {
    setId: integer("set_id").notNull(),
    /** SHA-256 of the key: keys may be of any length and stay private. */
    keyHash: bytea("key_hash").notNull(),
    /** "run/step/item" that named the key first: for it the key stays new, so that a repeated attempt gets the same answer. */
    owner: text("owner").notNull(),
    seenAt: timestamp("seen_at", { withTimezone: true }).notNull().defaultNow(),
  },
  // Exactly one owner per key, whoever comes at the same time.
  (t) => [primaryKey({ columns: [t.setId, t.keyHash] })],
);

/** Tables of how new revisions of contracts are brought in: shares of the work that canaries get, and upcasters between revisions. */
import { sql } from "drizzle-orm";
import { check, customType, index, integer, pgTable, primaryKey, text, timestamp } from "drizzle-orm/pg-core";
import { namespaces } from "./schema-registry.js";

const bytea = customType<{ data: Uint8Array }>({ dataType: () => "bytea" });
const instant = (name: string) => timestamp(name, { withTimezone: true });
const namespaceId = () =>
  integer("namespace_id")
    .notNull()
    .references(() => namespaces.id);

/** Canaries of actions, one row a change: the newest of an action counts, the others are the record. */
export const contractCanaries = pgTable(
  "contract_canaries",
  {
    id: integer("id").primaryKey().generatedAlwaysAsIdentity(),
    namespaceId: namespaceId(),
    method: text("method").notNull(),
    /** The revision that it is about; "": every one with a number above `after_revision`. */
    fingerprint: text("fingerprint").notNull(),
    afterRevision: integer("after_revision").notNull(),
    /** Percent of the starts; null: there is no canary any more. */
    share: integer("share"),
    reason: text("reason").notNull(),
    changedAt: instant("changed_at").notNull().defaultNow(),
  },
  (table) => [
    // The newest row of an action.
    index("contract_canaries_method_idx").on(table.namespaceId, table.method, table.id),
    check("contract_canaries_share_check", sql`${table.share} is null or ${table.share} between 0 and 100`),
  ],
);

/** How inputs of one revision of an action's contract become inputs of another: the newest declaration. */
export const contractUpcasters = pgTable(
  "contract_upcasters",
  {
    namespaceId: namespaceId(),
    method: text("method").notNull(),
    fromContract: text("from_contract").notNull(),
    toContract: text("to_contract").notNull(),
    /** An encoded taskmesh.v1.Upcaster. */
    spec: bytea("spec").notNull(),
    reason: text("reason").notNull(),
    declaredAt: instant("declared_at").notNull().defaultNow(),
  },
  (table) => [
    // One way from a revision to another.
    primaryKey({
      name: "contract_upcasters_pkey",
      columns: [table.namespaceId, table.method, table.fromContract, table.toContract],
    }),
  ],
);

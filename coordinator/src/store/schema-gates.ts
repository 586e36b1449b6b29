/**
 * Tables of the evolution gate: what a namespace does with contracts that break their predecessors, and what was decided on single ones.
 */
import { sql } from "drizzle-orm";
import { check, index, integer, jsonb, pgTable, primaryKey, text, timestamp } from "drizzle-orm/pg-core";
import { namespaces } from "./schema-registry.js";

const instant = (name: string) => timestamp(name, { withTimezone: true });
const namespaceId = () =>
  integer("namespace_id")
    .notNull()
    .references(() => namespaces.id);

/** Modes of namespaces, one row a change: the newest counts, the others are the record. No row: the mesh's default. */
export const contractGates = pgTable(
  "contract_gates",
  {
    id: integer("id").primaryKey().generatedAlwaysAsIdentity(),
    namespaceId: namespaceId(),
    mode: text("mode", { enum: ["refuse", "quarantine", "allow"] }).notNull(),
    reason: text("reason").notNull(),
    changedAt: instant("changed_at").notNull().defaultNow(),
  },
  (table) => [
    // The newest row of a namespace.
    index("contract_gates_namespace_id_id_idx").on(table.namespaceId, table.id),
    check("contract_gates_mode_check", sql`${table.mode} in ('refuse', 'quarantine', 'allow')`),
    // Nobody opens a gate without saying why.
    check("contract_gates_reason_check", sql`${table.mode} <> 'allow' or ${table.reason} <> ''`),
  ],
);

/**
 * Decisions on single revisions. A revision may be allowed before it is registered, so there is no reference to it. Those that break nothing
 * have no row.
 */
export const contractVerdicts = pgTable(
  "contract_verdicts",
  {
    namespaceId: namespaceId(),
    method: text("method").notNull(),
    fingerprint: text("fingerprint").notNull(),
    verdict: text("verdict", { enum: ["quarantined", "allowed"] }).notNull(),
    reason: text("reason").notNull(),
    /** Fingerprint of the revision that it was compared with, "" if it was allowed beforehand. */
    base: text("base").notNull(),
    /** What it breaks, at most as much as a report shows. */
    violations: jsonb("violations").$type<object[]>().notNull(),
    decidedAt: instant("decided_at").notNull().defaultNow(),
  },
  (table) => [
    // One decision on a revision: the newest.
    primaryKey({ name: "contract_verdicts_pkey", columns: [table.namespaceId, table.method, table.fingerprint] }),
    // The catalogue reads who is quarantined, which is hardly ever anybody.
    index("contract_verdicts_quarantined_idx").on(table.namespaceId).where(sql`${table.verdict} = 'quarantined'`),
    check("contract_verdicts_verdict_check", sql`${table.verdict} in ('quarantined', 'allowed')`),
    check("contract_verdicts_reason_check", sql`${table.verdict} <> 'allowed' or ${table.reason} <> ''`),
  ],
);

/** Tables of people's inboxes. Rows live as long as their step waits; the history is the record of what people did. */
import { index, integer, jsonb, pgTable, primaryKey, smallint, text, timestamp, uuid } from "drizzle-orm/pg-core";

const instant = (name: string) => timestamp(name, { withTimezone: true });

/** Open assignments. */
export const assignments = pgTable(
  "assignments",
  {
    runId: uuid("run_id").notNull(),
    step: smallint("step").notNull(),
    item: integer("item").notNull(),
    namespaceId: integer("namespace_id").notNull(),
    stepId: text("step_id").notNull(),
    /** Fingerprint of the contract whose output is the form. */
    contract: text("contract").notNull(),
    /** AssignmentTerms of the engine: title, instructions, assignees, groups. */
    terms: jsonb("terms").notNull(),
    openedAt: instant("opened_at").notNull(),
    dueAt: instant("due_at"),
  },
  (t) => [
    primaryKey({ columns: [t.runId, t.step, t.item] }),
    // An inbox pages by it, newest run first.
    index("assignments_by_namespace").on(t.namespaceId, t.runId),
  ],
);

/** Who has claimed what. A table of its own, so that opening and claiming in one batch are two rows and no row is written twice. */
export const assignmentClaims = pgTable(
  "assignment_claims",
  {
    runId: uuid("run_id").notNull(),
    step: smallint("step").notNull(),
    item: integer("item").notNull(),
    person: text("person").notNull(),
  },
  (t) => [primaryKey({ columns: [t.runId, t.step, t.item] })],
);

/**
 * Assignments that nobody completes in time: they are handed to others, and further steps begin, while they stay open.
 *
 *   open ─► escalated (level 1) ─► escalated (level 2) ─► …      each at its instant, until the assignment is over
 *
 * X1. `level` counts the escalations that have happened; it only grows, and each happens once.
 * X2. Whoever had claimed an assignment that is handed over has it no more.
 * X3. A step of an escalation begins when that has happened, and is skipped if the assignment is over before; it never sees the form, which may
 *     be filled in at any time.
 */
import { EventKind } from "@taskmesh/proto";
import type { AssignmentTerms, StepPlan } from "./plan.js";
import type { RunState, StepState } from "./run-state.js";
import { inputOf } from "./step-input.js";
import { startReady } from "./step-start.js";
import { editStep, record, type Turn } from "./turn.js";

/** The instant of the next escalation is here. */
export function escalate(turn: Turn, plan: StepPlan): void {
  const { wait } = plan;
  if (wait?.kind !== "human") return;
  const step = editStep(turn, plan.index);
  const level = (step.level ?? 0) + 1;
  step.level = level;
  record(turn, EventKind.EVENT_KIND_ASSIGNMENT_ESCALATED, { step: plan.index, note: String(level) });
  if (wait.escalations?.[level - 1]?.handsOver) {
    const input = inputOf(turn, plan);
    // Its expressions gave a value when the assignment was opened, over the same stored outputs.
    if (typeof input === "string") return;
    if (step.wait?.claimedBy !== undefined) {
      step.wait = { endsAtMs: step.wait.endsAtMs };
      turn.effects.push({ kind: "give-back", step: plan });
    }
    openAssignment(turn, plan, wait.read(input.bytes ?? new Uint8Array(0), level));
  }
  startReady(turn, plan.neededBy);
}

/** Puts the assignment into the inboxes of those that it is for now. */
export function openAssignment(turn: Turn, step: StepPlan, terms: AssignmentTerms): void {
  const { readyAtMs } = turn.run.steps[step.index]!;
  const dueAtMs = step.scheduleToCloseMs === undefined ? 0 : readyAtMs + step.scheduleToCloseMs;
  turn.effects.push({ kind: "assign", step, terms, openedAtMs: readyAtMs, dueAtMs });
}

/** When the step escalates next. */
export function escalatesAtMs({ wait: state, level = 0, readyAtMs }: StepState, { wait }: StepPlan): number {
  const next = state && wait?.kind === "human" ? wait.escalations?.[level] : undefined;
  return next === undefined ? Infinity : readyAtMs + next.afterMs;
}

/** Whether the escalation that the step hangs on has happened; so it has for a step that hangs on none. */
export const isEscalated = ({ steps }: RunState, { escalation }: StepPlan): boolean =>
  escalation === undefined || (steps[escalation.of]!.level ?? 0) >= escalation.level;

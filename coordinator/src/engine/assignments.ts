/**
 * What people do with the assignment of a waiting `human` step.
 *
 *   open ─► claimed by a person ─► completed: the step SUCCEEDs with the form
 *     ▲────────── released ◄┘
 *
 * H1. One person at most has an assignment; nobody else completes or releases it.
 * H2. An assignment is open exactly while its step WAITs.
 * Who may do what by name and group is checked before (rpc/assignment-service.ts): that never changes while it is open.
 */
import { EventKind } from "@taskmesh/proto";
import type { ChainPlan, StepPlan } from "./plan.js";
import type { Advance, Context, RunEvent } from "./run-event.js";
import type { RunState } from "./run-state.js";
import { stepIndex } from "./step-index.js";
import { startReady } from "./step-start.js";
import { beginTurn, changed, editStep, record, type Turn, unchanged } from "./turn.js";
import { endWait } from "./waits.js";

type AssignmentEvent = Extract<RunEvent, { kind: "assignment" }>;

/** Somebody does something with an assignment. */
export function assignment(run: RunState, plan: ChainPlan, event: AssignmentEvent, context: Context): Advance {
  const { stepId, person, act } = event;
  const index = stepIndex(plan, stepId);
  const step = index === undefined ? undefined : plan.steps[index]!;
  if (step?.wait?.kind !== "human") return unchanged(run, "unknown-step");
  const { wait } = run.steps[step.index]!;
  if (wait === undefined) return unchanged(run, "not-awaited");
  const { claimedBy } = wait;
  // Everybody may say something, whoever has it.
  if (act.kind !== "comment" && claimedBy !== undefined && claimedBy !== person) return unchanged(run, "claimed");
  if (act.kind === "claim" && claimedBy === person) return unchanged(run, "duplicate");
  if (act.kind === "release" && claimedBy === undefined) return unchanged(run, "duplicate");
  const turn = beginTurn(run, plan, context);
  apply(turn, step, event);
  return changed(turn);
}

function apply(turn: Turn, plan: StepPlan, { person, act }: AssignmentEvent): void {
  const about = { step: plan.index, note: person };
  const draft = editStep(turn, plan.index);
  switch (act.kind) {
    case "claim":
      draft.wait = { ...draft.wait!, claimedBy: person };
      turn.effects.push({ kind: "take", step: plan, person });
      return record(turn, EventKind.EVENT_KIND_ASSIGNMENT_CLAIMED, about);
    case "release":
      draft.wait = { endsAtMs: draft.wait!.endsAtMs };
      turn.effects.push({ kind: "give-back", step: plan });
      return record(turn, EventKind.EVENT_KIND_ASSIGNMENT_RELEASED, about);
    case "comment":
      return record(turn, EventKind.EVENT_KIND_ASSIGNMENT_COMMENTED, { ...about, note: `${person}: ${act.text}` });
    case "complete":
      record(turn, EventKind.EVENT_KIND_ASSIGNMENT_COMPLETED, about);
      endWait(turn, plan, act.value);
      return startReady(turn, plan.neededBy);
  }
}

/** Effects that a crash can lose, and the attempt that each is about. */
import type { Effect } from "../engine/run-event.js";

/** Effects that happen outside of the database and so can be lost by a crash. */
export type OutsideEffect = Extract<
  Effect,
  { kind: "dispatch" | "evaluate" | "start-child" | "cancel-child" | "tell-parent" }
>;

/** Whether it happens outside of the commit. */
export function isOutside(effect: Effect): effect is OutsideEffect {
  switch (effect.kind) {
    case "dispatch":
      return !effect.claimed;
    case "evaluate":
    case "start-child":
    case "cancel-child":
    case "tell-parent":
      return true;
    default:
      return false;
  }
}

/** The attempt that the effect is about. */
export function placeOf(effect: OutsideEffect): { stepId: string; attempt: number; lease: string } {
  switch (effect.kind) {
    case "evaluate":
      return { stepId: effect.stepId, attempt: 0, lease: "" };
    case "tell-parent":
      return { stepId: "", attempt: 0, lease: "" };
    case "cancel-child":
      return { stepId: effect.step.id, attempt: 0, lease: effect.childId };
    case "start-child":
      return { stepId: effect.step.id, attempt: effect.attempt, lease: effect.childId };
    case "dispatch":
      return { stepId: effect.step.id, attempt: effect.attempt, lease: effect.lease };
  }
}

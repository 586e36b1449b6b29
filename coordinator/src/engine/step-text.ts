/**
 * The stored text of a step that has met nothing unusual. Of every run that moves on each step is written with every commit, and JSON.stringify
 * over a row made for it took a third of the engine's time (measured). run-codec.test.ts holds the texts equal.
 */
import { type StepState, StepStatus } from "./run-state.js";

/** What JSON.stringify makes of the step's row (run-codec.ts); undefined: the step has more than this writes. */
export function plainStepText(s: StepState, originMs: number): string | undefined {
  if (s.failures > 0 || s.lost > 0 || s.retryAtMs > 0 || s.late > 0) return undefined;
  if (s.input || s.checkpointed || s.wait || s.via !== undefined || s.rounds || s.level || s.extendedMs)
    return undefined;
  if (s.status === StepStatus.STEP_STATUS_PENDING && s.attempt === 0) return "0";
  if (!plain.test(s.lease) || !plain.test(s.session)) return undefined;
  const text = `[${s.status},${s.attempt},"${s.lease}",${at(s.readyAtMs, originMs)},${at(s.attemptAtMs, originMs)}`;
  if (s.session !== "") return `${text},${at(s.endedAtMs, originMs)},${at(s.startedAtMs, originMs)},"${s.session}"]`;
  // Zeros at the end are left out.
  if (s.startedAtMs > 0) return `${text},${at(s.endedAtMs, originMs)},${at(s.startedAtMs, originMs)}]`;
  if (s.endedAtMs > 0) return `${text},${at(s.endedAtMs, originMs)}]`;
  return s.attemptAtMs > 0 ? `${text}]` : undefined;
}

/** Leases and sessions are tokens; whatever else stands there may have to be escaped. */
const plain = /^[\w-]*$/;

/** An instant as rows have it: 0 where there is none, else 1 + the milliseconds since the run was accepted. */
export const at = (ms: number, originMs: number): number => (ms === 0 ? 0 : ms - originMs + 1);

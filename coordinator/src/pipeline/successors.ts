/**
 * Runs that are made from others: restarts, clones, and runs that take a custom id from one that has not ended.
 *
 *   BROKEN, or asked to make room ──► one commit: it is CANCELLED or being cancelled, and the new run is accepted
 *   ended (restarts alone) ─────────► the new run is accepted; the other one is only read
 *
 * N1. The two are one draft: they are stored together or not at all, also where a batch is split, tried again or of unknown outcome.
 * N2. The one that ends remembers its successor and what was asked for: the same request again finds the run that it made.
 * N3. What is decided is decided on a fresh read of the other run, and counts only if that is still what is stored.
 */
import { RestartUnfit, RunStatus } from "@taskmesh/proto";
import { type StatusError, status, statusDetail, statusError } from "@taskmesh/runtime";
import { advance } from "../engine/advance.js";
import type { ChainPlan } from "../engine/plan.js";
import type { OperateEvent } from "../engine/run-event.js";
import { isFinal, type RunState } from "../engine/run-state.js";
import { type TakeOver, takeOver, type Unfit } from "../engine/take-over.js";
import {
  acceptanceOf,
  type Draft,
  engineContext,
  type FoldContext,
  type Folded,
  mergeWrite,
  startDraft,
  writeOf,
} from "./fold.js";
import { runEnded, runNotFound } from "./intake.js";
import type { MadeFrom } from "./ports.js";
import type { StartWork } from "./work.js";

/** A start whose run is made from another one. */
export type SuccessorWork = StartWork & { command: { from: MadeFrom } };

export const isSuccessor = (item: StartWork): item is SuccessorWork => item.command.from !== undefined;

/** The drafts with those that are stored with them. */
export const withSuccessors = (drafts: Draft[]): Draft[] =>
  drafts.some(({ successor }) => successor)
    ? drafts.flatMap((draft) => (draft.successor ? [draft, draft.successor] : [draft]))
    : drafts;

/** Why a start was not written: the run whose place it takes has changed, its key or custom id is another run's, or it was there. */
export function unwritten({ write }: Draft): "lost" | "taken" | "exists" {
  if (write.after !== undefined) return "lost";
  return write.idempotency || write.customId ? "taken" : "exists";
}

/** Decides it. Settles what is refused, or known already. */
export function foldSuccessor(item: SuccessorWork, folded: Folded, context: FoldContext, taken: string[]): void {
  const { command } = item;
  const { from } = command;
  const draft = folded.drafts.get(from.runId);
  // What the batch makes of the other run is not stored yet: its next successor waits for that.
  if (draft?.successor) return void folded.again.push(item);
  const known = draft ? { run: draft.write.run, plan: draft.plan } : context.runs.get(from.runId);
  if (!known || known.run.namespaceId !== command.namespaceId) return item.fail(runNotFound(from.runId));
  const { run: old, plan: oldPlan } = known;
  const { successor } = old;
  if (successor && (successor.runId === item.runId || successor.hash === from.hash))
    return item.existing?.(successor.runId);
  // It was made by the operation that asks for it: an operation does one thing to each run.
  if (from.operation !== undefined && old.operation === from.operation) return item.existing?.(old.id);
  const refused = refusal(old, from);
  if (refused) return refused === "free" ? item.taken() : item.fail(refused);
  const found = from.kind === "restart" ? takeOver(old, oldPlan, command.plan, from.stepId) : undefined;
  if (found && "unfit" in found) return item.fail(unfitRestart(from.runId, command.plan, found.unfit));
  const engine = engineContext({ id: item.runId, namespaceId: command.namespaceId }, taken, context);
  const inherited = isFinal(old.status) ? {} : inheritance(old);
  const acceptance = { ...acceptanceOf(item), ...originOf(from, found?.taken), ...inherited };
  const made = startDraft(item, acceptance, engine, taken);
  if (!made) {
    for (const lease of taken) context.windows.free(lease);
    return;
  }
  if (isFinal(old.status)) {
    folded.drafts.set(item.runId, made);
    return;
  }
  const replaced = advance(old, oldPlan, replacement(item), engineContext(old, taken, context));
  if (replaced.verdict === "unchanged") throw new Error(`a run that was to be replaced refused it: ${replaced.why}`);
  // A repetition is known by the run that ends (N2); a key that was taken must not keep its successor from being stored.
  delete made.write.idempotency;
  if (old.customId !== undefined) made.write.customId ??= { holder: old.id };
  made.write.after = old.id;
  if (draft) {
    mergeWrite(draft.write, replaced);
    draft.successor = made;
  } else {
    const write = writeOf(replaced, oldPlan, old.version);
    folded.drafts.set(old.id, { plan: oldPlan, write, taken: [], work: [], successor: made });
  }
}

/** A custom id goes to whoever goes on in the place of the run that has it. */
const inheritance = ({ customId }: RunState) => (customId === undefined ? {} : { customId });

const originOf = ({ runId, kind, stepId, by, reason, operation }: MadeFrom, taken: TakeOver | undefined) => ({
  origin: { runId, kind, ...(kind === "restart" ? { stepId } : {}) },
  ...(taken ? { takeOver: taken } : {}),
  ...(by === "" ? {} : { by }),
  ...(reason === "" ? {} : { note: reason }),
  ...(operation === undefined ? {} : { operation }),
});

function replacement({ runId, command: { from } }: SuccessorWork): OperateEvent {
  const { by, reason, hash, terminate } = from;
  return { kind: "operate", operation: { kind: "replace", successor: runId, hash, terminate }, by, reason };
}

/** Why the other run can't be what the new one is made from; "free": its custom id is another run's by now, or free. */
function refusal(old: RunState, { kind, terminate }: MadeFrom): Error | "free" | undefined {
  if (isFinal(old.status)) return kind === "custom-id" ? "free" : kind === "clone" ? runEnded(old) : undefined;
  if (kind === "restart" && old.status !== RunStatus.RUN_STATUS_BROKEN)
    return statusError({
      reason: "RUN_UNDER_WAY",
      message: `the run is ${RunStatus[old.status]?.replace("RUN_STATUS_", "")}; only one that is BROKEN or has ended is restarted`,
    });
  if (old.successor) {
    const message = `run ${old.successor.runId} goes on in the place of the run`;
    return kind === "custom-id" ? "free" : statusError({ reason: "RUN_CANCELLING", message });
  }
  if (old.parent && kind !== "custom-id") {
    const { stepId, runId } = old.parent;
    const message = `step ${JSON.stringify(stepId)} of run ${runId} waits for the run; retry its broken steps, or restart run ${runId}`;
    return statusError({ reason: "RUN_HAS_PARENT", message });
  }
  if (!terminate && (old.cancel || old.closing || old.undo))
    return statusError({ reason: "RUN_CANCELLING", message: "the run is being cancelled" });
  return undefined;
}

/** FAILED_PRECONDITION with every step that does not fit. */
export function unfitRestart(runId: string, { version }: ChainPlan, unfit: readonly Unfit[]): StatusError {
  const [first] = unfit;
  const more = unfit.length > 1 ? ` (and ${unfit.length - 1} more)` : "";
  const where = first!.stepId === "" ? "" : `step ${JSON.stringify(first!.stepId)}: `;
  return statusError({
    code: status.FAILED_PRECONDITION,
    reason: "RESTART_UNFIT",
    message: `${where}${first!.problem}${more}`,
    details: [
      statusDetail("taskmesh.v1.RestartUnfit", RestartUnfit, { runId, chainVersion: version, steps: [...unfit] }),
    ],
  });
}

/**
 * What others left undone: effects of a lapsed coordinator, and starts that a wiped carrier lost. Single losses are the audit's (audit.ts).
 */
import { type Logger, sleep } from "@taskmesh/runtime";
import type { RunEvent } from "../engine/run-event.js";
import type { RunStore } from "../store/run-store.js";
import type { Pipeline } from "./pipeline.js";
import type { Settled } from "./work.js";

export interface RecoveryDeps {
  store: RunStore;
  pipeline: Pipeline;
  log: Logger;
  nowMs(): number;
  /** What an ended run may still owe its parent and children is done once more. */
  settleEnded(runId: string): Promise<void>;
}

const pageMax = 500;
const noRun = "00000000-0000-0000-0000-000000000000";

export interface Recovery {
  /**
   * Derives the effects that a lapsed coordinator had committed and perhaps not done. What was dispatched after `beforeMs` (default: now) is
   * another's, which lives: its runs went on meanwhile.
   */
  takeOver(coordinatorId: string, beforeMs?: number): Promise<void>;
  /** The carrier lost its messages: every unbound start is sent again. */
  wiped(): Promise<void>;
}

export function createRecovery(deps: RecoveryDeps): Recovery {
  let wiping: Promise<void> | undefined;
  let wipedAgain = false;

  const submit = (runId: string, event: RunEvent): Promise<Settled | undefined> =>
    new Promise((resolve) => {
      const work = { kind: "event" as const, runId, event, fresh: false, tries: 0, bytes: 64 };
      deps.pipeline.submit({ ...work, settle: resolve, fail: () => resolve(undefined) });
    });

  /** A run that has ended may have others to tell: the event says nothing to it. */
  const takeOverRun = async (runId: string, event: RunEvent): Promise<Settled | undefined> => {
    const settled = await submit(runId, event);
    if (settled?.verdict !== "unchanged" || settled.why !== "run-ended") return settled;
    return deps.settleEnded(runId).then(
      () => settled,
      () => undefined,
    );
  };

  const resend = async (): Promise<void> => {
    const beforeMs = deps.nowMs();
    let after = noRun;
    for (;;) {
      const page = await deps.store.liveRunIds(after, pageMax);
      const event: RunEvent = { kind: "redispatch", beforeMs, why: "the carrier lost its messages", startsOnly: true };
      await Promise.all(page.map((runId) => submit(runId, event)));
      const last = page.at(-1);
      if (last === undefined || page.length < pageMax) return;
      after = last;
    }
  };

  return {
    async takeOver(coordinatorId, beforeMs = deps.nowMs()) {
      deps.log.warn({ coordinatorId }, "a coordinator lapsed; its effects are derived again");
      // One instant for all batches: what a first one sends again is left alone by the next that names the run.
      for (const batch of await deps.store.effectBatchesOf(coordinatorId)) {
        const event: RunEvent = {
          kind: "redispatch",
          beforeMs,
          why: `coordinator ${coordinatorId} lapsed`,
        };
        const settled = await Promise.all(batch.runIds.map((runId) => takeOverRun(runId, event)));
        // A batch of which something could not be decided is taken over again in the next round.
        if (settled.every((one) => one !== undefined)) await deps.store.deleteEffectBatch(coordinatorId, batch);
      }
    },
    async wiped() {
      wipedAgain = true;
      wiping ??= (async () => {
        while (wipedAgain) {
          wipedAgain = false;
          await resend().catch(async (error: unknown) => {
            deps.log.warn({ err: error }, "starts could not be sent again; trying once more");
            wipedAgain = true;
            await sleep(500);
          });
        }
      })().finally(() => {
        wiping = undefined;
      });
      await wiping;
    },
  };
}

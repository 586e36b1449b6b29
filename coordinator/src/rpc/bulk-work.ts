/**
 * Bulk operations at work: a coordinator claims one, does what it asks for to a page of runs at a time, and notes how far it is.
 *
 * O1. A page is noted by whoever holds the claim alone; when a coordinator dies, another one does its last page again.
 * O2. Each run remembers the newest operation that was applied to it, so a page that is done again changes no run twice.
 */
import { randomUUID } from "node:crypto";
import { BulkKind, RunFilter, StartBulkOperationRequest } from "@taskmesh/proto";
import { isStatusError, type Logger, status } from "@taskmesh/runtime";
import type { Operation } from "../engine/run-event.js";
import type { Intake, Operated } from "../pipeline/ports.js";
import { createLoop, type Loop } from "../registry/loop.js";
import {
  advanceBulk,
  type BulkPage,
  type BulkRow,
  bulkRuns,
  claimBulk,
  endBulk,
  releaseBulk,
} from "../store/bulk-operations.js";
import type { Database } from "../store/db.js";
import { brokenOf, type Mending, mendingOf, restartOne, takesEnded } from "./bulk-mending.js";

/** Runs that are worked on between two notes. */
const pageRuns = 100;
/** A claim that is not renewed for so long is another coordinator's: as long as any coordinator is waited for. */
const holdMs = 10_000;
const everyMs = 2_000;

export interface BulkWorkDeps extends Mending {
  db: Database;
  intake: Pick<Intake, "operate" | "cancelRun" | "startRun">;
  log: Logger;
}

/** Makes the loop; `kick` it when there is a new operation. */
export function createBulkWork(deps: BulkWorkDeps): Loop {
  const round = async (signal: AbortSignal): Promise<void> => {
    while (!signal.aborted) {
      const claim = randomUUID();
      const operation = await claimBulk(deps.db, claim, holdMs);
      if (!operation) return;
      await workOn(deps, operation, claim, signal);
    }
  };
  return createLoop("bulk operations", { everyMs, round, log: deps.log, eager: false });
}

async function workOn(deps: BulkWorkDeps, first: BulkRow, claim: string, signal: AbortSignal): Promise<void> {
  const request = StartBulkOperationRequest.decode(first.request);
  const filter = request.filter ?? RunFilter.create();
  const at = { id: first.id, claim, holdMs };
  for (let operation = first; !signal.aborted; ) {
    const ids = await bulkRuns(deps.db, operation, brokenOf(request, filter), pageRuns, takesEnded(request));
    if (ids.length === 0) return endBulk(deps.db, at);
    const page = await workOnPage(deps, operation, request, ids);
    if (!(await advanceBulk(deps.db, at, page))) return;
    operation = { ...operation, cursor: page.cursor };
  }
  await releaseBulk(deps.db, at);
}

async function workOnPage(
  deps: BulkWorkDeps,
  { namespaceId, id }: BulkRow,
  request: StartBulkOperationRequest,
  runIds: readonly string[],
): Promise<BulkPage> {
  const page: BulkPage = { cursor: runIds.at(-1)!, changed: 0, unchanged: 0, failed: 0, lastFailure: "" };
  const one = async (runId: string): Promise<void> => {
    try {
      page[await operateOne(deps, { namespaceId, runId, id }, request)] += 1;
    } catch (error) {
      if (!isStatusError(error) || passing.has(error.code)) throw error;
      if (pointless.has(error.reason)) page.unchanged += 1;
      else {
        page.failed += 1;
        page.lastFailure = `${runId}: ${error.reason}: ${error.message}`.slice(0, 1_000);
      }
    }
  };
  await Promise.all(runIds.map(one));
  return page;
}

/** What another attempt may mend: the page is done again. */
const passing = new Set([status.UNAVAILABLE, status.RESOURCE_EXHAUSTED, status.DEADLINE_EXCEEDED, status.INTERNAL]);
/** What says that there is nothing to do any more. */
const pointless = new Set(["RUN_ENDED", "RUN_NOT_FOUND", "RUN_NOT_BROKEN", "RUN_CANCELLING", "RUN_UNDER_WAY"]);

async function operateOne(
  deps: BulkWorkDeps,
  at: { namespaceId: number; runId: string; id: string },
  request: StartBulkOperationRequest,
): Promise<Operated> {
  const { intake } = deps;
  const { namespaceId, runId, id } = at;
  const { kind, actor: by, reason } = request;
  if (kind === BulkKind.BULK_KIND_RESTART) return restartOne(deps, at, request);
  const mending = await mendingOf(deps, at, request);
  if (mending) return intake.operate(namespaceId, runId, { kind: "operate", operation: mending, by, reason, id });
  if (kind === BulkKind.BULK_KIND_CANCEL) return intake.cancelRun(namespaceId, runId, reason, { by, id });
  return intake.operate(namespaceId, runId, { kind: "operate", operation: operationOf(request), by, reason, id });
}

/** What the engine is asked for. */
export function operationOf({ kind, priority, setLabels, removeLabels }: StartBulkOperationRequest): Operation {
  switch (kind) {
    case BulkKind.BULK_KIND_PAUSE:
      return { kind: "pause" };
    case BulkKind.BULK_KIND_RESUME:
      return { kind: "resume" };
    case BulkKind.BULK_KIND_TERMINATE:
      return { kind: "terminate" };
    case BulkKind.BULK_KIND_RETRY:
      return { kind: "retry", steps: [] };
    case BulkKind.BULK_KIND_UPDATE:
      return { kind: "update", setLabels, removeLabels, ...(priority === undefined ? {} : { priority }) };
    default:
      throw new Error(`no operation is ${BulkKind[kind]}`);
  }
}

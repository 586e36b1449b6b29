/**
 * Everything that the pipeline asks of the database, as one door: a model of the database stands behind it in the simulator
 * (test/simulate), so nothing in pipeline/ may reach the database by another way.
 */
import type { Value } from "../engine/plan.js";
import { type ChildRow, readChildren, readLeftChildren, runExists } from "./children.js";
import { type Commit, type CommitResult, commitBatch } from "./commit.js";
import { type CustomIdHolder, findCustomId } from "./custom-ids.js";
import type { Db } from "./db.js";
import { deleteEffectBatch, type EffectBatch, effectBatchesOf } from "./effect-batches.js";
import { type ItemOutput, readDoneItems, readItemOutputs } from "./item-reads.js";
import { createPayloadUses } from "./payload-uses.js";
import { getPayload, putPayload } from "./payloads.js";
import { claimReady, type ReadyStep, waitingQueues } from "./ready.js";
import { type ReportRow, readCheckpoint, writeReports } from "./reports.js";
import { readEnd } from "./run-reads.js";
import { claimDue, findByKey, liveRunIds, loadRuns, type StoredRun, storedStates } from "./runs.js";
import { freeSlotsByLane } from "./sessions.js";

/** What each does is said at the function of that name in store/. */
export interface RunStore {
  commitBatch(commit: Commit): Promise<CommitResult>;
  loadRuns(ids: readonly string[]): Promise<Map<string, StoredRun>>;
  storedStates(ids: readonly string[]): Promise<Map<string, { version: number; state: string }>>;
  findByKey(namespaceId: number, key: string): Promise<{ runId: string; requestHash: Uint8Array } | undefined>;
  findCustomId(namespaceId: number, name: string): Promise<CustomIdHolder | undefined>;
  claimDue(limit: number, holdMs: number): Promise<string[]>;
  liveRunIds(afterId: string, limit: number): Promise<string[]>;
  effectBatchesOf(coordinatorId: string): Promise<EffectBatch[]>;
  deleteEffectBatch(coordinatorId: string, batch: EffectBatch): Promise<void>;
  waitingQueues(): Promise<{ namespaceId: number; taskQueue: string }[]>;
  claimReady(queue: Parameters<typeof claimReady>[1]): Promise<ReadyStep[]>;
  freeSlotsByLane(): Promise<Map<number, number>>;
  getPayload(namespaceId: number, reference: string): Promise<Uint8Array | undefined>;
  putPayload(namespaceId: number, bytes: Uint8Array): Promise<string>;
  readItemOutputs(runId: string, step: number): Promise<ItemOutput[]>;
  readDoneItems(page: Parameters<typeof readDoneItems>[1]): Promise<ItemOutput[]>;
  writeReports(rows: readonly ReportRow[], namespaceId?: number): Promise<void>;
  readCheckpoint(runId: string, stepId: string, item: number): Promise<Uint8Array | undefined>;
  runExists(runId: string): Promise<boolean>;
  readResult(runId: string): Promise<Value | undefined>;
  readChildren(page: Parameters<typeof readChildren>[1]): Promise<ChildRow[]>;
  readLeftChildren(page: Parameters<typeof readLeftChildren>[1]): Promise<string[]>;
}

/** The door to a real database. */
export function createRunStore(db: Db): RunStore {
  const usePayloads = createPayloadUses(db);
  return {
    commitBatch(commit) {
      const using = usePayloads(commit);
      return using ? using.then(() => commitBatch(db, commit)) : commitBatch(db, commit);
    },
    loadRuns: (ids) => loadRuns(db, ids),
    storedStates: (ids) => storedStates(db, ids),
    findByKey: (namespaceId, key) => findByKey(db, namespaceId, key),
    findCustomId: (namespaceId, name) => findCustomId(db, namespaceId, name),
    claimDue: (limit, holdMs) => claimDue(db, limit, holdMs),
    liveRunIds: (afterId, limit) => liveRunIds(db, afterId, limit),
    effectBatchesOf: (coordinatorId) => effectBatchesOf(db, coordinatorId),
    deleteEffectBatch: (coordinatorId, batch) => deleteEffectBatch(db, coordinatorId, batch),
    waitingQueues: () => waitingQueues(db),
    claimReady: (queue) => claimReady(db, queue),
    freeSlotsByLane: () => freeSlotsByLane(db),
    getPayload: (namespaceId, reference) => getPayload(db, namespaceId, reference),
    putPayload: (namespaceId, bytes) => putPayload(db, namespaceId, bytes),
    readItemOutputs: (runId, step) => readItemOutputs(db, runId, step),
    readDoneItems: (page) => readDoneItems(db, page),
    writeReports: (rows, namespaceId) => writeReports(db, rows, namespaceId),
    readCheckpoint: (runId, stepId, item) => readCheckpoint(db, runId, stepId, item),
    runExists: (runId) => runExists(db, runId),
    readResult: async (runId) => (await readEnd(db, runId))?.payload,
    readChildren: (page) => readChildren(db, page),
    readLeftChildren: (page) => readLeftChildren(db, page),
  };
}

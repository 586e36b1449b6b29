/**
 * Progress and checkpoints that handlers report. They are no part of a run's history: the newest of an attempt replaces the one before. What
 * arrives within a tick is one statement.
 */
import type { Payload } from "@taskmesh/proto";
import { sha256 } from "@taskmesh/runtime";
import type { ReportRow } from "../store/reports.js";
import type { RunStore } from "../store/run-store.js";
import type { AttemptRef, HandlerReport } from "./ports.js";

/** Bytes of a checkpoint that are kept; workers refuse larger ones. */
export const checkpointBytesMax = 17 * 1024;
/** Characters of a message that are kept. */
const messageCharsMax = 1_024;
/** Rows of one statement. */
const rowsMax = 1_000;

export interface Reports {
  /** Stores what the holder of the attempt's lease reported. Rejects if the database does not take it. */
  add(ref: AttemptRef, report: HandlerReport): Promise<void>;
  /** Stores the checkpoint of an attempt that ended, if its run is of the namespace. */
  addCheckpoint(ref: Omit<AttemptRef, "lease">, checkpoint: Uint8Array, namespaceId: number): Promise<void>;
  /** What the next attempt goes on from; undefined if nothing was kept. */
  checkpointOf(runId: string, stepId: string, item: number): Promise<Payload | undefined>;
}

/** Makes them; `told` hears of each run with news. */
export function createReports(store: RunStore, told: (runId: string) => void): Reports {
  let waiting = new Map<string, ReportRow>();
  let writing: Promise<void> | undefined;

  const write = async (): Promise<void> => {
    await new Promise((resolve) => setImmediate(resolve));
    const rows = [...waiting.values()];
    waiting = new Map();
    writing = undefined;
    for (let at = 0; at < rows.length; at += rowsMax) await store.writeReports(rows.slice(at, at + rowsMax));
    for (const { runId } of rows) told(runId);
  };

  return {
    add({ runId, stepId, item, attempt }, { percent, message, checkpoint }) {
      const row: ReportRow = { runId, stepId, item, attempt, percent: bounded(percent), message: printable(message) };
      if (checkpoint && checkpoint.length <= checkpointBytesMax) row.checkpoint = checkpoint;
      const key = `${runId}/${item}/${stepId}`;
      const before = waiting.get(key);
      if (!before || before.attempt <= attempt) waiting.set(key, row);
      writing ??= write();
      return writing;
    },
    async addCheckpoint({ runId, stepId, item, attempt }, checkpoint, namespaceId) {
      if (checkpoint.length > checkpointBytesMax) return;
      await store.writeReports([{ runId, stepId, item, attempt, percent: 0, message: "", checkpoint }], namespaceId);
    },
    async checkpointOf(runId, stepId, item) {
      const bytes = await store.readCheckpoint(runId, stepId, item);
      if (!bytes) return undefined;
      const data = { $case: "inline" as const, value: Buffer.from(bytes) };
      return { contract: "", keyId: "", sizeBytes: BigInt(bytes.length), sha256: Buffer.from(sha256(bytes)), data };
    },
  };
}

const bounded = (percent: number): number => Math.min(100, Math.max(0, Number(percent) || 0));

/** NUL can't be stored. */
const printable = (message: string): string => message.slice(0, messageCharsMax).replaceAll("\u0000", "");

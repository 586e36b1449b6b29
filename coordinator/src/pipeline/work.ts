/** What waits for the next batch: runs to accept, and events for runs that exist. */
import type { AttemptLogs } from "@taskmesh/proto";
import type { ChainPlan } from "../engine/plan.js";
import type { Effect, RunEvent, Unchanged } from "../engine/run-event.js";
import type { RunState } from "../engine/run-state.js";
import type { StartCommand } from "./ports.js";

/** How an event ended: what the run is now, and what the event itself set in motion. */
export type Settled =
  | { verdict: "changed"; run: RunState; plan: ChainPlan; effects: readonly Effect[] }
  | { verdict: "unchanged"; why: Unchanged; run: RunState }
  | { verdict: "unknown-run" };

export interface EventWork {
  kind: "event";
  runId: string;
  /** The sender's namespace where it is a stranger: a run of another one is unknown to it. */
  namespaceId?: number;
  event: RunEvent;
  logs?: AttemptLogs;
  /** Decide on a fresh read: an earlier refusal was reached on a cached run. */
  fresh: boolean;
  /** Came with something that can't be stored: shares no batch with other such work of its run. */
  alone?: true;
  /** Its value was refused by the database before. */
  refused?: true;
  tries: number;
  bytes: number;
  settle(settled: Settled): void;
  fail(error: Error): void;
}

export interface StartWork {
  kind: "start";
  runId: string;
  command: StartCommand;
  requestHash?: Uint8Array;
  /** Asked for by a run that was accepted: it is never refused for others that wait. */
  internal?: true;
  tries: number;
  bytes: number;
  settle(run: RunState): void;
  /** The key or the custom id belongs to another run. */
  taken(): void;
  /** Where the run is made from another one: that had a run made from it by the same request. */
  existing?(runId: string): void;
  fail(error: Error): void;
}

export type Work = EventWork | StartWork;

/** Bounds of one batch: rows keep a commit short, bytes keep its parameter small. */
export const batchWorkMax = 512;
export const batchBytesMax = 8 * 1024 * 1024;
/** Work that waits at most; beyond it callers are refused (OVERLOADED), so that what was accepted still ends. */
export const queueWorkMax = 20_000;
/** Times that work goes back into the queue after losing a compare-and-set. */
export const workTriesMax = 20;

/**
 * Work in order of arrival. Starts with one idempotency key, or custom id, never share a batch: one statement may not write a key twice. Nor do
 * runs made from the same run, or work of a run that is to be tried alone.
 */
export class WorkQueue {
  #items: Work[] = [];
  #head = 0;

  push(work: Work): void {
    this.#items.push(work);
  }

  get size(): number {
    return this.#items.length - this.#head;
  }

  /** The next batch, within the bounds. */
  take(): Work[] {
    const batch: Work[] = [];
    const keys = new Set<string>();
    const held: Work[] = [];
    let bytes = 0;
    while (this.#head < this.#items.length && batch.length < batchWorkMax) {
      const work = this.#items[this.#head]!;
      if (batch.length > 0 && bytes + work.bytes > batchBytesMax) break;
      this.#head += 1;
      const key = keyOf(work);
      if (key !== undefined && keys.has(key)) {
        held.push(work);
        continue;
      }
      if (key !== undefined) keys.add(key);
      bytes += work.bytes;
      batch.push(work);
    }
    this.#items = held.concat(this.#items.slice(this.#head));
    this.#head = 0;
    return batch;
  }
}

function keyOf(work: Work): string | undefined {
  if (work.kind === "event") return work.alone ? work.runId : undefined;
  const { idempotencyKey, customId, from, namespaceId } = work.command;
  if (customId) return `${namespaceId} ${customId.name}`;
  if (from) return from.runId;
  return idempotencyKey === undefined ? undefined : `${namespaceId}/${idempotencyKey}`;
}

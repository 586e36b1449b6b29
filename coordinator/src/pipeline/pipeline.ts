/**
 * The group-commit loop: everything that happens to runs on this coordinator goes through here.
 *
 *   submit ─► queue ─► load ─► fold (engine) ─► one commit ─► effects, answers, acks
 *                ▲                                   │
 *                └── lost the compare-and-set ◄──────┘
 *
 * P1. Nothing is answered, acked or dispatched before the commit that makes it true.
 * P2. While one batch commits the next gathers: one event when idle, hundreds under load, no fixed delay.
 * P3. A refusal reached on a cached run is decided again on a fresh read before it counts.
 * P4. A commit of unknown outcome is read back before anything of it is tried again.
 * P5. One bad value never fails strangers: a batch that the database refuses is split until the culprit is alone.
 */
import { type DbClock, type Logger, sleep, status, statusError } from "@taskmesh/runtime";
import { encodeRunState } from "../engine/run-codec.js";
import { isFinal } from "../engine/run-state.js";
import type { CommitResult } from "../store/commit.js";
import { sqlState } from "../store/db.js";
import { type Partitions, partitionedTables, type RunTables } from "../store/partitions.js";
import type { RunStore } from "../store/run-store.js";
import { type Draft, foldBatch } from "./fold.js";
import { loadBatch } from "./load.js";
import { isOutside, type OutsideEffect, placeOf } from "./outside.js";
import type { Plans } from "./ports.js";
import { asDataError, asUnavailable, asUnstorable, isUnavailable } from "./refusals.js";
import { RunCache } from "./run-cache.js";
import { runFields } from "./run-fields.js";
import { unwritten, withSuccessors } from "./successors.js";
import type { Windows } from "./windows.js";
import { queueWorkMax, type Settled, type Work, WorkQueue, workTriesMax } from "./work.js";

export interface PipelineDeps {
  store: RunStore;
  coordinatorId: string;
  clock: DbClock;
  plans: Plans;
  windows: Windows;
  partitions: Partitions;
  log: Logger;
  /** Performs what a committed draft set in motion; `confirmed` is called when none of it can be lost any more. */
  perform(draft: Draft, confirmed: () => void): void;
  /** The run has ended; what it may still owe others is done once more. Calls `done` when it is. */
  settleEnded(runId: string, done: () => void): void;
  /** After each commit. */
  committed(batch: { work: number; commitMs: number }): void;
  /** Each draft that is stored, before it is performed. */
  written(draft: Draft): void;
  /** A commit did not come about, and why. */
  commitFailed(why: "unavailable" | "conflict" | "refused"): void;
  /** Runs lost their compare-and-set. */
  conflicts(runs: number): void;
}

export interface Pipeline {
  submit(work: Work): void;
  /** Work that waits or is being committed. */
  readonly depth: number;
  /** Runs in the cache. */
  readonly cached: number;
  /** Refuses new work from callers; what was taken in still commits. Resolves when nothing is left or after `limitMs`. */
  drain(limitMs: number): Promise<void>;
}

/** How long the loop waits before it asks a database again that does not answer. */
const unavailableWaitMs = 250;
/** Rows of confirmed batches are deleted when no commit has needed them for this long. */
const idleConfirmMs = 1_000;
/** Rows of confirmed batches that are kept to be written over: an update in place leaves no dead row and no dead index entry behind. */
const sparesMax = 4;

export function createPipeline(deps: PipelineDeps): Pipeline {
  const queue = new WorkQueue();
  const cache = new RunCache();
  let busy = false;
  let scheduled = false;
  let draining = false;
  let inBatch = 0;
  let commits = 0;
  let batchNo = 0;
  /** Numbers of batches of which nothing can be lost any more, to be taken by later batches, which write over their rows. */
  const spare: number[] = [];
  /** Numbers whose rows are to be deleted. */
  const stale: number[] = [];
  let idleTimer: NodeJS.Timeout | undefined;

  const schedule = (): void => {
    if (scheduled || busy) return;
    scheduled = true;
    // After what this tick still brings: completions of one delivery get here in one go.
    queueMicrotask(loop);
  };

  const loop = async (): Promise<void> => {
    scheduled = false;
    busy = true;
    try {
      while (queue.size > 0) {
        const batch = queue.take();
        inBatch = batch.length;
        await runBatch(batch);
        inBatch = 0;
      }
    } finally {
      busy = false;
      if (queue.size > 0) schedule();
    }
  };

  const runBatch = async (batch: Work[]): Promise<void> => {
    try {
      const loaded = loadBatch(loading, batch); // No promise where all is in the cache.
      const { runs, freshIds, unreadable } = loaded instanceof Promise ? await loaded : loaded;
      const context = { runs, windows: deps.windows, nowMs: deps.clock.now(), freshIds, log: deps.log };
      const { drafts, again } = foldBatch(readable(batch, unreadable), context);
      for (const item of again) requeue(item.kind === "event" ? { ...item, fresh: true } : item);
      if (drafts.size > 0) await commitDrafts([...drafts.values()]);
    } catch (error) {
      deps.log.error({ err: error }, "a batch failed outside its commit");
      for (const item of batch) item.fail(asUnavailable(error));
    }
  };

  /** The work whose runs could be read; other work is told so. */
  const readable = (batch: Work[], unreadable: ReadonlyMap<string, unknown>): Work[] => {
    if (unreadable.size === 0) return batch;
    return batch.filter((item) => {
      const runId = item.kind === "event" ? item.runId : item.command.from?.runId;
      const failed = runId !== undefined && unreadable.has(runId);
      if (failed) item.fail(asUnavailable(unreadable.get(runId)));
      return !failed;
    });
  };

  /** Repeats a read until the database answers: callers have deadlines of their own, and completions wait in the carrier. */
  const patiently = async <T>(read: () => Promise<T>): Promise<T> => {
    for (let attempt = 0; ; attempt++) {
      try {
        return await read();
      } catch (error) {
        if (!isUnavailable(error)) throw error;
        if (attempt % 20 === 0) deps.log.warn({ err: error }, "the database does not answer");
        await sleep(unavailableWaitMs);
      }
    }
  };
  const loading = { ...deps, cache, patiently };

  const commitDrafts = async (drafts: Draft[]): Promise<void> => {
    const all = withSuccessors(drafts);
    const pending = all.filter(hasOutsideEffects).map((draft) => draft.write.run.id);
    const no = pending.length > 0 ? (spare.pop() ?? ++batchNo) : 0;
    if (spare.length > sparesMax) stale.push(...spare.splice(sparesMax));
    const deleting = stale.splice(0, 1_000);
    commits += 1;
    const startedAt = performance.now();
    let result: CommitResult;
    try {
      const writes = all.map((draft) => draft.write);
      result = await deps.store.commitBatch({
        coordinatorId: deps.coordinatorId,
        writes,
        batchNo: no,
        pending,
        confirmed: deleting,
        tables: tablesOf(all),
      });
    } catch (error) {
      stale.push(...deleting);
      return afterError(drafts, error, no);
    }
    deps.clock.observe(result.nowMs);
    deps.committed({ work: inBatch, commitMs: performance.now() - startedAt });
    if (result.written.size < all.length) deps.conflicts(all.length - result.written.size);
    const open = countEffects(no, spare);
    finish(all, result.written, open);
    open.close();
  };

  /** What is tried again is written to the partitioned tables: its rows may have moved. */
  const tablesOf = (drafts: Draft[]): RunTables =>
    drafts.some((draft) => draft.work.some(({ item }) => item.tries > 0))
      ? partitionedTables
      : deps.partitions.tablesOf(drafts.map((draft) => draft.write.run.id));

  const afterError = async (drafts: Draft[], error: unknown, no: number): Promise<void> => {
    const state = sqlState(error);
    const locked = state === "40P01" || state === "40001";
    deps.commitFailed(isUnavailable(error) ? "unavailable" : locked ? "conflict" : "refused");
    // A run of that id exists: a try of this start that was given up has reached the database after all.
    const exists = state === "23505" && drafts.length === 1 && drafts[0]?.write.expectedVersion === 0;
    if (exists) return readBack(drafts, no);
    if (!locked && isUnavailable(error)) {
      deps.log.warn({ err: error, runs: drafts.length }, "a commit has an unknown outcome");
      return readBack(drafts, no);
    }
    // Nothing was written.
    if (no > 0) spare.push(no);
    if (locked) {
      await sleep(5 + Math.random() * 20);
      return commitDrafts(drafts);
    }
    if (state === "42P01") {
      // A partition was dropped since it was read of.
      deps.partitions.clear();
      return commitDrafts(drafts);
    }
    if (drafts.length > 1) {
      const half = drafts.length >> 1;
      await commitDrafts(drafts.slice(0, half));
      return commitDrafts(drafts.slice(half));
    }
    deps.log.error({ err: error, ...(drafts[0] && runFields(drafts[0].write.run)) }, "the database refuses a value");
    for (const draft of drafts) refuse(draft, error);
  };

  /**
   * What is stored tells whether the commit happened (P4): leases in the state are random, so equal bytes are our own. Different bytes tell
   * nothing for sure: others may have gone on from it, or it may still be under way and land after this look. So the work is done again,
   * where it loses to a commit that landed, and behind it each lease that was given is looked for: one that is current was never sent.
   */
  const readBack = async (drafts: Draft[], no: number): Promise<void> => {
    const ids = drafts.map((draft) => draft.write.run.id);
    const stored = await patiently(() => deps.store.storedStates(ids));
    // The commit may land later and write its row again: no other batch may take the number.
    const open = countEffects(no, stale);
    const happened: Draft[] = [];
    for (const draft of drafts) {
      const { run, expectedVersion } = draft.write;
      const found = stored.get(run.id);
      const both = withSuccessors([draft]);
      if (found?.version === expectedVersion + 1 && found.state === encodeRunState(run)) {
        happened.push(...both);
        continue;
      }
      for (const one of both) {
        giveBack(one, one === draft && expectedVersion === 0 && found ? "exists" : "unknown");
        for (const effect of one.write.effects) if (isOutside(effect)) resend(one.write.run.id, effect, open.more());
      }
    }
    finish(happened, new Set(happened.map((draft) => draft.write.run.id)), open);
    open.close();
  };

  /** Sends the start (or asks for the evaluation) again under a new lease, if the run is still where the effect left it. */
  const resend = (runId: string, effect: OutsideEffect, done: () => void): void => {
    const report = { item: 0, ...placeOf(effect) };
    const event = { kind: "redispatch" as const, report, why: "its commit had an unknown outcome" };
    const settle = (settled: Settled): void => {
      if (settled.verdict === "unchanged" && settled.why === "run-ended") deps.settleEnded(runId, done);
      else done();
    };
    requeue({ kind: "event", runId, event, fresh: false, tries: 0, bytes: 64, settle, fail: done });
  };

  /** Counts what of the batch with this number (0: it has no row) can still be lost; when nothing can, its number goes to `after`. */
  const countEffects = (no: number, after: number[]): OpenEffects => {
    let open = 1;
    const close = (): void => {
      open -= 1;
      if (open > 0 || no === 0) return;
      after.push(no);
      awaitIdle();
    };
    const more = (): (() => void) => {
      open += 1;
      return close;
    };
    return { more, close };
  };

  const finish = (drafts: Draft[], written: ReadonlySet<string>, open: OpenEffects): void => {
    for (const draft of drafts) {
      const { run, expectedVersion } = draft.write;
      if (!written.has(run.id)) {
        giveBack(draft, expectedVersion === 0 ? unwritten(draft) : "lost");
        continue;
      }
      run.version = expectedVersion + 1;
      if (isFinal(run.status)) cache.drop(run.id);
      else cache.put(run.id, run, draft.plan);
      deps.written(draft);
      deps.perform(draft, open.more());
      answer(draft);
    }
  };

  /** Deletes the rows of confirmed batches when no batch was committed for a while. */
  const awaitIdle = (): void => {
    const seen = commits;
    idleTimer ??= setTimeout(() => {
      idleTimer = undefined;
      if (busy || commits !== seen) awaitIdle();
      else void deleteConfirmed();
    }, idleConfirmMs).unref();
  };

  const deleteConfirmed = async (): Promise<void> => {
    stale.push(...spare.splice(0));
    if (stale.length === 0) return;
    const numbers = stale.splice(0, 1_000);
    const commit = { coordinatorId: deps.coordinatorId, writes: [], batchNo: 0, pending: [], confirmed: numbers };
    await deps.store.commitBatch(commit).catch(() => stale.push(...numbers));
    if (stale.length > 0 && !draining) awaitIdle();
  };

  /**
   * The draft is not what is stored, so its work is done again on that. A start is not where its key was taken by another, or where it exists
   * already: its id is ours alone, so an earlier try of it has made it.
   */
  const giveBack = (draft: Draft, why: "lost" | "unknown" | "taken" | "exists"): void => {
    cache.drop(draft.write.run.id);
    for (const lease of draft.taken) deps.windows.free(lease);
    for (const { item } of draft.work) {
      if (item.kind === "start" && why === "taken") item.taken();
      else if (item.kind === "start" && why === "exists") item.settle(draft.write.run);
      else requeue({ ...item, tries: item.tries + 1 });
    }
  };

  const requeue = (item: Work): void => {
    if (item.tries >= workTriesMax) {
      item.fail(
        statusError({
          code: status.RESOURCE_EXHAUSTED,
          reason: "OVERLOADED",
          message: "the run is changed by others all the time",
        }),
      );
      return;
    }
    queue.push(item);
    schedule();
  };

  /** Something of the draft can't be stored. Work that came together is tried apart; work that is alone is told, or its attempt fails. */
  const refuse = (draft: Draft, error: unknown): void => {
    cache.drop(draft.write.run.id);
    const both = withSuccessors([draft]);
    for (const lease of both.flatMap(({ taken }) => taken)) deps.windows.free(lease);
    const message = error instanceof Error ? error.message : String(error);
    const work = both.flatMap((one) => one.work);
    for (const { item } of work) {
      if (item.kind === "event" && work.length > 1) {
        requeue({ ...item, alone: true, tries: item.tries + 1 });
        continue;
      }
      const failed = item.kind === "event" ? asDataError(item, message) : undefined;
      if (failed) requeue(failed);
      else item.fail(asUnstorable(message));
    }
  };

  return {
    submit(work) {
      const fromOutside = work.kind === "start" && !work.internal;
      if (queue.size >= queueWorkMax && fromOutside) {
        const message = `${queue.size} requests wait to be stored; try again soon`;
        work.fail(statusError({ code: status.RESOURCE_EXHAUSTED, reason: "OVERLOADED", message, retryAfterMs: 1_000 }));
        return;
      }
      if (draining && fromOutside) {
        const message = "the coordinator is going away; try another";
        work.fail(statusError({ code: status.UNAVAILABLE, reason: "DRAINING", message }));
        return;
      }
      queue.push(work);
      schedule();
    },
    get depth() {
      return queue.size + inBatch;
    },
    get cached() {
      return cache.size;
    },
    async drain(limitMs) {
      draining = true;
      const endAt = performance.now() + limitMs;
      while ((busy || queue.size > 0) && performance.now() < endAt) await sleep(10);
      clearTimeout(idleTimer);
      idleTimer = undefined;
      if (performance.now() < endAt) await deleteConfirmed();
    },
  };
}

function answer(draft: Draft): void {
  for (const { item, settled } of draft.work) {
    if (item.kind === "start") item.settle(draft.write.run);
    else if (settled) item.settle(settled.verdict === "unknown-run" ? settled : { ...settled, run: draft.write.run });
  }
}

interface OpenEffects {
  /** One more thing that can be lost; call the answer when it can't be any more. */
  more(): () => void;
  close(): void;
}

const hasOutsideEffects = (draft: Draft): boolean => draft.write.effects.some(isOutside);

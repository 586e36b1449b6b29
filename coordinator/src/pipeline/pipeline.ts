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
import { type CommitResult, commitBatch } from "../store/commit.js";
import { type Database, sqlState } from "../store/db.js";
import { loadRuns, storedStates } from "../store/runs.js";
import { type Draft, foldBatch } from "./fold.js";
import type { Plans } from "./ports.js";
import { RunCache } from "./run-cache.js";
import type { Windows } from "./windows.js";
import { type EventWork, queueWorkMax, type Work, WorkQueue, workTriesMax } from "./work.js";

export interface PipelineDeps {
  db: Database;
  coordinatorId: string;
  clock: DbClock;
  plans: Plans;
  windows: Windows;
  log: Logger;
  /** Performs what a committed draft set in motion; `confirmed` is called when none of it can be lost any more. */
  perform(draft: Draft, confirmed: () => void): void;
  /** After each commit. */
  observe(batch: { work: number; commitMs: number; drafts: readonly Draft[] }): void;
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
/** Confirmed batches are deleted by the next commit; when none comes, after this. */
const idleConfirmMs = 1_000;

export function createPipeline(deps: PipelineDeps): Pipeline {
  const queue = new WorkQueue();
  const cache = new RunCache();
  let busy = false;
  let scheduled = false;
  let draining = false;
  let inBatch = 0;
  let batchNo = 0;
  const confirmed: number[] = [];
  let idleTimer: NodeJS.Timeout | undefined;

  const schedule = (): void => {
    if (scheduled || busy) return;
    scheduled = true;
    setImmediate(loop);
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
      const freshIds = await load(batch);
      const context = { cache, windows: deps.windows, nowMs: deps.clock.now(), freshIds };
      const { drafts, again } = foldBatch(batch, context);
      for (const item of again) requeue({ ...item, fresh: true });
      if (drafts.size > 0) await commitDrafts([...drafts.values()]);
    } catch (error) {
      deps.log.error({ err: error }, "a batch failed outside its commit");
      for (const item of batch) item.fail(asUnavailable(error));
    }
  };

  /** Reads the runs that are not cached, or whose refusal must be decided again. Answers the ids that were read. */
  const load = async (batch: Work[]): Promise<Set<string>> => {
    const missing = new Set<string>();
    for (const item of batch) {
      if (item.kind !== "event") continue;
      if (item.fresh || !cache.get(item.runId)) missing.add(item.runId);
    }
    if (missing.size === 0) return missing;
    const found = await patiently(() => loadRuns(deps.db, [...missing]));
    for (const [id, stored] of found) {
      const { run, method, chainVersion, contract } = stored;
      cache.put(id, run, await deps.plans.pinned(run.namespaceId, method, chainVersion, contract));
    }
    for (const id of missing) if (!found.has(id)) cache.drop(id);
    return missing;
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

  const commitDrafts = async (drafts: Draft[]): Promise<void> => {
    const no = ++batchNo;
    const pending = drafts.filter(hasOutsideEffects).map((draft) => draft.write.run.id);
    const deleting = confirmed.splice(0, 1_000);
    const startedAt = performance.now();
    let result: CommitResult;
    try {
      const writes = drafts.map((draft) => draft.write);
      result = await commitBatch(deps.db, {
        coordinatorId: deps.coordinatorId,
        writes,
        batchNo: no,
        pending,
        confirmed: deleting,
      });
    } catch (error) {
      confirmed.push(...deleting);
      return afterError(drafts, error);
    }
    deps.clock.observe(result.nowMs);
    deps.observe({ work: inBatch, commitMs: performance.now() - startedAt, drafts });
    if (result.written.size < drafts.length) deps.conflicts(drafts.length - result.written.size);
    finish(drafts, result.written, no, pending.length > 0);
  };

  const afterError = async (drafts: Draft[], error: unknown): Promise<void> => {
    const state = sqlState(error);
    if (state === "40P01" || state === "40001") {
      await sleep(5 + Math.random() * 20);
      return commitDrafts(drafts);
    }
    if (isUnavailable(error)) {
      deps.log.warn({ err: error, runs: drafts.length }, "a commit has an unknown outcome");
      return readBack(drafts);
    }
    if (drafts.length > 1) {
      const half = drafts.length >> 1;
      await commitDrafts(drafts.slice(0, half));
      return commitDrafts(drafts.slice(half));
    }
    deps.log.error({ err: error, runId: drafts[0]?.write.run.id }, "the database refuses a value");
    for (const draft of drafts) refuse(draft, error);
  };

  /** What is stored tells whether the commit happened (P4): leases in the state are random, so equal bytes are our own. */
  const readBack = async (drafts: Draft[]): Promise<void> => {
    const ids = drafts.map((draft) => draft.write.run.id);
    const stored = await patiently(() => storedStates(deps.db, ids));
    const written = new Set<string>();
    const unwritten: Draft[] = [];
    for (const draft of drafts) {
      const { run, expectedVersion } = draft.write;
      const found = stored.get(run.id);
      if (found?.version === expectedVersion + 1 && found.state === encodeRunState(run)) written.add(run.id);
      else unwritten.push(draft);
    }
    const happened = drafts.filter((draft) => !unwritten.includes(draft));
    // The batch row was written with them; it is this coordinator's newest number.
    if (happened.length > 0) finish(happened, written, batchNo, true);
    for (const draft of unwritten) giveBack(draft);
  };

  const finish = (drafts: Draft[], written: Set<string>, no: number, pending: boolean): void => {
    let open = 1;
    const confirm = (): void => {
      open -= 1;
      if (open > 0 || !pending) return;
      confirmed.push(no);
      idleTimer ??= setTimeout(confirmIdle, idleConfirmMs).unref();
    };
    for (const draft of drafts) {
      const { run, expectedVersion } = draft.write;
      if (!written.has(run.id)) {
        giveBack(draft);
        continue;
      }
      run.version = expectedVersion + 1;
      if (isFinal(run.status)) cache.drop(run.id);
      else cache.put(run.id, run, draft.plan);
      open += 1;
      deps.perform(draft, confirm);
      answer(draft);
    }
    confirm();
  };

  const confirmIdle = async (): Promise<void> => {
    idleTimer = undefined;
    if (busy || confirmed.length === 0) return;
    const numbers = confirmed.splice(0, 1_000);
    const commit = { coordinatorId: deps.coordinatorId, writes: [], batchNo: 0, pending: [], confirmed: numbers };
    await commitBatch(deps.db, commit).catch(() => confirmed.push(...numbers));
  };

  /** The draft lost its compare-and-set (or never reached the database): its work is done again on what is stored. */
  const giveBack = (draft: Draft): void => {
    cache.drop(draft.write.run.id);
    for (const lease of draft.taken) deps.windows.free(lease);
    for (const { item } of draft.work) {
      if (item.kind === "start" && draft.write.idempotency) item.taken();
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

  /** The value can't be stored: whoever sent it hears so, and a step that produced it fails. */
  const refuse = (draft: Draft, error: unknown): void => {
    cache.drop(draft.write.run.id);
    for (const lease of draft.taken) deps.windows.free(lease);
    const message = error instanceof Error ? error.message : String(error);
    for (const { item } of draft.work) {
      const failed = item.kind === "event" ? asDataError(item, message) : undefined;
      if (failed) requeue(failed);
      else
        item.fail(
          statusError({
            code: status.INVALID_ARGUMENT,
            reason: "ARGUMENT_INVALID",
            message: `can't be stored: ${message}`,
          }),
        );
    }
  };

  return {
    submit(work) {
      if (queue.size >= queueWorkMax && work.kind === "start") {
        const message = `${queue.size} requests wait to be stored; try again soon`;
        work.fail(statusError({ code: status.RESOURCE_EXHAUSTED, reason: "OVERLOADED", message, retryAfterMs: 1_000 }));
        return;
      }
      if (draining && work.kind === "start") {
        work.fail(
          statusError({
            code: status.UNAVAILABLE,
            reason: "DRAINING",
            message: "the coordinator is going away; try another",
          }),
        );
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
      if (confirmed.length > 0 && performance.now() < endAt) await confirmIdle();
    },
  };
}

function answer(draft: Draft): void {
  for (const { item, settled } of draft.work) {
    if (item.kind === "start") item.settle(draft.write.run);
    else if (settled) item.settle(settled.verdict === "unknown-run" ? settled : { ...settled, run: draft.write.run });
  }
}

/** Effects that happen outside of the database and so can be lost by a crash. */
function hasOutsideEffects(draft: Draft): boolean {
  return draft.write.effects.some((e) => (e.kind === "dispatch" && !e.claimed) || e.kind === "evaluate");
}

/** A completion whose output the database refuses becomes a failed attempt, once. */
function asDataError(item: EventWork, message: string): EventWork | undefined {
  const { event } = item;
  if (event.kind !== "complete" || (event.outcome.kind === "failure" && event.outcome.failure.reason === "DATA_ERROR"))
    return undefined;
  const failure = {
    reason: "ARGUMENT_INVALID",
    message: `can't be stored: ${message}`,
    retryable: false,
    details: [],
    cause: undefined,
  };
  const { logs: _, ...rest } = item;
  return { ...rest, fresh: true, event: { ...event, outcome: { kind: "failure", failure } } };
}

/** No answer, or an answer that says nothing about the statement: the connection, the server's resources, its shutdown. */
function isUnavailable(error: unknown): boolean {
  const state = sqlState(error);
  return state === undefined || /^(08|53|57|58)/.test(state);
}

function asUnavailable(cause: unknown): Error {
  return statusError({
    code: status.UNAVAILABLE,
    reason: "DATABASE_UNAVAILABLE",
    message: "the run can't be read now",
    retryAfterMs: 500,
    cause,
  });
}

/**
 * Threads for work that an input can make expensive: parsing pages, queries, templates, regular expressions.
 *
 * B1. A task runs in a thread of its own turn: the worker's main loop stays free to beat, whatever the task does.
 * B2. A task that overruns its time or memory ends with its thread; the failure is final, since another attempt would end the same.
 * B3. A task whose signal aborts ends with its thread too: a computation has no other way to be stopped.
 * B4. Threads start when they are needed, are used again, and never keep a process alive that has nothing else to do.
 */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { fail } from "@taskmesh/action-sdk";
import type { TaskName, TaskReply, Tasks } from "./tasks.js";

/** Time of any task, in milliseconds … */
const taskTimeoutMs = 10_000;
/** … and more for each MiB of text that it is given: honest work grows with its input, and a page of 20 MB takes seconds … */
const taskTimeoutMsPerMib = 2_500;
/** … but no more than this: the contracts give an attempt 60 s. */
const taskTimeoutMsMax = 55_000;
/** Heap of one thread. A page takes about twenty times its size as a tree. */
const threadHeapMb = 1_536;
/** Stack of one thread: pages and templates nest deeper than code does. */
const threadStackMb = 16;
/** A thread that nobody needs for this long is ended: it holds some 40 MB, and starting one takes a moment. */
const idleMs = 300_000;
/** At least two, so that one slow task doesn't hold up all others. */
const threadsMax = Math.min(Math.max(availableParallelism(), 2), 4);

interface Ticket {
  name: TaskName;
  input: unknown;
  signal: AbortSignal;
  settle: (output: never) => void;
  reject: (error: unknown) => void;
}

/** Bounds of a pool. */
export interface ThreadPoolLimits {
  /** Longest time of one task in milliseconds. Default: 10 s, and 2.5 s more for each MiB of text, at most 55 s. */
  timeoutMs?: number;
  /** Heap of one thread in MiB. Default 1,536. */
  heapMb?: number;
}

/** A pool of threads. */
export interface ThreadPool {
  /** Runs one task. Rejects with what it failed with, LIMIT_EXCEEDED (B2), or the signal's reason (B3). */
  run<N extends TaskName>(name: N, input: Parameters<Tasks[N]>[0], signal: AbortSignal): Promise<ReturnType<Tasks[N]>>;
  /** Ends all threads. Tasks under way fail; later ones start threads again. */
  close(): Promise<void>;
}

/** Makes a pool without threads yet. */
export function createThreadPool(limits: ThreadPoolLimits = {}): ThreadPool {
  const idle: Thread[] = [];
  const all = new Set<Thread>();
  const queue: Ticket[] = [];

  const next = (): void => {
    while (queue.length > 0) {
      if (queue[0]!.signal.aborted) {
        const ticket = queue.shift()!;
        ticket.reject(ticket.signal.reason);
        continue;
      }
      const thread = idle.pop() ?? (all.size < threadsMax ? open() : undefined);
      if (!thread) return;
      thread.work(queue.shift()!);
    }
  };
  const open = (): Thread => {
    const thread = new Thread(limits, {
      free: () => {
        idle.push(thread);
        next();
      },
      gone: () => {
        all.delete(thread);
        const at = idle.indexOf(thread);
        if (at >= 0) idle.splice(at, 1);
        next();
      },
    });
    all.add(thread);
    return thread;
  };
  return {
    run: (name, input, signal) =>
      new Promise((settle, reject) => {
        queue.push({ name, input, signal, settle, reject });
        next();
      }),
    close: async () => {
      await Promise.all([...all].map((thread) => thread.close()));
    },
  };
}

/** One thread, working on at most one ticket. Whatever ends it, its ticket is settled once and `gone` is called once. */
class Thread {
  readonly #worker: Worker;
  readonly #limits: ThreadPoolLimits;
  readonly #free: () => void;
  #ticket: Ticket | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ready = false;
  #onAbort: (() => void) | undefined;

  constructor(limits: ThreadPoolLimits, pool: { free: () => void; gone: () => void }) {
    this.#limits = limits;
    this.#free = pool.free;
    this.#worker = startWorker(limits.heapMb ?? threadHeapMb);
    this.#worker.on("message", (reply: TaskReply) => this.#onMessage(reply));
    this.#worker.on("error", (error) => this.#end(toLimit(error)));
    this.#worker.on("exit", () => {
      this.#end(fail.retryable("THREAD_ENDED", "the thread of the task ended"));
      clearTimeout(this.#timer);
      pool.gone();
    });
  }

  work(ticket: Ticket): void {
    this.#ticket = ticket;
    this.#worker.ref();
    clearTimeout(this.#timer);
    this.#onAbort = () => this.#stop(ticket.signal.reason);
    ticket.signal.addEventListener("abort", this.#onAbort, { once: true });
    this.#worker.postMessage({ name: ticket.name, input: ticket.input });
    if (this.#ready) this.#startClock();
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  /** The time of a task doesn't include the start of its thread, which a busy machine can make slow. */
  #startClock(): void {
    const timeoutMs = this.#limits.timeoutMs ?? timeoutFor(this.#ticket!.input);
    this.#timer = setTimeout(() => {
      this.#stop(fail.final("LIMIT_EXCEEDED", `the computation took longer than ${timeoutMs} ms`));
    }, timeoutMs);
  }

  #onMessage(reply: TaskReply): void {
    if (reply.kind === "ready") {
      this.#ready = true;
      if (this.#ticket) this.#startClock();
      return;
    }
    const ticket = this.#release();
    if (!ticket) return;
    if (reply.kind === "output") ticket.settle(reply.output as never);
    else if (reply.kind === "failure") ticket.reject(fail.final(reply.reason, reply.message));
    else ticket.reject(Object.assign(new Error(reply.message), { stack: reply.stack }));
    this.#timer = setTimeout(() => void this.close(), idleMs);
    this.#timer.unref();
    this.#worker.unref();
    this.#free();
  }

  #stop(reason: unknown): void {
    this.#end(reason);
    void this.#worker.terminate();
  }

  #end(error: unknown): void {
    this.#release()?.reject(error);
  }

  #release(): Ticket | undefined {
    const ticket = this.#ticket;
    this.#ticket = undefined;
    clearTimeout(this.#timer);
    if (ticket && this.#onAbort) ticket.signal.removeEventListener("abort", this.#onAbort);
    return ticket;
  }
}

function timeoutFor(input: unknown): number {
  const texts = Object.values(input as object).filter((value) => typeof value === "string");
  const mib = texts.reduce((sum, text) => sum + text.length, 0) / (1024 * 1024);
  return Math.min(Math.round(taskTimeoutMs + mib * taskTimeoutMsPerMib), taskTimeoutMsMax);
}

function toLimit(error: unknown): unknown {
  const { code } = error as { code?: unknown };
  if (code !== "ERR_WORKER_OUT_OF_MEMORY") return error;
  return fail.final("LIMIT_EXCEEDED", "the computation needs more memory than it may have");
}

function startWorker(heapMb: number): Worker {
  const resourceLimits = { maxOldGenerationSizeMb: heapMb, stackSizeMb: threadStackMb };
  const fromSource = import.meta.url.endsWith(".ts");
  const entry = new URL(fromSource ? "./thread-from-source.mjs" : "./thread.js", import.meta.url);
  // Nothing of the environment is needed, and a secret that isn't there can't leak. Flags of the process could start a debugger twice.
  return new Worker(entry, { resourceLimits, env: {}, execArgv: fromSource ? ["--conditions=@taskmesh/source"] : [] });
}

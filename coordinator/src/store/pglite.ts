/**
 * Db over PGlite in a worker thread: Postgres inside the process, for the embedded mode and for tests.
 *
 * PGlite has one connection. Statements go to the thread in order; a transaction holds the line until it ends, and statements of
 * others wait. Data in a folder survive the death of the process; they need not survive the loss of power.
 */
import type { Worker } from "node:worker_threads";
import { drizzle } from "drizzle-orm/pg-proxy";
import { startThread } from "../thread.js";
import type { Database, Db } from "./db.js";

interface Reply {
  id: number;
  rows?: unknown[];
  error?: { message: string; code?: string; constraint?: string };
}

/** What the thread is asked for. `array`: rows as arrays, for Drizzle. */
export interface Request {
  id: number;
  text: string;
  params: readonly unknown[];
  array: boolean;
}

/** Opens (or makes) a database in `folder`; without one it lives in memory. Resolves when it takes statements. */
export async function openPglite(folder?: string): Promise<Database> {
  const thread = startThread("pglite-thread", import.meta.url, { folder });
  const line = new Line(thread);
  await line.ready;
  const base = session(
    (request) => line.send(request),
    (work) => line.exclusive(work),
  );
  return { ...base, close: () => line.close() };
}

type Send = (request: Omit<Request, "id">) => Promise<unknown[]>;

function session(send: Send, begin: <T>(work: (tx: Db) => Promise<T>) => Promise<T>): Db {
  return {
    kind: "pglite",
    query: (text, params = []) => send({ text, params, array: false }) as Promise<never>,
    transaction: begin,
    orm: drizzle(async (text, params) => ({ rows: await send({ text, params, array: true }) })),
  };
}

/** The line to the thread: requests in order, one transaction at a time. */
class Line {
  readonly ready: Promise<void>;
  #open = new Map<number, { resolve: (rows: unknown[]) => void; reject: (error: Error) => void }>();
  #next = 1;
  #tail: Promise<unknown> = Promise.resolve();
  #held = 0;
  #closed: Error | undefined;

  constructor(private readonly thread: Worker) {
    this.ready = new Promise((resolve, reject) => {
      this.#open.set(0, { resolve: () => resolve(), reject });
    });
    thread.on("message", (reply: Reply) => this.#settle(reply));
    thread.on("error", (error) => this.#fail(error));
    thread.on("exit", () => this.#fail(new Error("the database is closed")));
  }

  /** One statement, after the transaction that holds the line, if any. */
  send: Send = (request) => (this.#held > 0 ? this.#tail.then(() => this.send(request)) : this.#post(request));

  async exclusive<T>(work: (tx: Db) => Promise<T>): Promise<T> {
    const turn = this.#tail;
    let done!: () => void;
    this.#held += 1;
    this.#tail = new Promise<void>((resolve) => {
      done = resolve;
    });
    await turn;
    const post: Send = (request) => this.#post(request);
    const run = (text: string): Promise<unknown[]> => post({ text, params: [], array: false });
    try {
      await run("begin");
      const result = await work(this.#nested(post, 1));
      await run("commit");
      return result;
    } catch (error) {
      await run("rollback").catch(() => {});
      throw error;
    } finally {
      this.#held -= 1;
      done();
    }
  }

  #nested(post: Send, depth: number): Db {
    const point = `s${depth}`;
    const run = (text: string): Promise<unknown[]> => post({ text, params: [], array: false });
    return session(post, async (work) => {
      await run(`savepoint ${point}`);
      try {
        const result = await work(this.#nested(post, depth + 1));
        await run(`release savepoint ${point}`);
        return result;
      } catch (error) {
        await run(`rollback to savepoint ${point}`);
        throw error;
      }
    });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#tail;
    await this.#post({ text: "", params: [], array: false }).catch(() => {});
    this.#fail(new Error("the database is closed"));
    await this.thread.terminate();
  }

  #post(request: Omit<Request, "id">): Promise<unknown[]> {
    if (this.#closed) return Promise.reject(this.#closed);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#open.set(id, { resolve, reject });
      this.thread.postMessage({ id, ...request } satisfies Request);
    });
  }

  #settle(reply: Reply): void {
    const waiting = this.#open.get(reply.id);
    this.#open.delete(reply.id);
    if (!reply.error) waiting?.resolve(reply.rows ?? []);
    else waiting?.reject(Object.assign(new Error(reply.error.message), reply.error));
  }

  #fail(error: Error): void {
    this.#closed ??= error;
    for (const waiting of this.#open.values()) waiting.reject(this.#closed);
    this.#open.clear();
  }
}

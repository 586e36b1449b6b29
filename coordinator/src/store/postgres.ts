/**
 * Db over postgres.js.
 *
 * A statement that gets no answer within `statementTimeoutMs` + 5 s is given up with its whole client: the connection may be half open,
 * and postgres.js never settles a query on it (porsager/postgres issue 1089). Its outcome is unknown to the caller.
 *
 * A client that can't connect in time is given up too, though the server may be there: a connection that closed with a write waiting never
 * writes again, so all of its tries to connect run into that limit (porsager/postgres issue 1154).
 */
import { drizzle } from "drizzle-orm/pg-proxy";
import postgres from "postgres";
import type { Database, Db } from "./db.js";
import { PostgresTransactions, type Statement } from "./postgres-transactions.js";

export interface PostgresOptions {
  url: string;
  /** Connections at most, default 8. */
  connectionsMax?: number;
  /** Server-side limit of one statement in milliseconds, default 30,000. */
  statementTimeoutMs?: number;
  /** Session settings, such as planner switches. */
  settings?: Record<string, string>;
}

/** Transactions under way at once, each on a connection beside the pool's. */
const transactionsMax = 4;

/** Opens a pool; connections are made when needed. */
export function openPostgres(options: PostgresOptions): Database {
  const timeoutMs = options.statementTimeoutMs ?? 30_000;
  let client = connect(options, timeoutMs);
  let closed = false;
  const replace = (broken: postgres.Sql): void => {
    if (closed || client !== broken) return;
    client = connect(options, timeoutMs);
    void broken.end({ timeout: 0 }).catch(() => {});
  };
  const transactions = new PostgresTransactions(
    (onclose) => connect({ ...options, connectionsMax: 1 }, timeoutMs, onclose),
    transactionsMax,
  );
  const guarded = <T>(work: (sql: postgres.Sql) => PromiseLike<T>, limitMs: number): Promise<T> =>
    new Promise((resolve, reject) => {
      const used = client;
      const answer = work(used);
      const timer = setTimeout(() => {
        replace(used);
        reject(new Error(`Postgres gave no answer within ${limitMs} ms`));
      }, limitMs);
      answer.then(
        (result) => {
          clearTimeout(timer);
          resolve(result);
        },
        (error: unknown) => {
          clearTimeout(timer);
          if ((error as { code?: unknown }).code === "CONNECT_TIMEOUT") replace(used);
          reject(error);
        },
      );
    });
  const base = session(
    (work) => guarded((sql) => work(statementOf(sql)), timeoutMs + 5_000),
    (work) => transactions.run((statement) => work(bound(statement)), 2 * timeoutMs),
  );
  return {
    ...base,
    async close() {
      closed = true;
      await Promise.all([client.end({ timeout: 2 }), transactions.close()]);
    },
  };
}

function connect(options: PostgresOptions, timeoutMs: number, onclose?: () => void): postgres.Sql {
  return postgres(options.url, {
    ...(onclose ? { onclose } : {}),
    max: options.connectionsMax ?? 8,
    prepare: true,
    connect_timeout: 5,
    keep_alive: 10,
    idle_timeout: 0,
    backoff: (attempt: number) => Math.min(2, 0.1 * 2 ** Math.min(attempt, 5)) * (0.5 + Math.random() / 2),
    onnotice: () => {},
    // It would ask for array types at each connect, and a connection that breaks meanwhile rejects a promise that nobody holds: the process
    // would end. Arrays go in and come out as text (db.ts), so nothing needs them.
    fetch_types: false,
    connection: {
      application_name: "taskmesh",
      statement_timeout: timeoutMs,
      idle_in_transaction_session_timeout: timeoutMs,
      ...options.settings,
    },
  });
}

const statementOf =
  (sql: postgres.Sql): Statement =>
  (text, params = []) =>
    sql.unsafe(text, params as never[], { prepare: true });

type Run = <T>(work: (statement: Statement) => PromiseLike<T>) => Promise<T>;

function session(run: Run, begin: <T>(work: (tx: Db) => Promise<T>) => Promise<T>): Db {
  return {
    kind: "postgres",
    query: async (text, params = []) => there(await run((statement) => statement(text, params))) as never[],
    transaction: begin,
    orm: drizzle(async (text, params) => ({ rows: there(await run((statement) => statement(text, params).values())) })),
  };
}

/**
 * The rows of a result. postgres.js goes on counting where a statement stopped that failed after its first rows, so the next result of that
 * connection begins with as many holes.
 */
const there = <T>(rows: readonly T[]): T[] => (rows.length === 0 || 0 in rows ? [...rows] : rows.filter(() => true));

/** The session of a transaction; a transaction inside of it is a savepoint. */
function bound(statement: Statement): Db {
  const nested = async <T>(work: (tx: Db) => Promise<T>): Promise<T> => {
    await statement("savepoint nested");
    try {
      const result = await work(bound(statement));
      await statement("release savepoint nested");
      return result;
    } catch (error) {
      await statement("rollback to savepoint nested");
      throw error;
    }
  };
  return session(async (work) => await work(statement), nested);
}

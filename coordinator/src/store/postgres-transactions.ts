/**
 * Transactions on clients of one connection each, a few of them, kept for the next transaction.
 *
 * T1. A client whose connection has closed is never used again. postgres.js would run what is left of a transaction on a new connection, write
 *     to the closed one, or give later statements the answers of earlier ones (porsager/postgres issues 1154 and 1208).
 * T2. At most `max` transactions are under way; others wait for their turn.
 */
import type postgres from "postgres";

interface Client {
  sql: postgres.Sql;
  alive: boolean;
}

/** Runs one statement of a transaction. */
export type Statement = (text: string, params?: readonly unknown[]) => postgres.PendingQuery<postgres.Row[]>;

export class PostgresTransactions {
  readonly #connect: (onClose: () => void) => postgres.Sql;
  readonly #max: number;
  readonly #idle: Client[] = [];
  readonly #busy = new Set<Client>();
  readonly #waiting: (() => void)[] = [];
  #turns = 0;

  /** `connect` makes a client of one connection and calls back when that has closed. */
  constructor(connect: (onClose: () => void) => postgres.Sql, max: number) {
    this.#connect = connect;
    this.#max = max;
  }

  /** Commits what `work` did with the statement that it is given; rolls back if it throws. Gives the connection up after `limitMs`. */
  async run<T>(work: (statement: Statement) => Promise<T>, limitMs: number): Promise<T> {
    await this.#turn();
    const client = this.#take();
    const limit = setTimeout(() => discard(client), limitMs);
    const statement: Statement = (text, params = []) => {
      if (!client.alive) throw new Error("the connection of the transaction has closed");
      return client.sql.unsafe(text, params as never[], { prepare: true });
    };
    try {
      await statement("begin");
      const result = await work(statement);
      await statement("commit");
      return result;
    } catch (error) {
      if (client.alive) await statement("rollback").catch(() => discard(client));
      throw error;
    } finally {
      clearTimeout(limit);
      this.#busy.delete(client);
      if (client.alive) this.#idle.push(client);
      else discard(client);
      this.#turns -= 1;
      this.#waiting.shift()?.();
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#idle, ...this.#busy].map(({ sql }) => sql.end({ timeout: 2 })));
  }

  /** T2 */
  async #turn(): Promise<void> {
    while (this.#turns >= this.#max) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#turns += 1;
  }

  #take(): Client {
    for (let client = this.#idle.pop(); client; client = this.#idle.pop()) {
      if (client.alive) return this.#hold(client);
    }
    const onClose = (): void => discard(made);
    const made: Client = { sql: this.#connect(onClose), alive: true };
    return this.#hold(made);
  }

  #hold(client: Client): Client {
    this.#busy.add(client);
    return client;
  }
}

/** T1 */
function discard(client: Client): void {
  if (!client.alive) return;
  client.alive = false;
  void client.sql.end({ timeout: 0 }).catch(() => {});
}

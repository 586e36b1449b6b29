/**
 * The database as the rest of the store sees it: one statement, or a transaction, on Postgres or PGlite alike.
 *
 * Statement texts and parameters are the same on both. So that results are too, statements select what both drivers give alike:
 * numbers as ::int or ::float8, instants as epoch milliseconds, uuids and text as text, bytes as bytea (a Uint8Array), arrays as jsonb or joined text. Arrays go in
 * as one text parameter with a cast (`arrayOf`), since drivers differ there and element-wise encoding costs most of a batch. JSON goes
 * in as `$1::text::jsonb` (postgres.js would encode the string again), one bytea as a Uint8Array, an instant as to_timestamp($1::float8 / 1000).
 */
import type { PgRemoteDatabase } from "drizzle-orm/pg-proxy";

/** Runs statements: a database or one transaction of it. */
export interface Db {
  readonly kind: "postgres" | "pglite";
  /** Rows of one statement. Rejects with the driver's error; `sqlState(error)` reads its SQLSTATE. */
  query<T = Record<string, unknown>>(text: string, params?: readonly unknown[]): Promise<T[]>;
  /** Runs `work` in one transaction; inside, only `tx` may be used (a second statement beside it would wait for ever on PGlite). */
  transaction<T>(work: (tx: Db) => Promise<T>): Promise<T>;
  /** Drizzle over the same connection, for statements that are not on the hot path. */
  readonly orm: PgRemoteDatabase;
}

export interface Database extends Db {
  /** Ends every connection. Safe to repeat. */
  close(): Promise<void>;
}

/** The SQLSTATE of a driver error, undefined if there is none (a lost connection, a time-out). */
export function sqlState(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    const code = (at as { code?: unknown }).code;
    if (typeof code === "string" && /^[0-9A-Z]{5}$/.test(code)) return code;
  }
  return undefined;
}

type Unquoted = string | number | bigint | boolean | null;

/** Text form of an array parameter whose elements need no quotes: uuids, numbers, base64url tokens; null stays NULL. */
export const arrayOf = (values: readonly Unquoted[]): string => columnOf(values, (value) => value);

/** The same of one value of each row, without a list of them: a batch has a dozen columns. */
export function columnOf<Row>(rows: readonly Row[], pick: (row: Row) => Unquoted): string {
  let text = "{";
  for (let i = 0; i < rows.length; i++) text += `${i > 0 ? "," : ""}${pick(rows[i]!) ?? "NULL"}`;
  return `${text}}`;
}

/** Text form of an array parameter of any strings. */
export function textArray(values: readonly (string | null)[]): string {
  return `{${values.map((value) => (value === null ? "NULL" : quoted(value))).join(",")}}`;
}

const quoted = (value: string): string => `"${value.replace(/[\\"]/g, "\\$&")}"`;

/** Text form of a bytea[] parameter. */
export function bytesArray(values: readonly (Uint8Array | null)[]): string {
  return `{${values.map((value) => (value === null ? "NULL" : `"\\\\x${hex(value)}"`)).join(",")}}`;
}

const hex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");

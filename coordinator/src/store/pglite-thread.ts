/** The thread that holds PGlite. It answers statements in order; an empty statement closes the database. */
import { parentPort, workerData } from "node:worker_threads";
import { PGlite, types } from "@electric-sql/pglite";
import type { Request } from "./pglite.js";

const port = parentPort;
if (!port) throw new Error("pglite-thread runs as a worker thread only");
const { folder } = workerData as { folder?: string };

try {
  // Instants as text, as postgres.js gives them to Drizzle: nothing here parses a time zone.
  const asText = (value: string): string => value;
  const parsers = { [types.TIMESTAMPTZ]: asText, [types.TIMESTAMP]: asText, [types.DATE]: asText };
  const database = await PGlite.create(folder === undefined ? { parsers } : { dataDir: folder, parsers });
  let tail: Promise<void> = Promise.resolve();
  port.on("message", (request: Request) => {
    tail = tail.then(() => answer(database, request));
  });
  port.postMessage({ id: 0, rows: [] });
} catch (error) {
  port.postMessage({ id: 0, error: { message: error instanceof Error ? error.message : String(error) } });
}

async function answer(database: PGlite, { id, text, params, array }: Request): Promise<void> {
  try {
    if (text === "") {
      await database.close();
      port?.postMessage({ id, rows: [] });
      return;
    }
    const result = await database.query(text, [...params], array ? { rowMode: "array" } : {});
    port?.postMessage({ id, rows: result.rows });
  } catch (error) {
    const { message, code, constraint } = error as { message: string; code?: string; constraint?: string };
    port?.postMessage({ id, error: { message, code, constraint } });
  }
}

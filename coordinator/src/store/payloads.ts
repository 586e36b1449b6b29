/**
 * SQL of large payloads.
 *
 * A payload is written under a bare id, chunk by chunk, each in a statement of its own, so that nobody holds 64 MiB in memory or in one
 * transaction. It becomes readable in one step at the end, when it gets its reference. What a broken call leaves behind has
 * no reference and is deleted after a while.
 */
import { createHash } from "node:crypto";
import type { Db } from "./db.js";
import { usePayload } from "./payload-uses.js";

/** Largest chunk: what a reader holds in memory at a time. */
export const chunkBytesMax = 1024 * 1024;

/** Time after which a payload that was not finished is deleted: longer than any call may take. */
const incompleteKeptMs = 60 * 60 * 1000;

/** The stored bytes no longer match their hash. */
export class PayloadCorrupt extends Error {
  override readonly name = "PayloadCorrupt";
}

/** What is known of a complete payload. */
export interface PayloadInfo {
  id: number;
  sizeBytes: number;
  sha256: Uint8Array;
}

/** Begins a payload that nobody can read yet. */
export async function beginPayload(db: Db, namespaceId: number): Promise<number> {
  const [row] = await db.query<{ id: number }>(
    "insert into payloads (namespace_id) values ($1::int) returning id::float8 as id",
    [namespaceId],
  );
  if (!row) throw new Error("an insert returned no row");
  return row.id;
}

/** Adds one chunk of at most `chunkBytesMax`. */
export async function appendChunk(db: Db, id: number, no: number, bytes: Uint8Array): Promise<void> {
  // As base64: drivers send a bytea as hex, which is half as long again, and PGlite's makes it digit by digit in JavaScript.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
  await db.query(
    "insert into payload_chunks (payload_id, no, bytes) values ($1::bigint, $2::int, decode($3::text, 'base64'))",
    [id, no, text],
  );
}

/** Makes the payload readable and returns its reference; equal bytes that are there already win, and these are dropped. */
export async function finishPayload(
  db: Db,
  payload: { id: number; namespaceId: number; sizeBytes: number; sha256: Uint8Array },
): Promise<string> {
  const reference = Buffer.from(payload.sha256).toString("hex");
  await db.transaction(async (tx) => {
    if (!(await usePayload(tx, payload.namespaceId, reference))) {
      // A savepoint, since the loser of a race with the same bytes still has to drop its own.
      const won = await tx
        .transaction((inner) =>
          inner.query(
            "update payloads set reference = $2::text, sha256 = $3::bytea, size_bytes = $4::bigint where id = $1::bigint returning 1 as one",
            [payload.id, reference, payload.sha256, payload.sizeBytes],
          ),
        )
        .then((rows) => {
          if (rows.length === 0) throw new Error(`payload ${payload.id} vanished while it was written`);
          return true;
        })
        .catch(async (error: unknown) => {
          if (await usePayload(tx, payload.namespaceId, reference)) return false;
          throw error;
        });
      if (won) return;
    }
    await tx.query("delete from payloads where id = $1::bigint", [payload.id]);
  });
  return reference;
}

/** Drops a payload that was begun and will not be finished. */
export async function abandonPayload(db: Db, id: number): Promise<void> {
  await db.query("delete from payloads where id = $1::bigint and reference is null", [id]);
}

/** Deletes what calls left behind that broke off. Returns how many there were. */
export async function deleteIncompletePayloads(db: Db): Promise<number> {
  const rows = await db.query(
    `delete from payloads where id in (
       select id from payloads
       where reference is null and created_at < now() - make_interval(secs => $1::float8) limit 100
       for update skip locked)
     returning 1 as one`,
    [incompleteKeptMs / 1000],
  );
  return rows.length;
}

/** A complete payload by its reference. */
export async function findPayload(db: Db, namespaceId: number, reference: string): Promise<PayloadInfo | undefined> {
  const [row] = await db.query<PayloadInfo>(
    `select id::float8 as id, size_bytes::float8 as "sizeBytes", sha256 from payloads
     where namespace_id = $1::int and reference = $2::text`,
    [namespaceId, reference],
  );
  return row;
}

/** One chunk, undefined behind the last. */
export async function readChunk(db: Db, id: number, no: number): Promise<Uint8Array | undefined> {
  const [row] = await db.query<{ text: string }>(
    "select encode(bytes, 'base64') as text from payload_chunks where payload_id = $1::bigint and no = $2::int",
    [id, no],
  );
  return row && Buffer.from(row.text, "base64");
}

/** Stores a message that is in memory; returns its reference. Idempotent: equal bytes in one namespace give one reference. */
export async function putPayload(db: Db, namespaceId: number, bytes: Uint8Array): Promise<string> {
  const sha256 = createHash("sha256").update(bytes).digest();
  const reference = sha256.toString("hex");
  if (await usePayload(db, namespaceId, reference)) return reference;
  const id = await beginPayload(db, namespaceId);
  try {
    for (let no = 0; no * chunkBytesMax < bytes.length; no += 1) {
      await appendChunk(db, id, no, bytes.subarray(no * chunkBytesMax, (no + 1) * chunkBytesMax));
    }
    return await finishPayload(db, { id, namespaceId, sizeBytes: bytes.length, sha256 });
  } catch (error) {
    await abandonPayload(db, id).catch(() => {}); // The clean-up of incomplete payloads gets it otherwise.
    throw error;
  }
}

/**
 * The bytes of a payload, chunk by chunk. Throws PayloadCorrupt behind the last chunk if they don't match their hash, so nothing
 * may be believed before the end.
 */
export async function* readPayload(db: Db, payload: PayloadInfo): AsyncGenerator<Uint8Array> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for (let no = 0; sizeBytes < payload.sizeBytes; no += 1) {
    const chunk = await readChunk(db, payload.id, no);
    if (!chunk || chunk.length === 0) break;
    hash.update(chunk);
    sizeBytes += chunk.length;
    yield chunk;
  }
  if (sizeBytes !== payload.sizeBytes || !hash.digest().equals(payload.sha256)) {
    throw new PayloadCorrupt(`payload ${Buffer.from(payload.sha256).toString("hex")} does not match its hash`);
  }
}

/** A whole payload in memory, at most 64 MiB; undefined: no such payload. Throws PayloadCorrupt. */
export async function getPayload(db: Db, namespaceId: number, reference: string): Promise<Uint8Array | undefined> {
  const payload = await findPayload(db, namespaceId, reference);
  if (!payload) return undefined;
  const bytes = new Uint8Array(payload.sizeBytes);
  let at = 0;
  for await (const chunk of readPayload(db, payload)) {
    if (at + chunk.length > bytes.length) throw new PayloadCorrupt(`payload ${reference} is longer than it was`);
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

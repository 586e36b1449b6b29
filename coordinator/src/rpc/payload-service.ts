/** PayloadService: large messages in chunks. A call holds one chunk at a time, so its memory is the same for 1 MiB and for 64 MiB. */
import { createHash } from "node:crypto";
import type { GetPayloadResponse, PayloadServiceServer, PutPayloadRequest } from "@taskmesh/proto";
import { payloadBytesMax, statusError } from "@taskmesh/runtime";
import type { Namespaces } from "../registry/namespaces.js";
import type { Db } from "../store/db.js";
import {
  abandonPayload,
  appendChunk,
  beginPayload,
  chunkBytesMax,
  findPayload,
  finishPayload,
  PayloadCorrupt,
  readPayload,
} from "../store/payloads.js";
import { clientStream, serverStream } from "./calls.js";

/** Calls that write or read at once; each holds about two chunks and a database connection in turn. */
const callsMax = 64;

export interface PayloadServiceOptions {
  db: Db;
  namespaces: Pick<Namespaces, "resolve">;
}

/** Makes the service. */
export function createPayloadService({ db, namespaces }: PayloadServiceOptions): PayloadServiceServer {
  let calls = 0;
  const limited = async <T>(work: () => Promise<T>): Promise<T> => {
    if (calls >= callsMax) {
      const message = `${callsMax} payloads are being written or read already`;
      throw statusError({ reason: "OVERLOADED", message, retryAfterMs: 500 });
    }
    calls += 1;
    try {
      return await work();
    } finally {
      calls -= 1;
    }
  };
  return {
    putPayload: clientStream((requests, context) =>
      limited(async () => {
        const messages = requests[Symbol.asyncIterator]();
        const first = await messages.next();
        if (first.done || first.value.namespace === "") throw invalid("the first request must name the namespace");
        const namespace = await namespaces.resolve(first.value.namespace);
        const stored = await store(db, namespace.id, first.value, messages, context.signal);
        return {
          payload: {
            contract: "",
            keyId: "",
            sizeBytes: BigInt(stored.sizeBytes),
            sha256: stored.sha256,
            data: { $case: "reference", value: stored.reference },
          },
        };
      }),
    ),
    getPayload: serverStream((request, send: (response: GetPayloadResponse) => Promise<void>) =>
      limited(async () => {
        const namespace = await namespaces.resolve(request.namespace);
        const payload = referenceForm.test(request.reference)
          ? await findPayload(db, namespace.id, request.reference)
          : undefined;
        if (!payload) throw statusError({ reason: "PAYLOAD_NOT_FOUND", message: "there is no such payload" });
        try {
          for await (const chunk of readPayload(db, payload)) await send({ chunk: Buffer.from(chunk) });
        } catch (error) {
          if (!(error instanceof PayloadCorrupt)) throw error;
          throw statusError({ reason: "PAYLOAD_CORRUPT", message: error.message, cause: error });
        }
      }),
    ),
  };
}

/** A reference is the SHA-256 of its bytes in hex. */
const referenceForm = /^[0-9a-f]{64}$/;

async function store(
  db: Db,
  namespaceId: number,
  first: PutPayloadRequest,
  rest: AsyncIterator<PutPayloadRequest>,
  signal: AbortSignal,
): Promise<{ reference: string; sizeBytes: number; sha256: Buffer }> {
  const hash = createHash("sha256");
  const id = await beginPayload(db, namespaceId);
  try {
    let sizeBytes = 0;
    let no = 0;
    for (let request: PutPayloadRequest | undefined = first; request; request = await following(rest)) {
      const { chunk } = request;
      if (chunk.length > chunkBytesMax) throw invalid(`a chunk has more than ${chunkBytesMax} bytes`);
      sizeBytes += chunk.length;
      if (sizeBytes > payloadBytesMax) {
        throw statusError({
          reason: "PAYLOAD_TOO_LARGE",
          message: `the payload has more than ${payloadBytesMax} bytes`,
        });
      }
      if (chunk.length === 0) continue;
      hash.update(chunk);
      await appendChunk(db, id, no, chunk);
      no += 1;
    }
    signal.throwIfAborted(); // The end of a broken stream is not the end of the message.
    const sha256 = hash.digest();
    return { reference: await finishPayload(db, { id, namespaceId, sizeBytes, sha256 }), sizeBytes, sha256 };
  } catch (error) {
    await abandonPayload(db, id).catch(() => {}); // Found by the clean-up of incomplete payloads otherwise.
    throw error;
  }
}

async function following(messages: AsyncIterator<PutPayloadRequest>): Promise<PutPayloadRequest | undefined> {
  const next = await messages.next();
  return next.done ? undefined : next.value;
}

const invalid = (message: string): Error => statusError({ reason: "ARGUMENT_INVALID", message });

/**
 * Messages in and out of their envelopes: inline up to 128 KiB, above that by reference through PayloadService, up to 64 MiB.
 */
import { type GetPayloadResponse, Payload, type PayloadServiceClient } from "@taskmesh/proto";
import {
  fromServiceError,
  fullJitter,
  inlineBytesMax,
  payloadBytesMax,
  type StatusError,
  sha256,
  sleep,
  status,
  statusError,
} from "@taskmesh/runtime";

/** Largest chunk of one message of the stream. */
const chunkBytes = 1024 * 1024;
/** Time for one try, 64 MiB over a slow line included. */
const transferTimeoutMs = 120_000;
/** Tries before a payload counts as unreachable: about half a minute. */
const triesMax = 8;
const retry = { initialMs: 250, capMs: 8_000 };

/** Where payloads by reference live. */
export interface PayloadStore {
  /** The client of the coordinator that the worker is connected to now; undefined while it is connected to none. */
  client(): PayloadServiceClient | undefined;
  namespace: string;
}

const codesToRetry = new Set<status>([
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.CANCELLED,
  status.INTERNAL,
  status.UNKNOWN,
]);

/** The bytes of an inline payload; undefined if it travels by reference. Throws PAYLOAD_CORRUPT if they don't match their hash. */
export function inlineBytes(payload: Payload | undefined): Uint8Array | undefined {
  // An empty message may come without an envelope.
  if (!payload?.data) return new Uint8Array();
  if (payload.data.$case === "reference") return undefined;
  return verified(payload, payload.data.value);
}

/** The envelope of a small message. */
export function inlinePayload(bytes: Uint8Array): Payload {
  return {
    contract: "",
    keyId: "",
    sizeBytes: BigInt(bytes.length),
    sha256: sha256(bytes),
    data: { $case: "inline", value: bytes as Buffer },
  };
}

/** Whether a message fits into its completion. */
export const fitsInline = (bytes: Uint8Array): boolean => bytes.length <= inlineBytesMax;

/** Fetches a payload by reference and checks size and hash. Rejects with a StatusError after the last try. */
export function fetchPayload(store: PayloadStore, payload: Payload, signal: AbortSignal): Promise<Uint8Array> {
  return persistently(store, signal, (client) => fetchOnce(client, store.namespace, payload, signal));
}

/** Stores a message and returns its envelope. Rejects with a StatusError after the last try. */
export function storePayload(store: PayloadStore, bytes: Uint8Array, signal: AbortSignal): Promise<Payload> {
  return persistently(store, signal, (client) => storeOnce(client, store.namespace, bytes, signal));
}

async function persistently<T>(
  store: PayloadStore,
  signal: AbortSignal,
  once: (client: PayloadServiceClient) => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      const client = store.client();
      if (!client) throw statusError({ reason: "COORDINATOR_UNAVAILABLE", message: "not connected to a coordinator" });
      return await once(client);
    } catch (error) {
      const refused = fromServiceError(error);
      if (signal.aborted || tries >= triesMax || !codesToRetry.has(refused.code)) throw refused;
      await sleep(fullJitter(tries, retry), signal);
    }
  }
}

function fetchOnce(
  client: PayloadServiceClient,
  namespace: string,
  payload: Payload,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const reference = payload.data?.$case === "reference" ? payload.data.value : "";
  return new Promise((resolve, reject) => {
    const call = client.getPayload({ namespace, reference }, { deadline: Date.now() + transferTimeoutMs });
    const cancel = (): void => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    const chunks: Buffer[] = [];
    let size = 0;
    call.on("data", ({ chunk }: GetPayloadResponse) => {
      size += chunk.length;
      chunks.push(chunk);
      if (size <= payloadBytesMax) return;
      reject(tooLarge());
      call.cancel();
    });
    call.on("error", (error) => {
      signal.removeEventListener("abort", cancel);
      reject(fromServiceError(error));
    });
    call.on("end", () => {
      signal.removeEventListener("abort", cancel);
      try {
        resolve(verified(payload, Buffer.concat(chunks, size)));
      } catch (error) {
        reject(error as Error);
      }
    });
  });
}

function storeOnce(
  client: PayloadServiceClient,
  namespace: string,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<Payload> {
  return new Promise((resolve, reject) => {
    const call = client.putPayload({ deadline: Date.now() + transferTimeoutMs }, (error, response) => {
      signal.removeEventListener("abort", cancel);
      if (error) reject(fromServiceError(error));
      else if (response?.payload) resolve(Payload.fromPartial({ ...response.payload, contract: "" }));
      else reject(statusError({ reason: "INTERNAL", message: "PutPayload answered without a payload" }));
    });
    const cancel = (): void => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    // The callback above tells; without a listener the same error would end the process.
    call.on("error", () => {});
    let sent = 0;
    const send = (): void => {
      while (sent < bytes.length && call.writable) {
        const chunk = bytes.subarray(sent, sent + chunkBytes) as Buffer;
        const first = sent === 0;
        sent += chunk.length;
        if (!call.write({ namespace: first ? namespace : "", chunk }) && sent < bytes.length) {
          call.once("drain", send);
          return;
        }
      }
      if (call.writable) call.end();
    };
    send();
  });
}

function verified(payload: Payload, bytes: Uint8Array): Uint8Array {
  const sound = payload.sha256.length === 0 || sha256(bytes).equals(payload.sha256);
  if (sound) return bytes;
  throw statusError({
    reason: "PAYLOAD_CORRUPT",
    message: `the ${bytes.length} bytes of a payload don't match their hash`,
  });
}

function tooLarge(): StatusError {
  return statusError({ reason: "PAYLOAD_TOO_LARGE", message: "a stored payload is over 64 MiB" });
}

/**
 * Payload envelopes: messages up to 128 KiB travel inside them, larger ones are stored first and travel by reference.
 */
import { createHash } from "node:crypto";
import { type JsonValue, type Message, toBinary } from "@bufbuild/protobuf";
import { type Payload, PayloadServiceService, type PutPayloadRequest } from "@taskmesh/proto";
import { bytesToJson, fromServiceError, statusError } from "@taskmesh/runtime";
import type { Contract } from "./contracts.js";
import { type CallOptions, isAway, type Upstream } from "./upstream.js";

/** Largest message that travels in its envelope. */
export const INLINE_BYTES_MAX = 128 * 1024;
/** Largest message at all. */
export const PAYLOAD_BYTES_MAX = 64 * 1024 * 1024;
const CHUNK_BYTES = 512 * 1024;
/** Time to move the largest message to or from a coordinator. */
const transferTimeoutMs = 60_000;
const transferTriesMax = 3;

/** The envelope of a message, which is stored at a coordinator first if it is large. */
export async function writePayload(
  upstream: Upstream,
  namespace: string,
  contract: Contract,
  message: Message,
  options: CallOptions,
): Promise<Payload> {
  const bytes = Buffer.from(toBinary(contract.input, message));
  if (bytes.length > PAYLOAD_BYTES_MAX) {
    const detail = `the input has ${bytes.length} bytes; at most ${PAYLOAD_BYTES_MAX} are accepted`;
    throw statusError({ reason: "PAYLOAD_TOO_LARGE", message: detail });
  }
  if (bytes.length <= INLINE_BYTES_MAX) {
    return {
      contract: contract.id,
      keyId: "",
      sizeBytes: BigInt(bytes.length),
      sha256: createHash("sha256").update(bytes).digest(),
      data: { $case: "inline", value: bytes },
    };
  }
  const stored = await repeat(options, () =>
    upstream.upload(PayloadServiceService.putPayload, chunks(namespace, bytes), {
      ...options,
      timeoutMs: transferTimeoutMs,
    }),
  );
  if (stored.payload === undefined) throw new Error("PutPayload answered without an envelope");
  return { ...stored.payload, contract: contract.id };
}

function* chunks(namespace: string, bytes: Buffer): Generator<PutPayloadRequest> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    yield { namespace: at === 0 ? namespace : "", chunk: bytes.subarray(at, at + CHUNK_BYTES) };
  }
}

/** The bytes of a payload, fetched where it travels by reference. */
export async function readPayload(
  upstream: Upstream,
  namespace: string,
  payload: Payload,
  options: CallOptions,
): Promise<Buffer> {
  if (payload.keyId !== "") throw new Error(`the payload is encrypted with key ${payload.keyId}`);
  const { data } = payload;
  if (data === undefined) return Buffer.alloc(0);
  if (data.$case === "inline") return Buffer.from(data.value);
  return repeat(options, () => download(upstream, namespace, data.value, options));
}

async function download(
  upstream: Upstream,
  namespace: string,
  reference: string,
  options: CallOptions,
): Promise<Buffer> {
  const request = { namespace, reference };
  const { call, failed } = upstream.stream(PayloadServiceService.getPayload, request, options.headers);
  const cancel = () => call.cancel();
  const timer = setTimeout(cancel, transferTimeoutMs);
  options.signal.addEventListener("abort", cancel, { once: true });
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const { chunk } of call as AsyncIterable<{ chunk: Buffer }>) {
      size += chunk.length;
      if (size > PAYLOAD_BYTES_MAX) throw new Error(`payload ${reference} is over ${PAYLOAD_BYTES_MAX} bytes`);
      parts.push(chunk);
    }
  } catch (cause) {
    const error = fromServiceError(cause);
    if (isAway(error)) failed(error);
    throw error;
  } finally {
    clearTimeout(timer);
    options.signal.removeEventListener("abort", cancel);
    call.cancel();
  }
  return Buffer.concat(parts);
}

/** Transfers are streams, which the upstream does not repeat by itself. */
async function repeat<T>(options: CallOptions, transfer: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await transfer();
    } catch (cause) {
      const error = fromServiceError(cause);
      if (tries >= transferTriesMax || !isAway(error) || options.signal.aborted) throw error;
    }
  }
}

/** Which side of its contract a payload is. */
export type Side = "input" | "output";

/** The message in `bytes` as canonical protobuf JSON. Throws PAYLOAD_NOT_JSON when it has no such form. */
export function payloadToJson(contract: Contract, side: Side, bytes: Uint8Array, maskSensitive: boolean): JsonValue {
  try {
    return bytesToJson(contract[side], bytes, { registry: contract.registry, maskSensitive });
  } catch (cause) {
    // What is stored was checked; but which types an Any may hold is nobody's to know before it is read.
    const why =
      cause instanceof Error ? cause.message.replace(/^cannot encode message \S+ to JSON: /, "") : String(cause);
    throw statusError({ reason: "PAYLOAD_NOT_JSON", message: `the ${side} has no JSON form: ${why}`, cause });
  }
}

/** Messages that callers give, inline, by reference or as JSON: checked, and as the engine takes them. */
import type { Payload } from "@taskmesh/proto";
import { inlineBytesMax, payloadBytesMax, type StatusError, sha256, status, statusError } from "@taskmesh/runtime";
import { checkMessage, jsonToBytes, type Side, type Violation } from "../contracts/check.js";
import type { Contract } from "../contracts/contract.js";
import type { Value } from "../engine/plan.js";
import type { Database } from "../store/db.js";
import { getPayload, putPayload } from "../store/payloads.js";

/** A message in a request; undefined: the empty one. */
export type Given = { $case: "payload"; value: Payload } | { $case: "json"; value: string } | undefined;

/** What it must be. */
export interface Wanted {
  contract: Contract;
  side: Side;
  /** Of the status, where it is wrong; default INPUT_INVALID. */
  reason?: "INPUT_INVALID" | "OUTPUT_INVALID";
  /** It is kept as a payload whatever its size. */
  stored?: boolean;
}

/** The checked message as a value, stored beforehand if it is large. Rejects: INVALID_ARGUMENT / INPUT_INVALID. */
export async function readGiven(db: Database, namespaceId: number, wanted: Wanted, given: Given): Promise<Value> {
  const { contract, side, reason = "INPUT_INVALID", stored = false } = wanted;
  if (given?.$case === "payload" && given.value.data?.$case === "reference") {
    return readStored(db, namespaceId, wanted, given.value, given.value.data.value);
  }
  let bytes: Uint8Array;
  if (given?.$case === "payload") {
    bytes = given.value.data?.$case === "inline" ? given.value.data.value : new Uint8Array(0);
    const violations = checkMessage(contract, side)(bytes);
    if (violations.length > 0) throw invalid(reason, violations);
  } else {
    const read = jsonToBytes(contract, side, given?.value ?? "{}");
    if (!read.ok) throw invalid(reason, read.violations);
    bytes = read.bytes;
  }
  const value = { contract: contract.fingerprint, sizeBytes: bytes.length, sha256: sha256(bytes) };
  if (bytes.length <= inlineBytesMax && !stored) return { ...value, bytes };
  return { ...value, reference: await putPayload(db, namespaceId, bytes) };
}

async function readStored(
  db: Database,
  namespaceId: number,
  { contract, side, reason = "INPUT_INVALID", stored = false }: Wanted,
  payload: Payload,
  reference: string,
): Promise<Value> {
  const bytes = await getPayload(db, namespaceId, reference);
  if (!bytes)
    throw statusError({
      reason: "PAYLOAD_NOT_FOUND",
      message: `the ${side} refers to a payload that is not stored in the namespace`,
    });
  if (bytes.length > payloadBytesMax)
    throw statusError({ reason: "PAYLOAD_TOO_LARGE", message: `the ${side} has ${bytes.length} bytes` });
  const violations = checkMessage(contract, side)(bytes);
  if (violations.length > 0) throw invalid(reason, violations);
  const value = {
    contract: contract.fingerprint,
    sizeBytes: bytes.length,
    sha256: payload.sha256.length === 32 ? payload.sha256 : sha256(bytes),
  };
  return bytes.length <= inlineBytesMax && !stored ? { ...value, bytes } : { ...value, reference };
}

/** INVALID_ARGUMENT with every violation. */
export function invalid(
  reason: "INPUT_INVALID" | "OUTPUT_INVALID" | "ARGUMENT_INVALID",
  violations: readonly Violation[],
): StatusError {
  const first = violations[0]!;
  const more = violations.length > 1 ? ` (and ${violations.length - 1} more)` : "";
  return statusError({
    code: status.INVALID_ARGUMENT,
    reason,
    message: `${first.field === "" ? "" : `${first.field}: `}${first.message}${more}`,
    fieldViolations: violations.map(({ field, message }) => ({ field, description: message })),
  });
}

/** Whether a text has control characters. */
// NUL can't be stored, and the others only ever deceive.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
export const hasControl = (text: string): boolean => /[\u0000-\u001f\u007f]/.test(text);

/** What requests about contracts have in common: how requests are read, and times. */
import type { Timestamp } from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import { storable } from "./registration.js";

/** Characters of a reason. */
const reasonMax = 1_000;

/** Form of a contract's fingerprint. */
export const fingerprintForm = /^[0-9a-f]{64}$/;

/** The reason that a request gives, as it is recorded. Throws INVALID_ARGUMENT where it is too long, or needed and not there. */
export function reasonOf(text: string, needed: boolean): string {
  const reason = storable(text.trim(), Number.POSITIVE_INFINITY);
  if (needed && reason === "") throw invalid("reason", "must say why: it is recorded");
  if (reason.length > reasonMax) throw invalid("reason", `has more than ${reasonMax} characters`);
  return reason;
}

/** INVALID_ARGUMENT for a field. */
export const invalid = (field: string, description: string): Error =>
  statusError({
    reason: "ARGUMENT_INVALID",
    message: `${field}: ${description}`,
    fieldViolations: [{ field, description }],
  });

/** An instant as a message. */
export const timestamp = (ms: number): Timestamp => ({
  seconds: BigInt(Math.floor(ms / 1000)),
  nanos: Math.floor((ms % 1000) * 1e6),
});

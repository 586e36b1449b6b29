/** What a caller of a registered contract can say about the run behind its call, in metadata: stock stubs have no other place for it. */
import type { Metadata } from "@grpc/grpc-js";
import { type Duration, IdConflictPolicy, IdReusePolicy } from "@taskmesh/proto";
import { shorten, statusError } from "@taskmesh/runtime";

/** Metadata by which a repeated call finds the run of the first. */
export const idempotencyKey = "taskmesh-idempotency-key";
/** `key=value`, once for each label of the run; several also by commas, as which HTTP/2 hands repeated ones over. */
export const labelKey = "taskmesh-label";
/** Priority of the run, -100 to 100. */
export const priorityKey = "taskmesh-priority";
/** Id of the caller's choice for the run; `taskmesh-id-conflict` and `taskmesh-id-reuse` say what to do where another has it, or had it. */
export const customIdKey = "taskmesh-custom-id";
export const idConflictKey = "taskmesh-id-conflict";
export const idReuseKey = "taskmesh-id-reuse";
/** `true`: the call is answered as soon as the run is durable, with an empty message. */
export const asyncKey = "taskmesh-async";

export interface CallSettings {
  idempotencyKey: string;
  labels: Record<string, string>;
  priority: number;
  customId: string;
  idConflict: IdConflictPolicy;
  idReuse: IdReusePolicy;
  isAsync: boolean;
  /** Time until the run expires: the call's own, unless nobody waits for it. */
  timeout: Duration | undefined;
}

/** Deadlines further away are none. */
const timeoutMsMax = 365 * 24 * 3_600_000;

/** Reads them. `remainingMs`: time until the caller gives up, Infinity for never. Throws ARGUMENT_INVALID that names the metadata. */
export function readCallSettings(metadata: Metadata, remainingMs: number): CallSettings {
  const isAsync = readFlag(metadata);
  return {
    idempotencyKey: text(metadata, idempotencyKey),
    labels: readLabels(metadata),
    priority: readPriority(metadata),
    customId: text(metadata, customIdKey),
    idConflict: readPolicy(metadata, idConflictKey, conflicts),
    idReuse: readPolicy(metadata, idReuseKey, reuses),
    isAsync,
    timeout: isAsync || remainingMs > timeoutMsMax ? undefined : durationOf(Math.max(1, Math.ceil(remainingMs))),
  };
}

function readFlag(metadata: Metadata): boolean {
  const given = text(metadata, asyncKey);
  if (given === "" || given === "false") return false;
  if (given === "true") return true;
  throw refuse(asyncKey, `expected true or false, found ${JSON.stringify(shorten(given))}`);
}

function readLabels(metadata: Metadata): Record<string, string> {
  const given = metadata.get(labelKey).flatMap((value) => value.toString().split(","));
  const labels = given.map((text): [string, string] => {
    const label = text.trim();
    const equals = label.indexOf("=");
    if (equals > 0) return [label.slice(0, equals), label.slice(equals + 1)];
    throw refuse(labelKey, `expected key=value, found ${JSON.stringify(shorten(label))}`);
  });
  return Object.fromEntries(labels);
}

const conflicts = {
  fail: IdConflictPolicy.ID_CONFLICT_POLICY_FAIL,
  "use-existing": IdConflictPolicy.ID_CONFLICT_POLICY_USE_EXISTING,
  "terminate-existing": IdConflictPolicy.ID_CONFLICT_POLICY_TERMINATE_EXISTING,
} as const;
const reuses = {
  allow: IdReusePolicy.ID_REUSE_POLICY_ALLOW,
  "allow-if-failed": IdReusePolicy.ID_REUSE_POLICY_ALLOW_IF_FAILED,
  reject: IdReusePolicy.ID_REUSE_POLICY_REJECT,
} as const;

/** 0, which stands for nothing said, where it is not there. */
function readPolicy<T>(metadata: Metadata, name: string, known: Readonly<Record<string, T>>): T | 0 {
  const given = text(metadata, name);
  if (given === "") return 0;
  const policy = Object.hasOwn(known, given) ? known[given] : undefined;
  if (policy !== undefined) return policy;
  throw refuse(name, `expected ${Object.keys(known).join(", ")}, found ${JSON.stringify(shorten(given))}`);
}

function readPriority(metadata: Metadata): number {
  const given = text(metadata, priorityKey);
  if (given === "") return 0;
  if (/^-?\d{1,3}$/.test(given) && Math.abs(Number(given)) <= 100) return Number(given);
  throw refuse(priorityKey, `expected a whole number from -100 to 100, found ${JSON.stringify(shorten(given))}`);
}

function durationOf(ms: number): Duration {
  return { seconds: BigInt(Math.floor(ms / 1_000)), nanos: (ms % 1_000) * 1_000_000 };
}

function refuse(field: string, description: string): Error {
  const message = `metadata ${field}: ${description}`;
  return statusError({ reason: "ARGUMENT_INVALID", message, fieldViolations: [{ field, description }] });
}

/** The first value of a metadata key; "" without one. */
export function text(metadata: Metadata, name: string): string {
  return metadata.get(name)[0]?.toString() ?? "";
}

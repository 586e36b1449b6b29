/** Starting runs and waiting for their results. */
import { randomUUID } from "node:crypto";
import type { JsonValue } from "@bufbuild/protobuf";
import {
  type Duration,
  type GetResultResponse,
  RunServiceService,
  RunStatus,
  type StartRunRequest,
} from "@taskmesh/proto";
import { type JsonPath, type JsonViolation, messageFromJson, parseStrictJson, statusError } from "@taskmesh/runtime";
import type { GatewayContext } from "./context.js";
import type { Contract } from "./contracts.js";
import { writePayload } from "./payloads.js";
import type { CallOptions } from "./upstream.js";

/** Longest wait for a result in one request, in milliseconds. */
export const WAIT_MS_MAX = 60_000;
/** The wait is made of calls that wait for this long, so that a coordinator that fell silent is noticed. */
const WAIT_SLICE_MS = 10_000;
/** What a waiting call may take beyond its wait: at one coordinator, and in all. */
const TRY_SLACK_MS = 4_000;
const CALL_SLACK_MS = 20_000;

/** A JSON value with the integers in it that JSON rounded. */
export interface JsonInput {
  value: JsonValue;
  lossyIntegers: readonly JsonPath[];
}

export type StartSettings = Pick<
  StartRunRequest,
  | "namespace"
  | "method"
  | "idempotencyKey"
  | "labels"
  | "priority"
  | "timeout"
  | "signal"
  | "startAt"
  | "customId"
  | "idConflict"
  | "idReuse"
  | "starter"
>;

export interface StartedRun {
  runId: string;
  existing: boolean;
  /** The contract that the input was written with. */
  contract: Contract;
}

/** Reads the body of a request as strict JSON. Throws JSON_MALFORMED. */
export function readJsonBody(body: unknown): JsonInput {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.alloc(0);
  const json = parseStrictJson(bytes);
  if (json.ok) return json;
  const { field, message } = json;
  throw statusError({
    reason: "JSON_MALFORMED",
    message: field === "" ? message : `${field}: ${message}`,
    fieldViolations: [{ field, description: message }],
  });
}

/**
 * Starts a run with the JSON form of its input. `inputField` is where the input stands in the request, empty for the whole body.
 * `known`: the contract to read it with; default: the newest of the method.
 * Throws METHOD_NOT_FOUND, INPUT_INVALID with every fault, and what StartRun refuses.
 */
export async function startRun(
  context: GatewayContext,
  settings: StartSettings,
  input: JsonInput,
  inputField: string,
  options: CallOptions,
  known?: Contract,
): Promise<StartedRun> {
  const { namespace, method } = settings;
  const contract = known ?? (await context.contracts.current(namespace, method, options));
  const { registry } = contract;
  const parsed = messageFromJson(contract.input, input.value, { registry, lossyIntegers: input.lossyIntegers });
  if (!parsed.ok) throw inputInvalid(parsed.violations, inputField);
  const payload = await writePayload(context.upstream, namespace, contract, parsed.message, options);
  // With a key of its own, a start whose answer was lost can be repeated at another coordinator without a second run.
  const isOwnKey = settings.idempotencyKey === "";
  const request: StartRunRequest = {
    ...settings,
    idempotencyKey: isOwnKey ? `gateway-${randomUUID()}` : settings.idempotencyKey,
    input: { $case: "payload", value: payload },
  };
  const { runId, existing } = await context.upstream.call(RunServiceService.startRun, request, options);
  // A custom id may be another run's, whoever's the key is.
  return { runId, existing: existing && (!isOwnKey || settings.customId !== ""), contract };
}

/** The refusal of an input, with every fault. `inputField`: where the input stands in the request. */
export function inputInvalid(violations: readonly JsonViolation[], inputField: string): Error {
  const fieldViolations = violations.map(({ field, message }) => ({
    field: joinPath(inputField, field),
    description: message,
  }));
  const [first] = fieldViolations;
  const more = violations.length > 1 ? ` (and ${violations.length - 1} more)` : "";
  const where = first === undefined || first.field === "" ? "the input" : first.field;
  const message = `${where}: ${first?.description ?? "breaks the contract"}${more}`;
  return statusError({ reason: "INPUT_INVALID", message, fieldViolations });
}

/** Whether a request came without a body. */
export function isEmptyBody(body: unknown): boolean {
  return !Buffer.isBuffer(body) || body.length === 0;
}

function joinPath(prefix: string, path: string): string {
  if (prefix === "" || path === "") return prefix + path;
  return path.startsWith("[") ? prefix + path : `${prefix}.${path}`;
}

/**
 * The run's result, or its present status when the wait is over first. A gateway that stops ends the wait: the run goes on, and its
 * id is worth more to the caller than a broken connection.
 */
export async function waitForResult(
  context: GatewayContext,
  namespace: string,
  runId: string,
  waitMs: number,
  options: CallOptions,
): Promise<GetResultResponse> {
  const { stopping, upstream } = context;
  const given = new AbortController();
  const giveUp = () => given.abort();
  for (const signal of [options.signal, stopping]) signal.addEventListener("abort", giveUp, { once: true });
  try {
    const untilMs = performance.now() + Math.min(waitMs, WAIT_MS_MAX);
    for (let leftMs = waitMs; leftMs > 0 && !stopping.aborted; leftMs = untilMs - performance.now()) {
      const { sliceMs, wait, times } = sliceOf(leftMs);
      const request = { namespace, runId, wait };
      const waiting = { ...options, ...times, signal: given.signal };
      const askedMs = performance.now();
      const result = await upstream.call(RunServiceService.getResult, request, waiting);
      // An answer before its time is the answer, whatever it says.
      if (isSettled(result.status) || result.output || performance.now() - askedMs < sliceMs / 2) return result;
    }
  } catch (error) {
    if (!stopping.aborted || options.signal.aborted) throw error;
  } finally {
    for (const signal of [options.signal, stopping]) signal.removeEventListener("abort", giveUp);
  }
  return upstream.call(RunServiceService.getResult, { namespace, runId, wait: undefined }, options);
}

/** The next part of a wait: its length, as a setting of the call, and what the call may take in all. */
export function sliceOf(leftMs: number): {
  sliceMs: number;
  wait: Duration;
  times: { timeoutMs: number; tryMs: number };
} {
  const sliceMs = Math.min(leftMs, WAIT_SLICE_MS);
  const times = { timeoutMs: sliceMs + CALL_SLACK_MS, tryMs: sliceMs + TRY_SLACK_MS };
  return { sliceMs, wait: durationOf(sliceMs), times };
}

function durationOf(ms: number): Duration {
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1_000_000) };
}

/** Whether a run of this status changes no more. */
export function isFinal(status: RunStatus): boolean {
  return finalStatuses.has(status);
}

/** Whether nothing happens to a run of this status until someone acts. */
function isSettled(status: RunStatus): boolean {
  return isFinal(status) || status === RunStatus.RUN_STATUS_BROKEN;
}

const finalStatuses = new Set([
  RunStatus.RUN_STATUS_SUCCEEDED,
  RunStatus.RUN_STATUS_FAILED,
  RunStatus.RUN_STATUS_CANCELLED,
  RunStatus.RUN_STATUS_EXPIRED,
]);

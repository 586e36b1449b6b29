/**
 * One run of a handler: bytes in, outcome out. The worker and `runAction` share it, so what passes in a test passes in the mesh.
 *
 *   input bytes --check--> decode --> handler --> encode --check--> output bytes
 *        `- INPUT_INVALID              `- its failure  `- OUTPUT_INVALID
 *
 * Callbacks instead of promises: an attempt costs no promise beyond its handler's. Of an rpc that returns a stream the handler gives many outputs
 * (perform-stream.ts).
 */
import type { Failure } from "@taskmesh/proto";
import type { AttemptContext } from "./context.js";
import type { AnyAction } from "./define.js";
import { ActionFailure, describe, failureOf, toFailure } from "./errors.js";
import { type Emit, performStream } from "./perform-stream.js";

/** Why bytes are no valid message of one type, undefined if they are. */
export type Check = (bytes: Uint8Array) => string | undefined;

export interface ActionChecks {
  input: Check;
  output: Check;
}

/** How a handler ended. `cancelled`: it threw after its run was cancelled. */
export type Outcome =
  | { kind: "output"; bytes: Uint8Array }
  | { kind: "failure"; failure: Failure }
  | { kind: "cancelled"; message: string };

/** Checks, decodes and runs; `done` is called exactly once, maybe before this returns. Never throws unless `done` does. */
export function perform(
  action: AnyAction,
  checks: ActionChecks,
  bytes: Uint8Array,
  context: AttemptContext,
  done: (outcome: Outcome) => void,
  emit?: Emit,
): void {
  const input = decodeInput(action, checks.input, bytes);
  if ("fault" in input) {
    done(refused("INPUT_INVALID", `the input of ${action.method} ${input.fault}`));
    return;
  }
  let answer: unknown;
  try {
    answer = action.handler(input.value, context);
    if (action.entry.responseStream) {
      const port = {
        encode: (value: unknown) => encodeOutput(action, checks.output, value),
        thrown: (error: unknown) => outcomeOf(error, context),
      };
      void performStream(action.method, answer, context, port, emit).then(done);
      return;
    }
    if (isThenable(answer)) {
      answer.then(
        (value) => done(encodeOutput(action, checks.output, value)),
        (thrown: unknown) => done(outcomeOf(thrown, context)),
      );
      return;
    }
  } catch (thrown) {
    done(outcomeOf(thrown, context));
    return;
  }
  done(encodeOutput(action, checks.output, answer));
}

function decodeInput(action: AnyAction, check: Check, bytes: Uint8Array): { value: unknown } | { fault: string } {
  const fault = check(bytes);
  if (fault !== undefined) return { fault: `is not valid: ${fault}` };
  try {
    return { value: action.entry.requestDeserialize(bytes as Buffer) };
  } catch (error) {
    return { fault: `can't be decoded: ${describe(error)}` };
  }
}

function encodeOutput(action: AnyAction, check: Check, answer: unknown): Outcome {
  if (typeof answer !== "object" || answer === null) {
    return refused("OUTPUT_INVALID", `${action.method} answered with ${String(answer)}, not with a message`);
  }
  let bytes: Uint8Array;
  try {
    bytes = action.entry.responseSerialize(answer);
  } catch (error) {
    return refused("OUTPUT_INVALID", `the output of ${action.method} can't be encoded: ${describe(error)}`);
  }
  const fault = check(bytes);
  if (fault === undefined) return { kind: "output", bytes };
  return refused("OUTPUT_INVALID", `the output of ${action.method} is not valid: ${fault}`);
}

function outcomeOf(thrown: unknown, context: AttemptContext): Outcome {
  if (context.abortCode === "CANCELLED") return { kind: "cancelled", message: describe(thrown) };
  if (!(thrown instanceof ActionFailure)) context.note("handler threw", { error: stackOf(thrown) });
  else if (thrown.cause !== undefined) context.note(`${thrown.reason} was caused by`, { error: stackOf(thrown.cause) });
  return { kind: "failure", failure: toFailure(thrown) };
}

/** The stack where there is one. */
function stackOf(thrown: unknown): string {
  return thrown instanceof Error && typeof thrown.stack === "string" ? thrown.stack : describe(thrown);
}

const refused = (reason: string, message: string): Outcome => ({
  kind: "failure",
  failure: failureOf(reason, message, false),
});

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}

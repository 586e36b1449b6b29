/**
 * One run of a handler that gives many outputs.
 *
 *   next output --check, encode--> emitted at once --> next ...
 *        `- none left: the last one, or what the generator returned, is the outcome
 *
 * O1. The outcome is the last output; what was emitted before it is the caller's alone and recorded nowhere.
 * O2. One output at a time: the generator is asked for the next when there is room for it, so a slow way out holds it back.
 * O3. Once the attempt must stop, no further output is asked for: the generator is ended where it stands, its `finally` blocks run.
 */
import type { AttemptContext } from "./context.js";
import { failureOf, toFailure } from "./errors.js";
import type { Outcome } from "./perform.js";

/** Passes on an encoded output, counted from 1; resolves when there is room for the next, never rejects. */
export type Emit = (bytes: Uint8Array, number: number) => Promise<void>;

/** What is done with what the handler gives. */
export interface StreamPorts {
  /** The output, checked; or why it is none. */
  encode(answer: unknown): Outcome;
  /** What the handler's exception makes of the attempt. */
  thrown(error: unknown): Outcome;
}

/** Takes all outputs of a handler; without `emit` only the last one counts. Never rejects. */
export async function performStream(
  method: string,
  outputs: unknown,
  context: AttemptContext,
  ports: StreamPorts,
  emit?: Emit,
): Promise<Outcome> {
  if (!isAsyncIterable(outputs)) {
    const message = `the handler of ${method} gave no outputs to go through; its rpc returns a stream, so write \`async function*\``;
    return { kind: "failure", failure: failureOf("OUTPUT_INVALID", message, false) };
  }
  const iterator = outputs[Symbol.asyncIterator]();
  let last: Outcome | undefined;
  try {
    for (let number = 1; ; number++) {
      const { done = false, value } = await iterator.next();
      if (done && value === undefined) break;
      last = ports.encode(value);
      if (done) break;
      if (last.kind !== "output" || context.abortCode !== undefined) {
        await iterator.return?.();
        return last.kind === "output" ? stopped(context) : last;
      }
      context.heartbeat();
      await emit?.(last.bytes, number);
    }
  } catch (error) {
    return ports.thrown(error);
  }
  if (last !== undefined) return last;
  const message = `the handler of ${method} ended without an output; the last one is its result`;
  return { kind: "failure", failure: failureOf("OUTPUT_INVALID", message, false) };
}

/** The handler was ended between two outputs. */
function stopped(context: AttemptContext): Outcome {
  if (context.abortCode === "CANCELLED") return { kind: "cancelled", message: "stopped between two outputs" };
  return { kind: "failure", failure: toFailure(context.signal.reason) };
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}

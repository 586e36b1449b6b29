/** Sends what handlers emit to whoever waits for their runs: best effort, beside the completion that is recorded. */
import type { EmittedOutput, Payload, StartStep } from "@taskmesh/proto";
import { fitsInline, inlinePayload } from "./payload.js";
import type { Emit } from "./perform-stream.js";

export interface EmitPorts {
  store(bytes: Uint8Array, signal: AbortSignal): Promise<Payload>;
  /** Resolves when there is room for the next; never rejects. */
  send(output: EmittedOutput): Promise<void>;
}

/** What the handler of this start emits with; undefined: nobody can wait for its outputs, since its run is of a chain. */
export function emitterOf({ store, send }: EmitPorts, start: StartStep, signal: () => AbortSignal): Emit | undefined {
  const { runId, attempt, lease, method, runMethod } = start;
  if (runMethod !== method) return undefined;
  return async (bytes, number) => {
    try {
      const output = fitsInline(bytes) ? inlinePayload(bytes) : await store(bytes, signal());
      await send({ runId, attempt, lease, number: BigInt(number), output });
    } catch {
      // Lost, as any of them may be: its number tells the caller.
    }
  };
}

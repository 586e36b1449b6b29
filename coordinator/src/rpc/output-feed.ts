/**
 * The outputs of one run as its handler emits them, for a caller who waits at this coordinator. They come beside the record, by whichever
 * carrier there is, so each may be lost and none is stored.
 *
 * O1. In order, each once: of a newer attempt the outputs begin again, those of an older one are dropped.
 * O2. Only messages of the contract's output type are passed on, whoever sent them.
 * O3. What waits for a slow caller is bounded; above that new outputs are dropped. What is missing is counted (`missed`).
 */
import { EmittedOutput, type Payload } from "@taskmesh/proto";
import type { Carrier, RunRef } from "@taskmesh/runtime";
import type { Database } from "../store/db.js";
import { getPayload } from "../store/payloads.js";

/** Outputs that wait for one caller. */
const waitingMax = 10_000;
const waitingBytesMax = 16 * 1024 * 1024;

export interface OutputFeedDeps {
  carrier: Pick<Carrier, "onEmitted">;
  db: Database;
}

export interface OutputFeedOptions {
  run: RunRef;
  /** Whether bytes are a message of the contract's output. */
  isOutput(bytes: Uint8Array): boolean;
  /** The run has not begun: what is missing at the beginning counts as well. */
  fromStart: boolean;
}

export interface OutputFeed {
  /** The next output; undefined when `over` has aborted and all that came before was given. */
  next(over: AbortSignal): Promise<Uint8Array | undefined>;
  /** Outputs that are known to be lost so far. */
  readonly missed: number;
  /** Stops listening. Safe to repeat. */
  close(): void;
}

/** Listens from now on. */
export function openOutputFeed(deps: OutputFeedDeps, options: OutputFeedOptions): OutputFeed {
  const waiting: { output: EmittedOutput; size: number }[] = [];
  let waitingBytes = 0;
  let missed = 0;
  let attempt = 0;
  let expected = options.fromStart ? 1 : 0;
  let wake: () => void = () => {};

  const take = (output: EmittedOutput, size: number): void => {
    const number = Number(output.number);
    if (output.attempt < attempt) return;
    if (output.attempt > attempt) {
      if (attempt > 0) expected = 1;
      attempt = output.attempt;
    }
    if (number < expected) return;
    if (expected > 0) missed += number - expected;
    expected = number + 1;
    if (waiting.length >= waitingMax || waitingBytes + size > waitingBytesMax) {
      missed += 1;
      return;
    }
    waitingBytes += size;
    waiting.push({ output, size });
    wake();
  };
  const stop = deps.carrier.onEmitted(options.run, (encoded) => {
    const output = decode(encoded);
    if (output?.runId === options.run.runId) take(output, encoded.length);
  });

  const read = async ({ output }: EmittedOutput): Promise<Uint8Array | undefined> => {
    const bytes = await bytesOf(deps.db, options.run.namespaceId, output);
    if (bytes !== undefined && options.isOutput(bytes)) return bytes;
    missed += 1;
    return undefined;
  };
  return {
    async next(over) {
      for (;;) {
        const first = waiting.shift();
        if (first) {
          waitingBytes -= first.size;
          const bytes = await read(first.output);
          if (bytes) return bytes;
        } else if (over.aborted) return undefined;
        else {
          await new Promise<void>((resolve) => {
            wake = () => {
              over.removeEventListener("abort", wake);
              resolve();
            };
            over.addEventListener("abort", wake, { once: true });
          });
        }
      }
    },
    get missed() {
      return missed;
    },
    close: stop,
  };
}

function decode(encoded: Uint8Array): EmittedOutput | undefined {
  try {
    return EmittedOutput.decode(encoded);
  } catch {
    // Any worker of the namespace can say anything here; it is the caller's loss alone, and its result is checked apart.
    return undefined;
  }
}

async function bytesOf(
  db: Database,
  namespaceId: number,
  payload: Payload | undefined,
): Promise<Uint8Array | undefined> {
  if (payload?.data?.$case !== "reference") return payload?.data?.value ?? new Uint8Array(0);
  return (await getPayload(db, namespaceId, payload.data.value).catch(() => undefined)) ?? undefined;
}

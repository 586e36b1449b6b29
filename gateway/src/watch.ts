/**
 * The events of a run, in order and without gaps, through the death of coordinators.
 *
 * W1. An event is yielded once, and only right after its predecessor: a stream that repeats or skips one is dropped and opened
 *     again behind the last event yielded.
 * W2. A broken stream is opened at the next coordinator until the reader leaves; only a refusal (no such run) ends it with an error.
 * W3. No more than the few events of the stream's own window are in memory: the reader's pace is the stream's.
 */
import { EventKind, type RunEvent, type RunProgress, RunServiceService, type WatchRunResponse } from "@taskmesh/proto";
import { fromServiceError, fullJitter, type StatusError, sleep, status } from "@taskmesh/runtime";
import type { Upstream } from "./upstream.js";

/** One of both is set. */
export type RunNews = { event: RunEvent; progress?: undefined } | { event?: undefined; progress: RunProgress };

export interface WatchOptions {
  namespace: string;
  runId: string;
  /** Events above this seq are wanted. */
  afterSeq: bigint;
  signal: AbortSignal;
  headers?: Readonly<Record<string, string>>;
}

/**
 * Yields events until the run has ended or `signal` aborts, and between them what handlers report, which is no event and in no order but
 * time's. Throws a StatusError when the watch is refused.
 */
export async function* watchRun(upstream: Upstream, options: WatchOptions): AsyncGenerator<RunNews, void> {
  const { namespace, runId, signal } = options;
  let lastSeq = options.afterSeq;
  for (let failures = 0; !signal.aborted; ) {
    const request = { namespace, runId, afterSeq: lastSeq };
    const { call, failed } = upstream.stream(RunServiceService.watchRun, request, options.headers);
    const cancel = () => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    let hasGap = false;
    try {
      for await (const { event, progress } of call as AsyncIterable<WatchRunResponse>) {
        if (progress !== undefined) yield { progress };
        if (event === undefined || event.seq <= lastSeq) continue;
        hasGap = event.seq !== lastSeq + 1n;
        if (hasGap) break; // W1
        lastSeq = event.seq;
        failures = 0;
        yield { event };
        if (event.kind === EventKind.EVENT_KIND_RUN_ENDED) return;
      }
      // A stream that ends well has told all there is of an ended run.
      if (!hasGap) return;
      failures++;
    } catch (cause) {
      if (signal.aborted) return;
      const error = fromServiceError(cause);
      if (isRefusal(error)) throw error;
      failures++;
      failed(error);
    } finally {
      signal.removeEventListener("abort", cancel);
      call.cancel();
    }
    await sleep(fullJitter(failures, { initialMs: 100, capMs: 2_000 }), signal);
  }
}

/** Whether every coordinator would say the same. */
function isRefusal(error: StatusError): boolean {
  return refusals.has(error.code);
}

const refusals = new Set([
  ...[status.NOT_FOUND, status.INVALID_ARGUMENT, status.FAILED_PRECONDITION, status.UNIMPLEMENTED],
  ...[status.UNAUTHENTICATED, status.PERMISSION_DENIED],
]);

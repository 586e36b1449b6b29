/**
 * What a worker does for its process: an orderly end on SIGTERM and SIGINT, and no silent death by a forgotten promise.
 *
 * Several workers of one process share both: the process ends when the last of them has drained.
 */
import type { Logger } from "@taskmesh/runtime";

/** Exit code after a second signal, as shells give it for SIGINT. */
const impatientExitCode = 130;

export interface Guarded {
  handleSignals: boolean;
  /** False where the process is more than its workers, and their host has its own rule. */
  handleRejections: boolean;
  log: Logger;
  stop(): Promise<void>;
  inFlight(): number;
}

/** Workers for which rejections are handled, and those that signals drain. */
const guarded = new Set<Guarded>();
const signalled = new Set<Guarded>();
let signals = 0;

/** Guards the process for one worker; call the result when the worker has stopped. */
export function guardProcess(worker: Guarded): () => void {
  if (worker.handleRejections) {
    if (guarded.size === 0) process.on("unhandledRejection", onUnhandledRejection);
    guarded.add(worker);
  }
  if (worker.handleSignals) {
    if (signalled.size === 0) {
      process.on("SIGTERM", onSignal);
      process.on("SIGINT", onSignal);
    }
    signalled.add(worker);
  }
  return () => {
    signalled.delete(worker);
    if (guarded.delete(worker) && guarded.size === 0) process.off("unhandledRejection", onUnhandledRejection);
    // A signal under way still has to end the process, and a second one to hurry it.
    if (signalled.size > 0 || signals > 0) return;
    process.off("SIGTERM", onSignal);
    process.off("SIGINT", onSignal);
  };
}

function onSignal(signal: NodeJS.Signals): void {
  if (++signals > 1) process.exit(impatientExitCode);
  const workers = [...signalled];
  workers[0]?.log.info({ signal }, "ending on a signal; a second one ends at once");
  void Promise.allSettled(workers.map((worker) => worker.stop())).then((ends) => {
    process.exit(ends.some((end) => end.status === "rejected") ? 1 : 0);
  });
}

/**
 * A handler let a promise fail that it did not await. Node would end the process, and with it the attempts of everyone else; so it is logged
 * as an error and the worker goes on. The handler's own attempt is judged by what it returns.
 */
function onUnhandledRejection(error: unknown): void {
  for (const worker of guarded) {
    worker.log.error(
      { err: error, in_flight: worker.inFlight() },
      "a promise was rejected and nothing handled it: a handler does not await all of its work",
    );
    return;
  }
}

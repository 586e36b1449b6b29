/** Probes of a process that holds workers: several of them share one address, and the process is ready when all of them are. */
import { type Address, createHealthServer, formatAddress, type HealthServer, type Logger } from "@taskmesh/runtime";

export interface ProbedWorker {
  address: Address;
  /** Whether work can come to the worker now. */
  ready(): boolean;
  log: Logger;
}

interface Shared {
  server: HealthServer;
  workers: Set<ProbedWorker>;
}

const shared = new Map<string, Shared>();

/**
 * Answers probes for one more worker. Resolves to its leave, which closes the address behind the last one.
 * Rejects when the address can't be bound.
 */
export async function joinHealth(worker: ProbedWorker): Promise<() => Promise<void>> {
  const key = formatAddress(worker.address);
  const found = shared.get(key) ?? open(worker);
  shared.set(key, found);
  found.workers.add(worker);
  const leave = async (): Promise<void> => {
    if (!found.workers.delete(worker) || found.workers.size > 0) return;
    if (shared.get(key) === found) shared.delete(key);
    await found.server.stop();
  };
  try {
    await found.server.start();
  } catch (error) {
    await leave();
    throw error;
  }
  return leave;
}

/** The same for a worker's configuration: from before the first registration until after the last attempt, so that neither is taken for death. */
export async function answerProbes(
  { healthAddress, log }: { healthAddress: Address | undefined; log: Logger },
  ready: () => boolean,
): Promise<() => Promise<void>> {
  return healthAddress ? joinHealth({ address: healthAddress, ready, log }) : async () => {};
}

function open({ address, log }: ProbedWorker): Shared {
  const workers = new Set<ProbedWorker>();
  const ready = (): boolean => [...workers].every((worker) => worker.ready());
  return { workers, server: createHealthServer({ address, ready, log }) };
}

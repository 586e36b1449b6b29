/**
 * The life of a part of a process: start and stop, in any order, any number of times, at once.
 *
 *   stopped --start--> starting --> running --stop--> stopping --> stopped
 *
 * L1. Calls are carried out one after another; calls that ask for what is already under way share its promise.
 * L2. `stop` during a start aborts the start's signal, waits for it, and undoes it.
 * L3. A start that fails leaves the service stopped; what it had begun is its own job to undo, before it throws.
 * L4. `stop` never rejects because of a start, and after it resolved nothing of the service runs.
 */
import type { Logger } from "./log.js";

/** Something with a start and a stop that are safe to repeat. */
export interface Service {
  readonly name: string;
  /** Resolves when it runs. Rejects with the reason when it can't, or when `stop` came in between. */
  start(): Promise<void>;
  /** Resolves when nothing of it runs any more. */
  stop(): Promise<void>;
  readonly running: boolean;
}

export interface ServiceParts {
  /** Called when stopped. Give up when `signal` aborts. */
  start(signal: AbortSignal): Promise<void> | void;
  /** Called once for each start that succeeded. */
  stop(): Promise<void> | void;
}

/** Makes a start and a stop that are called in turn into a service that stands any storm of calls (L1 to L4). */
export function createService(name: string, parts: ServiceParts): Service {
  let running = false;
  let wanted: "start" | "stop" | undefined;
  let promise: Promise<void> = Promise.resolve();
  let abort = new AbortController();

  /** Queues one change behind what is under way; the same wish twice in a row is one. */
  const enqueue = (wish: "start" | "stop", change: () => Promise<void>): Promise<void> => {
    if (wanted === wish) return promise;
    wanted = wish;
    const next = promise.catch(() => {}).then(change);
    promise = next;
    const settle = (): void => {
      if (promise === next) wanted = undefined;
    };
    next.then(settle, settle);
    return next;
  };

  return {
    name,
    get running() {
      return running;
    },
    start() {
      if (wanted !== "start") abort = new AbortController();
      const { signal } = abort;
      return enqueue("start", async () => {
        if (running) return;
        if (signal.aborted) throw new Error(`${name} was stopped before it had started`);
        await parts.start(signal);
        running = true;
        if (!signal.aborted) return;
        // L2: the queued stop finds it running and undoes it; the starter is told.
        throw new Error(`${name} was stopped while it started`);
      });
    },
    stop() {
      abort.abort();
      return enqueue("stop", async () => {
        if (!running) return;
        running = false;
        await parts.stop();
      });
    },
  };
}

/**
 * Several services as one: started in order, each after the one before runs; stopped in the opposite order. If one does not
 * start, those before it are stopped again. All are stopped even if the stop of one fails; the first failure is reported.
 */
export function serviceGroup(name: string, services: readonly Service[]): Service {
  const stopAll = async (started: readonly Service[]): Promise<void> => {
    const failures: unknown[] = [];
    for (const service of started.toReversed()) {
      await service.stop().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw new Error(`${name} did not stop cleanly`, { cause: failures[0] });
  };
  return createService(name, {
    async start(signal) {
      const started: Service[] = [];
      for (const service of services) {
        try {
          signal.throwIfAborted();
          const stopNow = (): void => void service.stop().catch(() => {});
          signal.addEventListener("abort", stopNow, { once: true });
          await service.start();
          signal.removeEventListener("abort", stopNow);
          started.push(service);
        } catch (error) {
          await stopAll(started).catch(() => {});
          throw error;
        }
      }
    },
    stop: () => stopAll(services),
  });
}

export interface RunOptions {
  log: Logger;
  /** Longest time that stopping may take before the process ends anyway, in milliseconds; default 30 s. */
  stopTimeoutMs?: number | undefined;
  /** Called once it runs. */
  onRunning?: (() => void) | undefined;
  /** Stops it like a signal would. */
  until?: AbortSignal | undefined;
}

const stopTimeoutMsDefault = 30_000;

/**
 * Runs a service until SIGTERM or SIGINT, then stops it. Resolves to the exit code: 0 after a clean stop, 1 if it could not start or
 * stop in time. A second signal ends the process at once with code 130.
 */
export async function runService(service: Service, options: RunOptions): Promise<number> {
  const { log } = options;
  let asked: () => void = () => {};
  const stopAsked = new Promise<void>((resolve) => {
    asked = resolve;
  });
  let signals = 0;
  const onSignal = (signal: string): void => {
    signals += 1;
    if (signals > 1) process.exit(130);
    log.info({ signal }, "stopping");
    asked();
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  if (options.until?.aborted) asked();
  options.until?.addEventListener("abort", asked, { once: true });
  let code = 0;
  try {
    const started = service.start().then(
      () => options.onRunning?.(),
      (error: unknown) => {
        code = signals > 0 ? 0 : 1;
        if (code) log.fatal({ err: error }, `${service.name} could not start`);
        asked();
      },
    );
    await Promise.race([stopAsked, started.then(() => stopAsked)]);
    code = Math.max(code, await stopWithin(service, options.stopTimeoutMs ?? stopTimeoutMsDefault, log));
    return code;
  } finally {
    process.off("SIGTERM", onSignal);
    process.off("SIGINT", onSignal);
    options.until?.removeEventListener("abort", asked);
  }
}

async function stopWithin(service: Service, timeoutMs: number, log: Logger): Promise<number> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(() => resolve("late"), timeoutMs);
  });
  try {
    const ended = await Promise.race([service.stop().then(() => "ended" as const), late]);
    if (ended === "late") log.error({ timeout_ms: timeoutMs }, `${service.name} did not stop in time`);
    return ended === "late" ? 1 : 0;
  } catch (error) {
    log.error({ err: error }, `${service.name} did not stop cleanly`);
    return 1;
  } finally {
    clearTimeout(timer);
  }
}

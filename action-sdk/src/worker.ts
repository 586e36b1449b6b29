/**
 * A worker: registers its actions, takes work as far as it has slots, reports, and leaves in order.
 *
 *   session (connection.ts) --lanes, credentials--> transport --starts--> attempts (attempt.ts)
 *        ^   |                                          ^                      |
 *        |   +--bound, cancels, republish--> attempts   +--- completions <-----+
 *        +--- attempts in flight, free slots, newest nonce
 *
 * The session, the transport and the attempts break and heal apart: losing one never ends the others.
 */
import type { BeatReply, FreeSlots, Register, Registered, StartStep } from "@taskmesh/proto";
import {
  fromServiceError,
  fullJitter,
  type Logger,
  type StartDelivery,
  sleep,
  startTelemetry,
  unaryCall,
  type WorkListener,
  type WorkTransport,
  within,
} from "@taskmesh/runtime";
import { Attempts, graceMs } from "./attempt.js";
import { Completions } from "./completions.js";
import { type Connection, openConnection, type SessionListener } from "./connection.js";
import { type Dialled, dial } from "./dial.js";
import { answerProbes } from "./health.js";
import { resolveOptions, type WorkerConfig, type WorkerOptions } from "./options.js";
import { fetchPayload, storePayload } from "./payload.js";
import { guardProcess } from "./process-guard.js";
import { TransportSlots } from "./transport-slots.js";
import { createTransport, keepsTransport, type Session } from "./transports.js";
import { upcastersOf } from "./upcasters.js";
import { showWorker } from "./worker-metrics.js";

/** Time for one claim before it is tried again. */
const claimTimeoutMs = 5_000;
/** Time after which a start that can't be claimed is left to be delivered again. */
const claimGiveUpMs = 60_000;
const claimRetry = { initialMs: 100, capMs: 3_000 };
const transportRetry = { initialMs: 200, capMs: 5_000 };
/** What may still come over a transport that seems dead is waited for so long. */
const deadDrainMs = 2_000;
/** A transport that lasted this long was a good one. */
const goodTransportMs = 5_000;
/** Time for the last completions after the last attempt ended. */
const flushTimeoutMs = 5_000;
/** Share of the beat interval below which an attempt is too young to be listed. */
const youngShare = 0.1;

/** Attempts beyond the slots that may wait for confirmation; a coordinator accepts beats that list a few more. */
const unconfirmedSlack = 32;

/** Name and version that coordinators show. */
export const sdkName = "taskmesh-action-sdk-node/0.1.0";

/** A running worker. */
export interface Worker {
  /** Id of the live session; it changes only when the mesh has forgotten the session. */
  readonly sessionId: string;
  /** `host:port` of the coordinator that holds the session; undefined while there is none. */
  readonly address: string | undefined;
  /** Attempts in flight. */
  readonly inFlight: number;
  /** Drains: takes no more work, lets what is in flight end within `drainTimeoutMs`, ends the session. Safe to repeat. */
  stop(): Promise<void>;
  /** Resolves when the worker has stopped. */
  readonly done: Promise<void>;
}

/**
 * Starts a worker and resolves when its registration holds; until then it tries again and again.
 *
 * Rejects with a ConfigError that lists every fault of the options and the environment, with a StatusError when the coordinator refuses
 * the registration for a reason that a retry can't mend, and with an Error when `signal` aborts first.
 */
export async function startWorker(options: WorkerOptions): Promise<Worker> {
  const config = resolveOptions(options);
  // An embedded mesh traces for its whole process.
  const telemetry = config.carrier ? undefined : await startTelemetry("taskmesh-worker");
  let worker: RunningWorker | undefined;
  const leaveHealth = await answerProbes(config, () => worker?.ready ?? false);
  const hide = await showWorker(config, () => worker);
  worker = new RunningWorker(config, async () => {
    await Promise.all([leaveHealth(), hide()]);
    await telemetry?.stop();
  });
  await worker.started();
  return worker;
}

class RunningWorker implements Worker, SessionListener {
  readonly done: Promise<void>;
  readonly #config: WorkerConfig;
  readonly #log: Logger;
  readonly #connection: Connection;
  readonly #completions: Completions;
  readonly #attempts: Attempts;
  readonly #stopping = new AbortController();
  readonly #unguard: () => void;
  readonly #releaseProcess: () => Promise<void>;
  #transport: WorkTransport | undefined;
  /** What the present transport may use of the slots, beside attempts that earlier ones brought. */
  readonly #slots = new TransportSlots(() => this.#giveSlots());
  #listener: WorkListener | undefined;
  /** Grows with each change of the transport: what belongs to an older one is void. */
  #generation = 0;
  /** When the present transport was opened: one that closes again at once is not reopened at once. */
  #openedAtMs = 0;
  #earlyCloses = 0;
  #session: Session | undefined;
  #nonce = "";
  #draining = false;
  #stopped: Promise<void> | undefined;
  #finish: () => void = () => {};
  #opened: () => void = () => {};
  readonly #firstOpen = new Promise<void>((resolve) => {
    this.#opened = resolve;
  });

  /** `release`: called when the worker has stopped. */
  constructor(config: WorkerConfig, release: () => Promise<void>) {
    this.#config = config;
    this.#releaseProcess = release;
    this.#log = config.log;
    this.done = new Promise((resolve) => {
      this.#finish = resolve;
    });
    this.#completions = new Completions((error, waiting) =>
      this.#log.warn({ error: error.message, waiting }, "completions are not confirmed; sending them again"),
    );
    const store = { client: () => this.#connection.dialled?.payload(), namespace: config.client.namespace };
    this.#attempts = new Attempts({
      namespace: config.client.namespace,
      attemptsMax: config.slots * config.queues.length + unconfirmedSlack,
      actions: config.actions,
      sessionId: () => this.#connection.sessionId,
      claim: (start, signal) => this.#claim(start, signal),
      fetch: (payload, signal) => fetchPayload(store, payload, signal),
      store: (bytes, signal) => storePayload(store, bytes, signal),
      send: async (output) => this.#transport?.emit(output),
      completions: this.#completions,
      log: this.#log,
    });
    this.#connection = openConnection({
      addresses: config.client.addresses,
      dial: (address) => dial(address, config.client),
      listener: this,
      log: this.#log,
    });
    this.#unguard = guardProcess({
      handleSignals: config.handleSignals,
      handleRejections: config.carrier === undefined,
      log: this.#log,
      stop: () => this.stop(),
      inFlight: () => this.inFlight,
    });
    config.signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (config.signal?.aborted) this.#onAbort();
  }

  get sessionId(): string {
    return this.#connection.sessionId;
  }

  get address(): string | undefined {
    return this.#connection.dialled?.address;
  }

  get inFlight(): number {
    return this.#attempts.size;
  }

  /** Whether work can come: the way of work is open, and the worker does not drain. */
  get ready(): boolean {
    return this.#transport !== undefined && !this.#draining;
  }

  /** Slots of each queue, and how many of them are free. */
  get freeSlots(): FreeSlots[] {
    const names = this.#config.queues.map((queue) => queue.taskQueue);
    return this.#attempts.freeSlots(names, this.#config.slots);
  }

  /** Resolves when the registration holds and work can come. */
  async started(): Promise<void> {
    try {
      await this.#connection.registered;
      await Promise.race([this.#firstOpen, this.done]);
      if (this.#draining) throw new Error("the worker was stopped before its registration held");
    } catch (error) {
      await this.stop();
      throw error;
    }
    if (this.#config.quiet) return;
    for (const method of this.#config.actions.keys()) {
      process.stdout.write(`registered ${method}, ${this.#config.slots} slots\n`);
    }
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#drain().finally(() => this.#finish());
    return this.#stopped;
  }

  // What the session asks and tells.

  register(sessionId: string): Register {
    const { client, host, version, labels, descriptorSet, queues, slots, transports } = this.#config;
    return {
      namespace: client.namespace,
      sessionId,
      host,
      pid: process.pid,
      version,
      sdk: sdkName,
      labels: { ...labels },
      descriptorSet: Buffer.from(descriptorSet),
      queues: queues.map(({ taskQueue, methods }) => ({ taskQueue, methods, slots })),
      transports: [...transports],
      upcasters: upcastersOf(this.#config.actions.values()),
    };
  }

  onRegistered(registered: Registered, dialled: Dialled): void {
    for (const warning of registered.warnings) this.#log.warn({ warning }, "the coordinator warns");
    const { sessionId, coordinatorId } = registered;
    const methods = [...this.#config.actions.keys()];
    this.#log.info(
      { session_id: sessionId, coordinator: coordinatorId, address: dialled.address, methods },
      "registered",
    );
    const before = this.#session;
    this.#session = { registered, dialled };
    const kept = before !== undefined && this.#transport !== undefined && keepsTransport(before, this.#session);
    if (!kept) void this.#openTransport();
    else if (registered.jetstream) this.#transport?.renew?.(registered.jetstream);
  }

  beat(): ReturnType<SessionListener["beat"]> {
    const intervalMs = Number(this.#session?.registered.beatInterval?.seconds ?? 5n) * 1_000;
    return {
      nonce: this.#nonce,
      attempts: this.#attempts.beats(intervalMs * youngShare),
      freeSlots: this.freeSlots,
      draining: this.#draining,
    };
  }

  onReply(reply: BeatReply): void {
    for (const lease of reply.boundLeases) this.#attempts.bound(lease);
    for (const { lease, reason } of reply.cancels) this.#attempts.cancel(lease, reason);
    if (reply.jetstream) this.#transport?.renew?.(reply.jetstream);
    if (reply.republish) this.#completions.republish();
    if (reply.reopenTransport && this.#transport) {
      this.#log.warn("the work transport seems dead; opening it again");
      void this.#openTransport({ oldIsDead: true });
    }
  }

  onBroken(): void {
    if (!this.#draining) this.#log.info("the session's stream broke; work in hand goes on");
  }

  readonly #onAbort = (): void => void this.stop();

  /** Opens the transport of the present session until it holds, another takes its place, or the worker drains. */
  async #openTransport({ earlyCloses = 0, oldIsDead = false } = {}): Promise<void> {
    const generation = ++this.#generation;
    this.#nonce = "";
    const old = this.#transport;
    this.#transport = undefined;
    this.#completions.use(undefined);
    // In order, as when the worker stops: a start that is on its way over the old one would cost an attempt.
    await (oldIsDead ? within(old!.drain(), deadDrainMs) : old?.drain());
    void old?.close();
    if (earlyCloses > 0) await sleep(fullJitter(earlyCloses, transportRetry), this.#stopping.signal);
    for (let tries = 1; generation === this.#generation && !this.#draining; tries++) {
      const { registered, dialled } = this.#session!;
      let transport: WorkTransport | undefined;
      try {
        transport = createTransport({
          registered,
          dialled,
          client: this.#config.client,
          carrier: this.#config.carrier,
        });
        const listener = this.#workListener(generation);
        this.#listener = listener;
        await transport.open(this.#slots.due(registered.lanes), listener);
        if (generation !== this.#generation) {
          await transport.close();
          return;
        }
        this.#transport = transport;
        this.#openedAtMs = performance.now();
        this.#completions.use(transport);
        this.#giveSlots();
        if (this.#draining) void transport.drain();
        this.#opened();
        return;
      } catch (error) {
        this.#log.warn({ err: error }, "the work transport can't be opened; trying again");
        await transport?.close().catch(() => {});
        await sleep(fullJitter(tries, transportRetry), this.#stopping.signal);
      }
    }
  }

  /** Lets the open transport use the slots that became free since it was opened. */
  #giveSlots(): void {
    if (!this.#transport || this.#draining) return;
    const lanes = this.#slots.due(this.#session!.registered.lanes);
    if (lanes.length === 0) return;
    // Only a closed one refuses, and the next is opened with all that is free.
    this.#transport.open(lanes, this.#listener!).catch((error: unknown) => {
      this.#log.debug({ err: error }, "slots could not be given to the work transport");
    });
  }

  #workListener(generation: number): WorkListener {
    const counted = this.#slots.begin();
    return {
      onStart: (delivery: StartDelivery): void => this.#attempts.onStart(counted(delivery)),
      onProbe: (nonce: string): void => {
        const first = this.#nonce === "";
        this.#nonce = nonce;
        // Not before the path is proven does work come: don't let it wait for the next interval.
        if (first) this.#connection.beatNow();
      },
      onClosed: (error?: Error): void => {
        if (generation !== this.#generation || this.#stopping.signal.aborted) return;
        this.#log.warn({ err: error }, "the work transport closed; opening it again");
        this.#earlyCloses = performance.now() - this.#openedAtMs < goodTransportMs ? this.#earlyCloses + 1 : 0;
        void this.#openTransport({ earlyCloses: this.#earlyCloses });
      },
    };
  }

  async #claim(start: StartStep, signal: AbortSignal): Promise<{ start: StartStep } | { drop: string } | undefined> {
    const giveUpAtMs = performance.now() + claimGiveUpMs;
    for (let tries = 1; !signal.aborted && performance.now() < giveUpAtMs; tries++) {
      const registry = this.#connection.dialled?.registry;
      if (registry) {
        try {
          const { runId, stepId, item, attempt, lease } = start;
          const identity = { namespace: this.#config.client.namespace, sessionId: this.#connection.sessionId };
          const request = { ...identity, runId, stepId, item, attempt, lease };
          const { verdict } = await unaryCall(registry, registry.claimAttempt, request, {
            deadlineMs: claimTimeoutMs,
            signal,
          });
          if (verdict?.$case === "start") return { start: verdict.value };
          if (verdict?.$case === "drop") return { drop: verdict.value };
        } catch (error) {
          this.#log.debug({ err: fromServiceError(error), run_id: start.runId }, "a claim is tried again");
        }
      }
      await sleep(fullJitter(tries, claimRetry), signal);
    }
    return undefined;
  }

  async #drain(): Promise<void> {
    const { drainTimeoutMs, signal } = this.#config;
    this.#draining = true;
    this.#log.info({ in_flight: this.inFlight, timeout_ms: drainTimeoutMs }, "draining");
    const nothingComes = this.#transport?.drain();
    this.#connection.beatNow();
    // Not idle before that: a start that was on its way would be lost with the transport, and with it an attempt.
    const idle = async (): Promise<void> => {
      await nothingComes;
      await this.#attempts.idle();
    };
    if (!(await within(idle(), drainTimeoutMs))) {
      this.#log.warn({ in_flight: this.inFlight }, "the time to drain is over; what is left is given to other workers");
      this.#attempts.abortAll();
      await within(this.#attempts.idle(), graceMs);
    }
    await within(this.#completions.drained(), flushTimeoutMs);
    this.#stopping.abort();
    this.#generation++;
    await this.#transport?.close().catch((error: unknown) => this.#log.warn({ err: error }, "closing the transport"));
    await this.#connection.stop();
    this.#completions.close();
    this.#attempts.close();
    this.#unguard();
    signal?.removeEventListener("abort", this.#onAbort);
    await this.#releaseProcess();
    this.#log.info("stopped");
  }
}

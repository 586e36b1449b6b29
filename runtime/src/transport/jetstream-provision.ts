/**
 * Makes the streams and consumers, and watches that they stay: the carrier may lose everything at any time (C5).
 *
 *   every 2 s, after each reconnect, and when anyone meets a missing stream or consumer:
 *     stream missing ............................... make it: wiped
 *     stream made anew, or its last sequence fell .. wiped
 *     wanted consumer missing ...................... make it
 *     nobody pulled a lane's consumer for a week ... the server deletes it; it is wanted again when a worker comes
 *     consumer has work and waiting pullers, and delivered nothing for 10 s .. delete it and make it again
 *
 * V1. Only coordinators make anything; all make the same, so it does not matter which one is first.
 * V2. What this process saw first is its base: whoever joins an old stream reports no loss. Whoever makes a stream does, since what
 *     was to be in it is not.
 */
import {
  AckPolicy,
  type ConsumerConfig,
  type ConsumerInfo,
  DeliverPolicy,
  JetStreamApiError,
  type JetStreamManager,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
  type StreamInfo,
} from "@nats-io/jetstream";
import { sleep } from "../backoff.js";
import { metrics } from "../metric-table.js";
import type { NatsLink } from "./nats-link.js";
import { doneConsumer, doneFilter, doneStream, startStream } from "./nats-names.js";
import {
  type CompletionsRead,
  dedupeWindowMs,
  type Lane,
  laneConsumer,
  laneKeptMs,
  laneSubject,
  messageBytesMax,
} from "./transport.js";

const nanosPerMs = 1_000_000;
/** Period of the watch. Two questions each time: nothing that an idle machine notices. */
const watchMs = 2_000;
const requestTimeoutMs = 3_000;
/** A consumer that has work, waiting pullers and no delivery for this long is stuck. */
const stalledMs = 10_000;
/** A completion that no coordinator took in a day is for one that never was. */
const doneAgeMaxMs = 24 * 3600 * 1000;
/** While Postgres is away completions stay in a coordinator's hands: others get them after this many times the ack wait of starts. */
const doneAckWaits = 4;
/**
 * Pause before a stream that vanished is made again. nats-server 2.9 still removes files of a deleted stream for some milliseconds: a
 * stream made meanwhile under the same name loses its files and stores nothing ever after.
 */
const remakePauseMs = 500;
/** Waiting pull requests of a consumer; the server's own default of 512 stops larger fleets. */
const pullsWaitingMax = 10_000;

export interface ProvisionOptions {
  ackWaitMs: number;
  laneKeptMs: number;
  replicas: number;
  /** Highest sequence that is known to have been in the stream: a stream that ends below it lost messages. */
  knownSequence(stream: string): number;
  /** Messages were lost. */
  onWiped(): void;
  /** A consumer was made again: its pullers should look. */
  onConsumerMade(stream: string, consumer: string): void;
}

interface Wanted {
  stream: string;
  config: Partial<ConsumerConfig> & { durable_name: string };
}

interface Seen {
  created: string;
  lastSequence: number;
}

export class Provision {
  readonly #link: NatsLink;
  readonly #options: ProvisionOptions;
  readonly #jsm: JetStreamManager;
  readonly #wanted = new Map<string, Wanted>();
  readonly #seen = new Map<string, Seen>();
  readonly #fallen = new Set<string>();
  readonly #progress = new Map<string, { delivered: number; sinceMs: number }>();
  #stopListening: (() => void) | undefined;
  #lastWatchMs = 0;
  #watching: Promise<void> | undefined;
  #again = false;
  #stopped = false;
  /** Consumers made again because they were missing or stuck. */
  remade = 0;
  /** Losses noticed. */
  wiped = 0;

  private constructor(link: NatsLink, jsm: JetStreamManager, options: ProvisionOptions) {
    this.#link = link;
    this.#jsm = jsm;
    this.#options = options;
  }

  /** Makes what is missing; throws when the server can't (no JetStream, no permission, other streams on the subjects). */
  static async open(link: NatsLink, options: ProvisionOptions): Promise<Provision> {
    const jsm = await jetstreamManager(link.nc, { checkAPI: false, timeout: requestTimeoutMs });
    const provision = new Provision(link, jsm, options);
    await provision.#checkStreams();
    provision.#stopListening = link.listen({
      onUp: () => provision.watchSoon(),
      onTick: (nowMs) => {
        if (nowMs - provision.#lastWatchMs >= watchMs) provision.watchSoon();
      },
    });
    return provision;
  }

  stop(): void {
    this.#stopped = true;
    this.#stopListening?.();
  }

  async wantLane(lane: Lane): Promise<void> {
    await this.#want(startStream, {
      durable_name: laneConsumer(lane),
      filter_subject: laneSubject(lane),
      ack_wait: this.#options.ackWaitMs * nanosPerMs,
      max_waiting: pullsWaitingMax,
      // Each set of contracts has a lane of its own, so every release may leave one behind.
      inactive_threshold: this.#options.laneKeptMs * nanosPerMs,
    });
  }

  /** Lanes without a worker: their consumers are not made again when they are gone. */
  wantNoLanesBut(lanes: readonly Lane[]): void {
    const kept = new Set(lanes.map((lane) => `${startStream}/${laneConsumer(lane)}`));
    for (const [key, { stream }] of this.#wanted)
      if (stream === startStream && !kept.has(key)) this.#wanted.delete(key);
  }

  async wantDone(coordinatorId: string): Promise<void> {
    await this.#want(doneStream, {
      durable_name: doneConsumer(coordinatorId),
      filter_subject: doneFilter(coordinatorId),
      ack_wait: doneAckWaits * this.#options.ackWaitMs * nanosPerMs,
      max_waiting: pullsWaitingMax,
    });
  }

  /**
   * Makes the consumer of a lapsed coordinator's completions anew: what that one held unacked is delivered at once, rather than when its
   * long ack wait ends.
   */
  async renewDone(coordinatorId: string): Promise<void> {
    await this.#jsm.consumers.delete(doneStream, doneConsumer(coordinatorId)).catch((error: unknown) => {
      if (!isNotFound(error)) throw error;
    });
    await this.wantDone(coordinatorId);
  }

  /** Deletes the consumer of a coordinator's completions if it has none left; false if it has. */
  async dropDone(coordinatorId: string): Promise<boolean> {
    const consumer = doneConsumer(coordinatorId);
    try {
      const info = await this.#jsm.consumers.info(doneStream, consumer);
      if (info.num_pending > 0 || info.num_ack_pending > 0) return false;
      this.#wanted.delete(`${doneStream}/${consumer}`);
      await this.#jsm.consumers.delete(doneStream, consumer);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      this.#wanted.delete(`${doneStream}/${consumer}`);
    }
    return true;
  }

  /** C8, by stream sequence. A consumer that is not there has read nothing: its coordinator is about to make it (anew). */
  async doneRead(coordinatorIds: readonly string[]): Promise<CompletionsRead> {
    // The stream first: what a consumer has read by then is all that it was sent.
    const { last_seq: stored } = (await this.#jsm.streams.info(doneStream)).state;
    const readOf = async (coordinatorId: string): Promise<number> => {
      try {
        const info = await this.#jsm.consumers.info(doneStream, doneConsumer(coordinatorId));
        return info.num_pending + info.num_ack_pending === 0 ? stored : info.ack_floor.stream_seq;
      } catch (error) {
        if (isNotFound(error)) return 0;
        throw error;
      }
    };
    return { stored, read: Math.min(stored, ...(await Promise.all(coordinatorIds.map(readOf)))) };
  }

  /** The stream gave a sequence twice: it was rolled back, though it may have grown past its old end since. */
  sawSequenceFall(stream: string): void {
    this.#fallen.add(stream);
    this.watchSoon();
  }

  /** Watches now, or again when a watch is under way: what it found may be older than the caller's news. */
  watchSoon(): void {
    if (this.#stopped || !this.#link.up) return;
    if (this.#watching) {
      this.#again = true;
      return;
    }
    this.#lastWatchMs = performance.now();
    this.#watching = this.#watch()
      .catch(() => {
        // The server is away or starts; the next watch comes in any case.
      })
      .finally(() => {
        this.#watching = undefined;
        // Not at once: a server that answers "missing" for a while would be asked in a loop.
        if (this.#again) setTimeout(() => this.watchSoon(), 100);
        this.#again = false;
      });
  }

  async #want(stream: string, config: Wanted["config"]): Promise<void> {
    const wanted: Wanted = {
      stream,
      config: {
        ...config,
        ack_policy: AckPolicy.Explicit,
        deliver_policy: DeliverPolicy.All,
        max_deliver: -1,
        max_ack_pending: -1,
      },
    };
    const key = `${stream}/${config.durable_name}`;
    if (this.#wanted.has(key)) return;
    await this.#make(wanted);
    this.#wanted.set(key, wanted);
  }

  async #make(wanted: Wanted): Promise<void> {
    try {
      await this.#jsm.consumers.add(wanted.stream, wanted.config);
    } catch (error) {
      // It exists with other settings, made by another version: ours hold from now on.
      if (!(error instanceof JetStreamApiError) || isNotFound(error)) throw error;
      await this.#jsm.consumers.update(wanted.stream, wanted.config.durable_name, wanted.config);
    }
  }

  async #watch(): Promise<void> {
    await this.#checkStreams();
    for (const stream of [startStream, doneStream]) await this.#checkConsumers(stream);
  }

  async #checkStreams(): Promise<void> {
    const lost = await Promise.all(streamConfigs(this.#options.replicas).map((config) => this.#checkStream(config)));
    if (!lost.includes(true)) return;
    // Consumers first: whoever dispatches again must find them.
    for (const wanted of this.#wanted.values()) await this.#remake(wanted);
    this.wiped += 1;
    this.#options.onWiped();
  }

  /** Whether messages of the stream were lost since the last look. */
  async #checkStream(config: StreamConfigToMake): Promise<boolean> {
    let info: StreamInfo;
    let made = false;
    // Before the question: what is stored while it is on its way must not look like a loss.
    const before = this.#seen.get(config.name);
    const known = Math.max(before?.lastSequence ?? 0, this.#options.knownSequence(config.name));
    const fell = this.#fallen.delete(config.name);
    try {
      info = await this.#jsm.streams.info(config.name);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      if (this.#seen.has(config.name)) await sleep(remakePauseMs);
      info = await this.#jsm.streams.add(config);
      made = true;
    }
    this.#seen.set(config.name, { created: info.created, lastSequence: info.state.last_seq });
    metrics.streamMessages.set(info.state.messages, config.name);
    metrics.streamBytes.set(info.state.bytes, config.name);
    metrics.streamConsumers.set(info.state.consumer_count, config.name);
    if (!before) {
      assertUsable(info);
      // Another number of copies was asked for than when the stream was made.
      if (info.config.num_replicas !== config.num_replicas) {
        await this.#jsm.streams.update(config.name, { num_replicas: this.#options.replicas });
      }
      return made;
    }
    return made || fell || before.created !== info.created || info.state.last_seq < known;
  }

  async #checkConsumers(stream: string): Promise<void> {
    const wanted = [...this.#wanted.values()].filter((each) => each.stream === stream);
    if (wanted.length === 0) return;
    const found = new Map<string, ConsumerInfo>();
    for await (const info of this.#jsm.consumers.list(stream)) found.set(info.name, info);
    for (const each of wanted) {
      const info = found.get(each.config.durable_name);
      if (!info) await this.#remake(each);
      else if (this.#isStalled(stream, info)) {
        await this.#jsm.consumers.delete(stream, info.name);
        await this.#remake(each);
      }
    }
  }

  async #remake(wanted: Wanted): Promise<void> {
    // It may have been given up while this watch was under way.
    if (!this.#wanted.has(`${wanted.stream}/${wanted.config.durable_name}`)) return;
    await this.#make(wanted);
    this.remade += 1;
    this.#options.onConsumerMade(wanted.stream, wanted.config.durable_name);
  }

  #isStalled(stream: string, info: ConsumerInfo): boolean {
    const key = `${stream}/${info.name}`;
    const now = performance.now();
    const known = this.#progress.get(key);
    const delivered = info.delivered.consumer_seq;
    const hungry = info.num_pending > 0 && info.num_waiting > 0;
    if (!hungry || known?.delivered !== delivered) {
      this.#progress.set(key, { delivered, sinceMs: now });
      return false;
    }
    return now - known.sinceMs >= stalledMs;
  }
}

export type StreamConfigToMake = Partial<StreamConfig> & { name: string; subjects: string[] };

/** The streams as they are to be. */
export function streamConfigs(replicas: number): StreamConfigToMake[] {
  const common = {
    retention: RetentionPolicy.Workqueue,
    storage: StorageType.File,
    num_replicas: replicas,
    duplicate_window: dedupeWindowMs * nanosPerMs,
    // Headers come on top of the message.
    max_msg_size: messageBytesMax + 8 * 1024,
  };
  return [
    { ...common, name: startStream, subjects: ["start.>"], max_age: laneKeptMs * nanosPerMs },
    { ...common, name: doneStream, subjects: ["done.>"], max_age: doneAgeMaxMs * nanosPerMs },
  ];
}

/** A stream of another kind under our name would lose or keep what it must not. */
function assertUsable(info: StreamInfo): void {
  if (info.config.retention === RetentionPolicy.Workqueue) return;
  throw new Error(`the stream ${info.config.name} exists, but is no work queue: delete it or use another NATS account`);
}

function isNotFound(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.status === 404;
}

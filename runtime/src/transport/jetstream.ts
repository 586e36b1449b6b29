/**
 * The coordinator's side of NATS JetStream.
 *
 *   publishStart ──► start.<ns>.<queue>.<lane>   stream TASKMESH_START ──► consumer lane-<ns>-<queue>-<lane>, shared by its workers
 *   onCompletions ◄─ done.<ns>.<coordinator>     stream TASKMESH_DONE  ◄── workers; one consumer for each coordinator
 *   probe ─────────► probe.<ns>.<session>        plain NATS
 *
 * J1. What is unacked in this coordinator's hands is bounded in messages and bytes; more stays in the stream.
 * J2. A completion that is delivered again while it is still in hand is not given to the listener twice.
 * J3. An ack never crosses a wipe (nats-pull.ts, U3).
 *
 * Parts: nats-link (connection), nats-publisher (PubAcks), nats-pull (deliveries), jetstream-provision (streams, consumers, wipes),
 * nats-credentials (users of workers), jetstream-work (the worker's side).
 */
import type { JetStreamAccess } from "@taskmesh/proto";
import { fullJitter, sleep } from "../backoff.js";
import { metrics } from "../metric-table.js";
import { Provision } from "./jetstream-provision.js";
import { JetStreamWork } from "./jetstream-work.js";
import {
  accountOf,
  assertAccountSeed,
  assertLoopback,
  credentialsAuthenticator,
  makeWorkerUser,
} from "./nats-credentials.js";
import { NatsLink } from "./nats-link.js";
import {
  checkedToken,
  doneConsumer,
  doneNamespace,
  donePrefix,
  doneStream,
  outputPrefix,
  outputSubject,
  probeSubject,
  sessionInboxPrefix,
  startStream,
} from "./nats-names.js";
import { AckedPublisher, startHeaders } from "./nats-publisher.js";
import { ConsumerPull, type PulledMessage } from "./nats-pull.js";
import { StartPacker } from "./start-packer.js";
import {
  ackWaitMs,
  type Carrier,
  type CarrierListener,
  type CompletionDelivery,
  type CompletionsRead,
  type Lane,
  laneKeptMs,
  type OutgoingStart,
  type PublishOutcome,
  type RunRef,
  type WorkTransport,
} from "./transport.js";

/** Messages of completions in hand (J1): a few commits' worth. */
const inHandMax = 1_000;
const inHandBytesMax = 32 * 1024 * 1024;
const settleMs = 2_000;

export interface JetStreamOptions {
  /** Id of this coordinator: letters, digits, "-", "_". */
  coordinatorId: string;
  /** URLs "nats://host:port". */
  servers: string[];
  /** The same as workers reach them; default `servers`. */
  workerServers?: string[];
  /** Text of this coordinator's .creds file, in operator mode. */
  credentials?: string;
  /** Seed of the account or of a signing key of it: workers get users of their own. Without it workers come by relay if there are `credentials`, else NATS is open. */
  accountSeed?: string;
  /** Public key of the account where `accountSeed` is a signing key's; default: the account of `credentials`. */
  accountId?: string;
  /** Take an open NATS that is not on this machine. Default false: it is refused with OpenNatsRefused. */
  allowOpenNats?: boolean;
  /** Copies of the streams in a NATS cluster; default 1. */
  replicas?: number;
  /** Default: the seam's. Shorter in tests. */
  ackWaitMs?: number;
  /** The same. */
  laneKeptMs?: number;
  /** Life of workers' users; default and maximum an hour. */
  userLifeMs?: number;
  /** Told why `start` has to try again: the server is away, refuses the credentials, or has no JetStream. */
  onWaiting?: (error: unknown) => void;
}

/** What happened to this carrier since it started. */
export interface JetStreamCounters {
  /** Publishes that were sent more than once. */
  resent: number;
  /** Completion messages that were terminated as unreadable. */
  terminated: number;
  /** Losses noticed (C5). */
  wiped: number;
  /** Consumers made again. */
  consumersRemade: number;
}

/** Everything that exists while the carrier is started. */
interface Running {
  link: NatsLink;
  provision: Provision;
  publisher: AckedPublisher;
  packer: StartPacker;
  pulls: Map<string, ConsumerPull>;
}

/** Throws OpenNatsRefused at once if the servers may not be used as they are. */
export function createJetStreamCarrier(options: JetStreamOptions): JetStreamCarrier {
  return new JetStreamCarrier(options);
}

export class JetStreamCarrier implements Carrier {
  readonly kind = "jetstream";
  readonly #options: JetStreamOptions;
  readonly #inHand = new Map<string, PulledMessage>();
  #inHandBytes = 0;
  /** Highest sequence delivered from the stream of completions. */
  #doneSequence = 0;
  #terminated = 0;
  #running: Running | undefined;
  #listener: CarrierListener | undefined;
  #stopping: Promise<void> | undefined;

  constructor(options: JetStreamOptions) {
    checkedToken(options.coordinatorId, "coordinator id");
    if (!options.accountSeed && !options.allowOpenNats) {
      assertLoopback([...options.servers, ...(options.workerServers ?? [])]);
    }
    if (options.accountSeed) assertAccountSeed(options.accountSeed);
    const accountId = options.accountId ?? (options.credentials ? accountOf(options.credentials) : undefined);
    this.#options = { ...options, ...(accountId ? { accountId } : {}) };
  }

  async start(listener: CarrierListener, signal?: AbortSignal): Promise<void> {
    const { servers, credentials, coordinatorId, onWaiting } = this.#options;
    this.#listener = listener;
    this.#stopping = undefined;
    const authenticator = credentials ? credentialsAuthenticator(credentials) : undefined;
    const name = `taskmesh-coordinator-${coordinatorId}`;
    const link = await NatsLink.open({ servers, name, authenticator, onWaiting }, signal);
    try {
      const provision = await this.#provision(link, signal);
      const publisher = new AckedPublisher(link, {
        onStreamMissing: () => provision.watchSoon(),
        onSequenceFell: () => provision.sawSequenceFall(startStream),
      });
      const packer = new StartPacker(({ subject, id, bytes, headers, done }) =>
        publisher.publish(subject, bytes, startHeaders(id, headers), done),
      );
      this.#running = { link, provision, publisher, packer, pulls: new Map() };
      await this.#take(coordinatorId, this.#running);
      if (provision.wiped > 0) setImmediate(() => this.#listener?.onWiped());
    } catch (error) {
      this.#running = undefined;
      await link.close();
      throw error;
    }
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  healthy(): boolean {
    return this.#running?.link.up ?? false;
  }

  get counters(): JetStreamCounters {
    const running = this.#running;
    return {
      resent: running?.publisher.resent ?? 0,
      terminated: this.#terminated,
      wiped: running?.provision.wiped ?? 0,
      consumersRemade: running?.provision.remade ?? 0,
    };
  }

  async ensureLane(lane: Lane): Promise<void> {
    await this.#started().provision.wantLane(lane);
  }

  keepLanes(lanes: readonly Lane[]): void {
    this.#running?.provision.wantNoLanesBut(lanes);
  }

  publishStart(start: OutgoingStart, done: (outcome: PublishOutcome) => void): void {
    const running = this.#running;
    if (!running) {
      setImmediate(done, { kind: "refused", message: "the carrier is not started" } satisfies PublishOutcome);
      return;
    }
    running.packer.add(start, done);
  }

  async adopt(coordinatorId: string): Promise<void> {
    const { provision, pulls } = this.#started();
    if (!pulls.has(coordinatorId)) await provision.renewDone(coordinatorId);
    await this.#take(coordinatorId, this.#started());
  }

  async completionsRead(coordinatorIds: readonly string[]): Promise<CompletionsRead> {
    return await this.#started().provision.doneRead(coordinatorIds);
  }

  async release(coordinatorId: string): Promise<boolean> {
    const { provision, pulls } = this.#started();
    if (!(await provision.dropDone(coordinatorId))) return false;
    pulls.get(coordinatorId)?.stop();
    pulls.delete(coordinatorId);
    return true;
  }

  onEmitted({ namespaceId, runId }: RunRef, listener: (encoded: Uint8Array) => void): () => void {
    const heard = this.#running?.link.subscribe(outputSubject(namespaceId, runId), (error, message) => {
      if (!error) listener(message.data);
    });
    return () => heard?.unsubscribe();
  }

  probe(namespaceId: number, sessionId: string, nonce: string): void {
    this.#running?.link.publish(probeSubject(namespaceId, sessionId), Buffer.from(nonce));
  }

  async access(session: {
    namespaceId: number;
    sessionId: string;
    lanes: Lane[];
  }): Promise<JetStreamAccess | undefined> {
    const { namespaceId, sessionId } = session;
    const { accountSeed, accountId, credentials, servers, workerServers, userLifeMs } = this.#options;
    // The server asks for credentials and none can be made: workers come by relay.
    if (credentials && !accountSeed) return undefined;
    const user = accountSeed
      ? await makeWorkerUser({ ...session, accountSeed, accountId, lifeMs: userLifeMs })
      : undefined;
    return {
      servers: workerServers ?? servers,
      userJwt: user?.jwt ?? "",
      userSeed: user?.seed ?? "",
      inboxPrefix: sessionInboxPrefix(sessionId),
      startStream,
      donePrefix: donePrefix(namespaceId),
      probeSubject: probeSubject(namespaceId, sessionId),
      outputPrefix: outputPrefix(namespaceId),
      expiresAt: user && {
        seconds: BigInt(Math.floor(user.expiresAtMs / 1000)),
        nanos: 0,
      },
    };
  }

  workTransport(session: { namespaceId: number; sessionId: string }): WorkTransport {
    return JetStreamWork.onLink(this.#started().link, session);
  }

  #started(): Running {
    if (!this.#running) throw new Error("the carrier is not started");
    return this.#running;
  }

  /** Streams may be refused for a while: a server that just started, a cluster without a leader. */
  async #provision(link: NatsLink, signal: AbortSignal | undefined): Promise<Provision> {
    const { coordinatorId, replicas } = this.#options;
    for (let attempt = 1; ; attempt++) {
      try {
        return await Provision.open(link, {
          ackWaitMs: this.#options.ackWaitMs ?? ackWaitMs,
          laneKeptMs: this.#options.laneKeptMs ?? laneKeptMs,
          replicas: replicas ?? 1,
          knownSequence: (stream) =>
            stream === doneStream ? this.#doneSequence : (this.#running?.publisher.sequence ?? 0),
          onWiped: () => this.#onWiped(),
          onConsumerMade: (stream, consumer) => this.#onConsumerMade(stream, consumer),
        });
      } catch (error) {
        this.#options.onWaiting?.(error);
        if (!signal?.aborted) await sleep(fullJitter(attempt, { initialMs: 200, capMs: 2_000 }), signal);
        const message = error instanceof Error ? error.message : String(error);
        // A wrong stream does not mend itself; anything else may.
        if (signal?.aborted || message.includes("no work queue")) {
          throw new Error(`coordinator ${coordinatorId} can't use JetStream: ${message}`, { cause: error });
        }
      }
    }
  }

  #onWiped(): void {
    this.#doneSequence = 0;
    this.#running?.publisher.forgetSequence();
    this.#running?.publisher.resend();
    // While start() runs, it tells the listener itself, when everything is ready.
    if (this.#running) this.#listener?.onWiped();
  }

  #onConsumerMade(stream: string, consumer: string): void {
    if (stream !== doneStream) return;
    for (const [coordinatorId, pull] of this.#running?.pulls ?? []) {
      if (doneConsumer(coordinatorId) === consumer) pull.recheck();
    }
  }

  async #take(coordinatorId: string, running: Running): Promise<void> {
    const { link, provision, pulls } = running;
    if (pulls.has(coordinatorId)) return;
    await provision.wantDone(coordinatorId);
    // Two adoptions at once: the first one that got here wins.
    if (pulls.has(coordinatorId)) return;
    const pull = new ConsumerPull(link, {
      stream: doneStream,
      consumer: doneConsumer(coordinatorId),
      room: () => (this.#inHandBytes >= inHandBytesMax ? 0 : inHandMax - this.#inHand.size),
      onMessage: (message) => this.#onMessage(coordinatorId, message),
      onMissing: () => provision.watchSoon(),
    });
    pulls.set(coordinatorId, pull);
  }

  #onMessage(coordinatorId: string, message: PulledMessage): void {
    const key = `${coordinatorId}/${message.life}/${message.streamSequence}`;
    this.#doneSequence = Math.max(this.#doneSequence, message.streamSequence);
    const before = this.#inHand.get(key);
    this.#inHand.set(key, message);
    if (before) return;
    const namespaceId = doneNamespace(message.message.subject);
    this.#inHandBytes += message.data.length;
    const end = (how: "ack" | "terminate"): void => {
      // The newest delivery of it: an ack of an older one is late for the server.
      const newest = this.#inHand.get(key);
      if (!newest) return;
      this.#inHand.delete(key);
      this.#inHandBytes -= newest.data.length;
      if (how === "terminate") this.#terminated += 1;
      newest[how]();
      for (const pull of this.#running?.pulls.values() ?? []) pull.poke();
    };
    if (namespaceId === undefined) {
      metrics.messagesUndecodable.add(1);
      end("terminate");
      return;
    }
    const delivery: CompletionDelivery = {
      namespaceId,
      bytes: message.data,
      ack: () => end("ack"),
      terminate: () => end("terminate"),
    };
    this.#listener?.onCompletions(delivery);
  }

  async #stop(): Promise<void> {
    const running = this.#running;
    this.#listener = undefined;
    if (!running) return;
    for (const pull of running.pulls.values()) pull.stop();
    running.provision.stop();
    await running.publisher.settle(settleMs);
    running.publisher.close();
    await running.link.flush(settleMs);
    await running.link.close();
    this.#running = undefined;
    this.#inHand.clear();
    this.#inHandBytes = 0;
  }
}

/**
 * The worker's side of NATS JetStream: pulls its lanes, publishes packed completions, hears probes.
 *
 * It rides on a link of its own (a worker that dialled the broker) or on the coordinator's (embedded workers and the relay).
 * Credentials are read at each dial, so `renew` needs no reconnect: the server ends a connection whose user expired, and the next
 * dial shows the new one.
 */

import { type Authenticator, jwtAuthenticator, type Subscription } from "@nats-io/transport-node";
import { type CompleteStep, EmittedOutput, type JetStreamAccess, type LaneGrant, TransportKind } from "@taskmesh/proto";
import { within } from "../backoff.js";
import { CompletionPacker } from "./completion-packer.js";
import { JetStreamLane } from "./jetstream-lane.js";
import { NatsLink } from "./nats-link.js";
import { donePrefix, outputPrefix, probeSubject, startStream } from "./nats-names.js";
import { AckedPublisher } from "./nats-publisher.js";
import { emitPatienceMs, type StoredCallback, type WorkListener, type WorkTransport } from "./transport.js";

/** How long the first dial may take. */
const openTimeoutMs = 10_000;
const settleMs = 2_000;
/** What is on its way must come over a slow connection too: longer than a dead one takes to be noticed. */
const drainMs = 8_000;
/** Thousands of workers ping one server: half as often as a coordinator, and a dead one is still left within 6 s. */
const pingIntervalMs = 2_000;
/** Bytes of emitted outputs after which the server is asked whether it has seen them: the client would keep them without bound. */
const emittedBytesMax = 256 * 1024;

interface Names {
  startStream: string;
  donePrefix: string;
  outputPrefix: string;
  probeSubject: string;
}

/** A worker's transport over a connection of its own. */
export function openJetStreamWork(access: JetStreamAccess): WorkTransport {
  return JetStreamWork.dialling(access);
}

export class JetStreamWork implements WorkTransport {
  readonly kind = TransportKind.TRANSPORT_KIND_JETSTREAM;
  readonly #names: Names;
  readonly #shared: NatsLink | undefined;
  readonly #packer: CompletionPacker;
  readonly #lanes = new Map<string, JetStreamLane>();
  readonly #closing = new AbortController();
  #access: JetStreamAccess | undefined;
  #link: NatsLink | undefined;
  #opening: Promise<NatsLink> | undefined;
  #publisher: AckedPublisher | undefined;
  #probes: Subscription | undefined;
  #stopListening: (() => void) | undefined;
  #listener: WorkListener | undefined;
  #draining = false;
  #emittedBytes = 0;
  /** Starts that could not be read, and were terminated. */
  terminated = 0;

  private constructor(names: Names, how: { shared?: NatsLink; access?: JetStreamAccess }) {
    this.#names = names;
    this.#shared = how.shared;
    this.#access = how.access;
    this.#packer = new CompletionPacker(({ reportTo, bytes, stored }) => this.#report(reportTo, bytes, stored));
  }

  /** Over a connection of its own. */
  static dialling(access: JetStreamAccess): JetStreamWork {
    return new JetStreamWork(access, { access });
  }

  /** Over the connection of a coordinator in this process. */
  static onLink(link: NatsLink, session: { namespaceId: number; sessionId: string }): JetStreamWork {
    const { namespaceId, sessionId } = session;
    const names = {
      startStream,
      donePrefix: donePrefix(namespaceId),
      outputPrefix: outputPrefix(namespaceId),
      probeSubject: probeSubject(namespaceId, sessionId),
    };
    return new JetStreamWork(names, { shared: link });
  }

  async open(lanes: LaneGrant[], listener: WorkListener): Promise<void> {
    this.#listener = listener;
    this.#opening ??= this.#connect();
    const link = await this.#opening;
    if (this.#closing.signal.aborted) throw new Error("the transport is closed");
    for (const lane of lanes) {
      const open = this.#lanes.get(lane.consumer);
      if (open) open.add(lane);
      else this.#openLane(link, lane);
    }
  }

  async drain(): Promise<void> {
    this.#draining = true;
    // A link that is down can't tell that it has brought everything.
    await within(Promise.all([...this.#lanes.values()].map((lane) => lane.drain())), drainMs);
  }

  complete(reportTo: string, completion: CompleteStep, stored: StoredCallback): void {
    this.#packer.add(reportTo, completion, stored);
  }

  async emit(output: EmittedOutput): Promise<void> {
    const { outputPrefix: prefix } = this.#names;
    // A coordinator of before names no prefix. Over the relay the run's id is what a worker says.
    if (!this.#link || prefix === "" || !/^[A-Za-z0-9_-]{1,100}$/.test(output.runId)) return;
    const bytes = EmittedOutput.encode(output).finish();
    if (!this.#link.publish(`${prefix}.${output.runId}`, bytes)) return;
    this.#emittedBytes += bytes.length;
    if (this.#emittedBytes < emittedBytesMax) return;
    this.#emittedBytes = 0;
    await this.#link.flush(emitPatienceMs);
  }

  renew(access: JetStreamAccess): void {
    this.#access = access;
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#packer.flush();
    this.#listener = undefined;
    this.#closing.abort();
    await this.#opening?.catch(() => {});
    this.#probes?.unsubscribe();
    await this.#publisher?.settle(settleMs);
    for (const lane of this.#lanes.values()) lane.stop();
    this.#publisher?.close();
    this.#stopListening?.();
    if (this.#shared || !this.#link) return;
    await this.#link.flush(settleMs);
    await this.#link.close();
  }

  async #connect(): Promise<NatsLink> {
    const link = this.#shared ?? (await this.#dial());
    this.#link = link;
    this.#stopListening = link.listen({
      onGone: () => this.#listener?.onClosed(new Error("the NATS client gave up")),
    });
    this.#publisher = new AckedPublisher(link, {
      // The carrier is being wiped. A deleted consumer does not always tell its pullers, and silence takes seconds to notice.
      onStreamMissing: () => {
        for (const lane of this.#lanes.values()) lane.recheck();
      },
    });
    this.#probes = link.subscribe(this.#names.probeSubject, (error, message) => {
      if (!error) this.#listener?.onProbe(message.string());
    });
    return link;
  }

  async #dial(): Promise<NatsLink> {
    const access = this.#access!;
    const signal = AbortSignal.any([AbortSignal.timeout(openTimeoutMs), this.#closing.signal]);
    const options = { servers: access.servers, name: "taskmesh-worker", inboxPrefix: access.inboxPrefix || undefined };
    return await NatsLink.open({ ...options, pingIntervalMs, authenticator: this.#authenticator() }, signal);
  }

  #authenticator(): Authenticator | undefined {
    if (!this.#access?.userJwt) return undefined;
    const seed = (): Uint8Array => new TextEncoder().encode(this.#access!.userSeed);
    return jwtAuthenticator(() => this.#access!.userJwt, seed);
  }

  #openLane(link: NatsLink, grant: LaneGrant): void {
    const lane = new JetStreamLane({
      link,
      stream: this.#names.startStream,
      grant,
      ownLink: this.#shared === undefined,
      onStart: (delivery) => this.#listener?.onStart(delivery),
      onUnreadable: () => {
        this.terminated += 1;
      },
    });
    this.#lanes.set(grant.consumer, lane);
    if (this.#draining) void lane.drain();
  }

  #report(reportTo: string, bytes: Uint8Array, stored: StoredCallback): void {
    // Completions that were taken before close() are flushed by it, those of later ticks find no publisher.
    const publisher = this.#closing.signal.aborted ? undefined : this.#publisher;
    if (!publisher || !/^[A-Za-z0-9_-]{1,100}$/.test(reportTo)) {
      setImmediate(stored, new Error(publisher ? `no such coordinator: ${reportTo}` : "the transport is not open"));
      return;
    }
    publisher.publish(`${this.#names.donePrefix}.${reportTo}`, bytes, undefined, (outcome) =>
      stored(outcome.kind === "stored" ? undefined : new Error(outcome.message)),
    );
  }
}

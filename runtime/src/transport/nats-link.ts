/**
 * One connection to NATS that comes back for ever, and what rides on it.
 *
 *   open --connected--> up <--lost, found--> down ... --close()--> closed
 *
 * L1. Nothing is handed to the client while it is down: it would keep it without bound, or drop it on the next dial.
 * L2. A silent peer is noticed within three ping intervals; then the client dials again, with jitter.
 * L3. No listener's exception reaches the client's read loop: it would end it, and the connection would look alive for ever.
 * L4. A server that is connected and has lost its cluster is left for another: when it sees less than half of the nodes that it once saw, or when
 *     users of the link say that nothing comes of it (`move`). Nobody goes back to it soon.
 */
import {
  type Authenticator,
  connect,
  createInbox,
  errors,
  type Msg,
  type MsgHdrs,
  type NatsConnection,
  type PublishOptions,
  type Subscription,
  usernamePasswordAuthenticator,
} from "@nats-io/transport-node";
import { fullJitter, sleep, within } from "../backoff.js";
import { metrics } from "../metric-table.js";

/** A ping every second, dead at the third without an answer: with the dial's time-out still far below the 10 s in which dispatch must resume. */
const pingIntervalMs = 1_000;
const pingsOutMax = 2;
const dialTimeoutMs = 2_000;
const reconnectWaitMs = 200;
const reconnectJitterMs = 400;
/** How long what may wait waits for a message to leave with. */
const rideMs = 5;
/** Period of the one timer that everything on the link shares. */
export const tickMs = 250;
/** A server that is cut off from its cluster answers pings and nothing else: users of the link leave it, but not more often than this. */
const moveEveryMs = 10_000;
/** What a server that was left is spared for: longer than a cut-off node takes to find that it leads nothing any more. */
const shunMs = 30_000;
/** A server sees less than half of its cluster for so many ticks: routes come back sooner after a hiccup. */
const minorityTicks = 1_000 / tickMs;

const linksUp = metrics.natsLinks.at("up");
const linksDown = metrics.natsLinks.at("down");

export interface NatsLinkOptions {
  /** URLs "nats://host:port" or "tls://host:port", possibly with user and password. */
  servers: readonly string[];
  /** Shown by the server's monitoring. */
  name: string;
  /** Default "_INBOX". */
  inboxPrefix?: string | undefined;
  authenticator?: Authenticator | undefined;
  /** Between two pings in milliseconds, default 1,000. */
  pingIntervalMs?: number;
  /** Told why a dial failed; there is another one. */
  onWaiting?: ((error: unknown) => void) | undefined;
}

/** What a user of the link wants to hear. Callbacks may not throw (L3 catches, and drops). */
export interface LinkListener {
  onUp?(): void;
  onDown?(): void;
  /** The client gave up for good. It does not by itself; a server can make it. */
  onGone?(): void;
  /** Every `tickMs`. */
  onTick?(nowMs: number): void;
}

/** Something that encodes itself as a block of NATS headers: cheaper than building header objects for each message. */
export interface HeaderBlock {
  encode(): Uint8Array;
}

/** One shape for all publishes: objects made by spreading cost more than the publish itself. */
class Options {
  reply: string | undefined;
  /** The client calls nothing but encode() on what it is given here. */
  headers: MsgHdrs | undefined;

  constructor(reply: string | undefined, headers: HeaderBlock | undefined) {
    this.reply = reply;
    this.headers = headers as unknown as MsgHdrs | undefined;
  }
}

export class NatsLink {
  readonly #nc: NatsConnection;
  readonly #inboxPrefix: string;
  readonly #listeners = new Set<LinkListener>();
  readonly #timer: NodeJS.Timeout;
  readonly #servers: number;
  #up = true;
  #movedAtMs = Number.NEGATIVE_INFINITY;
  /** Servers that were left, and when. */
  readonly #shunned = new Map<string, number>();
  /** Dials that may yet be made to get away from those. */
  #dialsLeft = 0;
  /** The most nodes that the present server has seen, and for how many ticks it has seen less than half of them. */
  #nodesMax = 0;
  #fewTicks = 0;
  #riders: (() => void)[] = [];
  #rideTimer: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  private constructor(nc: NatsConnection, { inboxPrefix, servers }: NatsLinkOptions) {
    this.#nc = nc;
    this.#inboxPrefix = inboxPrefix ?? "_INBOX";
    this.#servers = servers.length;
    linksUp.add();
    this.#timer = setInterval(() => {
      const now = performance.now();
      this.#countNodes();
      this.#tell((listener) => listener.onTick?.(now));
    }, tickMs);
    void this.#follow();
  }

  /** Dials until it is connected or `signal` aborts (then it rejects with the last error). */
  static async open(options: NatsLinkOptions, signal?: AbortSignal): Promise<NatsLink> {
    for (let attempt = 1; ; attempt++) {
      try {
        return new NatsLink(await dial(options), options);
      } catch (error) {
        options.onWaiting?.(error);
        if (!signal?.aborted) await sleep(fullJitter(attempt, { initialMs: 200, capMs: 2_000 }), signal);
        if (signal?.aborted) {
          throw new Error(`NATS can't be reached: ${error instanceof Error ? error.message : error}`, { cause: error });
        }
      }
    }
  }

  /** The client itself, for what is not on the hot path. */
  get nc(): NatsConnection {
    return this.#nc;
  }

  get up(): boolean {
    return this.#up;
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /** Largest message that the server takes, headers included. */
  get serverBytesMax(): number {
    return this.#nc.info?.max_payload ?? 1024 * 1024;
  }

  listen(listener: LinkListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Whether somebody answers on the subject: "nobody" is known at once, "silent" after `timeoutMs`. Whatever the answer says. */
  async answers(subject: string, question: Uint8Array, timeoutMs: number): Promise<"somebody" | "nobody" | "silent"> {
    try {
      await this.#nc.request(subject, question, { timeout: timeoutMs });
      return "somebody";
    } catch (error) {
      return error instanceof errors.RequestError && error.isNoResponders() ? "nobody" : "silent";
    }
  }

  newInbox(): string {
    return createInbox(this.#inboxPrefix);
  }

  /** Hands a message to the client. False: not sent (L1). True proves nothing: the connection may be dead already. */
  publish(subject: string, data: Uint8Array, reply?: string, headers?: HeaderBlock): boolean {
    if (!this.#up || this.#closing) return false;
    if (this.#riders.length > 0) this.#board();
    try {
      this.#nc.publish(subject, data, new Options(reply, headers) as PublishOptions);
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Calls `board` right before the next message is published, after `rideMs` at the latest: what it publishes leaves in the same write. Nobody
   * waits for an ack, and a write of its own costs this process and the server as much as a message does.
   */
  ride(board: () => void): void {
    this.#riders.push(board);
    this.#rideTimer ??= setTimeout(() => this.#board(), rideMs);
  }

  #board(): void {
    clearTimeout(this.#rideTimer);
    this.#rideTimer = undefined;
    const riders = this.#riders;
    this.#riders = [];
    for (const board of riders) board();
  }

  /** Calls back for each message; with an error once, when the server forbids the subscription, which is over then. */
  subscribe(subject: string, onMessage: (error: Error | undefined, message: Msg) => void): Subscription {
    return this.#nc.subscribe(subject, {
      callback: (error, message) => {
        try {
          onMessage(error ?? undefined, message);
        } catch {
          // L3. Callers handle their own errors; nothing can be done for what they missed.
        }
      },
    });
  }

  /** One question, one answer as JSON. Rejects after `timeoutMs`, and when nobody is there to answer. */
  async request(subject: string, timeoutMs: number): Promise<unknown> {
    const answer = await this.#nc.request(subject, new Uint8Array(0), { timeout: timeoutMs });
    return answer.json();
  }

  /** Leaves this server for another, since JetStream can't be used here. Nothing happens where there is no other, or right after a move. */
  move(): void {
    const nowMs = performance.now();
    if (this.#servers < 2 || !this.#up || this.#closing || nowMs - this.#movedAtMs < moveEveryMs) return;
    this.#movedAtMs = nowMs;
    this.#shunned.set(this.#nc.getServer(), nowMs);
    this.#dialsLeft = this.#servers - 1;
    void this.#nc.reconnect().catch(() => {});
  }

  /** Dials once more if it has come to a server that was left: the client tries its servers in turn, and begins with the one that it had first. */
  #avoidShunned(): boolean {
    const leftAtMs = this.#shunned.get(this.#nc.getServer()) ?? Number.NEGATIVE_INFINITY;
    if (performance.now() - leftAtMs > shunMs || this.#dialsLeft === 0) return false;
    this.#dialsLeft -= 1;
    void this.#nc.reconnect().catch(() => {});
    return true;
  }

  /** A node tells its clients whom it sees. With less than half of the others it has no part in any election. */
  #countNodes(): void {
    const nodes = this.#nc.info?.connect_urls?.length ?? 0;
    this.#nodesMax = Math.max(this.#nodesMax, nodes);
    this.#fewTicks = this.#up && nodes * 2 < this.#nodesMax ? this.#fewTicks + 1 : 0;
    if (this.#fewTicks >= minorityTicks) this.move();
  }

  /** Resolves when the server has seen everything that was sent before; false if it is not so within `timeoutMs`. */
  async flush(timeoutMs: number): Promise<boolean> {
    if (!this.#up || this.#closing) return false;
    this.#board();
    return await within(this.#nc.flush(), timeoutMs).catch(() => false);
  }

  /** Safe to repeat. */
  close(): Promise<void> {
    this.#board();
    this.#closing ??= (async () => {
      clearInterval(this.#timer);
      (this.#up ? linksUp : linksDown).add(-1);
      await this.#nc.close().catch(() => {});
      this.#listeners.clear();
    })();
    return this.#closing;
  }

  async #follow(): Promise<void> {
    for await (const status of this.#nc.status()) {
      if (status.type === "disconnect" || status.type === "staleConnection") this.#setUp(false);
      if (status.type === "reconnect") {
        this.#nodesMax = 0;
        if (!this.#avoidShunned()) this.#setUp(true);
      }
    }
    this.#setUp(false);
    if (!this.#closing) this.#tell((listener) => listener.onGone?.());
  }

  #setUp(up: boolean): void {
    if (this.#up === up) return;
    this.#up = up;
    if (!this.#closing) {
      linksUp.add(up ? 1 : -1);
      linksDown.add(up ? -1 : 1);
      if (!up) metrics.natsDisconnects.add(1);
    }
    this.#tell((listener) => (up ? listener.onUp?.() : listener.onDown?.()));
  }

  #tell(call: (listener: LinkListener) => void): void {
    for (const listener of [...this.#listeners]) {
      try {
        call(listener);
      } catch {
        // L3.
      }
    }
  }
}

function dial(options: NatsLinkOptions): Promise<NatsConnection> {
  const urls = options.servers.map((server) => new URL(server.includes("://") ? server : `nats://${server}`));
  const user = urls.find((url) => url.username !== "");
  const authenticator =
    options.authenticator ??
    (user && usernamePasswordAuthenticator(decodeURIComponent(user.username), decodeURIComponent(user.password)));
  return connect({
    servers: urls.map((url) => `${url.hostname}:${url.port || "4222"}`),
    name: options.name,
    ...(options.inboxPrefix ? { inboxPrefix: options.inboxPrefix } : {}),
    ...(authenticator ? { authenticator } : {}),
    ...(urls.some((url) => url.protocol === "tls:") ? { tls: {} } : {}),
    timeout: dialTimeoutMs,
    pingInterval: options.pingIntervalMs ?? pingIntervalMs,
    maxPingOut: pingsOutMax,
    reconnect: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: reconnectWaitMs,
    reconnectJitter: reconnectJitterMs,
    reconnectJitterTLS: reconnectJitterMs,
    // Credentials are renewed behind the authenticator: a refused one is no reason to give up.
    ignoreAuthErrorAbort: true,
    noAsyncTraces: true,
  });
}

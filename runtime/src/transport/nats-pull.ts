/**
 * Pulls one durable consumer into the room that its user has, on one inbox, with batches of requests.
 *
 *   down --link up--> checking --consumer is there--> pulling --consumer or stream gone, silence--> checking ...
 *                        ^---- not there: again after a pause ----'
 *
 * U1. Requested and not delivered + in the user's hands <= room. So a worker never gets more than its free slots (C3).
 * U2. Pull requests die with the connection and with the consumer. Each check begins with a new inbox, so that requests of an
 *     earlier time, if the server still honours them, can't add up with new ones. The old one is drained: what was on its way to it is taken
 *     before the check is answered, since the connection keeps the order. It would come again only after the ack wait, as a repetition.
 * U3. An ack names a message by numbers that begin anew when a stream is made again or rolled back. So an ack of an earlier life of
 *     the consumer is never sent: it would remove a stranger. Acks that are due while the life is in doubt wait for the check.
 * U4. A message that is older than its consumer may have been delivered by the consumer's earlier life: it counts as redelivered.
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import { fullJitter } from "../backoff.js";
import { type ConsumerInfo, ConsumerLife } from "./consumer-life.js";
import type { NatsLink } from "./nats-link.js";
import { tickMs } from "./nats-link.js";
import { parseDelivery } from "./nats-names.js";

/**
 * A request expires after this long and is made anew: a request that the server forgot (it met a consumer's deletion) costs little more.
 * Not sooner, since each idle worker asks this often.
 */
const expiresMs = 5_000;
/** Questions for a consumer without an answer, until another server is asked: more than fit into an election. */
const unansweredMs = 10_000;
/** Silence, counted in ticks so that a pause of this process is not taken for one of the server's. */
const silentTicksMax = (expiresMs + 1_500) / tickMs;
const checkTimeoutMs = 2_000;
const checkBackoff = { initialMs: 100, capMs: 1_000 };
const recheckPauseMs = 1_000;
/**
 * A consumer of a NATS cluster is led by one node, which alone knows the requests; when it dies, they are lost and nobody says so. Requests
 * that it can't read find out: a leader refuses them, and without one the server answers at once that nobody listens. Only the server that
 * this process is connected to has work of it, so it may be asked often.
 */
const feelBytes = Buffer.from("{");
const feelTimeoutMs = 300;
/** Without a leader: until it is felt for again. */
const feelAgainMs = 125;
/** Silence after deliveries, until it is asked once whether there is a leader: less than any election takes. */
const feelTicks = 2_000 / tickMs;
/** Messages of one request: bounds what can arrive at once. */
const batchMax = 256;
/** Acks that wait. */
const dueAcksMax = 100_000;

const ackBytes = Buffer.from("+ACK");
const terminateBytes = Buffer.from("+TERM");
const workingBytes = Buffer.from("+WPI");
const refuseBytes = Buffer.from("-NAK");

/** A message in the user's hands. */
export interface PulledMessage {
  readonly data: Uint8Array;
  readonly message: Msg;
  readonly streamSequence: number;
  /** Changes when the consumer began a new life (U3). */
  readonly life: number;
  readonly redelivered: boolean;
  /** Never deliver it again. */
  ack(): void;
  /** The same, for what nobody can read. */
  terminate(): void;
  /** Begins its ack wait anew. */
  working(): void;
}

export interface PullOptions {
  stream: string;
  consumer: string;
  /** How many messages the user takes beyond those that it holds. */
  room(): number;
  onMessage(message: PulledMessage): void;
  /** The consumer or its stream is not there. */
  onMissing?(): void;
  /** The consumer began a new life: what is held of the earlier one can't be acked any more. */
  onNewLife?(): void;
}

export class ConsumerPull {
  readonly #link: NatsLink;
  readonly #options: PullOptions;
  readonly #pullSubject: string;
  readonly #infoSubject: string;
  readonly #stopListening: () => void;
  #subscription: Subscription | undefined;
  /** Nothing more can come to the inboxes before the present one. */
  #left: Promise<void> = Promise.resolve();
  #inbox = "";
  #state: "down" | "checking" | "pulling" | "ended" = "down";
  readonly #life = new ConsumerLife();
  #outstanding = 0;
  #pullingSinceMs = 0;
  #lookedAtMs = 0;
  #unansweredSinceMs: number | undefined;
  /** Name of the node that knows our requests; undefined where there is no cluster. */
  #nodeLeading: string | undefined;
  #silentTicks = 0;
  /** Something was delivered since the consumer's leader was last felt for. */
  #busy = false;
  #feeling = false;
  /** What was last felt of the consumer's leader, since there is a check. */
  #leader: "unknown" | "there" | "none" = "unknown";
  #fillPlanned = false;
  #draining = false;
  #retry: NodeJS.Timeout | undefined;
  #attempt = 0;
  /** Acks of this life that are due. They leave with the next message of the link, or after the check. */
  #dueAcks: { subject: string; bytes: Uint8Array }[] = [];
  #riding = false;

  constructor(link: NatsLink, options: PullOptions) {
    this.#link = link;
    this.#options = options;
    this.#pullSubject = `$JS.API.CONSUMER.MSG.NEXT.${options.stream}.${options.consumer}`;
    this.#infoSubject = `$JS.API.CONSUMER.INFO.${options.stream}.${options.consumer}`;
    this.#stopListening = link.listen({
      onUp: () => this.#check(),
      onDown: () => this.#goDown(),
      onTick: () => this.#onTick(),
    });
    if (link.up) this.#check();
  }

  /** Whether the consumer is there and messages are asked for. */
  get pulling(): boolean {
    return this.#state === "pulling";
  }

  /** The user has more room: asks for more before the next tick. */
  poke(): void {
    if (this.#fillPlanned || this.#state !== "pulling") return;
    this.#fillPlanned = true;
    setImmediate(() => {
      this.#fillPlanned = false;
      this.#fill();
    });
  }

  /**
   * Looks at the consumer now, when others have a sign that it is gone or was made again. Not more than once a second, and without an
   * end to what is on its way here, since that would come again only after the ack wait: only where there is another consumer, or none.
   */
  recheck(): void {
    const now = performance.now();
    if (this.#state !== "pulling" || now - Math.max(this.#pullingSinceMs, this.#lookedAtMs) < recheckPauseMs) return;
    this.#look();
  }

  #look(): void {
    this.#lookedAtMs = performance.now();
    const inbox = this.#inbox;
    const { delivered } = this.#life;
    this.#link.request(this.#infoSubject, checkTimeoutMs).then(
      (answer) => {
        const info = answer as ConsumerInfo;
        const isSame = this.#life.goesOn(info, delivered) && info.cluster?.leader === this.#nodeLeading;
        if (!isSame && this.#inbox === inbox && this.#state === "pulling") this.#check();
      },
      // Whether it has a leader is felt for.
      () => {},
    );
  }

  /** Asks for no more; what the server sent already is still given to the user. Acks go on. Resolves when nothing more can come. */
  async drain(): Promise<void> {
    this.#draining = true;
    // A check goes on: acks wait for it.
    if (this.#state === "pulling") this.#leaveInbox();
    await this.#left;
  }

  /** Ends at once: what is on its way is redelivered to others after the ack wait. */
  stop(): void {
    this.#sendAcks();
    this.#state = "ended";
    clearTimeout(this.#retry);
    this.#leaveInbox();
    this.#stopListening();
  }

  #goDown(): void {
    if (this.#state === "ended") return;
    this.#state = "down";
    clearTimeout(this.#retry);
    this.#leaveInbox();
  }

  /** U2 */
  #leaveInbox(): void {
    const subscription = this.#subscription;
    this.#inbox = "";
    this.#outstanding = 0;
    this.#subscription = undefined;
    if (!subscription || this.#link.closed || subscription.isClosed()) return;
    // Nothing comes over a link that is down, or into hands that are closed.
    if (this.#state === "down" || this.#state === "ended") subscription.unsubscribe();
    else this.#left = subscription.drain().catch(() => {});
  }

  /** Begins anew: U2, U3. */
  #check(): void {
    if (this.#state === "ended") return;
    this.#state = "checking";
    clearTimeout(this.#retry);
    this.#leaveInbox();
    const inbox = this.#link.newInbox();
    this.#inbox = inbox;
    if (this.#leader === "there") this.#leader = "unknown";
    this.#ask(inbox);
  }

  /** What comes first counts, when it is asked again because the leader that was asked is no more. */
  #ask(inbox: string): void {
    const { delivered } = this.#life;
    this.#link.request(this.#infoSubject, checkTimeoutMs).then(
      (answer) => this.#onInfo(inbox, answer as ConsumerInfo, delivered),
      () => this.#onInfo(inbox, undefined, delivered),
    );
  }

  #onInfo(inbox: string, info: ConsumerInfo | undefined, delivered: number): void {
    if (this.#inbox !== inbox || this.#state !== "checking") return;
    if (!info?.created) {
      // Not at the first time: the consumer's leader may be about to change.
      const now = performance.now();
      this.#unansweredSinceMs ??= now;
      if (info !== undefined) this.#unansweredSinceMs = undefined;
      else if (now - this.#unansweredSinceMs > unansweredMs) this.#link.move();
      // No answer at all happens while the server starts; only a clear "no" says that somebody must make the consumer.
      if (info === undefined || info.error?.code === 404) this.#options.onMissing?.();
      this.#retryLater();
      return;
    }
    this.#attempt = 0;
    this.#unansweredSinceMs = undefined;
    this.#nodeLeading = info.cluster?.leader;
    if (this.#life.meet(info, delivered)) {
      this.#dueAcks = [];
      this.#options.onNewLife?.();
    }
    this.#state = "pulling";
    this.#sendAcks();
    this.#pullingSinceMs = performance.now();
    this.#silentTicks = 0;
    this.#busy = false;
    this.#leader = "unknown";
    this.#subscription = this.#link.subscribe(inbox, (error, message) => {
      if (this.#state === "ended") return;
      if (error) {
        if (this.#inbox === inbox) this.#retryLater();
      } else if (message.reply) this.#onDelivery(message, message.reply, inbox);
      else if (this.#inbox === inbox) this.#onStatus(message);
    });
    this.#fill();
  }

  #retryLater(): void {
    if (this.#state === "ended") return;
    this.#state = "checking";
    this.#leaveInbox();
    this.#attempt += 1;
    clearTimeout(this.#retry);
    // Half of the pause is fixed: many pullers of one missing consumer must not become a storm.
    const pauseMs = checkBackoff.initialMs / 2 + fullJitter(this.#attempt, checkBackoff);
    this.#retry = setTimeout(() => {
      if (this.#link.up) this.#check();
    }, pauseMs);
  }

  #onTick(): void {
    if (this.#state === "checking") {
      // A leader that is there and slow to answer gets no more questions.
      if (this.#leader !== "there") void this.#feel();
      return;
    }
    if (this.#state !== "pulling" || this.#outstanding === 0) return;
    this.#silentTicks += 1;
    if (this.#silentTicks > silentTicksMax) this.#check();
    else if (this.#busy && this.#silentTicks >= feelTicks) {
      this.#busy = false;
      void this.#feel();
    }
  }

  /** Finds out early that the consumer has lost its leader, and then that it has one again. */
  async #feel(): Promise<void> {
    if (this.#feeling || !this.#link.up) return;
    const inbox = this.#inbox;
    this.#feeling = true;
    const answer = await this.#link.answers(this.#pullSubject, feelBytes, feelTimeoutMs);
    this.#feeling = false;
    if (this.#state === "pulling" && this.#inbox === inbox) {
      if (answer === "nobody") this.#check();
      // A node that stops hands over what it leads, and not the requests.
      else if (this.#nodeLeading !== undefined) this.#look();
    }
    if (this.#state !== "checking" || answer === "silent") return;
    const isBack = this.#leader === "none" && answer === "somebody";
    this.#leader = answer === "somebody" ? "there" : "none";
    if (answer === "nobody") setTimeout(() => this.#state === "checking" && void this.#feel(), feelAgainMs);
    if (!isBack) return;
    // Between two tries nothing is asked; while one is under way, its question went to nobody.
    if (this.#inbox === "") this.#check();
    else this.#ask(this.#inbox);
  }

  /** Refills when half of the room has no request: a request for each message would cost the server as much as the message. */
  #fill(): void {
    if (this.#state !== "pulling" || this.#draining) return;
    const room = Math.min(this.#options.room(), batchMax);
    if (room <= 0 || this.#outstanding * 2 > room) return;
    const batch = room - this.#outstanding;
    if (batch <= 0) return;
    const request = Buffer.from(`{"batch":${batch},"expires":${expiresMs}000000}`);
    if (this.#link.publish(this.#pullSubject, request, this.#inbox)) this.#outstanding += batch;
  }

  #onDelivery(message: Msg, reply: string, inbox: string): void {
    this.#silentTicks = 0;
    this.#busy = true;
    if (this.#inbox === inbox && this.#outstanding > 0) this.#outstanding -= 1;
    const info = parseDelivery(reply);
    if (!info) return;
    this.#life.count(info);
    if (this.#options.room() <= 0) {
      // The server gave more than was asked for. Another worker can have it at once.
      this.#link.publish(reply, refuseBytes);
      return;
    }
    const life = this.#life.number;
    this.#options.onMessage({
      data: message.data,
      message,
      streamSequence: info.streamSequence,
      life,
      redelivered: info.deliveries > 1 || this.#life.mayRepeat(info),
      ack: () => this.#answer(life, reply, ackBytes),
      terminate: () => this.#answer(life, reply, terminateBytes),
      working: () => this.#answer(life, reply, workingBytes),
    });
    this.#fill();
  }

  #answer(life: number, subject: string, bytes: Uint8Array): void {
    if (life !== this.#life.number || this.#dueAcks.length >= dueAcksMax) return;
    this.#dueAcks.push({ subject, bytes });
    if (this.#riding) return;
    this.#riding = true;
    this.#link.ride(() => {
      this.#riding = false;
      this.#sendAcks();
    });
  }

  /** U3 */
  #sendAcks(): void {
    if (this.#state !== "pulling") return;
    const due = this.#dueAcks;
    this.#dueAcks = [];
    for (const ack of due) if (!this.#link.publish(ack.subject, ack.bytes)) this.#dueAcks.push(ack);
  }

  /** Requests end with a status in place of messages; it tells how many messages they still stood for. */
  #onStatus(message: Msg): void {
    this.#silentTicks = 0;
    const code = message.headers?.code ?? 0;
    if (code === 100) return;
    const pending = Number(message.headers?.get("Nats-Pending-Messages") || Number.NaN);
    this.#outstanding = Number.isNaN(pending) ? 0 : Math.max(0, this.#outstanding - pending);
    if (code === 404 || code === 408) {
      this.#fill();
      return;
    }
    // 503: nobody listens for the request. 409: the consumer is gone, the server goes, or too many requests wait.
    const gone = code === 503 || /deleted|push based/i.test(message.headers?.description ?? "");
    if (gone) this.#options.onMissing?.();
    this.#retryLater();
  }
}

/**
 * A broker that may lose, delay, reorder and repeat what it carries, and be wiped. What it promises is what the seam promises
 * (runtime/src/transport/transport.ts, C1, C4, C5): a start that it keeps is delivered until it is acked, marked when it may be a repetition.
 */
import { type CompleteStep, CompletionBatch, StartStep } from "@taskmesh/proto";
import type { CompletionDelivery, OutgoingStart, PublishOutcome } from "@taskmesh/runtime";
import type { Trouble } from "./trouble.js";
import type { World } from "./world.js";

const ackWaitMs = 15_000;

/** A worker as the broker sees it. */
export interface Puller {
  /** Slots that are free. */
  free(): number;
  /** Takes a slot and runs the start, or refuses it. */
  take(start: StartStep, redelivered: boolean, ack: () => void): void;
}

/** A coordinator as the broker sees it. */
export interface Inbox {
  /** Whose completions it takes. */
  addressees(): ReadonlySet<string>;
  take(delivery: CompletionDelivery): void;
}

interface Message<Body> {
  body: Body;
  deliveries: number;
  acked: boolean;
}

type Reported = { reportTo: string; bytes: Uint8Array };

export class Bus {
  readonly pullers = new Set<Puller>();
  readonly inboxes = new Set<Inbox>();
  #starts: Message<Uint8Array>[] = [];
  #reports: Message<Reported>[] = [];
  #era = 0;
  readonly #world: World;
  readonly #trouble: Trouble;

  constructor(world: World, trouble: Trouble) {
    this.#world = world;
    this.#trouble = trouble;
  }

  /** Starts and completions that nobody has acked. */
  get depth(): number {
    return this.#starts.length + this.#reports.length;
  }

  publishStart(start: OutgoingStart, done: (outcome: PublishOutcome) => void): void {
    const trouble = this.#trouble;
    const after = (ms: number, outcome: PublishOutcome): unknown => this.#world.after(ms, () => done(outcome));
    const unknown = { kind: "unknown", message: "no answer" } as const;
    if (trouble.happens("startRefused")) return void after(1, { kind: "refused", message: "no" });
    if (trouble.happens("startLost")) return void after(10_000, unknown);
    const lost = trouble.happens("startSilentlyLost");
    const copies = trouble.happens("startTwice") ? 2 : 1;
    this.#arrive(() => {
      if (lost) return;
      // A repetition that the broker takes for another message is one that may have been delivered before.
      for (let copy = 0; copy < copies; copy++)
        this.#starts.push({ body: start.bytes, deliveries: copy, acked: false });
    });
    if (trouble.happens("startUnknown")) after(10_000, unknown);
    else after(2, { kind: "stored" });
  }

  /** `stored`: without an error when the broker has it. */
  complete(reportTo: string, completion: CompleteStep, stored: (error?: Error) => void): void {
    const trouble = this.#trouble;
    const after = (ms: number, error?: Error): unknown => this.#world.after(ms, () => stored(error));
    if (trouble.happens("completionLost")) return void after(10_000, new Error("no answer"));
    const bytes = CompletionBatch.encode({ completions: [completion] }).finish();
    const copies = trouble.happens("completionTwice") ? 2 : 1;
    this.#arrive(() => {
      for (let copy = 0; copy < copies; copy++)
        this.#reports.push({ body: { reportTo, bytes }, deliveries: 0, acked: false });
      if (trouble.happens("garbage"))
        this.#reports.push({ body: { reportTo, bytes: bytes.subarray(0, 5) }, deliveries: 0, acked: false });
    });
    if (trouble.happens("completionUnacked")) after(10_000, new Error("no answer"));
    else after(2);
  }

  /** Loses everything that it has. */
  wipe(): void {
    this.#era += 1;
    this.#starts = [];
    this.#reports = [];
  }

  /** Gives what waits to whoever has room. */
  pump(): void {
    this.#starts = this.#starts.filter(({ acked }) => !acked);
    this.#reports = this.#reports.filter(({ acked }) => !acked);
    for (const message of this.#inOrder(this.#starts)) {
      const free = [...this.pullers].filter((puller) => puller.free() > 0);
      if (free.length === 0) break;
      const start = StartStep.decode(message.body);
      const redelivered = message.deliveries > 0;
      this.#handOut(message, this.#starts);
      this.#world.random.pick(free).take(start, redelivered, () => {
        message.acked = true;
      });
    }
    for (const message of this.#inOrder(this.#reports)) {
      const takers = [...this.inboxes].filter((inbox) => inbox.addressees().has(message.body.reportTo));
      if (takers.length === 0) continue;
      this.#handOut(message, this.#reports);
      const ack = (): void => {
        message.acked = true;
      };
      this.#world.random.pick(takers).take({ namespaceId: 1, bytes: message.body.bytes, ack, terminate: ack });
    }
  }

  /** Puts something in, a moment later, unless it is wiped meanwhile. */
  #arrive(put: () => void): void {
    const { random } = this.#world;
    const delayMs = this.#trouble.happens("slow") ? random.int(0, 12_000) : random.int(0, 5);
    const era = this.#era;
    this.#world.after(delayMs, () => {
      if (era !== this.#era) return;
      put();
      this.pump();
    });
  }

  #inOrder<Body>(messages: readonly Message<Body>[]): Message<Body>[] {
    const waiting = [...messages];
    if (waiting.length > 1 && this.#trouble.happens("reorder")) waiting.reverse();
    return waiting;
  }

  /** It is out now; without an ack it waits again later. */
  #handOut<Body>(message: Message<Body>, from: Message<Body>[]): void {
    from.splice(from.indexOf(message), 1);
    message.deliveries += 1;
    const era = this.#era;
    this.#world.after(ackWaitMs, () => {
      if (message.acked || era !== this.#era) return;
      (("reportTo" in (message.body as object) ? this.#reports : this.#starts) as unknown[]).push(message);
      this.pump();
    });
  }
}

/**
 * The rules that hold at every moment, checked as messages pass: whoever breaks one fails the case that runs just then.
 *
 *   allowed   credits of a queue that no start has used
 *   in hand   starts of this stream whose slots the worker has not freed
 *   allowed + in hand never exceeds the slots of the registration
 */
import { type Beat, type RelayCompletions, type RelayCredit, type RelayStart, StartStep } from "@taskmesh/proto";
import type { Tape } from "./tape.js";

/** A rule that a worker broke. */
export interface Breach {
  /** Section of docs/worker-protocol.md, "6.7". */
  section: string;
  message: string;
}

/** Largest start, which a free slot must have the bytes for. */
const startBytesMax = 512n * 1024n;

interface Hand {
  slots: number;
  allowed: number;
  bytes: bigint;
  /** Deliveries whose slot is not free, with their size. */
  out: Map<bigint, bigint>;
  credited: boolean;
}

/** Slots and bytes of one relay stream. */
class Ledger {
  readonly hands = new Map<string, Hand>();
  readonly leases = new Map<bigint, string>();
  /** Numbers of completions that wait for their RelayStored. */
  readonly numbers = new Set<bigint>();
}

export class Watch {
  readonly breaches: Breach[] = [];
  readonly #tape: Tape;
  readonly #ledgers = new Map<number, Ledger>();
  #slots = new Map<string, number>();
  #newestBeat = 0n;
  #sessionIds = new Set<string>();

  constructor(tape: Tape) {
    this.#tape = tape;
  }

  broken(section: string, message: string): void {
    this.breaches.push({ section, message });
  }

  /** A new process: what the old one owed is void. */
  restart(): void {
    this.#newestBeat = 0n;
  }

  registered(sessionId: string, slots: ReadonlyMap<string, number>): void {
    this.#sessionIds.add(sessionId);
    this.#slots = new Map(slots);
  }

  beat(beat: Beat): void {
    if (beat.number <= this.#newestBeat)
      this.broken("4.2", `beat ${beat.number} came after beat ${this.#newestBeat}; numbers grow`);
    this.#newestBeat = beat.number;
    const { nonce } = beat;
    if (nonce !== "" && !this.#tape.probes.some(({ message }) => message === nonce))
      this.broken("4.3", `a beat echoes the nonce ${JSON.stringify(nonce)}, which no probe brought`);
    for (const { lease, startedAt } of beat.attempts) {
      if (startedAt === undefined) this.broken("4.4", `a beat lists lease ${lease} without started_at`);
      if (this.#known(lease) === undefined) this.broken("4.4", `a beat lists lease ${lease}, which no start brought`);
    }
  }

  opened(stream: number): void {
    this.#ledgers.set(stream, new Ledger());
  }

  credit(stream: number, credit: RelayCredit): void {
    const slots = this.#slots.get(credit.taskQueue);
    if (slots === undefined) {
      this.broken("5.2", `a credit for ${JSON.stringify(credit.taskQueue)}, a queue that was not registered`);
      return;
    }
    const hand = this.#hand(stream, credit.taskQueue);
    hand.credited = true;
    for (const delivery of credit.deliveries) {
      if (!hand.out.delete(delivery))
        this.broken(
          "5.3",
          `a credit frees delivery ${delivery}, which this stream did not bring or which is free already`,
        );
    }
    hand.allowed += credit.slots;
    hand.bytes += credit.bytes;
    const total = hand.allowed + hand.out.size;
    if (total > slots)
      this.broken(
        "5.3",
        `${hand.allowed} slots are allowed and ${hand.out.size} in hand; the registration has ${slots}`,
      );
    if (hand.allowed > 0 && hand.bytes < startBytesMax)
      this.broken(
        "5.4",
        `a slot is free and only ${hand.bytes} bytes are allowed: a start of 512 KiB could never come`,
      );
  }

  start(stream: number, relayed: RelayStart): void {
    const hand = this.#hand(stream, relayed.taskQueue);
    const size = relayed.start ? BigInt(StartStep.encode(relayed.start).finish().length) : 0n;
    hand.allowed -= 1;
    hand.bytes -= size;
    hand.out.set(relayed.delivery, size);
    if (relayed.start) this.#ledger(stream).leases.set(relayed.delivery, relayed.start.lease);
  }

  ack(stream: number, delivery: bigint): void {
    const lease = this.#ledger(stream).leases.get(delivery);
    if (lease === undefined) {
      this.broken("6.7", `an ack of delivery ${delivery}, which this stream did not bring`);
      return;
    }
    if (!this.#mayAck(lease))
      this.broken(
        "6.7",
        `delivery ${delivery} was acked while its completion is not stored and its lease is not bound`,
      );
  }

  completions(stream: number, { number, reportTo, batch }: RelayCompletions): void {
    const { numbers } = this.#ledger(stream);
    if (numbers.has(number))
      this.broken("6.5", `RelayCompletions number ${number} is used for two messages that wait for their RelayStored`);
    numbers.add(number);
    const completions = batch?.completions ?? [];
    if (completions.length === 0) this.broken("6.5", "RelayCompletions without a completion");
    for (const one of completions) {
      const start = this.#known(one.lease);
      const about = `the completion of run ${one.runId}, step ${one.stepId}`;
      if (start === undefined) {
        this.broken("6.4", `${about} has lease ${JSON.stringify(one.lease)}, which no start brought`);
        continue;
      }
      for (const field of ["runId", "stepId", "item", "attempt"] as const) {
        if (one[field] !== start[field])
          this.broken("6.4", `${about} has ${field} ${one[field]}; its start says ${start[field]}`);
      }
      if (reportTo !== start.reportTo)
        this.broken("6.5", `${about} is addressed to ${reportTo}; its start says report_to ${start.reportTo}`);
      if (!this.#sessionIds.has(one.sessionId))
        this.broken("6.4", `${about} has session_id ${JSON.stringify(one.sessionId)}, which is not the worker's`);
      if (one.outcome === undefined) this.broken("6.4", `${about} has no outcome`);
    }
  }

  /** The worker was told how a message of completions went. */
  answered(stream: number, number: bigint): void {
    this.#ledger(stream).numbers.delete(number);
  }

  /** Slots that are allowed now on a stream, and whether any is in hand. */
  room(stream: number, taskQueue: string): { allowed: number; inHand: number; credited: boolean } {
    const { allowed, out, credited } = this.#hand(stream, taskQueue);
    return { allowed, inHand: out.size, credited };
  }

  #ledger(stream: number): Ledger {
    const ledger = this.#ledgers.get(stream) ?? new Ledger();
    this.#ledgers.set(stream, ledger);
    return ledger;
  }

  #hand(stream: number, taskQueue: string): Hand {
    const { hands } = this.#ledger(stream);
    const slots = this.#slots.get(taskQueue) ?? 0;
    const hand = hands.get(taskQueue) ?? { slots, allowed: 0, bytes: 0n, out: new Map(), credited: false };
    hands.set(taskQueue, hand);
    return hand;
  }

  /** The start of a lease, delivered or given by a claim. */
  #known(lease: string): StartStep | undefined {
    for (const { message } of this.#tape.claims) {
      const verdict = message.response?.verdict;
      if (verdict?.$case === "start" && verdict.value.lease === lease) return verdict.value;
    }
    return this.#tape.starts.find(({ message }) => message.start?.lease === lease)?.message.start;
  }

  /** Whether everything that an ack of this lease's start stands for has happened. */
  #mayAck(lease: string): boolean {
    const { claims, stored, replies } = this.#tape;
    const names = new Set([lease]);
    for (const { message } of claims) {
      if (message.request.lease !== lease) continue;
      if (message.response?.verdict?.$case === "drop") return true;
      if (message.response?.verdict?.$case === "start") names.add(message.response.verdict.value.lease);
    }
    return (
      stored.some(({ message }) => names.has(message)) ||
      replies.some(
        ({ message }) =>
          message.boundLeases.some((one) => names.has(one)) || message.cancels.some((one) => names.has(one.lease)),
      )
    );
  }
}

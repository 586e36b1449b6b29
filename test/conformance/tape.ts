/** What went between the worker and the mesh, in the order in which it passed the tap. */
import type {
  Beat,
  BeatReply,
  ClaimAttemptRequest,
  ClaimAttemptResponse,
  CompleteStep,
  Register,
  Registered,
  RelayCredit,
  RelayOpen,
  RelayStart,
} from "@taskmesh/proto";

/** One message. */
export interface Seen<T> {
  /** Place among all messages. */
  order: number;
  /** Number of the stream that it came over; streams of one kind are counted from 1. */
  stream: number;
  message: T;
}

/** How a stream of the worker ended, from the worker's side. */
export interface StreamEnd {
  order: number;
  stream: number;
  kind: "connect" | "relay";
  /** closed: half-closed in order; cancelled: broken off. */
  how: "closed" | "cancelled";
}

/** A payload that the worker stored. */
export interface StoredPayload {
  order: number;
  chunks: number[];
  namespace: string;
}

export class Tape {
  #order = 0;
  readonly registers: Seen<Register>[] = [];
  readonly registered: Seen<Registered>[] = [];
  readonly beats: Seen<Beat>[] = [];
  readonly replies: Seen<BeatReply>[] = [];
  readonly opens: Seen<RelayOpen>[] = [];
  readonly credits: Seen<RelayCredit>[] = [];
  readonly acks: Seen<bigint>[] = [];
  readonly completions: (Seen<CompleteStep> & { number: bigint; reportTo: string })[] = [];
  readonly relayDrains: Seen<null>[] = [];
  readonly starts: Seen<RelayStart>[] = [];
  readonly probes: Seen<string>[] = [];
  /** Leases whose completion the worker was told is stored. */
  readonly stored: Seen<string>[] = [];
  readonly claims: Seen<{ request: ClaimAttemptRequest; response?: ClaimAttemptResponse }>[] = [];
  readonly puts: StoredPayload[] = [];
  readonly gets: { order: number; reference: string }[] = [];
  readonly ends: StreamEnd[] = [];

  /** The next place. */
  next(): number {
    this.#order += 1;
    return this.#order;
  }

  /** Place of the newest message: what comes after it has a higher one. */
  get now(): number {
    return this.#order;
  }

  add<T>(list: Seen<T>[], stream: number, message: T): void {
    list.push({ order: this.next(), stream, message });
  }

  completionsOf(lease: string): CompleteStep[] {
    return this.completions.filter(({ message }) => message.lease === lease).map(({ message }) => message);
  }

  /** Starts of a run, in the order in which they were delivered. */
  startsOf(runId: string): Seen<RelayStart>[] {
    return this.starts.filter(({ message }) => message.start?.runId === runId);
  }

  claimsOf(runId: string): Seen<{ request: ClaimAttemptRequest; response?: ClaimAttemptResponse }>[] {
    return this.claims.filter(({ message }) => message.request.runId === runId);
  }

  /** Whether a beat behind `order` lists the lease. */
  listed(lease: string, order = 0): boolean {
    return this.beats.some((beat) => beat.order > order && beat.message.attempts.some((one) => one.lease === lease));
  }

  /** Whether the worker was told that the lease is bound. */
  bound(lease: string): boolean {
    return this.replies.some(({ message }) => message.boundLeases.includes(lease));
  }
}

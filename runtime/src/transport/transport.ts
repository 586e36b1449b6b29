/**
 * The one seam between coordinators and workers: starts go out, completions come back, probes prove the path.
 *
 *   Carrier        coordinator side, implemented by `jetstream` and `memory`
 *   WorkTransport  worker side, implemented by `jetstream`, `memory` and `relay` (which rides on either over gRPC)
 *
 * What every implementation owes, held by contract.test.ts:
 *
 * C1. A start is delivered at least once while a worker pulls its lane, and again after `ackWaitMs` without an ack, unless the carrier
 *     knows that the worker still has it. A delivery that may be a repetition says so (`redelivered`).
 * C2. Two publishes of one id within `dedupeWindowMs` are one message.
 * C3. A worker is given no more deliveries of a queue than it has free slots.
 * C4. A completion that was reported stored is delivered to a coordinator at least once, unless the carrier is wiped.
 * C5. The carrier may lose everything at any time; then it says so (`onWiped`) and goes on with empty streams.
 * C6. Nothing throws into the caller's tick: outcomes arrive by callback or promise.
 * C7. An output that a handler emits reaches whoever listens to its run at that moment, in the order of its worker, or is lost.
 * C8. Whether a completion that was reported stored is still unread can be asked for, whoever it is addressed to: an attempt is given up only
 *     when it can't be (coordinator/src/registry/heard.ts).
 */

import type {
  CompleteStep,
  EmittedOutput,
  JetStreamAccess,
  LaneGrant,
  StartStep,
  TransportKind,
} from "@taskmesh/proto";

/** Time without an ack after which a start is delivered again. */
export const ackWaitMs = 15_000;
/** Time in which publishes of one id are one message. */
export const dedupeWindowMs = 10_000;
/** Age of a start that waits for workers who are gone for good, and how long the consumer of a lane outlives its last worker. */
export const laneKeptMs = 7 * 24 * 3600 * 1000;
/** Largest message that a carrier takes. Payloads above 128 KiB travel by reference, so this leaves room for envelopes and packing. */
export const messageBytesMax = 512 * 1024;
/** Longest time that a handler is held back because what it emitted before is not under way. */
export const emitPatienceMs = 2_000;
/** Largest payload that travels inside a message. */
export const inlineBytesMax = 128 * 1024;
/** Largest payload at all. */
export const payloadBytesMax = 64 * 1024 * 1024;

/** Starts of one message at most, and the slots of a worker for each of them: see `packMaxFor`. */
const packLimit = 16;
const slotsPerPacked = 16;

/**
 * Starts that may share a message for workers with so many slots. A worker asks for a message only with room for a full one, so a
 * sixteenth of its slots may stay empty; with fewer than 32 slots each start travels alone.
 */
export const packMaxFor = (slots: number): number =>
  Math.min(packLimit, Math.max(1, Math.floor(slots / slotsPerPacked)));

/** A part of a task queue: workers with the same set of contracts. Ids, never names, make up its subject. */
export interface Lane {
  namespaceId: number;
  queueId: number;
  laneId: number;
}

/** Subject that starts of a lane are published on. */
export const laneSubject = (lane: Lane): string => `start.${lane.namespaceId}.${lane.queueId}.${lane.laneId}`;
/** Durable consumer that the workers of a lane share. */
export const laneConsumer = (lane: Lane): string => `lane-${lane.namespaceId}-${lane.queueId}-${lane.laneId}`;

/** W3C trace context and nothing else; absent when tracing is off. */
export type TraceHeaders = Record<string, string>;

/**
 * How a publish ended. `unknown`: it may or may not be stored, and the dedupe window is over, so the same attempt must not be
 * published again without a new lease. `refused`: it is certain not to be stored (too large, malformed).
 */
export type PublishOutcome =
  | { kind: "stored" }
  | { kind: "unknown"; message: string }
  | { kind: "refused"; message: string };

export interface OutgoingStart {
  lane: Lane;
  /** The attempt's lease: unique per publication. */
  id: string;
  /** An encoded StartStep. */
  bytes: Uint8Array;
  headers?: TraceHeaders;
  /** Starts of this lane that may share a message now, this one included; default 1. One with headers travels alone. */
  packMax?: number;
}

/** One run, for those who listen to its outputs. */
export interface RunRef {
  namespaceId: number;
  runId: string;
}

/** Completions as they came from the wire: not decoded, not trusted. */
export interface CompletionDelivery {
  namespaceId: number;
  /** An encoded CompletionBatch, or garbage. */
  bytes: Uint8Array;
  /** To be called once what it says is committed, or known to mean nothing. Bounded deliveries are open at once, so each must be acked. */
  ack(): void;
  /** The bytes can't be decoded: never deliver them again. */
  terminate(): void;
}

/** Numbers of completion messages, in the order in which the carrier stored them; they begin anew when it is wiped. */
export interface CompletionsRead {
  /** The newest message that is stored, whoever it is addressed to. */
  stored: number;
  /** All up to this one that were addressed to the coordinators in question are acked. At most `stored`. */
  read: number;
}

export interface CarrierListener {
  onCompletions(delivery: CompletionDelivery): void;
  /** The carrier lost messages (C5): starts that are not bound must be dispatched again and workers asked to republish. */
  onWiped(): void;
}

/** The coordinator's side of a transport. */
export interface Carrier {
  readonly kind: "jetstream" | "memory";
  /** Connects, makes the streams, begins to deliver completions for `coordinatorId`. Resolves when it can carry; retries until then or until aborted. */
  start(listener: CarrierListener, signal?: AbortSignal): Promise<void>;
  /** Stops deliveries, waits for publishes in flight (at most 2 s), disconnects. Safe to repeat. */
  stop(): Promise<void>;
  /** Whether messages can be carried now. */
  healthy(): boolean;
  /** Makes the lane's consumer if it is missing. Idempotent; it is re-made by the carrier when it vanishes. */
  ensureLane(lane: Lane): Promise<void>;
  /** The lanes that have workers: consumers of others go after `laneKeptMs`, and are not made again before the next `ensureLane`. */
  keepLanes(lanes: readonly Lane[]): void;
  /** Publishes one start; retries an unknown outcome under the same id within the dedupe window. `done` is called exactly once. */
  publishStart(start: OutgoingStart, done: (outcome: PublishOutcome) => void): void;
  /** Delivers the completions that were addressed to another, lapsed coordinator as well. Idempotent. */
  adopt(coordinatorId: string): Promise<void>;
  /** How far these coordinators' completions have come (C8). Rejects while the carrier can't say. */
  completionsRead(coordinatorIds: readonly string[]): Promise<CompletionsRead>;
  /** Ends an adoption whose subject is empty and removes its consumer; false if messages are left. */
  release(coordinatorId: string): Promise<boolean>;
  /** Calls back for each output that the run's handler emits (C7), as it came from the wire: not decoded, not trusted. Answers how to stop. */
  onEmitted(run: RunRef, listener: (encoded: Uint8Array) => void): () => void;
  /** Sends a nonce to one session over the work transport. */
  probe(namespaceId: number, sessionId: string, nonce: string): void;
  /** What a worker needs to reach this carrier, limited to its lanes; undefined where workers can't dial it (memory). */
  access(session: { namespaceId: number; sessionId: string; lanes: Lane[] }): Promise<JetStreamAccess | undefined>;
  /** A worker's side of this carrier inside this process: for embedded workers and for the relay. */
  workTransport(session: { namespaceId: number; sessionId: string }): WorkTransport;
}

/** One start in a worker's hands. While it is held (until `release`), a repeated delivery of it to the same worker is swallowed. */
export interface StartDelivery {
  taskQueue: string;
  start: StartStep;
  /** May have been delivered before: claim it before running it. */
  redelivered: boolean;
  headers?: TraceHeaders;
  /** Its completion is stored, its attempt is bound, or it is to be dropped: don't deliver it again. Safe to repeat. */
  ack(): void;
  /** The slot that it took is free again. Safe to repeat. */
  release(): void;
}

/** Called once: without an error when the completion is stored, with its bytes as they were sent (not to be changed). */
export type StoredCallback = (error?: Error, encoded?: Uint8Array) => void;

export interface WorkListener {
  onStart(delivery: StartDelivery): void;
  onProbe(nonce: string): void;
  /** The transport gave up for good, with the reason; the worker opens another. Short outages are retried inside and don't end here. */
  onClosed(error?: Error): void;
}

/** The worker's side of a transport. */
export interface WorkTransport {
  readonly kind: TransportKind;
  /**
   * Opens the lanes and begins to pull, each lane up to its own slots (C3). Rejects when the carrier can't be reached. Called again it
   * opens more lanes, and adds slots to those that are open.
   */
  open(lanes: LaneGrant[], listener: WorkListener): Promise<void>;
  /**
   * Stops pulling; what is in hand goes on, and so does what was on its way here. Resolves when no further start can come (over the relay: when
   * that was asked for), after eight seconds at the latest: a start that arrives after `close` is lost to everyone until the ack wait is over,
   * and costs an attempt. Safe to repeat.
   */
  drain(): Promise<void>;
  /**
   * Reports an attempt. Completions of one tick and addressee are packed into one message. `stored` is called exactly once, without an
   * error when the carrier has it; with one when it is not certain within 10 s, and then the caller reports again.
   */
  complete(reportTo: string, completion: CompleteStep, stored: StoredCallback): void;
  /**
   * Passes on an output that a handler emitted (C7). Resolves when there is room for the next, after `emitPatienceMs` at the latest; never rejects.
   */
  emit(output: EmittedOutput): Promise<void>;
  /** Replaces credentials before they expire. */
  renew?(access: JetStreamAccess): void;
  /** Closes at once, after at most 2 s for what is being sent. Safe to repeat. */
  close(): Promise<void>;
}

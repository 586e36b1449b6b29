/**
 * The life of attempts in a worker, from the delivery of a start to the confirmation of its completion.
 *
 *   delivered --first time-----------------> running --returned--> reporting --stored--> gone
 *       |                                     |   |                    ^
 *       +--redelivered or exclusive--> claim -+   +--time is over------+   (the handler may return later)
 *                                        |    +--lease lost--> dropped
 *                                        +--drop--> gone
 *
 * A1. At most one handler runs per lease: a start of a lease that runs, or was reported lately, is not run again.
 * A2. A slot is free again when its handler has returned. One that never returns keeps its slot, and the beats say so.
 * A3. A start is acked when its completion is stored, its attempt is bound, or it is to be dropped; never earlier.
 * A4. An attempt whose lease was lost, or that the drain cut short, reports nothing: someone else has the step, or will get it.
 * A5. No timer and no promise per attempt: one clock looks at all of them, and a handler's own promise carries it on.
 */
import { setMaxListeners } from "node:events";
import { type AttemptBeat, CancelReason, type FreeSlots, type Payload, type StartStep } from "@taskmesh/proto";
import { type Logger, payloadBytesMax, type StartDelivery } from "@taskmesh/runtime";
import { type Attempt, type FinalOutcome, failed, timedOut, toBeat, toCompletion, traceOf } from "./attempt-record.js";
import { checkpointOf } from "./checkpoint.js";
import type { Completions } from "./completions.js";
import { AttemptContext, type AttemptFacts, type ContextPorts } from "./context.js";
import { type EmitPorts, emitterOf } from "./emit.js";
import { type AbortCode, describe, overdue } from "./errors.js";
import type { ServedAction } from "./options.js";
import { fitsInline, inlineBytes } from "./payload.js";
import { type Outcome, perform } from "./perform.js";
import { countAttempt } from "./worker-metrics.js";

/** How often deadlines are looked at: an attempt may run over by this much, which no timeout in seconds notices. */
const clockMs = 100;
/** Time that a handler has to return after its signal aborted, before the attempt is reported without it. */
export const graceMs = 2_000;
/** Clock ticks without an attempt after which the clock rests. Not at once: one attempt at a time must not make a timer each. */
const idleTicksMax = 10;

/** What attempts need from the worker. */
export interface AttemptPorts {
  namespace: string;
  /** Attempts in flight, those that wait for confirmation included, above which a slot stays taken until its completion is stored. */
  attemptsMax: number;
  actions: ReadonlyMap<string, ServedAction>;
  sessionId(): string;
  /** Turns a redelivered start into a current one; undefined if it must be left to another worker. `drop`: it means nothing any more. */
  claim(start: StartStep, signal: AbortSignal): Promise<{ start: StartStep } | { drop: string } | undefined>;
  fetch(payload: Payload, signal: AbortSignal): Promise<Uint8Array>;
  store(bytes: Uint8Array, signal: AbortSignal): Promise<Payload>;
  /** Passes on what a handler emits. */
  send: EmitPorts["send"];
  completions: Completions;
  log: Logger;
}

export class Attempts {
  readonly #ports: AttemptPorts;
  readonly #byLease = new Map<string, Attempt>();
  /** Reported, but their handlers have not returned. */
  readonly #lingering = new Set<Attempt>();
  readonly #inHand = new Map<string, number>();
  readonly #contextPorts: ContextPorts;
  readonly #stopping = new AbortController();
  #claiming = 0;
  #clock: NodeJS.Timeout | undefined;
  #idleTicks = 0;
  #idle: (() => void)[] = [];

  constructor(ports: AttemptPorts) {
    this.#ports = ports;
    // Each slot may have a claim that listens.
    setMaxListeners(0, this.#stopping.signal);
    this.#contextPorts = {
      mirror: ({ runId, stepId, attempt, method }, { level, message, fields }) =>
        ports.log[level]({ run_id: runId, step_id: stepId, attempt, method, ...fields }, message),
    };
  }

  /** Attempts that hold a slot or wait for their completion to be stored. */
  get size(): number {
    return this.#byLease.size + this.#lingering.size + this.#claiming;
  }

  /** Takes a start from the transport. */
  onStart(delivery: StartDelivery): void {
    const { start } = delivery;
    const { completions } = this.#ports;
    const running = this.#byLease.get(start.lease);
    if (running) {
      // A1. The transport was opened again in between: only the new delivery can still be acked.
      running.delivery.release();
      running.delivery = delivery;
      if (running.acked) delivery.ack();
      // Reported, its slot free, its completion not confirmed yet: this delivery is to be acked, and takes no slot.
      if (running.freed) delivery.release();
      return;
    }
    if (completions.has(start.lease)) {
      completions.repeat(start.lease, () => delivery.ack());
      delivery.release();
      return;
    }
    this.#take(delivery.taskQueue, 1);
    if (delivery.redelivered || start.exclusive) this.#claim(delivery);
    else this.#run(start, delivery);
  }

  /** What the next beat lists. Attempts younger than `ageMs` that reported nothing are left out unless listed before: most end before they matter. */
  beats(ageMs: number): AttemptBeat[] {
    const now = performance.now();
    const list: AttemptBeat[] = [];
    for (const attempt of this.#byLease.values()) {
      if (attempt.context.abortCode === "LEASE_LOST") continue;
      const { reported, checkpoint, extendedMs } = attempt.context;
      const silent = reported === undefined && checkpoint === undefined && extendedMs === 0;
      if (!attempt.listed && silent && now - attempt.context.startedAtMs < ageMs) continue;
      attempt.listed = true;
      list.push(toBeat(attempt, now));
    }
    return list;
  }

  /** Free slots of each queue that has `slots`. */
  freeSlots(queues: Iterable<string>, slots: number): FreeSlots[] {
    return [...queues].map((taskQueue) => ({
      taskQueue,
      slots,
      free: Math.max(0, slots - (this.#inHand.get(taskQueue) ?? 0)),
    }));
  }

  /** The attempt is bound in the database: its start need not be delivered again (A3). */
  bound(lease: string): void {
    const attempt = this.#byLease.get(lease);
    if (attempt) this.#ack(attempt);
  }

  /** The coordinator wants the attempt to stop. */
  cancel(lease: string, reason: CancelReason): void {
    const attempt = this.#byLease.get(lease);
    if (!attempt) return;
    if (reason === CancelReason.CANCEL_REASON_LEASE_LOST) {
      this.#ack(attempt);
      this.#abort(attempt, "LEASE_LOST");
    } else {
      this.#abort(attempt, "CANCELLED");
    }
  }

  /** Aborts everything in flight: the time to drain is over. */
  abortAll(): void {
    this.#stopping.abort();
    for (const attempt of this.#byLease.values()) this.#abort(attempt, "DRAINING");
  }

  /** Resolves when nothing is in flight. */
  idle(): Promise<void> {
    if (this.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Stops the clock. */
  close(): void {
    clearInterval(this.#clock);
    this.#clock = undefined;
  }

  #claim(delivery: StartDelivery): void {
    const { start } = delivery;
    const { log } = this.#ports;
    this.#claiming++;
    const settle = (verdict: { start: StartStep } | { drop: string } | undefined): void => {
      this.#claiming--;
      if (verdict && "start" in verdict) {
        this.#run(verdict.start.input ? verdict.start : { ...verdict.start, input: start.input }, delivery);
        return;
      }
      if (verdict) {
        log.debug({ run_id: start.runId, step_id: start.stepId, why: verdict.drop }, "a redelivered start is dropped");
        delivery.ack();
      }
      this.#release(delivery);
    };
    this.#ports.claim(start, this.#stopping.signal).then(settle, (error: unknown) => {
      log.warn({ err: error, run_id: start.runId, step_id: start.stepId }, "a start could not be claimed");
      settle(undefined);
    });
  }

  #run(start: StartStep, delivery: StartDelivery): void {
    const attempt = this.#begin(start, delivery);
    let bytes: Uint8Array | undefined;
    try {
      bytes = inlineBytes(start.input);
    } catch (error) {
      this.#finish(attempt, failed("PAYLOAD_UNREADABLE", describe(error), true));
      return;
    }
    if (bytes) this.#perform(attempt, bytes);
    else this.#fetchInput(attempt, start.input!);
  }

  #begin(start: StartStep, delivery: StartDelivery): Attempt {
    const nowMs = performance.now();
    const runLeftMs = start.runRemainingMs > 0n ? Number(start.runRemainingMs) : Number.POSITIVE_INFINITY;
    const ownMs = start.startToCloseMs > 0 ? start.startToCloseMs : Number.POSITIVE_INFINITY;
    const checkpoint = checkpointOf(start);
    const facts: AttemptFacts = {
      attempt: start.attempt,
      lease: start.lease,
      runId: start.runId,
      stepId: start.stepId,
      item: start.item,
      method: start.method,
      namespace: this.#ports.namespace,
      deadlineAtMs: nowMs + ownMs,
      runEndsAtMs: nowMs + runLeftMs,
      ...(checkpoint && { checkpoint }),
    };
    const trace = traceOf(delivery.headers, facts);
    const ports = trace ? { ...this.#contextPorts, traceHeaders: trace.headers } : this.#contextPorts;
    const attempt: Attempt = {
      start,
      delivery,
      context: new AttemptContext(facts, ports),
      abortedAtMs: 0,
      listed: false,
      returned: false,
      reported: false,
      acked: false,
      freed: false,
      trace,
    };
    this.#byLease.set(start.lease, attempt);
    this.#clock ??= setInterval(() => this.#tick(), clockMs);
    return attempt;
  }

  #perform(attempt: Attempt, bytes: Uint8Array): void {
    const served = this.#ports.actions.get(attempt.start.method);
    if (!served) {
      const message = `this worker does not implement ${attempt.start.method}`;
      this.#finish(attempt, failed("METHOD_UNKNOWN", message, true));
      return;
    }
    const span = attempt.trace?.span;
    if (span) span.run(() => this.#hand(served, bytes, attempt));
    else this.#hand(served, bytes, attempt);
  }

  #hand({ action, checks }: ServedAction, bytes: Uint8Array, attempt: Attempt): void {
    const emit = action.entry.responseStream
      ? emitterOf(this.#ports, attempt.start, () => attempt.context.signal)
      : undefined;
    perform(action, checks, bytes, attempt.context, (outcome) => this.#finish(attempt, outcome), emit);
  }

  #fetchInput(attempt: Attempt, payload: Payload): void {
    this.#ports.fetch(payload, attempt.context.signal).then(
      (bytes) => this.#perform(attempt, bytes),
      (error: unknown) =>
        this.#finish(attempt, failed("PAYLOAD_UNREADABLE", `the input can't be fetched: ${describe(error)}`, true)),
    );
  }

  /** The handler has returned, or never began. */
  #finish(attempt: Attempt, outcome: Outcome): void {
    // A thenable that is no promise may answer twice.
    if (attempt.returned) return;
    attempt.returned = true;
    attempt.trace?.span?.end(outcome.kind === "failure" ? outcome.failure.reason : undefined);
    if (attempt.reported) {
      this.#lingering.delete(attempt);
      this.#free(attempt);
      return;
    }
    if (outcome.kind === "output" && !fitsInline(outcome.bytes)) this.#storeOutput(attempt, outcome.bytes);
    else this.#conclude(attempt, outcome);
  }

  /** Reports the outcome as the reason of an abort puts it, or drops it (A4). A result that came in time for itself stays a result. */
  #conclude(attempt: Attempt, outcome: FinalOutcome): void {
    const code = attempt.context.abortCode;
    const succeeded = outcome.kind === "output" || outcome.kind === "stored";
    if (code === "LEASE_LOST" || (code === "DRAINING" && !succeeded)) this.#drop(attempt);
    else if ((code === "TIMED_OUT" || code === "RUN_EXPIRED") && !succeeded) this.#report(attempt, timedOut(attempt));
    else if (code === "CANCELLED" && outcome.kind === "failure") {
      this.#report(attempt, { kind: "cancelled", message: outcome.failure.message });
    } else this.#report(attempt, outcome);
  }

  #storeOutput(attempt: Attempt, bytes: Uint8Array): void {
    if (bytes.length > payloadBytesMax) {
      const message = `the output of ${attempt.start.method} has ${bytes.length} bytes; at most 64 MiB (${payloadBytesMax})`;
      this.#conclude(attempt, failed("PAYLOAD_TOO_LARGE", message, false));
      return;
    }
    this.#ports.store(bytes, attempt.context.signal).then(
      (payload) => this.#conclude(attempt, { kind: "stored", payload }),
      (error: unknown) => {
        const message = `the output can't be stored: ${describe(error)}`;
        this.#conclude(attempt, failed("PAYLOAD_UNREADABLE", message, true));
      },
    );
  }

  #report(attempt: Attempt, outcome: FinalOutcome): void {
    if (attempt.reported) return;
    attempt.reported = true;
    countAttempt(attempt, outcome.kind);
    const { completions } = this.#ports;
    const bytes = (outcome.kind === "output" ? outcome.bytes.length : 0) + attempt.context.logBytes;
    const completion = toCompletion(attempt, outcome, this.#ports.sessionId());
    completions.add(attempt.start.reportTo, completion, bytes, () => this.#stored(attempt));
    // A2, unless so much waits for confirmation that taking more work would only pile it up.
    if (attempt.returned && !completions.crowded && this.#byLease.size <= this.#ports.attemptsMax) this.#free(attempt);
  }

  #stored(attempt: Attempt): void {
    this.#ack(attempt);
    this.#byLease.delete(attempt.start.lease);
    if (attempt.returned) this.#free(attempt);
    else this.#lingering.add(attempt);
    this.#tellIdle();
  }

  /** Ends an attempt without a word (A4). */
  #drop(attempt: Attempt): void {
    countAttempt(attempt, "dropped");
    this.#byLease.delete(attempt.start.lease);
    this.#free(attempt);
    this.#tellIdle();
  }

  #abort(attempt: Attempt, code: AbortCode): void {
    if (attempt.abortedAtMs === 0) attempt.abortedAtMs = performance.now();
    attempt.context.abort(code);
  }

  /** Looks at every deadline. Thousands of attempts cost well under a millisecond. */
  #tick(): void {
    if (this.#byLease.size === 0) {
      if (++this.#idleTicks >= idleTicksMax) this.close();
      return;
    }
    this.#idleTicks = 0;
    const now = performance.now();
    for (const attempt of this.#byLease.values()) {
      if (attempt.returned || attempt.reported) continue;
      if (attempt.context.abortCode === undefined) {
        const over = overdue(attempt.context, now);
        if (over) this.#abort(attempt, over);
      } else if (now >= attempt.abortedAtMs + graceMs) {
        this.#giveUp(attempt);
      }
    }
  }

  /** The handler did not return within the grace after its abort. Cancelled ones may clean up for longer: their run waits for them. */
  #giveUp(attempt: Attempt): void {
    const code = attempt.context.abortCode;
    if (code === "TIMED_OUT" || code === "RUN_EXPIRED") {
      this.#ports.log.warn(
        { run_id: attempt.start.runId, step_id: attempt.start.stepId, method: attempt.start.method },
        "a handler did not return after its signal aborted; it keeps its slot until it does",
      );
      this.#report(attempt, timedOut(attempt));
    } else if (code === "LEASE_LOST") {
      attempt.reported = true;
      countAttempt(attempt, "dropped");
      this.#byLease.delete(attempt.start.lease);
      this.#lingering.add(attempt);
    }
  }

  #take(taskQueue: string, count: number): void {
    this.#inHand.set(taskQueue, (this.#inHand.get(taskQueue) ?? 0) + count);
  }

  #ack(attempt: Attempt): void {
    attempt.acked = true;
    attempt.delivery.ack();
  }

  #free(attempt: Attempt): void {
    if (attempt.freed) return;
    attempt.freed = true;
    this.#release(attempt.delivery);
  }

  #release(delivery: StartDelivery): void {
    this.#take(delivery.taskQueue, -1);
    delivery.release();
    this.#tellIdle();
  }

  #tellIdle(): void {
    if (this.size > 0 || this.#idle.length === 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}

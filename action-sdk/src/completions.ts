/**
 * Completions on their way, and those that have arrived but may yet be lost.
 *
 *   add --> unconfirmed --stored--> confirmed --5 min or 64 MiB--> forgotten
 *               ^                       |
 *               +------ republish ------+
 *
 * K1. An unconfirmed completion is sent again until a carrier has it, over whichever transport is open then.
 * K2. A confirmed one is kept a while: a carrier may lose what it confirmed, and then the coordinator asks for it again.
 * K3. Sending twice is harmless: the lease decides what counts.
 *
 * Unconfirmed ones are bounded by the worker's slots, which stay taken while too many wait (`crowded`).
 */
import type { CompleteStep } from "@taskmesh/proto";
import { encodeCompleteStep, fullJitter, type StoredCallback } from "@taskmesh/runtime";
import { ConfirmedLog } from "./confirmed-log.js";

/** Unconfirmed completions from which on no slot is freed before its completion is stored. */
const unconfirmedMax = 1_024;
const unconfirmedBytesMax = 16 * 1024 * 1024;
/** What an unconfirmed completion takes beside its payload and log, roughly. */
const entryBytes = 1_536;
const retry = { initialMs: 100, capMs: 5_000 };

/** What completions are sent over: a WorkTransport, or one in a test. */
export interface CompletionCarrier {
  complete(reportTo: string, completion: CompleteStep, stored: StoredCallback): void;
}

interface Kept {
  reportTo: string;
  completion: CompleteStep;
  bytes: number;
  tries: number;
  onStored: () => void;
}

export class Completions {
  readonly #unconfirmed = new Map<string, Kept>();
  readonly #confirmed = new ConfirmedLog();
  readonly #failed = new Set<Kept>();
  readonly #onError: (error: Error, waiting: number) => void;
  #carrier: CompletionCarrier | undefined;
  #unconfirmedBytes = 0;
  #retryTimer: NodeJS.Timeout | undefined;
  #closed = false;
  #drained: (() => void)[] = [];

  /** `onError` hears of completions that must be sent again. */
  constructor(onError: (error: Error, waiting: number) => void) {
    this.#onError = onError;
  }

  /** Completions without a confirmation. */
  get waiting(): number {
    return this.#unconfirmed.size;
  }

  /** Whether so much waits that slots should stay taken until it is stored. */
  get crowded(): boolean {
    return this.#unconfirmed.size >= unconfirmedMax || this.#unconfirmedBytes >= unconfirmedBytesMax;
  }

  /** Whether the attempt of this lease was reported lately. */
  has(lease: string): boolean {
    return this.#unconfirmed.has(lease) || this.#confirmed.has(lease);
  }

  /** Sends a completion until it is stored; `onStored` is called once. `payloadBytes`: size of its output, log and details. */
  add(reportTo: string, completion: CompleteStep, payloadBytes: number, onStored: () => void): void {
    this.#sendNew({ reportTo, completion, bytes: payloadBytes + entryBytes, tries: 0, onStored });
  }

  /** Sends over this carrier from now on, beginning with all that is unconfirmed; undefined: wait for the next one. */
  use(carrier: CompletionCarrier | undefined): void {
    this.#carrier = carrier;
    this.#failed.clear();
    if (carrier) for (const kept of this.#unconfirmed.values()) this.#send(kept);
  }

  /** Sends again what was confirmed: the carrier lost data. */
  republish(): void {
    for (const { reportTo, completion } of this.#confirmed.takeAll()) {
      const bytes = encodeCompleteStep(completion).length + entryBytes;
      this.#sendNew({ reportTo, completion, bytes, tries: 0, onStored: () => {} });
    }
  }

  /** The attempt of this lease was delivered again though it was reported: reports it once more. `onStored`: a carrier has it. */
  repeat(lease: string, onStored: () => void): void {
    const kept = this.#confirmed.get(lease);
    if (!kept) return;
    this.#carrier?.complete(kept.reportTo, kept.completion, (error) => {
      if (!error) onStored();
    });
  }

  /** Resolves when nothing is unconfirmed, or when closed. */
  drained(): Promise<void> {
    if (this.#unconfirmed.size === 0 || this.#closed) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  /** Sends nothing any more. */
  close(): void {
    this.#closed = true;
    this.#carrier = undefined;
    clearTimeout(this.#retryTimer);
    this.#tellDrained();
  }

  #sendNew(kept: Kept): void {
    this.#unconfirmed.set(kept.completion.lease, kept);
    this.#unconfirmedBytes += kept.bytes;
    this.#send(kept);
  }

  #send(kept: Kept): void {
    const carrier = this.#carrier;
    if (!carrier) return;
    carrier.complete(kept.reportTo, kept.completion, (error, encoded) => {
      if (!error) this.#confirm(kept, encoded);
      // What an earlier transport failed to send has been sent over the present one already.
      else if (carrier === this.#carrier) this.#retry(kept, error);
    });
  }

  #confirm(kept: Kept, encoded: Uint8Array = encodeCompleteStep(kept.completion)): void {
    const { lease } = kept.completion;
    if (this.#unconfirmed.get(lease) !== kept) return;
    this.#unconfirmed.delete(lease);
    this.#unconfirmedBytes -= kept.bytes;
    this.#failed.delete(kept);
    this.#confirmed.add(lease, kept.reportTo, encoded);
    kept.onStored();
    if (this.#unconfirmed.size === 0) this.#tellDrained();
  }

  /** One timer for all that failed: an outage fails many at once. */
  #retry(kept: Kept, error: Error): void {
    if (this.#closed || !this.#unconfirmed.has(kept.completion.lease)) return;
    kept.tries++;
    this.#failed.add(kept);
    if (this.#retryTimer) return;
    this.#onError(error, this.#unconfirmed.size);
    this.#retryTimer = setTimeout(
      () => {
        this.#retryTimer = undefined;
        const again = [...this.#failed];
        this.#failed.clear();
        for (const one of again) this.#send(one);
      },
      fullJitter(kept.tries, retry),
    );
  }

  #tellDrained(): void {
    for (const resolve of this.#drained.splice(0)) resolve();
  }
}

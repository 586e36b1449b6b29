/**
 * Publishes into JetStream with one PubAck for each message, without the cost of a promise, a timer and an inbox for each.
 *
 *   publish --sent--> waiting --PubAck--> stored
 *                        |---- no PubAck for `resendMs`, the link came back, or the stream was missing --> sent again, same id
 *                        |---- too large ------------------------------------------------> refused
 *                        |---- `windowMs` after the first sending ------------------------> unknown
 *
 * P1. A message keeps its id over all its sendings, and is never sent later than its dedupe window: so it is stored once.
 * P2. Nothing is sent while the link is down (it would be lost or kept without bound); it waits here, counted against `openMax`.
 * P3. `done` is called exactly once for each message, never inside `publish`.
 *
 * Why not the client's `publish()` of JetStream: it costs four times the CPU of this (docs/adr/0002-transport-seam.md).
 */
import type { Msg, Subscription } from "@nats-io/transport-node";
import { metrics } from "../metric-table.js";
import type { HeaderBlock, LinkListener, NatsLink } from "./nats-link.js";
import { framingBytesMax } from "./pack-bytes.js";
import { dedupeWindowMs, messageBytesMax, type PublishOutcome, type TraceHeaders } from "./transport.js";

/** A PubAck takes a millisecond; a server that needs longer than this may have lost the message. */
const resendMs = 2_000;
/** After a refusal that may pass (no such stream, no leader, no room) a message is sent again this much later ... */
const retryMs = 1_000;
/** ... and one of those that were refused this soon: when it is stored, the others follow at once. */
const askMs = 125;
/** A message that is sent this shortly before its window ends could arrive after it. */
const lastSendingMs = 1_000;
/** Messages wait and nothing was heard of any for this long: this server may have lost its cluster, and another one not. */
const unheardMs = 3_000;
/** The same where all were refused. Longer than an election: while there is one, no server is better than this. */
const unstoredMs = 10_000;
/** Messages on their way; more are refused, so that a dead broker can't fill the memory. */
const openMax = 50_000;
const openBytesMax = 256 * 1024 * 1024;
/** "message size exceeds maximum allowed" */
const tooLargeCode = 10054;

const resentCell = metrics.resent.at();
const publishSeconds = metrics.publishSeconds.at();
const outcomeCells = {
  stored: metrics.publishes.at("stored"),
  unknown: metrics.publishes.at("unknown"),
  refused: metrics.publishes.at("refused"),
};

export interface PublisherOptions {
  /** Called when a message could not be stored because the stream is missing. */
  onStreamMissing(): void;
  /** Called when the stream's sequence fell: it was rolled back or replaced. */
  onSequenceFell?(): void;
  /** Default: the dedupe window. */
  windowMs?: number;
}

interface Entry {
  subject: string;
  bytes: Uint8Array;
  headers: HeaderBlock | undefined;
  createdAtMs: number;
  /** 0: not sent yet. */
  sentAtMs: number;
  /** Seen over age by one tick. The second ends it: after a pause of the process the PubAck may be waiting in the socket. */
  late: boolean;
  /** The last sending was refused. */
  refused: boolean;
  why: string;
  done: (outcome: PublishOutcome) => void;
}

export class AckedPublisher {
  readonly #link: NatsLink;
  readonly #options: PublisherOptions;
  readonly #windowMs: number;
  readonly #prefix: string;
  readonly #subscription: Subscription;
  readonly #entries = new Map<string, Entry>();
  readonly #stopListening: () => void;
  #next = 0;
  #bytes = 0;
  #sequence = 0;
  #storedAtMs = 0;
  #heardAtMs = 0;
  #asking: NodeJS.Timeout | undefined;
  /** Something was refused since something was stored. */
  #refusing = false;
  /** Messages sent more than once. */
  resent = 0;

  constructor(link: NatsLink, options: PublisherOptions) {
    this.#link = link;
    this.#options = options;
    this.#windowMs = options.windowMs ?? dedupeWindowMs;
    this.#prefix = `${link.newInbox()}.`;
    this.#subscription = link.subscribe(`${this.#prefix}*`, (error, message) => {
      if (!error) this.#onAnswer(message);
    });
    const listener: LinkListener = {
      onUp: () => this.resend(),
      onTick: (nowMs) => this.#onTick(nowMs),
    };
    this.#stopListening = link.listen(listener);
  }

  /** Messages without an outcome. */
  get open(): number {
    return this.#entries.size;
  }

  /** Sequence of the message that was stored last. Kept only for those who listen to `onSequenceFell`. */
  get sequence(): number {
    return this.#sequence;
  }

  /** The stream begins anew: what was seen of it means nothing any more. */
  forgetSequence(): void {
    this.#sequence = 0;
  }

  publish(
    subject: string,
    bytes: Uint8Array,
    headers: HeaderBlock | undefined,
    done: (outcome: PublishOutcome) => void,
  ): void {
    const refusal = this.#refusal(bytes);
    if (refusal) {
      setImmediate(done, { kind: "refused", message: refusal } satisfies PublishOutcome);
      return;
    }
    const key = (this.#next++).toString(36);
    const now = performance.now();
    const why = "the broker can't be reached";
    const entry: Entry = {
      subject,
      bytes,
      headers,
      createdAtMs: now,
      sentAtMs: 0,
      late: false,
      refused: false,
      why,
      done,
    };
    this.#entries.set(key, entry);
    this.#bytes += bytes.length;
    this.#send(key, entry, now);
  }

  /** Sends everything that has no outcome again, at once: the link or the stream came back. */
  resend(): void {
    const now = performance.now();
    for (const [key, entry] of this.#entries) if (this.#maySend(entry, now)) this.#send(key, entry, now);
  }

  /** Waits until nothing is open, at most `timeoutMs`. */
  async settle(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (this.#entries.size > 0 && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 5));
  }

  /** What is open ends as unknown. */
  close(): void {
    clearTimeout(this.#asking);
    this.#stopListening();
    if (!this.#link.closed) this.#subscription.unsubscribe();
    for (const key of [...this.#entries.keys()])
      this.#end(key, { kind: "unknown", message: "the transport is closed" });
  }

  #refusal(bytes: Uint8Array): string | undefined {
    const framed = messageBytesMax + framingBytesMax;
    if (bytes.length > framed) return `the message has ${bytes.length} bytes, the carrier takes ${framed}`;
    if (this.#entries.size >= openMax || this.#bytes > openBytesMax) return "too many messages wait for the broker";
    return undefined;
  }

  #send(key: string, entry: Entry, now: number): void {
    if (!this.#link.publish(entry.subject, entry.bytes, this.#prefix + key, entry.headers)) return;
    if (entry.sentAtMs > 0) {
      this.resent += 1;
      resentCell.add();
    }
    entry.sentAtMs = now;
    entry.refused = false;
    entry.why = "the broker did not confirm it";
  }

  #maySend(entry: Entry, now: number): boolean {
    return now - entry.createdAtMs < this.#windowMs - lastSendingMs;
  }

  #onTick(now: number): void {
    const [oldest] = this.#entries.values();
    if (oldest) {
      const sinceMs = Math.max(oldest.createdAtMs, this.#storedAtMs);
      if (now - Math.max(sinceMs, this.#heardAtMs) > unheardMs || now - sinceMs > unstoredMs) this.#link.move();
    }
    for (const [key, entry] of this.#entries) {
      if (now - entry.createdAtMs >= this.#windowMs) {
        if (entry.late) this.#end(key, { kind: "unknown", message: entry.why });
        entry.late = true;
      } else if (now - entry.sentAtMs >= resendMs && this.#maySend(entry, now)) this.#send(key, entry, now);
    }
  }

  #end(key: string, outcome: PublishOutcome): void {
    const entry = this.#entries.get(key);
    if (!entry) return;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes.length;
    outcomeCells[outcome.kind].add();
    if (outcome.kind === "stored") publishSeconds.record((performance.now() - entry.createdAtMs) / 1_000);
    entry.done(outcome);
  }

  #onAnswer(message: Msg): void {
    const key = message.subject.slice(this.#prefix.length);
    const { data } = message;
    this.#heardAtMs = performance.now();
    // A PubAck begins with {"stream": ; a refusal with {"error": ; an empty answer says that no stream listens.
    if (data[2] === 0x73) {
      this.#storedAtMs = this.#heardAtMs;
      this.#watchSequence(data);
      this.#end(key, { kind: "stored" });
      if (this.#refusing) this.#sendRefused();
      return;
    }
    const entry = this.#entries.get(key);
    if (!entry) return;
    const refusal = parseRefusal(data);
    if (refusal.code === tooLargeCode) {
      this.#end(key, { kind: "refused", message: refusal.message });
      return;
    }
    entry.why = refusal.message;
    entry.sentAtMs = performance.now() - resendMs + retryMs;
    entry.refused = true;
    this.#refusing = true;
    this.#asking ??= setTimeout(() => this.#askAgain(), askMs);
    this.#options.onStreamMissing();
  }

  #askAgain(): void {
    this.#asking = undefined;
    const now = performance.now();
    for (const [key, entry] of this.#entries) {
      if (!entry.refused || !this.#maySend(entry, now)) continue;
      this.#send(key, entry, now);
      return;
    }
  }

  /** The stream takes messages again: what it refused follows at once. */
  #sendRefused(): void {
    this.#refusing = false;
    const now = performance.now();
    for (const [key, entry] of this.#entries)
      if (entry.refused && this.#maySend(entry, now)) this.#send(key, entry, now);
  }

  /** The number after `"seq":` and whether the stream had it before. Read from the bytes: parsing the JSON would cost more than the rest. */
  #watchSequence(data: Uint8Array): void {
    if (!this.#options.onSequenceFell) return;
    let at = data.length - 1;
    for (let i = 12; i < data.length - 5; i++) {
      if (data[i] === 0x71 && data[i + 1] === 0x22 && data[i + 2] === 0x3a && data[i - 1] === 0x65) {
        at = i + 3;
        break;
      }
    }
    let sequence = 0;
    for (; at < data.length; at++) {
      const digit = data[at]! - 0x30;
      if (digit < 0 || digit > 9) break;
      sequence = sequence * 10 + digit;
    }
    // Only a plain PubAck ends right after the number; a duplicate's tells an old sequence.
    if (sequence === 0 || data[at] !== 0x7d) return;
    const fell = sequence <= this.#sequence;
    this.#sequence = sequence;
    if (fell) this.#options.onSequenceFell();
  }
}

function parseRefusal(data: Uint8Array): { code: number; message: string } {
  if (data.length === 0) return { code: 0, message: "the stream is missing" };
  try {
    const { error } = JSON.parse(Buffer.from(data).toString()) as {
      error?: { err_code?: number; description?: string };
    };
    return { code: error?.err_code ?? 0, message: error?.description ?? "the broker refused it" };
  } catch {
    return { code: 0, message: "the broker's answer can't be read" };
  }
}

/** A header value that can't end its line. */
const plain = /^[\x20-\x7e]{1,512}$/;
const traceNames = ["traceparent", "tracestate", "baggage"];

class EncodedHeaders implements HeaderBlock {
  readonly #bytes: Uint8Array;

  constructor(block: string) {
    this.#bytes = Buffer.from(block, "latin1");
  }

  encode(): Uint8Array {
    return this.#bytes;
  }
}

/** Headers of a start: its id for the dedupe window, and the trace context. Values that are no plain text are left out. */
export function startHeaders(id: string, trace: TraceHeaders | undefined): HeaderBlock {
  let block = `NATS/1.0\r\nNats-Msg-Id: ${id}\r\n`;
  if (trace) {
    for (const name of traceNames) {
      const value = trace[name];
      if (value !== undefined && plain.test(value)) block += `${name}: ${value}\r\n`;
    }
  }
  return new EncodedHeaders(`${block}\r\n`);
}

/** Trace context in the header block of a delivery. */
export function traceFrom(headers: { get(name: string): string } | undefined): TraceHeaders | undefined {
  const found = traceNames.flatMap((name) => {
    const value = headers?.get(name) ?? "";
    return value === "" ? [] : [[name, value] as const];
  });
  return found.length === 0 ? undefined : Object.fromEntries(found);
}

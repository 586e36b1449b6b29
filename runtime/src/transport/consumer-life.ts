/**
 * Tells the lives of a durable consumer apart: it may be deleted and made again, or its stream rolled back, and its numbers then begin anew.
 *
 * A life is known by the consumer's creation time, and by its delivery count, which never falls within one.
 */
import type { DeliveryInfo } from "./nats-names.js";

/** What the server says of a consumer, as far as it is read here. */
export interface ConsumerInfo {
  /** RFC 3339. */
  created?: string;
  delivered?: { consumer_seq?: number };
  cluster?: { leader?: string };
  error?: { code?: number; description?: string };
}

export class ConsumerLife {
  /** Grows with each life. */
  number = 0;
  /** Highest delivery number of this life that was seen. */
  delivered = 0;
  #createdAtMs: number | undefined;
  /** Deliveries up to this number may repeat those of before a rollback. */
  #doubtfulUntil = 0;

  /** Takes in what the consumer is now; answers whether an earlier life is over. `delivered`: as in goesOn. */
  meet(info: ConsumerInfo, delivered: number): boolean {
    const createdAtMs = Date.parse(info.created ?? "");
    const isNew = this.#createdAtMs !== undefined && !this.goesOn(info, delivered);
    if (isNew) {
      this.number += 1;
      this.#doubtfulUntil = this.#createdAtMs === createdAtMs ? this.delivered : 0;
    }
    this.#createdAtMs = createdAtMs;
    this.delivered = isNew ? deliveredOf(info) : Math.max(this.delivered, deliveredOf(info));
    return isNew;
  }

  /** Whether `info` is of the present life; `delivered`: what `this.delivered` was when it was asked for. */
  goesOn(info: ConsumerInfo, delivered: number): boolean {
    return Date.parse(info.created ?? "") === this.#createdAtMs && deliveredOf(info) >= delivered;
  }

  count({ consumerSequence }: DeliveryInfo): void {
    this.delivered = Math.max(this.delivered, consumerSequence);
  }

  /** Whether an earlier life may have delivered the message. */
  mayRepeat({ storedAtMs, consumerSequence }: DeliveryInfo): boolean {
    return storedAtMs < (this.#createdAtMs ?? 0) || consumerSequence <= this.#doubtfulUntil;
  }
}

const deliveredOf = ({ delivered }: ConsumerInfo): number => delivered?.consumer_seq ?? 0;

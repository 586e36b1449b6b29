/** One queue of the memory transport. */

/** Who takes messages of a queue. */
export interface Taker<Message> {
  /** Whether it can take one now. */
  ready(): boolean;
  /** Takes one; `ack` ends it, also twice. */
  take(message: Message, ack: () => void): void;
}

/** Messages that wait, and those that are out until `ackWaitMs` ends. */
export class Queue<Message> {
  /** From `#first` on; what is before it is gone. Shifting an array costs its length. */
  #waiting: Message[] = [];
  #first = 0;
  readonly out = new Map<Message, { dueAtMs: number; taker: Taker<Message> }>();
  readonly takers: Taker<Message>[] = [];
  #next = 0;

  /** Messages that wait or are out. */
  get size(): number {
    return this.#waiting.length - this.#first + this.out.size;
  }

  add(message: Message): void {
    this.#waiting.push(message);
  }

  /** Messages that wait or are out, in no order. */
  *all(): Generator<Message> {
    yield* this.out.keys();
    for (let at = this.#first; at < this.#waiting.length; at++) yield this.#waiting[at]!;
  }

  /** Gives messages to takers in turn while there are both. */
  deliver(waitMs: number, onEnd: (message: Message) => void): void {
    while (this.#first < this.#waiting.length) {
      const taker = this.#nextTaker();
      if (!taker) break;
      const message = this.#waiting[this.#first++]!;
      this.out.set(message, { dueAtMs: performance.now() + waitMs, taker });
      taker.take(message, () => {
        if (this.out.delete(message)) onEnd(message);
      });
    }
    // Each message is moved at most once for each that was delivered: cheap on average.
    if (this.#first * 2 >= this.#waiting.length) this.#compact();
  }

  /** Puts back what was not acked in time; true if anything was. */
  expire(nowMs: number): boolean {
    const late = [...this.out].filter(([, { dueAtMs }]) => dueAtMs <= nowMs).map(([message]) => message);
    this.#putBack(late);
    return late.length > 0;
  }

  /** Ends a taker. `putBack`: what it holds goes to another at once, else after the ack wait. */
  leave(taker: Taker<Message>, putBack: boolean): void {
    const index = this.takers.indexOf(taker);
    if (index >= 0) this.takers.splice(index, 1);
    if (putBack) this.#putBack([...this.out].filter(([, entry]) => entry.taker === taker).map(([message]) => message));
  }

  clear(): void {
    this.#waiting = [];
    this.#first = 0;
    this.out.clear();
  }

  #putBack(messages: readonly Message[]): void {
    for (const message of messages) this.out.delete(message);
    this.#compact();
    this.#waiting = [...messages, ...this.#waiting];
  }

  #compact(): void {
    if (this.#first === 0) return;
    this.#waiting = this.#waiting.slice(this.#first);
    this.#first = 0;
  }

  #nextTaker(): Taker<Message> | undefined {
    for (let tried = 0; tried < this.takers.length; tried++) {
      this.#next = (this.#next + 1) % this.takers.length;
      const taker = this.takers[this.#next]!;
      if (taker.ready()) return taker;
    }
    return undefined;
  }
}

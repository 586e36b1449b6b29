/** A queue in which those who wait take turns: whoever adds much delays nobody else's by more than one of his own. */
export class FairQueue<T> {
  /** Insertion order is the order of the turns: who was served goes to the end. */
  readonly #lines = new Map<string | number, T[]>();
  #size = 0;

  /** Items that wait. */
  get size(): number {
    return this.#size;
  }

  /** Puts an item behind the others of its owner. */
  add(owner: string | number, item: T): void {
    const line = this.#lines.get(owner);
    if (line) line.push(item);
    else this.#lines.set(owner, [item]);
    this.#size += 1;
  }

  /** The oldest item of the owner whose turn it is; undefined: nothing waits. */
  take(): T | undefined {
    for (const [owner, line] of this.#lines) {
      const item = line.shift()!;
      this.#lines.delete(owner);
      if (line.length > 0) this.#lines.set(owner, line);
      this.#size -= 1;
      return item;
    }
    return undefined;
  }

  /** Takes all of them. */
  clear(): T[] {
    const items = [...this.#lines.values()].flat();
    this.#lines.clear();
    this.#size = 0;
    return items;
  }
}

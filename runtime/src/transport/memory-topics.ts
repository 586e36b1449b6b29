/** What is told on the memory bus to whoever listens at that moment: probes, and outputs as handlers emit them. */

export class Topics<Value> {
  readonly #listeners = new Map<string, Set<(value: Value) => void>>();

  /** Calls `listener` for all that is told under the key; answers how to stop. */
  on(key: string, listener: (value: Value) => void): () => void {
    const listeners = this.#listeners.get(key) ?? new Set();
    this.#listeners.set(key, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(key) === listeners) this.#listeners.delete(key);
    };
  }

  /** In a later tick (M2), in the order of the calls. */
  tell(key: string, value: Value): void {
    setImmediate(() => {
      for (const listener of this.#listeners.get(key) ?? []) listener(value);
    });
  }
}

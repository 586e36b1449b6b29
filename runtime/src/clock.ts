/**
 * The time of the mesh: the last instant that the database told, plus monotonic time since. No host's calendar clock counts.
 *
 * K1. `now()` does not run backwards because an answer was long under way: what such an answer says is approached at
 *     1 ms a second, which also follows two clocks that drift apart.
 * K2. A database clock that really stepped back, by `stepMs` or more, is followed at once.
 */

/** A difference backwards that is a step of the database's clock rather than the way of an answer. */
const stepMs = 5_000;
/** Correction per elapsed time: ten times the drift that clocks are allowed, far below what a deadline notices. */
const slewRatio = 0.001;

export class DbClock {
  #anchorMs: number;
  #anchorAt: number;
  #lastMs = Number.NEGATIVE_INFINITY;
  #observed = false;
  readonly #monotonic: () => number;

  /** `startMs`: what `now()` counts from until the database has told the time. `monotonic`: milliseconds that never run backwards. */
  constructor(startMs: number = Date.now(), monotonic: () => number = () => performance.now()) {
    this.#monotonic = monotonic;
    this.#anchorMs = startMs;
    this.#anchorAt = monotonic();
  }

  /** Takes over an instant that the database told, in milliseconds since 1970. */
  observe(dbMs: number): void {
    if (!Number.isFinite(dbMs)) return;
    const at = this.#monotonic();
    const elapsed = at - this.#anchorAt;
    const present = this.#anchorMs + elapsed;
    const behind = present - dbMs;
    const late = this.#observed && behind > 0 && behind < stepMs; // K1
    this.#anchorMs = late ? present - Math.min(behind, elapsed * slewRatio) : dbMs;
    this.#anchorAt = at;
    if (!late && behind > 0) this.#lastMs = Number.NEGATIVE_INFINITY; // K2
    this.#observed = true;
  }

  /** Milliseconds since 1970 by the database's clock, whole. */
  now(): number {
    const present = Math.floor(this.#anchorMs + (this.#monotonic() - this.#anchorAt));
    this.#lastMs = Math.max(this.#lastMs, present);
    return this.#lastMs;
  }

  /** Whether the database has told the time yet. */
  get observed(): boolean {
    return this.#observed;
  }
}

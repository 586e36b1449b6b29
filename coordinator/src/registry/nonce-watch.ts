/**
 * Whether the work transport of one session is alive: nonces go out over it and come back in beats.
 *
 * The age that counts is the time since the newest nonce that came back was *sent*: so a path that died is noticed
 * `maxAgeMs` after its death at the latest, however late the beats are. Time in which the carrier itself was down does not count against
 * the session: every path is dead then, and opening it again would not help.
 */

/** Nonces that are remembered: more than go out within the largest age, so an old echo is known as old. */
const sentMax = 16;

export class NonceWatch {
  readonly #sent = new Map<string, number>();
  #aliveAtMs: number;

  /** `nowMs` is monotonic here and below. A new path counts as alive. */
  constructor(nowMs: number) {
    this.#aliveAtMs = nowMs;
  }

  /** A nonce went out. */
  sent(nonce: string, nowMs: number): void {
    this.#sent.set(nonce, nowMs);
    if (this.#sent.size <= sentMax) return;
    for (const oldest of this.#sent.keys()) {
      this.#sent.delete(oldest);
      return;
    }
  }

  /** A beat carried a nonce; what was never sent, or long ago, says nothing. */
  echoed(nonce: string): void {
    const sentAtMs = this.#sent.get(nonce);
    if (sentAtMs !== undefined) this.#aliveAtMs = Math.max(this.#aliveAtMs, sentAtMs);
  }

  /** The path is new, or the carrier was away until now: the age counts from here. */
  restart(nowMs: number): void {
    this.#aliveAtMs = Math.max(this.#aliveAtMs, nowMs);
  }

  /** Milliseconds since the path was known to be alive. */
  ageMs(nowMs: number): number {
    return nowMs - this.#aliveAtMs;
  }
}

/**
 * Finds bound attempts that a worker no longer lists in its beats: it forgot them, so nobody will report them.
 *
 * An attempt counts as unlisted only after it was missing for `unlistedMs` and in at least two beats: its completion may be on its way,
 * and one beat may have been written before the attempt began.
 */

/** Beats that must lack an attempt. */
const beatsMin = 2;

/** An attempt by its lease. */
interface Leased {
  lease: string;
}

export class UnlistedWatch<T extends Leased> {
  readonly #missing = new Map<string, { sinceMs: number; beats: number }>();

  constructor(private readonly unlistedMs: number) {}

  /** A beat listed these leases. */
  listed(leases: ReadonlySet<string>): void {
    for (const [lease, seen] of this.#missing) {
      if (leases.has(lease)) this.#missing.delete(lease);
      else seen.beats += 1;
    }
  }

  /** The attempts that are bound in the database now and those that the last beat listed: returns the ones to give up. */
  check(bound: readonly T[], listed: ReadonlySet<string>, nowMs: number): T[] {
    const missing = bound.filter((attempt) => !listed.has(attempt.lease));
    const still = new Set(missing.map((attempt) => attempt.lease));
    for (const lease of this.#missing.keys()) if (!still.has(lease)) this.#missing.delete(lease);
    return missing.filter((attempt) => {
      const seen = this.#missing.get(attempt.lease);
      if (!seen) this.#missing.set(attempt.lease, { sinceMs: nowMs, beats: 0 });
      return seen !== undefined && seen.beats >= beatsMin && nowMs - seen.sinceMs >= this.unlistedMs;
    });
  }
}

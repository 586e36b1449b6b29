/**
 * What goes wrong in one simulation, and how often. Each seed draws its own mix: most faults are absent, some are frequent, since faults that are all
 * there at once hide each other.
 */
import type { Random } from "./random.js";

/** Every fault, with the share of occasions at which it happens when the seed has it. */
const faults = {
  /** A start that the broker loses, and the publisher knows nothing of the outcome. */
  startLost: 0.2,
  /** A start that the broker has, though the publisher is not told. */
  startUnknown: 0.15,
  /** A start that is lost though the broker said that it has it. */
  startSilentlyLost: 0.03,
  startTwice: 0.2,
  startRefused: 0.02,
  completionLost: 0.2,
  completionTwice: 0.3,
  completionUnacked: 0.15,
  garbage: 0.1,
  reorder: 0.5,
  slow: 0.1,
  /** The database does not do it, and says nothing. */
  databaseLost: 0.05,
  /** The database does it, and says nothing. */
  databaseUnknown: 0.05,
  /** The database does it, after its caller has given up. */
  databaseLate: 0.03,
  deadlock: 0.05,
  attemptFails: 0.25,
  attemptFailsForGood: 0.04,
  badOutput: 0.03,
  poison: 0.03,
  hang: 0.04,
  /** Runs longer than a beat. */
  long: 0.2,
  /** Goes on though the mesh says that its attempt is not its any more. */
  stubborn: 0.5,
  callLost: 0.2,
} as const;

export type Fault = keyof typeof faults;

export class Trouble {
  readonly #shares: Partial<Record<Fault, number>> = {};
  readonly #random: Random;
  /** From the calm on nothing goes wrong any more. */
  calm = false;

  constructor(random: Random) {
    this.#random = random;
    // One seed in eight is healthy: what fails there has nothing to do with faults.
    if (random.chance(0.125)) return;
    const presence = random.pick([0.15, 0.35, 0.6]);
    for (const fault of Object.keys(faults) as Fault[])
      if (random.chance(presence)) this.#shares[fault] = faults[fault] * random.pick([0.5, 1, 2]);
  }

  /** Whether it goes wrong now. */
  happens(fault: Fault): boolean {
    if (this.calm) return false;
    const share = this.#shares[fault];
    return share !== undefined && this.#random.chance(share);
  }

  /** What this seed has. */
  get names(): string[] {
    return Object.keys(this.#shares);
  }
}

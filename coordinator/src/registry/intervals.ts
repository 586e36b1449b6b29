/** The times of the registry. All are options so that tests need not wait; the defaults are the product's. */

/** Lengths in milliseconds. */
export interface RegistryIntervals {
  /** Between two beats of a worker. */
  beatMs: number;
  /** A session without a beat for this long, by the database's clock, is lapsed: three beats, so one lost beat costs nothing. */
  sessionTimeoutMs: number;
  /** The same of a session whose coordinator is gone, while other workers are just coming back: thousands of them take their time. */
  returnMs: number;
  /** Longest age of the newest nonce that came back over the work transport; older: the worker gets no new work. */
  nonceMaxAgeMs: number;
  /** Between two nonces: a quarter of their largest age, so that one lost message and one late beat are forgiven. */
  probeMs: number;
  /** A bound attempt that its worker does not list for this long is lost. Its completion may be under way, so not at once. */
  unlistedMs: number;
  /** Between two looks at the bound attempts of this coordinator's sessions. */
  bindingScanMs: number;
  /** Longest time that a beat waits to be recorded together with others. */
  flushMs: number;
  /** Between two looks at the registry's epoch. */
  epochPollMs: number;
  /** Between two searches for lapsed sessions. */
  lapseScanMs: number;
  /** Between two searches for attempts whose session is gone: what a coordinator left that died while it ended a session. */
  orphanScanMs: number;
  /** After this process or the database was away, no session is taken for lapsed for this long: workers could not beat either. */
  graceMs: number;
  /** Between two heartbeats of a coordinator. */
  coordinatorBeatMs: number;
  /** A coordinator without a heartbeat for this long, by the database's clock, is lapsed. */
  coordinatorTimeoutMs: number;
  /** Shortest time that a lapsed coordinator's completions are consumed: longer than a start waits for a worker. */
  adoptionKeptMs: number;
  /** Longest wait for the workers of a lapsed coordinator to be back, and for their reports, before what it left is judged. */
  adoptionWaitMs: number;
  /** Longest wait for the first message of a session, and for a slow reader. */
  patienceMs: number;
}

export const defaultIntervals: Readonly<RegistryIntervals> = {
  beatMs: 5_000,
  sessionTimeoutMs: 15_000,
  returnMs: 60_000,
  nonceMaxAgeMs: 10_000,
  probeMs: 2_500,
  unlistedMs: 10_000,
  bindingScanMs: 2_500,
  flushMs: 1_000,
  epochPollMs: 1_000,
  lapseScanMs: 1_000,
  orphanScanMs: 5_000,
  graceMs: 10_000,
  coordinatorBeatMs: 2_000,
  coordinatorTimeoutMs: 10_000,
  adoptionKeptMs: 10 * 60_000,
  // Longer than a silent session lives on: by then who is not back has lapsed.
  adoptionWaitMs: 70_000,
  patienceMs: 10_000,
};

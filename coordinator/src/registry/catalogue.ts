/**
 * The live registry in memory: which lanes have workers, what they can serve, how much of each is this coordinator's.
 *
 * C1. A snapshot is read again when the registry's epoch moved, so every coordinator shows a change within an epoch poll.
 * C2. A lane is offered only after the carrier can deliver it.
 * C3. Windows of one lane over all coordinators add up to about twice its live slots.
 */
import { type Carrier, type Lane, type Logger, packMaxFor, type Service } from "@taskmesh/runtime";
import type { Catalogue, LaneState } from "../pipeline/ports.js";
import type { Db } from "../store/db.js";
import { readQuarantined } from "../store/gates.js";
import { type LiveLaneRow, readEpoch, readLiveLanes } from "../store/registry.js";
import { inTime } from "./in-time.js";
import type { RegistryIntervals } from "./intervals.js";
import { createLoop } from "./loop.js";
import { createPart } from "./part.js";

/** Attempts in flight per live slot: one runs, the next waits at the worker's door. */
const windowPerSlot = 2;
/** Longest wait for one lane: a carrier that is away must not hold back what else changed. The lane is tried again. */
const laneMsMax = 2_000;

export interface CatalogueOptions {
  db: Db;
  carrier: Pick<Carrier, "ensureLane">;
  intervals: RegistryIntervals;
  /** Ids of the live coordinators, this one included. */
  coordinators: () => readonly string[];
  /**
   * What else a lane can serve than the revisions of its workers: older revisions of the same methods, as "method@fingerprint".
   * Default: nothing.
   */
  alsoServes?: (namespaceId: number, contracts: readonly string[]) => Promise<readonly string[]>;
  log: Logger;
}

export interface LiveCatalogue extends Catalogue, Service {
  /** Reads the registry again, after a change of this coordinator's own. Resolves when the change is visible here. */
  refresh(): Promise<void>;
  /** The set of live coordinators changed: windows are computed anew. */
  recount(): void;
  /** Live slots by "method@fingerprint" of a namespace; what a lane serves besides is not listed. */
  slotsOf(namespaceId: number): ReadonlyMap<string, number>;
}

interface Entry {
  row: LiveLaneRow;
  lane: Lane;
  state: LaneState;
  contracts: readonly string[];
  /** Grows by the lane's slots with each choice and pays for being chosen: work is spread by slots. */
  credit: number;
}

/** Makes the catalogue; it is empty until it is started. */
export function createCatalogue(options: CatalogueOptions): LiveCatalogue {
  const snapshot = new Snapshot(options);
  const { intervals, log } = options;
  const round = (): Promise<void> => snapshot.refresh();
  const poll = createLoop("registry poll", { everyMs: intervals.epochPollMs, round, log });
  return createPart("catalogue", {
    start: () => poll.start(),
    stop: () => poll.stop(),
    extra: {
      refresh: round,
      recount: () => snapshot.recount(),
      laneFor: (target: Parameters<Catalogue["laneFor"]>[0]) => snapshot.laneFor(target),
      liveLanes: () => snapshot.liveLanes(),
      slotsOf: (namespaceId: number) => slotsByCallee(snapshot.entries, namespaceId),
      onChange: (listener: () => void) => void snapshot.listeners.add(listener),
      coordinators: options.coordinators,
    },
  });
}

/** What was read last, and how it is read again. */
class Snapshot {
  readonly listeners = new Set<() => void>();
  entries: readonly Entry[] = [];
  #byCallee = new Map<string, Entry[]>();
  #epoch = -1;
  /** A lane could not be offered: the same epoch is read again. */
  #incomplete = false;
  /** Reads take turns, so that an older snapshot never replaces a newer one; whoever asks while one waits shares it. */
  #turn: Promise<void> = Promise.resolve();
  #waiting: Promise<void> | undefined;

  constructor(private readonly options: CatalogueOptions) {}

  refresh(): Promise<void> {
    this.#waiting ??= this.#turn
      .catch(() => {})
      .then(() => {
        this.#waiting = undefined;
        return this.#round();
      });
    this.#turn = this.#waiting;
    return this.#turn;
  }

  recount(): void {
    const entryWith = (entry: Entry): Entry => ({ ...entry, state: this.#state(entry.lane, entry.row) });
    this.#offer(this.entries.map(entryWith));
  }

  laneFor({ namespaceId, taskQueue, method, contract }: Parameters<Catalogue["laneFor"]>[0]): LaneState | undefined {
    return choose(this.#byCallee.get(calleeKey(namespaceId, taskQueue, `${method}@${contract}`)))?.state;
  }

  liveLanes(): ReturnType<Catalogue["liveLanes"]> {
    return this.entries.map(({ row, state, contracts }) => {
      const { namespaceId, taskQueue } = row;
      return { namespaceId, taskQueue, state, contracts };
    });
  }

  async #round(): Promise<void> {
    const epoch = await readEpoch(this.options.db);
    if (epoch === this.#epoch && !this.#incomplete) return;
    const known = new Set(this.entries.map((entry) => entry.row.laneId));
    const [lanes, quarantined] = await Promise.all([readLiveLanes(this.options.db), readQuarantined(this.options.db)]);
    const rows = quarantined.size === 0 ? lanes : lanes.map((row) => withoutQuarantined(row, quarantined));
    const next = await Promise.all(rows.map((row) => this.#entry(row, known.has(row.laneId))));
    this.#incomplete = next.includes(undefined);
    this.#offer(next.filter((entry) => entry !== undefined));
    // The epoch was read before the rows: at worst they are read once more.
    this.#epoch = epoch;
  }

  async #entry(row: LiveLaneRow, known: boolean): Promise<Entry | undefined> {
    const { carrier, alsoServes, log } = this.options;
    const lane = { namespaceId: row.namespaceId, queueId: row.queueId, laneId: row.laneId };
    try {
      if (!known) await inTime(carrier.ensureLane(lane), laneMsMax); // C2
      const more = (await alsoServes?.(row.namespaceId, row.contracts)) ?? [];
      const contracts = more.length > 0 ? [...row.contracts, ...more] : row.contracts;
      return { row, lane, state: this.#state(lane, row), contracts, credit: 0 };
    } catch (error) {
      log.warn({ err: error, lane: row.laneId }, "a lane can't be offered yet");
      return undefined;
    }
  }

  /** C3 */
  #state(lane: Lane, { slots, slotsMin }: LiveLaneRow): LaneState {
    const share = (windowPerSlot * slots) / Math.max(1, this.options.coordinators().length);
    return { lane, window: slots === 0 ? 0 : Math.max(1, Math.ceil(share)), packMax: packMaxFor(slotsMin) };
  }

  #offer(entries: readonly Entry[]): void {
    this.#byCallee = indexed(entries);
    this.entries = entries;
    for (const listener of this.listeners) listener();
  }
}

/** A lane is not offered for contracts in quarantine; its workers may serve others. */
function withoutQuarantined(row: LiveLaneRow, quarantined: ReadonlySet<string>): LiveLaneRow {
  return { ...row, contracts: row.contracts.filter((entry) => !quarantined.has(`${row.namespaceId}/${entry}`)) };
}

const calleeKey = (namespaceId: number, taskQueue: string, callee: string): string =>
  `${namespaceId}\n${taskQueue}\n${callee}`; // Names hold no control characters.

function indexed(entries: readonly Entry[]): Map<string, Entry[]> {
  const index = new Map<string, Entry[]>();
  const add = (entry: Entry, callee: string): void => {
    const key = calleeKey(entry.row.namespaceId, entry.row.taskQueue, callee);
    const list = index.get(key);
    if (list) list.push(entry);
    else index.set(key, [entry]);
  };
  for (const entry of entries) for (const callee of entry.row.contracts) add(entry, callee);
  // Workers of the very revision come first: others take its steps only where there is none.
  const exact = new Set(index.keys());
  for (const entry of entries) {
    const { namespaceId, taskQueue, contracts } = entry.row;
    const more = entry.contracts
      .slice(contracts.length)
      .filter((callee) => !exact.has(calleeKey(namespaceId, taskQueue, callee)));
    for (const callee of more) add(entry, callee);
    entry.contracts = [...contracts, ...more];
  }
  return index;
}

/** Several lanes serve one callee when workers offer different sets of actions; they are used in proportion to their slots. */
function choose(candidates: readonly Entry[] | undefined): Entry | undefined {
  const [first] = candidates ?? [];
  if (!candidates || candidates.length <= 1) return first;
  let best = candidates[0] as Entry;
  let total = 0;
  for (const entry of candidates) {
    entry.credit += entry.row.slots;
    total += entry.row.slots;
    if (entry.credit > best.credit) best = entry;
  }
  best.credit -= total;
  return best;
}

function slotsByCallee(entries: readonly Entry[], namespaceId: number): Map<string, number> {
  const slots = new Map<string, number>();
  for (const { row } of entries) {
    if (row.namespaceId !== namespaceId) continue;
    for (const callee of row.contracts) slots.set(callee, (slots.get(callee) ?? 0) + row.slots);
  }
  return slots;
}

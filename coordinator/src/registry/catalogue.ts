/**
 * The live registry in memory: which lanes have workers, what they can serve, how much of each is this coordinator's.
 *
 * C1. A snapshot is read again when the registry's epoch moved, so every coordinator shows a change within an epoch poll.
 * C2. A lane is offered only after the carrier can deliver it.
 *     One without workers is given up in time.
 * C3. Windows of one lane over all coordinators add up to about twice its live slots.
 */
import { type Carrier, type Lane, type Logger, packMaxFor, type Service } from "@taskmesh/runtime";
import type { ChainPlan } from "../engine/plan.js";
import type { Catalogue, LaneState } from "../pipeline/ports.js";
import { readCanaries } from "../store/canaries.js";
import type { Db } from "../store/db.js";
import { readQuarantined } from "../store/gates.js";
import { type LiveLaneRow, readEpoch, readLiveLanes } from "../store/registry.js";
import { readSessionLanes } from "../store/upcasters.js";
import { inTime } from "./in-time.js";
import type { RegistryIntervals } from "./intervals.js";
import { createLoop } from "./loop.js";
import { createPart } from "./part.js";
import { chooseLane, type LaneEntry, type Route, routeKey, routesOf, type Shares } from "./routes.js";
import type { LaneUpcasts, Upcasts } from "./upcasts.js";

/** Attempts in flight per live slot: one runs, the next waits at the worker's door. */
const windowPerSlot = 2;
/** Longest wait for one lane: a carrier that is away must not hold back what else changed. The lane is tried again. */
const laneMsMax = 2_000;

export interface CatalogueOptions {
  db: Db;
  carrier: Pick<Carrier, "ensureLane" | "keepLanes">;
  intervals: RegistryIntervals;
  /** Ids of the live coordinators, this one included. */
  coordinators: () => readonly string[];
  /**
   * What else a lane can serve than the revisions of its workers: older revisions of the same methods, as "method@fingerprint".
   * Default: nothing.
   */
  alsoServes?: (namespaceId: number, contracts: readonly string[]) => Promise<readonly string[]>;
  /** What lanes can serve by upcasters. Default: nothing. */
  upcasts?: Upcasts;
  log: Logger;
}

export interface LiveCatalogue extends Catalogue, Service {
  /** Reads the registry again, after a change of this coordinator's own. Resolves when the change is visible here. */
  refresh(): Promise<void>;
  /** The set of live coordinators changed: windows are computed anew. */
  recount(): void;
  /** Live slots by "method@fingerprint" of a namespace; what a lane serves besides is not listed. */
  slotsOf(namespaceId: number): ReadonlyMap<string, number>;
  /** Task queues with live workers by "method@fingerprint" of a namespace, older revisions that they can serve included. */
  queuesOf(namespaceId: number): ReadonlyMap<string, ReadonlySet<string>>;
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
      upcastFor: (sessionId: string, namespaceId: number, callee: string) =>
        snapshot.upcastFor(sessionId, namespaceId, callee),
      liveLanes: () => snapshot.liveLanes(),
      slotsOf: (namespaceId: number) => slotsByCallee(snapshot.entries, namespaceId),
      queuesOf: (namespaceId: number) => queuesByCallee(snapshot.entries, namespaceId),
      onChange: (listener: () => void) => void snapshot.listeners.add(listener),
      coordinators: options.coordinators,
    },
  });
}

/** What was read last, and how it is read again. */
class Snapshot {
  readonly listeners = new Set<() => void>();
  entries: readonly LaneEntry[] = [];
  #routes = new Map<string, Route>();
  #shares: Shares = new Map();
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
    const entryWith = (entry: LaneEntry): LaneEntry => {
      const { lane, row, state } = entry;
      return { ...entry, state: this.#state(lane, row, state.upcasts) };
    };
    this.#offer(this.entries.map(entryWith));
  }

  laneFor({ namespaceId, taskQueue, method, contract }: Parameters<Catalogue["laneFor"]>[0]): LaneState | undefined {
    return chooseLane(this.#routes.get(routeKey(namespaceId, taskQueue, `${method}@${contract}`)));
  }

  upcastFor(sessionId: string, namespaceId: number, callee: string): Promise<ChainPlan | undefined> | undefined {
    const lanes = this.entries.filter(
      ({ row, state }) => row.namespaceId === namespaceId && state.upcasts?.has(callee),
    );
    if (lanes.length === 0) return undefined;
    return readSessionLanes(this.options.db, sessionId).then((own) =>
      lanes.find(({ row }) => own.includes(row.laneId))?.state.upcasts?.get(callee),
    );
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
    const { db, carrier } = this.options;
    const [lanes, quarantined, canaries] = await Promise.all([
      readLiveLanes(db),
      readQuarantined(db),
      readCanaries(db),
    ]);
    this.#shares = new Map(
      canaries.map(({ namespaceId, method, fingerprint, share }) => [`${namespaceId}/${method}@${fingerprint}`, share]),
    );
    const rows = quarantined.size === 0 ? lanes : lanes.map((row) => withoutQuarantined(row, quarantined));
    const upcastsOf = await this.options.upcasts?.load();
    const next = await Promise.all(rows.map((row) => this.#entry(row, known.has(row.laneId), upcastsOf)));
    this.#incomplete = next.includes(undefined);
    this.#offer(next.filter((entry) => entry !== undefined));
    carrier.keepLanes(rows.map(laneOf));
    // The epoch was read before the rows: at worst they are read once more.
    this.#epoch = epoch;
  }

  async #entry(
    row: LiveLaneRow,
    known: boolean,
    upcastsOf: Awaited<ReturnType<Upcasts["load"]>> | undefined,
  ): Promise<LaneEntry | undefined> {
    const { carrier, alsoServes, log } = this.options;
    const lane = laneOf(row);
    try {
      if (!known) await inTime(carrier.ensureLane(lane), laneMsMax); // C2
      const more = (await alsoServes?.(row.namespaceId, row.contracts)) ?? [];
      const upcasts = await upcastsOf?.(row.namespaceId, row.contracts);
      const serves = upcasts ? [...new Set([...more, ...upcasts.keys()])] : more;
      return { row, lane, state: this.#state(lane, row, upcasts), serves, contracts: row.contracts, credit: 0 };
    } catch (error) {
      log.warn({ err: error, lane: row.laneId }, "a lane can't be offered yet");
      return undefined;
    }
  }

  /** C3 */
  #state(lane: Lane, { slots, slotsMin }: LiveLaneRow, upcasts: LaneUpcasts | undefined): LaneState {
    const share = (windowPerSlot * slots) / Math.max(1, this.options.coordinators().length);
    const window = slots === 0 ? 0 : Math.max(1, Math.ceil(share));
    return { lane, window, packMax: packMaxFor(slotsMin), ...(upcasts ? { upcasts } : {}) };
  }

  #offer(entries: readonly LaneEntry[]): void {
    this.#routes = routesOf(entries, this.#shares);
    this.entries = entries;
    for (const listener of this.listeners) listener();
  }
}

const laneOf = ({ namespaceId, queueId, laneId }: LiveLaneRow): Lane => ({ namespaceId, queueId, laneId });

/** A lane is not offered for contracts in quarantine; its workers may serve others. */
function withoutQuarantined(row: LiveLaneRow, quarantined: ReadonlySet<string>): LiveLaneRow {
  return { ...row, contracts: row.contracts.filter((entry) => !quarantined.has(`${row.namespaceId}/${entry}`)) };
}

function slotsByCallee(entries: readonly LaneEntry[], namespaceId: number): Map<string, number> {
  const slots = new Map<string, number>();
  for (const { row } of entries) {
    if (row.namespaceId !== namespaceId) continue;
    for (const callee of row.contracts) slots.set(callee, (slots.get(callee) ?? 0) + row.slots);
  }
  return slots;
}

function queuesByCallee(entries: readonly LaneEntry[], namespaceId: number): Map<string, Set<string>> {
  const queues = new Map<string, Set<string>>();
  for (const { row, serves } of entries) {
    if (row.namespaceId !== namespaceId || row.slots === 0) continue;
    for (const callee of [...row.contracts, ...serves])
      queues.set(callee, (queues.get(callee) ?? new Set()).add(row.taskQueue));
  }
  return queues;
}

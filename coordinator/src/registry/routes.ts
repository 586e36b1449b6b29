/**
 * Which lanes take the steps that are pinned to a contract revision, and which of them takes the next one. Pure.
 *
 * T1. Workers of the very revision come first; others that can serve it take its steps only where there is none.
 * T2. A canary is the exception: of the steps that are pinned to another revision, its workers get their share, and the others the rest.
 *     Spread evenly: of 100 starts in a row exactly `share` go to the canary.
 * T3. A canary with a share of 0 gets nothing but what is pinned to it, not even where nobody else is left.
 * T4. An action without a canary costs nothing more than before.
 */
import type { Lane } from "@taskmesh/runtime";
import type { LaneState } from "../pipeline/ports.js";
import type { LiveLaneRow } from "../store/registry.js";

/** A lane that is offered. */
export interface LaneEntry {
  row: LiveLaneRow;
  lane: Lane;
  state: LaneState;
  /** "method@fingerprint" of other revisions that its workers can serve. */
  serves: readonly string[];
  /** What its free places are filled with: its workers' own revisions, and others that nobody else is there for. */
  contracts: readonly string[];
  /** Grows by the lane's slots with each choice and pays for being chosen: work is spread by slots. */
  credit: number;
}

/** Percent of the starts by "<namespace id>/<method>@<fingerprint>" of a canary. */
export type Shares = ReadonlyMap<string, number>;

/** The lanes for one revision of one callee on one task queue. */
export interface Route {
  entries: LaneEntry[];
  canary?: Canary;
}

interface Canary {
  share: number;
  /** Grows by the share with each start, and pays for those that the canary gets. */
  credit: number;
  entries: LaneEntry[];
}

/** Names hold no control characters. */
export const routeKey = (namespaceId: number, taskQueue: string, callee: string): string =>
  `${namespaceId}\n${taskQueue}\n${callee}`;

/** Finds the routes, and writes `contracts` of each entry. */
export function routesOf(entries: readonly LaneEntry[], shares: Shares): Map<string, Route> {
  const routes = new Map<string, Route>();
  const add = (entry: LaneEntry, callee: string): void => {
    const key = routeKey(entry.row.namespaceId, entry.row.taskQueue, callee);
    const route = routes.get(key);
    if (route) route.entries.push(entry);
    else routes.set(key, { entries: [entry] });
  };
  for (const entry of entries) for (const callee of entry.row.contracts) add(entry, callee);
  const exact = new Set(routes.keys());
  for (const entry of entries) {
    const own = entry.row.contracts;
    const taken: string[] = [];
    for (const callee of entry.serves) {
      const key = routeKey(entry.row.namespaceId, entry.row.taskQueue, callee);
      const share = shares.size === 0 ? undefined : shareOf(entry, callee, shares);
      if (share === 0) continue; // T3
      if (!exact.has(key)) taken.push(callee);
      else if (share !== undefined) joinCanary(routes.get(key)!, share, entry);
    }
    for (const callee of taken) add(entry, callee);
    entry.contracts = [...own, ...taken];
  }
  return routes;
}

/** The share that the entry's workers have as a canary of the callee's method; undefined: they are none for this callee. */
function shareOf({ row }: LaneEntry, callee: string, shares: Shares): number | undefined {
  const method = callee.slice(0, callee.lastIndexOf("@"));
  // Among canaries nobody is the tried one.
  if (shares.has(`${row.namespaceId}/${callee}`)) return undefined;
  const own = row.contracts.find((one) => one.startsWith(`${method}@`));
  return own === undefined ? undefined : shares.get(`${row.namespaceId}/${own}`);
}

function joinCanary(route: Route, share: number, entry: LaneEntry): void {
  route.canary ??= { share, credit: 0, entries: [] };
  route.canary.entries.push(entry);
}

/** The lane of the next start. */
export function chooseLane(route: Route | undefined): LaneState | undefined {
  if (route === undefined) return undefined;
  const { canary } = route;
  if (canary === undefined) return choose(route.entries)?.state;
  const { share } = canary;
  const stable = choose(route.entries)?.state;
  if (stable === undefined) return undefined;
  // Counted only when the step has its place: a step that finds none asks again, and must not be two.
  const admitted = (paid: number) => (): void => {
    canary.credit = Math.min(canary.credit + share - paid, creditMax);
  };
  const toStable = { ...stable, admitted: admitted(0) };
  const tried = canary.credit + share < 100 ? undefined : choose(canary.entries)?.state;
  // A canary without room holds nothing up.
  return tried === undefined ? toStable : { ...tried, otherwise: toStable, admitted: admitted(100) };
}

/** A canary that had no room catches up by no more than this many percent of a start. */
const creditMax = 200;

/** Several lanes serve one callee when workers offer different sets of actions; they are used in proportion to their slots. */
function choose(candidates: readonly LaneEntry[]): LaneEntry | undefined {
  if (candidates.length <= 1) return candidates[0];
  let best = candidates[0] as LaneEntry;
  let total = 0;
  for (const entry of candidates) {
    entry.credit += entry.row.slots;
    total += entry.row.slots;
    if (entry.credit > best.credit) best = entry;
  }
  best.credit -= total;
  return best;
}

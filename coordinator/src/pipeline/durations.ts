/**
 * Collects how long attempts took, for the estimates of those that run (rpc/estimates.ts). In the path of runs it is a comparison and, for
 * long attempts, a number in a ring; every few seconds the rings are written to the database, where all coordinators read them.
 *
 * N1. Only attempts that outlived their first beat count. Before it nobody knows that an attempt runs, so nothing is estimated; and
 *     from then on what ended earlier says nothing of the one that did not. So fast actions cost no writing either.
 * N2. Memory is bounded: a ring of fixed size per step of a plan in use, as many unwritten ones as `unwrittenMax`.
 * N3. What can't be written is dropped: an estimate is worth no retry.
 */
import { EventKind } from "@taskmesh/proto";
import type { ChainPlan } from "../engine/plan.js";
import { RunStatus } from "../engine/run-state.js";
import { type DurationRow, durationsKept } from "../store/durations.js";
import type { Draft } from "./fold.js";

/** Rings that wait to be written. */
const unwrittenMax = 5_000;
/** Rows of one statement. */
const rowsMax = 500;

export interface Durations {
  /** Takes what a stored draft says of attempts that succeeded, and of sub-chains. */
  note(draft: Draft): void;
  /** Writes what was noted since. Rejects if the database does not take it; it is dropped then. */
  flush(): Promise<void>;
}

/** The newest durations of one callable, overwritten in a circle. */
interface Ring {
  readonly namespaceId: number;
  readonly method: string;
  readonly valuesMs: Float32Array;
  /** Values that were ever put in since the last flush. */
  count: number;
}

/** Makes the collection. `leastMs`: shorter attempts do not count (N1). */
export function createDurations(leastMs: number, write: (rows: DurationRow[]) => Promise<void>): Durations {
  /** By step; the last one is the chain's own. A plan is of one namespace. */
  const ringsOf = new WeakMap<ChainPlan, (Ring | undefined)[]>();
  let unwritten = new Set<Ring>();

  const put = ({ plan, write: { run } }: Draft, index: number, ms: number): void => {
    let rings = ringsOf.get(plan);
    if (!rings) {
      rings = [];
      ringsOf.set(plan, rings);
    }
    const method = plan.steps[index]?.method ?? plan.method;
    rings[index] ??= { namespaceId: run.namespaceId, method, valuesMs: new Float32Array(durationsKept), count: 0 };
    const ring = rings[index];
    if (ring.count === 0 && unwritten.size >= unwrittenMax) return;
    if (ring.count === 0) unwritten.add(ring);
    ring.valuesMs[ring.count++ % durationsKept] = ms;
  };

  return {
    note(draft) {
      const { records, run } = draft.write;
      for (const { kind, step, executionMs, runStatus } of records) {
        if (executionMs !== undefined) {
          if (executionMs >= leastMs && isSuccess(kind)) put(draft, step, executionMs);
        } else if (runStatus === RunStatus.RUN_STATUS_SUCCEEDED && run.parent) {
          const ms = run.endedAtMs - run.acceptedAtMs;
          if (kind === EventKind.EVENT_KIND_RUN_ENDED && ms >= leastMs) put(draft, draft.plan.steps.length, ms);
        }
      }
    },
    async flush() {
      const rows = toRows(unwritten);
      unwritten = new Set();
      for (let at = 0; at < rows.length; at += rowsMax) await write(rows.slice(at, at + rowsMax));
    },
  };
}

const isSuccess = (kind: EventKind): boolean =>
  kind === EventKind.EVENT_KIND_STEP_SUCCEEDED ||
  kind === EventKind.EVENT_KIND_ITEM_SUCCEEDED ||
  kind === EventKind.EVENT_KIND_STEP_ROUND;

/** Empties the rings into one row a callable, in the order in which every coordinator writes. */
function toRows(rings: Iterable<Ring>): DurationRow[] {
  const rows = new Map<string, { namespaceId: number; method: string; recentMs: number[] }>();
  for (const ring of rings) {
    const { namespaceId, method, valuesMs } = ring;
    const key = `${method} ${namespaceId}`;
    const row = rows.get(key) ?? { namespaceId, method, recentMs: [] };
    rows.set(key, row);
    const from = Math.max(0, ring.count - durationsKept);
    for (let at = ring.count - 1; at >= from && row.recentMs.length < durationsKept; at--)
      row.recentMs.push(valuesMs[at % durationsKept]!);
    ring.count = 0;
  }
  return [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
}

/**
 * How far attempts probably are whose handlers report nothing: what their callable usually takes (call_durations), against how long they
 * have been running.
 *
 * Q1. An estimate is marked as one, and a report always counts before it.
 * Q2. It stays below 100, however long the attempt takes: only an end is an end.
 * Q3. As long as what the callable usually takes is the same, it only grows with time.
 */
import type { Progress } from "@taskmesh/proto";
import type { ChainPlan } from "../engine/plan.js";
import { type StepState, StepStatus } from "../engine/run-state.js";
import type { Db } from "../store/db.js";
import { readDurations } from "../store/durations.js";

/** Fewer say too little of what is usual. */
const durationsMin = 3;
/** What an attempt has reached when it has run as long as is usual, and what it never reaches. */
const usualPercent = 90;
const endPercent = 99;

/** How long the callables usually take of those running steps that `reported` does not have, by method. */
export async function readUsual(
  db: Db,
  namespaceId: number,
  steps: readonly StepState[],
  plan: ChainPlan,
  reported: ReadonlyMap<number, unknown>,
): Promise<Map<string, number>> {
  const wanted = plan.steps.filter(({ index }) => isEstimated(steps[index]!) && !reported.has(index));
  if (wanted.length === 0) return new Map();
  const durations = await readDurations(db, namespaceId, [...new Set(wanted.map(({ method }) => method))]);
  const known = [...durations].filter(([, recentMs]) => recentMs.length >= durationsMin);
  return new Map(known.map(([method, recentMs]) => [method, medianOf(recentMs)]));
}

/** The reports, and an estimate for each running step that has none and whose callable's usual time is known. */
export function withEstimates(
  steps: readonly StepState[],
  plan: ChainPlan,
  reported: ReadonlyMap<number, Progress>,
  { usual, nowMs }: { usual: ReadonlyMap<string, number>; nowMs: number },
): Map<number, Progress> {
  const all = new Map(reported);
  for (const { index, method } of usual.size > 0 ? plan.steps : []) {
    const step = steps[index]!;
    const usualMs = usual.get(method);
    if (usualMs === undefined || all.has(index) || !isEstimated(step)) continue;
    const percent = estimate(nowMs - step.startedAtMs, usualMs);
    if (percent > 0) all.set(index, { percent, message: "", estimated: true });
  }
  return all;
}

/** 0 to 99, to a whole percent: in proportion until the usual time is over, then ever slower. */
export function estimate(elapsedMs: number, usualMs: number): number {
  const share = Math.max(0, elapsedMs) / Math.max(1, usualMs);
  if (share <= 1) return Math.floor(share * usualPercent);
  return Math.floor(endPercent - (endPercent - usualPercent) / share);
}

/** Items of a fan-out are counted, and what waits for people or instants has no usual time. */
const isEstimated = ({ status, each, startedAtMs }: StepState): boolean =>
  status === StepStatus.STEP_STATUS_RUNNING && !each && startedAtMs > 0;

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)]!;
}

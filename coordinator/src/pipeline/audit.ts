/**
 * The slow audit: finds single starts of this coordinator that were lost in a way that nobody noticed, and sends them again under new leases;
 * and of all coordinators, runs that a step's attempt is and that never began, or whose end the step was not told.
 *
 * A start is taken for lost when its attempt is not bound though it was dispatched `oldMs` ago and
 *   - live workers of its lane have free slots: they would have pulled it within seconds and listed it in a beat, or
 *   - its lane has no live worker any more: then it waits in the ready queue for whoever serves the callee next.
 * A start that waits behind long attempts is left alone: its lane has no free slot.
 *
 * Places in a lane whose attempt another coordinator ended are given back sooner while steps wait for a place: with a window of one or two
 * a queue would stand still until the audit.
 */
import type { Logger } from "@taskmesh/runtime";
import { inFlight, type RunState, type StepState } from "../engine/run-state.js";
import type { RunStore } from "../store/run-store.js";
import type { Pipeline } from "./pipeline.js";
import type { Catalogue } from "./ports.js";
import type { Windows } from "./windows.js";
import type { Settled } from "./work.js";

export interface AuditDeps {
  store: RunStore;
  pipeline: Pipeline;
  windows: Windows;
  catalogue: Catalogue;
  log: Logger;
  nowMs(): number;
  /** Looks for children that never began, and ends of children that were never told. */
  children: { audit(oldMs: number): Promise<number> };
}

export interface Audit {
  start(): void;
  stop(): void;
  /** One round now, over starts that are `oldMs` old (default 60 s). Answers how many were sent again, or told. */
  round(oldMs?: number): Promise<number>;
  /** Gives back places that are `oldMs` old (default 5 s) and whose attempt is over. Answers how many. */
  returnPlaces(oldMs?: number): Promise<number>;
}

const everyMs = 60_000;
/** Between two looks for places to give back, made only while steps wait for one. */
const placesEveryMs = 5_000;
/** Places that one such look checks; the next goes on behind them. */
const placesLookedAtMax = 200;
/** A start of this age would have been pulled long ago if it could. */
const oldMsDefault = 60_000;
/** Starts that one round looks at: the rest waits for the next. */
const lookedAtMax = 1_000;

export function createAudit(deps: AuditDeps): Audit {
  const { windows, log } = deps;
  let timer: NodeJS.Timeout | undefined;
  let placesTimer: NodeJS.Timeout | undefined;
  let stopped = true;
  let nextPlace = 0;

  const redispatch = (runId: string, stepId: string, lease: string): Promise<Settled | undefined> =>
    new Promise((resolve) => {
      const report = { stepId, item: 0, attempt: 0, lease };
      const event = { kind: "redispatch" as const, report, why: "the audit found its start lost" };
      const work = { kind: "event" as const, runId, event, fresh: true, tries: 0, bytes: 64 };
      deps.pipeline.submit({ ...work, settle: resolve, fail: () => resolve(undefined) });
    });

  const round = async (oldMs = oldMsDefault): Promise<number> => {
    const helped = await deps.children.audit(oldMs);
    if (helped > 0) log.warn({ children: helped }, "the audit found runs that never began, or whose end was not told");
    return helped + (await startsRound(oldMs));
  };

  const startsRound = async (oldMs: number): Promise<number> => {
    const before = deps.nowMs() - oldMs;
    const old = [...windows.places()].filter(([, place]) => place.takenAtMs <= before).slice(0, lookedAtMax);
    if (old.length === 0) return 0;
    const free = await deps.store.freeSlotsByLane();
    const live = new Set(deps.catalogue.liveLanes().map(({ state }) => state.lane.laneId));
    let sent = 0;
    for (const [lease, { lane, runId, stepId }] of old) {
      const idle = (free.get(lane.laneId) ?? 0) > 0;
      if (live.has(lane.laneId) && !idle) continue;
      const settled = await redispatch(runId, stepId, lease);
      if (settled?.verdict === "changed") sent += 1;
      else if (settled && (settled.verdict === "unknown-run" || !holdsLease(settled.run, lease))) windows.free(lease);
    }
    if (sent > 0) log.warn({ starts: sent }, "the audit found lost starts; they are sent again");
    return sent;
  };

  const returnPlaces = async (oldMs = placesEveryMs): Promise<number> => {
    const before = deps.nowMs() - oldMs;
    const old = [...windows.places()].filter(([, place]) => place.takenAtMs <= before);
    if (nextPlace >= old.length) nextPlace = 0;
    const looked = old.slice(nextPlace, nextPlace + placesLookedAtMax);
    nextPlace += looked.length;
    if (looked.length === 0) return 0;
    const runs = await deps.store.loadRuns([...new Set(looked.map(([, { runId }]) => runId))]);
    const over = looked.filter(([lease, { runId }]) => {
      const run = runs.get(runId)?.run;
      return !run || !holdsLease(run, lease);
    });
    for (const [lease] of over) windows.free(lease);
    return over.length;
  };

  const planPlaces = (): void => {
    placesTimer = setTimeout(async () => {
      const looked = windows.anyWaiting ? returnPlaces() : Promise.resolve(0);
      await looked.catch((error: unknown) => log.warn({ err: error }, "old places could not be looked at"));
      if (!stopped) planPlaces();
    }, placesEveryMs).unref();
  };

  const plan = (): void => {
    timer = setTimeout(async () => {
      await round().catch((error: unknown) => log.warn({ err: error }, "the audit could not look"));
      if (!stopped) plan();
    }, everyMs).unref();
  };

  return {
    start() {
      if (!stopped) return;
      stopped = false;
      plan();
      planPlaces();
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
      clearTimeout(placesTimer);
    },
    round,
    returnPlaces,
  };
}

/** Whether an attempt of that lease is under way in the run. */
function holdsLease(run: RunState, lease: string): boolean {
  const holds = (state: StepState): boolean => state.lease === lease && inFlight(state.status);
  return run.steps.some(holds) || [...(run.items?.values() ?? [])].some((open) => [...open.values()].some(holds));
}

/**
 * How many attempts this coordinator has under way in each lane.
 *
 * A place is taken when a lease is given and returned when it is no longer current. The bound keeps the carrier's queues short, so that
 * priority, fairness and limits are decided in Postgres. Counts are this coordinator's own and may be lost with it: they only pace.
 */
import type { Lane } from "@taskmesh/runtime";
import type { ChainPlan, StepPlan } from "../engine/plan.js";
import type { Catalogue, LaneState } from "./ports.js";

interface Place {
  lane: Lane;
  packMax: number;
  /** Makes the step's input one for the lane's workers. */
  upcast?: ChainPlan;
  runId: string;
  stepId: string;
  takenAtMs: number;
}

export class Windows {
  #taken = new Map<number, number>();
  #places = new Map<string, Place>();
  /** Queues with steps waiting in Postgres: newcomers queue up behind them. */
  #waiting = new Set<string>();
  #onRoom: (() => void) | undefined;

  constructor(private readonly catalogue: Catalogue) {}

  /** Called when a place comes free while steps wait, or steps come to wait while there are places. */
  onRoom(listener: () => void): void {
    this.#onRoom = listener;
  }

  /** Takes a place for the lease; undefined if no live worker serves the step, its lane is full, or (unless `fromQueue`) others wait. */
  take(
    run: { id: string; namespaceId: number },
    step: StepPlan,
    lease: string,
    fromQueue: boolean,
    nowMs: number,
  ): LaneState | undefined {
    const { taskQueue, method, contract } = step;
    let state = this.catalogue.laneFor({ namespaceId: run.namespaceId, taskQueue, method, contract });
    const key = queueKey(run.namespaceId, taskQueue);
    if (!state) {
      this.#waiting.add(key);
      return undefined;
    }
    if (state.otherwise && this.room(state) === 0) state = state.otherwise;
    const { laneId } = state.lane;
    const taken = this.#taken.get(laneId) ?? 0;
    if (taken >= state.window || (!fromQueue && this.#waiting.has(key))) {
      this.#waiting.add(key);
      return undefined;
    }
    state.admitted?.();
    this.#taken.set(laneId, taken + 1);
    const upcast = state.upcasts?.get(`${method}@${contract}`);
    this.#places.set(lease, {
      lane: state.lane,
      packMax: state.packMax,
      runId: run.id,
      stepId: step.id,
      takenAtMs: nowMs,
      ...(upcast ? { upcast } : {}),
    });
    return state;
  }

  /** Returns the lease's place, if it had one here. */
  free(lease: string): void {
    const place = this.#places.get(lease);
    if (!place) return;
    this.#places.delete(lease);
    const { laneId } = place.lane;
    this.#taken.set(laneId, Math.max(0, (this.#taken.get(laneId) ?? 0) - 1));
    if (this.#waiting.size > 0) this.#onRoom?.();
  }

  /** A step was committed to the ready queue. If its lane has room, no place needs to come free for it: the news that others wait was old. */
  queued(run: { namespaceId: number }, step: StepPlan): void {
    const { taskQueue, method, contract } = step;
    this.#waiting.add(queueKey(run.namespaceId, taskQueue));
    const state = this.catalogue.laneFor({ namespaceId: run.namespaceId, taskQueue, method, contract });
    if (state && this.room(state) > 0) this.#onRoom?.();
  }

  /** Where the lease's start goes, and how many may share a message there; undefined: it has no place (any more). */
  placeOf(lease: string): Pick<Place, "lane" | "packMax" | "upcast"> | undefined {
    return this.#places.get(lease);
  }

  /** Free places of a lane. */
  room(state: LaneState): number {
    return Math.max(0, state.window - (this.#taken.get(state.lane.laneId) ?? 0));
  }

  /** Replaces what is known of waiting queues with what the database says. */
  setWaiting(queues: readonly { namespaceId: number; taskQueue: string }[]): void {
    this.#waiting = new Set(queues.map(({ namespaceId, taskQueue }) => queueKey(namespaceId, taskQueue)));
  }

  hasWaiting(namespaceId: number, taskQueue: string): boolean {
    return this.#waiting.has(queueKey(namespaceId, taskQueue));
  }

  get anyWaiting(): boolean {
    return this.#waiting.size > 0;
  }

  /** Attempts under way. */
  get size(): number {
    return this.#places.size;
  }

  /** The same, each, for the audit. */
  places(): IterableIterator<[lease: string, place: Readonly<Place>]> {
    return this.#places.entries();
  }
}

const queueKey = (namespaceId: number, taskQueue: string): string => `${namespaceId}/${taskQueue}`;

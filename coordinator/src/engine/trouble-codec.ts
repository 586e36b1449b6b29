/** What the run row says of runs that something went wrong with; nothing is written for all others. */
import { Failure } from "@taskmesh/proto";
import type { RunState } from "./run-state.js";

/** The parts of the state that this file stores. */
export type Trouble = Partial<Pick<RunState, "catching" | "extraMs" | "broken" | "operation">>;

export interface StoredTrouble {
  catching?: Record<string, unknown>;
  extraMs?: number;
  broken?: NonNullable<RunState["broken"]>;
  operation?: string;
}

/** Adds the run's trouble to what is stored of it. */
export function storeTrouble(run: RunState, stored: StoredTrouble): void {
  if (run.catching) stored.catching = mapValues(run.catching, (failure) => Failure.toJSON(failure));
  if (run.extraMs !== undefined) stored.extraMs = run.extraMs;
  if (run.broken) stored.broken = run.broken;
  if (run.operation !== undefined) stored.operation = run.operation;
}

/** Reads back what `storeTrouble` wrote. */
export function loadTrouble(stored: StoredTrouble): Trouble {
  const trouble: Trouble = {};
  if (stored.catching) trouble.catching = mapValues(stored.catching, (failure) => Failure.fromJSON(failure));
  if (stored.extraMs !== undefined) trouble.extraMs = stored.extraMs;
  if (stored.broken) trouble.broken = stored.broken;
  if (stored.operation !== undefined) trouble.operation = stored.operation;
  return trouble;
}

const mapValues = <From, To>(record: Readonly<Record<string, From>>, change: (value: From) => To): Record<string, To> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));

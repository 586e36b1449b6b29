/** What the run row says of runs that something went wrong with; nothing is written for all others. */
import { Failure } from "@taskmesh/proto";
import type { RunState } from "./run-state.js";

/** The parts of the state that this file stores. */
export type Trouble = Partial<Pick<RunState, "catching" | "extraMs" | "broken" | "operation" | "done" | "undo">>;

export interface StoredTrouble {
  catching?: Record<string, unknown>;
  extraMs?: number;
  broken?: NonNullable<RunState["broken"]>;
  operation?: string;
  done?: readonly number[];
  undo?: { status: number; failure?: unknown; failures: [step: number, failure: unknown][] };
}

/** Adds the run's trouble to what is stored of it. */
export function storeTrouble(run: RunState, stored: StoredTrouble): void {
  if (run.catching) stored.catching = mapValues(run.catching, (failure) => Failure.toJSON(failure));
  if (run.extraMs !== undefined) stored.extraMs = run.extraMs;
  if (run.broken) stored.broken = run.broken;
  if (run.operation !== undefined) stored.operation = run.operation;
  if (run.done) stored.done = run.done;
  if (run.undo) stored.undo = storeUndo(run.undo);
}

/** Reads back what `storeTrouble` wrote. */
export function loadTrouble(stored: StoredTrouble): Trouble {
  const trouble: Trouble = {};
  if (stored.catching) trouble.catching = mapValues(stored.catching, (failure) => Failure.fromJSON(failure));
  if (stored.extraMs !== undefined) trouble.extraMs = stored.extraMs;
  if (stored.broken) trouble.broken = stored.broken;
  if (stored.operation !== undefined) trouble.operation = stored.operation;
  if (stored.done) trouble.done = stored.done;
  if (stored.undo) trouble.undo = loadUndo(stored.undo);
  return trouble;
}

function storeUndo({ status, failure, failures }: NonNullable<RunState["undo"]>): NonNullable<StoredTrouble["undo"]> {
  const failed = failures.map(({ step, failure: own }): [number, unknown] => [step, Failure.toJSON(own)]);
  return { status, ...(failure ? { failure: Failure.toJSON(failure) } : {}), failures: failed };
}

function loadUndo({ status, failure, failures }: NonNullable<StoredTrouble["undo"]>): NonNullable<RunState["undo"]> {
  const failed = failures.map(([step, own]) => ({ step, failure: Failure.fromJSON(own) }));
  return { status, ...(failure === undefined ? {} : { failure: Failure.fromJSON(failure) }), failures: failed };
}

const mapValues = <From, To>(record: Readonly<Record<string, From>>, change: (value: From) => To): Record<string, To> =>
  Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));

/**
 * The series of a plan's runs and steps, found once: from then on a step is counted by additions to numbers, without a string or a look
 * into a table of series.
 */
import { EventKind } from "@taskmesh/proto";
import { metrics } from "@taskmesh/runtime";
import type { ChainPlan, StepPlan } from "./engine/plan.js";
import type { RunRecord } from "./engine/run-event.js";
import { type RunState, RunStatus, StepStatus } from "./engine/run-state.js";
import type { Draft } from "./pipeline/fold.js";

type Cell = ReturnType<typeof metrics.attempts.at>;
type Distribution = ReturnType<typeof metrics.execution.at>;

/** Counts a stored draft: all that its records and effects say of runs, steps, items and attempts. */
export function countDraft({ plan, write }: Draft): void {
  let meters = metersOf.get(plan);
  if (!meters) {
    meters = new PlanMeters(plan);
    metersOf.set(plan, meters);
  }
  for (const effect of write.effects) {
    if (effect.kind !== "dispatch") continue;
    const step = meters.step(effect.step.index);
    step.attempts.add();
    if (effect.attempt > 1) step.retries.add();
  }
  for (const record of write.records) countRecord(meters, write.run, record);
}

/** Plans are few, cached, and live as long as their runs. */
const metersOf = new WeakMap<ChainPlan, PlanMeters>();

class PlanMeters {
  readonly #plan: ChainPlan;
  readonly #chain: string;
  readonly #action: string;
  readonly #steps: (StepMeters | undefined)[] = [];
  readonly #ended: (Cell | undefined)[] = [];
  readonly started: Cell;
  readonly runSeconds: Distribution;

  constructor(plan: ChainPlan) {
    this.#plan = plan;
    this.#chain = plan.version === 0 ? "" : plan.method;
    this.#action = plan.version === 0 ? plan.method : "";
    this.started = metrics.runsStarted.at(this.#chain, this.#action);
    this.runSeconds = metrics.runSeconds.at(this.#chain, this.#action);
  }

  step(index: number): StepMeters {
    this.#steps[index] ??= new StepMeters(this.#plan.steps[index]!, this.#chain);
    return this.#steps[index];
  }

  ended(status: RunStatus): Cell {
    this.#ended[status] ??= metrics.runsEnded.at(wordOf(RunStatus[status], "RUN_STATUS_"), this.#chain, this.#action);
    return this.#ended[status];
  }
}

type AttemptEnd = "succeeded" | "failed" | "timed_out" | "lost" | "cancelled";

class StepMeters {
  readonly attempts: Cell;
  readonly retries: Cell;
  readonly execution: Distribution;
  readonly scheduleToStart: Distribution;
  /** The step calls a chain: what runs for it is counted there. */
  readonly isChild: boolean;
  readonly #labels: readonly [action: string, chain: string, queue: string];
  readonly #ended: (Cell | undefined)[] = [];
  readonly #items: { succeeded?: Cell; failed?: Cell } = {};
  readonly #attemptsEnded: Partial<Record<AttemptEnd, Cell>> = {};

  constructor({ method, taskQueue, child }: StepPlan, chain: string) {
    this.#labels = [method, chain, taskQueue];
    this.isChild = child !== undefined;
    this.attempts = metrics.attempts.at(...this.#labels);
    this.retries = metrics.retries.at(...this.#labels);
    this.execution = metrics.execution.at(method, taskQueue);
    this.scheduleToStart = metrics.scheduleToStart.at(method, taskQueue);
  }

  ended(status: StepStatus): Cell {
    this.#ended[status] ??= metrics.stepsEnded.at(wordOf(StepStatus[status], "STEP_STATUS_"), ...this.#labels);
    return this.#ended[status];
  }

  item(status: "succeeded" | "failed"): Cell {
    this.#items[status] ??= metrics.itemsEnded.at(status, ...this.#labels);
    return this.#items[status];
  }

  attemptEnded(outcome: AttemptEnd): Cell {
    this.#attemptsEnded[outcome] ??= metrics.attemptsEnded.at(outcome, ...this.#labels);
    return this.#attemptsEnded[outcome];
  }
}

const wordOf = (name: string, prefix: string): string => name.replace(prefix, "").toLowerCase();

const stepEnds: Partial<Record<EventKind, StepStatus>> = {
  [EventKind.EVENT_KIND_STEP_SUCCEEDED]: StepStatus.STEP_STATUS_SUCCEEDED,
  [EventKind.EVENT_KIND_STEP_FAILED]: StepStatus.STEP_STATUS_FAILED,
  [EventKind.EVENT_KIND_STEP_EXPIRED]: StepStatus.STEP_STATUS_EXPIRED,
  [EventKind.EVENT_KIND_STEP_CANCELLED]: StepStatus.STEP_STATUS_CANCELLED,
};

/** How a record ends an attempt; those that are reported say how long it took. */
const attemptEnds: Partial<Record<EventKind, AttemptEnd>> = {
  [EventKind.EVENT_KIND_STEP_SUCCEEDED]: "succeeded",
  [EventKind.EVENT_KIND_ITEM_SUCCEEDED]: "succeeded",
  [EventKind.EVENT_KIND_STEP_ROUND]: "succeeded",
  [EventKind.EVENT_KIND_ATTEMPT_FAILED]: "failed",
  [EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT]: "timed_out",
  [EventKind.EVENT_KIND_ATTEMPT_LOST]: "lost",
  [EventKind.EVENT_KIND_STEP_CANCELLED]: "cancelled",
};

function countRecord(meters: PlanMeters, run: RunState, record: RunRecord): void {
  const { kind, step, moves, executionMs, waitedMs } = record;
  if (kind === EventKind.EVENT_KIND_RUN_ACCEPTED) meters.started.add();
  else if (kind === EventKind.EVENT_KIND_RUN_ENDED) {
    meters.ended(record.runStatus!).add();
    meters.runSeconds.record((run.endedAtMs - run.acceptedAtMs) / 1_000);
  } else if (kind === EventKind.EVENT_KIND_COMPLETION_LATE) late.add();
  // Steps that are skipped, or cancelled with their run, move along with what happened.
  for (const { step: moved, status } of moves) {
    if (status >= StepStatus.STEP_STATUS_SUCCEEDED && moved !== step) meters.step(moved).ended(status).add();
  }
  if (step < 0) return;
  const of = meters.step(step);
  const status = stepEnds[kind];
  if (status !== undefined && record.item === undefined) of.ended(status).add();
  if (kind === EventKind.EVENT_KIND_ITEM_SUCCEEDED) of.item("succeeded").add();
  if (kind === EventKind.EVENT_KIND_ITEM_FAILED) of.item("failed").add();
  const end = attemptEnds[kind];
  if (end === undefined || of.isChild) return;
  if (executionMs !== undefined) of.execution.record(executionMs / 1_000);
  else if (end !== "timed_out" && end !== "lost") return;
  if (waitedMs !== undefined) of.scheduleToStart.record(waitedMs / 1_000);
  of.attemptEnded(end).add();
}

const late = metrics.completionsLate.at();

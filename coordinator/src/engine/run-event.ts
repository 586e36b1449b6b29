/** What happens to a run (events), what `advance` answers (records and effects), and what it may ask for (context). */
import type { EventKind, Failure } from "@taskmesh/proto";
import type { AssignmentTerms, StepPlan, Value } from "./plan.js";
import type { RunState, RunStatus, StepStatus } from "./run-state.js";

/** Names the attempt that a report is about. */
export interface Report {
  stepId: string;
  item: number;
  attempt: number;
  lease: string;
}

export type Outcome =
  | { kind: "output"; value: Value }
  | { kind: "failure"; failure: Failure }
  | { kind: "cancelled"; message: string };

/** What an evaluation off the engine found for a step, or for the chain's output (`stepId` ""). */
export type Evaluation =
  /** Items of a fan-out, from the index `from` on. */
  | { kind: "items"; from: number; total: number; items: { key?: string; input: Value | Failure }[] }
  | { kind: "skip" }
  | { kind: "value"; value: Value }
  | { kind: "failed"; failure: Failure };

export type RunEvent =
  /** A worker reports how an attempt ended. */
  | {
      kind: "complete";
      report: Report;
      outcome: Outcome;
      executionMs: number;
      session: string;
      /** It left a checkpoint, which is stored. */
      checkpointed?: true;
    }
  /** A beat lists an attempt. */
  | {
      kind: "bind";
      report: Report;
      session: string;
      startedAtMs: number;
      sinceReportMs: number;
      /** It has a checkpoint, which is stored once this is decided. */
      checkpointed?: true;
      /** Time that the handler asks for in all, counted from the attempt's start. */
      startToCloseMs?: number;
    }
  /** A bound attempt's worker is gone or no longer runs it. */
  | { kind: "lose"; report: Report; why: string }
  /** A start that may have been delivered before asks to run. */
  | { kind: "claim"; report: Report; session: string }
  /** Starts that may never arrive are published again under new leases: the one of `report`, or every unbound one dispatched before `beforeMs`. */
  | {
      kind: "redispatch";
      report?: Report;
      beforeMs?: number;
      why: string /** only messages were lost: what happens without the carrier goes on */;
      startsOnly?: true;
    }
  /** A lane may have room for a step of the ready queue. */
  | { kind: "admit"; step: number; item?: number }
  | { kind: "evaluated"; stepId: string; evaluation: Evaluation }
  | ({ kind: "cancel"; reason: string } & Partial<Pick<OperateEvent, "by" | "id">>)
  /** A person does something with an assignment. */
  | { kind: "assignment"; stepId: string; person: string; act: AssignmentAct }
  /** Somebody sends a message; `key` tells a repetition, "" asks for no such thing. */
  | { kind: "message"; mailbox: string; name: string; key: string; value: Value }
  /** The run that an attempt is has ended; `refused`: it could not even begin, and never can. */
  | {
      kind: "child-ended";
      stepId: string;
      item?: number;
      childId: string;
      status: RunStatus;
      output?: Value;
      failure?: Failure;
      refused?: true;
    }
  /** Something may be due. */
  | { kind: "wake" }
  | OperateEvent;

/** What people do to runs beside cancelling them. */
export type Operation =
  | { kind: "pause" }
  | { kind: "resume" }
  /** Ends the run at once, without grace. */
  | { kind: "terminate" }
  | {
      kind: "update";
      priority?: number;
      setLabels?: Readonly<Record<string, string>>;
      removeLabels?: readonly string[];
    }
  /** Steps that broke the run get new attempts; none named: all of them. `input` stands in for what the expressions give. */
  | { kind: "retry"; steps: readonly string[]; input?: Value }
  /** The step counts as done, with this output or without one. */
  | { kind: "skip"; step: string; output?: Value }
  /** Another run goes on in this one's place; `hash` is of what was asked for, by which a repetition is known. */
  | { kind: "replace"; successor: string; hash: string; terminate: boolean };

/** `by` and `reason` are for the history; `id` names a bulk operation. */
export interface OperateEvent {
  kind: "operate";
  operation: Operation;
  by: string;
  reason: string;
  id?: string;
}

export type AssignmentAct =
  | { kind: "claim" | "release" }
  | { kind: "comment"; text: string }
  | { kind: "complete"; value: Value };

/** A change of a step that goes along with an event. */
export interface Move {
  step: number;
  status: StepStatus;
  attempt: number;
  retryAtMs?: number;
}

/** One history row. `seq` is the run's. */
export interface RunRecord {
  seq: number;
  kind: EventKind;
  /** Step index; -1: about the run. */
  step: number;
  /** Of a fan-out step: the item, where the record is about one. */
  item?: number;
  attempt: number;
  moves: Move[];
  payload?: Value;
  failure?: Failure;
  session?: string;
  executionMs?: number;
  /** How long the attempt waited for its start; for the metrics, not stored. */
  waitedMs?: number;
  runStatus?: RunStatus;
  note?: string;
  /** Who asked for it. */
  by?: string;
  /** The run that this one goes on from, or that goes on in its place. */
  other?: string;
}

/** What must happen because of an event. Rows (ready, bind) are written in the same commit; the rest is done after it. */
export type Effect =
  | {
      kind: "dispatch";
      /** The callable that the run is of. */
      runMethod: string;
      step: StepPlan;
      attempt: number;
      lease: string;
      input: Value /** handed to a claimer instead of a lane */;
      claimed: boolean;
      item?: number;
      /** An earlier attempt may have left a checkpoint: it goes along. */
      resume?: true;
    }
  | { kind: "evaluate"; stepId: string }
  | { kind: "enqueue"; step: StepPlan; item?: number; atMs: number; priority: number }
  | { kind: "dequeue"; step: StepPlan; item?: number }
  | {
      kind: "bind";
      step: StepPlan;
      item?: number;
      attempt: number;
      lease: string;
      session: string;
      startedAtMs: number;
    }
  | { kind: "unbind"; step: StepPlan; item?: number }
  /** The lease is no longer current: its place in the lane's window is free. */
  | { kind: "free"; lease: string }
  /** Rows for the inbox; see store/assignments.ts. */
  | { kind: "assign"; step: StepPlan; terms: AssignmentTerms; openedAtMs: number; dueAtMs: number }
  | { kind: "unassign"; step: StepPlan }
  | { kind: "take"; step: StepPlan; person: string }
  | { kind: "give-back"; step: StepPlan }
  | { kind: "ended" }
  /** A run is to begin as an attempt of the step; `again`: it may have begun. */
  | {
      kind: "start-child";
      step: StepPlan;
      item?: number;
      childId: string;
      attempt: number;
      input: Value;
      deadlineAtMs: number;
      depth: number;
      again: boolean;
    }
  | { kind: "cancel-child"; step: StepPlan; childId: string }
  /** Children of items that are over may not have been asked to stop: whoever asked may have died. The history knows them. */
  | { kind: "settle-children"; step: StepPlan }
  /** The run has ended, and the step that started it must hear so. */
  | { kind: "tell-parent"; output?: Value }
  /** The run's caller is answered while the run goes on. */
  | { kind: "answered" }
  /** The columns `priority` and `labels` follow the run. */
  | { kind: "columns" }
  /** The run has broken at this step, for this reason: whoever waits is told, and it is listed. */
  | { kind: "broken"; step: StepPlan; reason: string }
  /** The run is BROKEN no more. */
  | { kind: "mended" }
  /** The results of a fan-out's items become this run's: so many rows, numbered from behind `afterSeq`. */
  | { kind: "copy-items"; runId: string; from: number; step: number; afterSeq: number; items: number };

/**
 * changed: the run differs and must be stored. unchanged: the event makes no sense now, and `why` says why.
 * A verdict of unchanged that was reached on a cached run must be reached again on a fresh read before it counts.
 */
export interface Advance {
  verdict: "changed" | "unchanged";
  why: Unchanged;
  run: RunState;
  records: RunRecord[];
  effects: Effect[];
  /** Items that are to be stored as they are now, or deleted where they are gone. */
  items?: ItemChange[];
}

/** An item that an event changed; `opened`: it has no row yet. */
export interface ItemChange {
  step: number;
  item: number;
  opened: boolean;
}

export type Unchanged =
  | "none"
  | "run-ended"
  | "unknown-step"
  | "stale-lease"
  | "duplicate"
  | "already-bound"
  | "cancelling"
  | "not-ready"
  | "no-room"
  | "not-awaited"
  | "claimed"
  | "mailbox-full"
  | "not-due"
  /** The run is as it was asked to be. */
  | "already"
  /** The bulk operation was applied before. */
  | "applied"
  | "not-broken"
  /** The step did not break the run. */
  | "step-not-broken"
  /** Others read the step's output without asking whether there is one. */
  | "output-needed"
  | "too-many-labels";

/** All that is not in the run: time, chance and room, given by the caller so that `advance` stays a function. */
export interface Context {
  /** The mesh's clock; the run's own time never goes back behind it. */
  nowMs: number;
  /** A random token that was never given before. */
  lease(): string;
  /** A run id that was never given before. */
  childId(): string;
  /** Uniform in [0, 1). */
  random(): number;
  /** Takes one place in a lane that serves the callee, under `lease`; false: none is free, no live worker serves it, or others wait (unless `fromQueue`). */
  admit(step: StepPlan, lease: string, fromQueue: boolean): boolean;
}

/**
 * The doors of the pipeline: what the rpc services ask of it (`Intake`), and what it asks of the registry (`Catalogue`, `Plans`).
 * Every Intake promise settles after the commit that made it true, or rejects with a StatusError.
 */
import type { JsonValue } from "@bufbuild/protobuf";
import type { ChainSpec, Failure, StartStep } from "@taskmesh/proto";
import type { Lane } from "@taskmesh/runtime";
import type { ChainPlan, Value } from "../engine/plan.js";
import type { AssignmentAct, OperateEvent } from "../engine/run-event.js";
import type { Origin, ParentRef } from "../engine/run-state.js";

/** Names one attempt; `lease` fences it. */
export interface AttemptRef {
  runId: string;
  stepId: string;
  item: number;
  attempt: number;
  lease: string;
}

/** What a handler said of its attempt. */
export interface HandlerReport {
  /** 0 to 100. */
  percent: number;
  message: string;
  /** An encoded google.protobuf.Any for the next attempt. */
  checkpoint?: Uint8Array;
}

/** A run to accept; input, key and labels are checked by the caller. */
export interface StartCommand {
  namespaceId: number;
  namespace: string;
  plan: ChainPlan;
  input: Value;
  idempotencyKey?: string;
  labels: Readonly<Record<string, string>>;
  priority: number;
  timeoutMs?: number;
  startAtMs?: number;
  /** The run ends by then, whatever its time-out. */
  deadlineAtMs?: number;
  /** The step that starts it. */
  parent?: ParentRef;
  /** W3C trace context of the caller. */
  trace?: Record<string, string>;
  /** Sent to the run as it is accepted; to the run that the key had started, where there is one. */
  message?: Message;
  /** Of `Intake.newRunId`; default: a new one. */
  runId?: string;
  /** Who starts it. */
  starter?: string;
  /** The id that the caller chose for it. */
  customId?: CustomId;
  /** The run that it is made from, or whose place it takes. */
  from?: MadeFrom;
  /** Roughly what it takes over from that. */
  keptBytes?: number;
}

/** A custom id, as one try of a start asks for it. */
export interface CustomId {
  name: string;
  /** While a run that has not ended has it. */
  conflict: "fail" | "use" | "terminate";
  /** When the run that had it last has ended. */
  reuse: "allow" | "if-failed" | "reject";
  /** The run that has it, and is to lose it; undefined: none. */
  holder?: string;
  /** Of what is asked for under the caller's key, by which a repetition is known. */
  requestHash?: Uint8Array;
}

/** Names the run that a new one is made from (successors.ts). */
export interface MadeFrom {
  runId: string;
  kind: Origin["kind"];
  /** Of a restart: the first step that is done anew, "" for all. */
  stepId: string;
  /** The run ends at once, rather than being cancelled. */
  terminate: boolean;
  /** Of what is asked for: the same again is a repetition. */
  hash: string;
  by: string;
  reason: string;
  /** The bulk operation that asks for it. */
  operation?: string;
}

/** What somebody sends to a run for one of its waiting steps. */
export interface Message {
  mailbox: string;
  /** For people. */
  name: string;
  /** By which a repetition is known; "": each is new. */
  key: string;
  value: Value;
  /** It answers the callback step of that index, rather than being a signal. */
  callback?: number;
}

/** current: bound (or was already); cancelling: bound, but its run was cancelled; stale: superseded or ended, drop it. */
export type BindVerdict = "current" | "cancelling" | "stale";

/** unchanged: the run was so already. */
export type Operated = "changed" | "unchanged";

export interface Intake {
  /** The id of a run to come, for who has to know it before the run begins. */
  newRunId(): string;
  /**
   * Accepts a run. Rejects: ALREADY_EXISTS / IDEMPOTENCY_KEY_REUSED, CUSTOM_ID_TAKEN, CUSTOM_ID_USED, UNAVAILABLE, RESOURCE_EXHAUSTED /
   * OVERLOADED; one that is made from another run also NOT_FOUND / RUN_NOT_FOUND, FAILED_PRECONDITION / RUN_ENDED, RUN_UNDER_WAY,
   * RUN_HAS_PARENT, RUN_CANCELLING, RESTART_UNFIT.
   */
  startRun(command: StartCommand): Promise<{ runId: string; existing: boolean }>;
  /** Rejects: NOT_FOUND / RUN_NOT_FOUND, FAILED_PRECONDITION / RUN_ENDED. */
  cancelRun(namespaceId: number, runId: string, reason: string, more?: { by?: string; id?: string }): Promise<Operated>;
  /**
   * Pauses, resumes, terminates, changes, mends. Rejects: NOT_FOUND / RUN_NOT_FOUND, STEP_NOT_FOUND, FAILED_PRECONDITION / RUN_ENDED,
   * RUN_CANCELLING, RUN_NOT_BROKEN, STEP_NOT_BROKEN, INVALID_ARGUMENT / OUTPUT_NEEDED.
   */
  operate(namespaceId: number, runId: string, event: OperateEvent): Promise<Operated>;
  /**
   * Sends a message. Rejects: NOT_FOUND / RUN_NOT_FOUND, SIGNAL_UNKNOWN, FAILED_PRECONDITION / RUN_ENDED, SIGNAL_NOT_AWAITED,
   * RESOURCE_EXHAUSTED / SIGNALS_FULL; for a callback ALREADY_EXISTS / CALLBACK_USED, FAILED_PRECONDITION / CALLBACK_CLOSED.
   */
  send(namespaceId: number, runId: string, message: Message): Promise<{ delivered: boolean; existing: boolean }>;
  /**
   * Does something with the assignment of a step. Rejects: NOT_FOUND / RUN_NOT_FOUND, ASSIGNMENT_NOT_FOUND, FAILED_PRECONDITION /
   * ASSIGNMENT_CLAIMED.
   */
  assignment(
    namespaceId: number,
    runId: string,
    about: { stepId: string; person: string; act: AssignmentAct },
  ): Promise<void>;
  /**
   * A beat lists this attempt: record that the session runs it, what its handler reported anew, and how long it asks to run in all (milliseconds
   * from its start; 0: it asks for nothing). Rejects if that can't be stored now.
   */
  bind(
    ref: AttemptRef,
    sessionId: string,
    startedAtMs: number,
    sinceReportMs: number,
    report?: HandlerReport,
    startToCloseMs?: number,
  ): Promise<BindVerdict>;
  /** A bound attempt is no longer run by its session (lapsed, or unlisted): give it a new lease or end the step. */
  lose(ref: AttemptRef, why: string): Promise<void>;
  /** A redelivered or exclusive start asks to run. */
  claim(ref: AttemptRef, sessionId: string): Promise<{ start: StartStep } | { drop: string }>;
}

export interface LaneState {
  lane: Lane;
  /** Attempts that this coordinator may have dispatched and not over on the lane: its share of 2 x the live slots. */
  window: number;
  /** Starts that may share a message on the lane: its smallest worker takes so many at once. */
  packMax: number;
  /** Where the step goes if the lane has no room. Default: nowhere, it waits for room. */
  otherwise?: LaneState;
  /** What makes inputs of other revisions, "method@fingerprint", such as its workers know. Absent: they take all of them as they are. */
  upcasts?: ReadonlyMap<string, ChainPlan>;
  /** To be called when a step was given a place in the lane. Absent: nobody counts. */
  admitted?: () => void;
}

/** The live registry as this coordinator sees it; answers from memory. */
export interface Catalogue {
  /** Where a step of this callee goes now; undefined: no live worker serves it. */
  laneFor(target: { namespaceId: number; taskQueue: string; method: string; contract: string }): LaneState | undefined;
  /** What makes the input of a callee one for the workers of a session; undefined: they take it as it is. Absent: they all do. */
  upcastFor?(sessionId: string, namespaceId: number, callee: string): Promise<ChainPlan | undefined> | undefined;
  /** Every lane with live slots, to refill from the ready queue, with the callees it can serve. */
  liveLanes(): { namespaceId: number; taskQueue: string; state: LaneState; contracts: readonly string[] }[];
  /** Called after lanes or slots changed. */
  onChange(listener: () => void): void;
  /** Ids of the coordinators that are live, this one included. */
  coordinators(): readonly string[];
}

/** Compiled chains and lone actions. */
export interface Plans {
  /** What a new run of the callable uses; undefined: no such method in the namespace. */
  current(namespaceId: number, method: string): Promise<ChainPlan | undefined>;
  /** What an accepted run is pinned to; kept for ever. */
  pinned(namespaceId: number, method: string, version: number, contract: string): Promise<ChainPlan>;
}

/** What a launching step's input asks for. */
export interface LaunchRequest {
  kind: "action" | "chain";
  /** Name of the callable; "" where the chain is given as data. */
  method: string;
  /** A chain file's text, or a ChainSpec. */
  given?: string | ChainSpec;
  /** Input of the run, as JSON. */
  input: JsonValue;
  labels: Readonly<Record<string, string>>;
  timeoutMs?: number;
  /** The step ends when the run has begun. */
  detached: boolean;
}

/** What runs, once the request was found to be right. */
export interface Launch {
  plan: ChainPlan;
  input: Value;
}

/** Launches: finds what a step names at run time, checks its input, and makes the step's output of the run's. */
export interface Launcher {
  /** Reads the input of a launching step. Rejects where that can't be read now. */
  read(namespaceId: number, kind: "action" | "chain", input: Value): Promise<LaunchRequest>;
  /** What is to run. Answers the failure of a request that can never be fulfilled; rejects where it can't be known now. */
  prepare(namespaceId: number, request: LaunchRequest): Promise<Launch | { failure: Failure }>;
  /** The output of a launching step, whose run has ended with `output`, or goes on without the step (undefined). */
  answer(namespaceId: number, runId: string, output: Value | undefined): Promise<Value | { failure: Failure }>;
}

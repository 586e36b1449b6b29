/**
 * The state of a run, as small as decisions need it: the run row is a header, values live in history rows.
 *
 *   run    RUNNING ──► SUCCEEDED | FAILED | CANCELLED | EXPIRED      (final, immutable)
 *          RUNNING ◄─► PAUSED | BROKEN      (held: nothing new starts, what runs may end; hold.ts, broken.ts)
 *
 *   step   PENDING ─► READY ─► DISPATCHED ─► RUNNING ─► SUCCEEDED
 *             │         ▲          │            │    └─► FAILED | EXPIRED
 *             │         └─RETRYING◄┴────────────┘
 *             ├─► WAITING (its input is being evaluated) ─► READY | DISPATCHED
 *             ├─► WAITING (for an instant or a message, see waits.ts) ─► SUCCEEDED | EXPIRED
 *             └─► SKIPPED | CANCELLED
 *
 * E1. A lease is current from its dispatch until it is superseded or its step ends; a step has at most one.
 * E2. A report that does not carry the current lease changes no step.
 * E3. `attempt` counts leases given and only grows; `failures` counts attempts that failed; `lost` those whose worker vanished.
 * E4. A final step never changes, unless an operator mends a BROKEN run by it; a final run changes nothing and accepts nothing.
 * E5. Every state of a live run has a deadline: `wakeupAtMs` is never later than the earliest.
 * E6. After a cancel was asked for nothing is dispatched any more and no success is recorded, undos (compensation.ts) excepted.
 * E7. While a run is held no step is begun or dispatched.
 */
import { type Failure, RunStatus, StepStatus } from "@taskmesh/proto";
import type { ItemMap } from "./item-map.js";
import type { Value } from "./plan.js";

export { RunStatus, StepStatus };

export interface StepState {
  status: StepStatus;
  /** Number of the newest attempt, 0: none yet. */
  attempt: number;
  /** The current lease, or that of the last report; empty when its holder never reported. */
  lease: string;
  failures: number;
  lost: number;
  /** When the step first became ready: the start of schedule_to_close and of the retry budget. */
  readyAtMs: number;
  /** When the newest attempt became ready or its start was sent again: the start of schedule_to_start. */
  attemptAtMs: number;
  /** When the handler started, once the attempt is bound. */
  startedAtMs: number;
  /** Session that runs the bound attempt. */
  session: string;
  /** While RETRYING: when the next attempt is due. */
  retryAtMs: number;
  endedAtMs: number;
  /** Late reports that were recorded. */
  late: number;
  /** The input, where it was evaluated off the engine and stored. */
  input?: Value;
  /** A fan-out step whose items are open, or over. */
  each?: EachState;
  /** An item of a fan-out over a map: its key. */
  key?: string;
  /** An attempt has reported a checkpoint: the next one is given it. */
  checkpointed?: true;
  /** The handler of the newest attempt has asked for more than the plan's start_to_close: what it may take in all. */
  extendedMs?: number;
  /** Of a step that begins with the first of several: the one that it began with. */
  via?: number;
  /** Of a step that repeats: rounds that are over. */
  rounds?: number;
  /** Of a step that asks people: escalations that have happened. */
  level?: number;
  /** While the step WAITs for what ends it; absent while its input is being evaluated. */
  wait?: WaitState;
}

/** Of a step that waits for something that no worker does. */
export interface WaitState {
  /** When it ends by itself; 0: it does not. */
  endsAtMs: number;
  /** The person who has claimed the assignment. */
  claimedBy?: string;
}

/**
 * What the header keeps of a fan-out. Items below `next` are open: those that are not over are in `RunState.items`, and nothing else of
 * an item is kept in memory.
 */
export interface EachState {
  total: number;
  /** Items below it were opened. */
  next: number;
  /** Items below it were started. */
  started: number;
  succeeded: number;
  failed: number;
  /** Of the outputs together. */
  bytes: number;
  /** The inputs of further items are being bound. */
  opening: boolean;
  /** The lease that was given last, so that no two commits of different outcome leave equal headers. */
  mark: string;
}

export interface RunState {
  readonly id: string;
  readonly namespaceId: number;
  readonly namespace: string;
  readonly acceptedAtMs: number;
  /** Moved by `extraMs` from what the run was accepted with. */
  deadlineAtMs: number;
  priority: number;
  labels: Readonly<Record<string, string>>;
  /** W3C trace context of the caller. */
  readonly trace?: Readonly<Record<string, string>>;
  status: RunStatus;
  /** Compare-and-set value of the stored row. */
  version: number;
  lastSeq: number;
  /** Newest instant that the run has seen; time never goes back for it. */
  nowMs: number;
  /** When the sweeper looks at the run, 0 when it has ended. */
  wakeupAtMs: number;
  endedAtMs: number;
  steps: StepState[];
  /** The output is being evaluated off the engine. */
  evaluatingOutput: boolean;
  /** A cancel was asked for; in-flight attempts may report CANCELLED until `graceUntilMs`. */
  cancel?: { reason: string; graceUntilMs: number };
  failure?: Failure;
  /** Absent until the first one comes. */
  messages?: Messages;
  /** Nothing of the run starts before; absent once it may. */
  startAtMs?: number;
  /** Its time counts from its first start, 0 until there was one; absent where it counts from the acceptance. */
  timed?: { readonly timeoutMs: number; readonly startedAtMs: number };
  /** What tokens of the run are made with (contracts/callback-token.ts); absent where its chain hands out none. */
  secret?: string;
  /** Time that did not count for the run's deadline; absent: none. */
  extraMs?: number;
  /** While BROKEN. `paused`: it was PAUSED before, and will be again. */
  broken?: { sinceMs: number; untilMs: number; steps: readonly number[]; paused?: true };
  /** Indexes of the steps that succeeded and can be undone, in the order in which they did; absent: none. */
  done?: readonly number[];
  /** While the run undoes what it has done: what it ends with; and the undos that failed, also afterwards. */
  undo?: { status: RunStatus; failure?: Failure; failures: readonly { step: number; failure: Failure }[] };
  /** Index of the step that has answered the run's caller. */
  answered?: number;
  /** The newest bulk operation that was applied to the run: each is applied once. */
  operation?: string;
  /** By step index: failures whose fallback value is being evaluated off the engine. */
  catching?: Readonly<Record<number, Failure>>;
  readonly input: Value;
  /** The step that started this run; absent: nobody's. */
  readonly parent?: ParentRef;
  /** The run that this one was made from. */
  readonly origin?: Origin;
  /** The run that goes on in this one's place; `hash` is of what was asked for. */
  successor?: { readonly runId: string; readonly hash: string };
  /** The id that its starter chose. */
  readonly customId?: string;
  /** Who started it, or the run above it. */
  readonly starter?: string;
  /** How the run ends is decided; it only waits for children that are to end before it. */
  closing?: { status: RunStatus; failure?: Failure };
  /** By step index, for steps that succeeded. */
  outputs: (Value | undefined)[];
  /** By step index, for fan-outs under way; absent: there are none. */
  items?: ReadonlyMap<number, ItemMap>;
}

/** A message for a step that does not wait yet. */
export interface KeptMessage {
  mailbox: string;
  key: string;
  /** Of the history row that holds its value. */
  seq: number;
  value: Value;
}

/** What was sent to the run by others than its workers. */
export interface Messages {
  /** Not taken yet, oldest first. */
  readonly kept: readonly KeptMessage[];
  /** Keys of the newest ones, by which a repetition is known. */
  readonly keys: readonly string[];
  /** Steps whose signals are answered, with the key of what each took and the step that has answered it. */
  readonly taken?: readonly (readonly [step: number, key: string, by?: number])[];
}

/** Messages kept for steps that do not wait yet: what nobody fetches must not grow a run without bound. */
export const keptMax = 64;
/** Keys remembered: a repetition comes soon after the original, and each costs the header some 15 bytes. */
export const keysMax = 256;

/** The step that a run is an attempt of. */
export interface ParentRef {
  runId: string;
  stepId: string;
  /** Number of runs above. */
  depth: number;
  /** The step launched it by name: its output goes up as JSON. */
  launched?: true;
  /** The step is over as soon as the run has begun, whatever becomes of that. */
  detached?: true;
  /** Of a fan-out: the item whose attempt the run is; absent: the first, or no fan-out's. */
  item?: number;
}

/** What a run was made from. */
export interface Origin {
  runId: string;
  kind: "restart" | "clone" | "custom-id";
  /** Of a restart: the first step that was done anew, "" for all. */
  stepId?: string;
}
/** The state of a step, or of the item of a fan-out step; undefined: the item is over or not open. */
export const stateOf = (run: RunState, step: number, item: number): StepState | undefined =>
  run.steps[step]?.each || run.items?.has(step) ? run.items?.get(step)?.get(item) : run.steps[step];

/** Whether any step, or the item of that index of any fan-out, is so. */
export const someState = (run: RunState, item: number, is: (state: StepState) => boolean): boolean =>
  run.steps.some(is) || [...(run.items?.values() ?? [])].some((items) => items.has(item) && is(items.get(item)!));

/** How long a run whose time counts from its first start may be without one: it must end though no worker ever comes. */
export const unstartedMsMax = 30 * 24 * 3_600_000;
/** How long attempts may clean up after a cancel. */
export const cancelGraceMs = 10_000;
/** Attempts of one step that may be lost with their worker before it fails: a step that kills workers must end. */
export const lostMax = 3;
/** Late reports recorded per step; further ones are only counted. */
export const lateMax = 8;
/** What the coordinator waits beyond start_to_close for the worker's own report of the time-out. */
export const timeoutGraceMs = 5_000;

export const pendingStep = (): StepState => ({
  status: StepStatus.STEP_STATUS_PENDING,
  attempt: 0,
  lease: "",
  failures: 0,
  lost: 0,
  readyAtMs: 0,
  attemptAtMs: 0,
  startedAtMs: 0,
  session: "",
  retryAtMs: 0,
  endedAtMs: 0,
  late: 0,
});

/** Whether the run waits for somebody: nothing new of it starts. */
export const isHeld = (status: RunStatus): boolean =>
  status === RunStatus.RUN_STATUS_PAUSED || status === RunStatus.RUN_STATUS_BROKEN;

/** Whether the run has ended. */
export const isFinal = (status: RunStatus): boolean => status >= RunStatus.RUN_STATUS_SUCCEEDED;

/** Whether the step has ended. */
export const isOver = (status: StepStatus): boolean => status >= StepStatus.STEP_STATUS_SUCCEEDED;

/** Whether a worker may hold the step's current lease. */
export const inFlight = (status: StepStatus): boolean =>
  status === StepStatus.STEP_STATUS_DISPATCHED || status === StepStatus.STEP_STATUS_RUNNING;

/** Whether the step's condition or input is being evaluated off the engine. */
export const isEvaluating = (step: StepState): boolean =>
  step.status === StepStatus.STEP_STATUS_WAITING && step.wait === undefined;

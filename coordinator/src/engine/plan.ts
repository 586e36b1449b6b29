/**
 * What the engine needs to know of a chain: a compiled, immutable ChainSpec. contracts/ makes plans; the engine only calls them.
 *
 * A plan is pure: its functions depend on their arguments alone, never block, and never throw. Work that is not bounded, or that needs
 * a payload which is not in memory, is refused with `deferred`; the pipeline then evaluates it off the event loop and feeds the result back.
 */
import type { Failure } from "@taskmesh/proto";

/** A message by value or by reference. `bytes` is absent when it is stored elsewhere. */
export interface Value {
  /** Fingerprint of the contract revision that it was written with. */
  contract: string;
  sizeBytes: number;
  sha256: Uint8Array;
  bytes?: Uint8Array;
  reference?: string;
}

/** What expressions read. */
export interface Scope {
  run: { id: string; namespace: string; method: string; acceptedAtMs: number; secret?: string };
  input: Value;
  /** By step index; undefined: not run yet, skipped or failed. */
  outputs: readonly (Value | undefined)[];
  /** The item that a fan-out's input is bound for. */
  each?: EachScope;
  /** Of a run that stands for an item: the index of that item, behind those of the items around it. */
  above?: readonly number[];
  /** Items of a fan-out that are to be undone: how many there are, and the next of them, the newest first. */
  undone?: { total: number; items: readonly { index: number; output: Value }[] };
  /** What is decoded once for many items. */
  memo?: Map<object, unknown>;
  /** What went wrong, for expressions that answer a failure. */
  error?: Failure;
}

/** The item of a fan-out, as expressions read it. */
export interface EachScope {
  value: unknown;
  index: number;
  key?: string;
  /** Of a fan-out within another one: the item around it. */
  outer?: EachScope;
  /** What it has put out, where it is over. */
  output?: Value;
}

/** A mistake that an expression makes at run time (division by zero, missing key); final. */
export interface EvaluationError {
  reason: "EXPRESSION_FAILED";
  message: string;
}

export type Evaluated<T> =
  | { kind: "value"; value: T }
  | { kind: "failed"; error: EvaluationError }
  | { kind: "deferred" };

/** A delay before each retry, times in milliseconds. attempt: the one that failed, from 1. */
export interface RetryPlan {
  kind: "fixed" | "linear" | "exponential";
  initialMs: number;
  incrementMs: number;
  factor: number;
  capMs: number;
  /** 0..1 */
  jitter: number;
  attemptsMax: number;
  budgetMs?: number;
  nonRetryable: readonly string[];
}

/** What happens to a failure of a step that nothing else can mend. */
export interface CatchPlan {
  /** Reasons that it is for; empty: any. */
  reasons: readonly string[];
  /** The encoded output that the step has instead; absent: it has none. */
  bindOutput?: (scope: Scope) => Evaluated<Uint8Array>;
}

export interface StepPlan {
  index: number;
  id: string;
  /** Full method name of the callee. */
  method: string;
  /** Fingerprint of the callee's pinned contract revision. */
  contract: string;
  taskQueue: string;
  /** Indexes of the steps that must be over before this one. */
  needs: readonly number[];
  /** Indexes of the steps that need this one. */
  neededBy: readonly number[];
  priority?: number;
  retry: RetryPlan;
  scheduleToStartMs?: number;
  startToCloseMs: number;
  heartbeatMs?: number;
  scheduleToCloseMs?: number;
  exclusive: boolean;
  /** Whether the step runs; absent: always. */
  condition?: (scope: Scope) => Evaluated<boolean>;
  /** The callee's encoded input message. */
  bindInput: (scope: Scope) => Evaluated<Uint8Array>;
  /** Why `bytes` is no valid output of the callee, undefined if it is. */
  checkOutput: (bytes: Uint8Array) => string | undefined;
  /** The callee is a chain: each attempt is a run of its own. */
  child?: ChildPlan;
  /** The step does not wait for all that it needs. */
  join?: JoinPlan;
  /** The step is on a branch of a join that takes the first success. */
  race?: RacePlan;
  /** The step begins with an escalation of the step `of`, the `level`th; otherwise it is skipped. */
  escalation?: { of: number; level: number };
  /** The step calls again until a condition holds. */
  repeat?: RepeatPlan;
  /** Whoever reads the output asks first whether there is one. */
  mayBeUnset?: boolean;
  /** In order: the first that is for the reason counts. */
  catches?: readonly CatchPlan[];
  /** Index of the step that undoes this one. */
  undo?: number;
  /** Index of the step that this one undoes: it is no step of the chain's own (compensation.ts). */
  undoes?: number;
  /** The step waits instead of calling: it has no attempts, and its input says what it waits for. */
  wait?: WaitPlan;
  /** The step is a fan-out; `bindInput` then wants a scope with an item. */
  each?: EachPlan;
}

/** What a fan-out goes over, and how. */
export interface EachPlan {
  kind: "list" | "map";
  parallelMax: number;
  /** Items that may fail: the larger of both. */
  toleratedCount: number;
  toleratedShare: number;
  /** The inputs of the items from `from` on: as many as fit into a commit. */
  open: (scope: Scope, from: number) => Evaluated<OpenedItems>;
}

/** Items whose inputs are bound, in order. */
export interface OpenedItems {
  /** Of the whole fan-out. */
  total: number;
  items: { key?: string; input: Exclude<Evaluated<Uint8Array>, { kind: "deferred" }> }[];
}

/** A step that begins when one of these steps has succeeded, or all are over; of the rest of its needs all must be over. */
export interface JoinPlan {
  of: readonly number[];
  /** The others are not wanted any more then, and their failures are no one's. */
  cancelsOthers: boolean;
}

/** Where a step stands in a race. */
export interface RacePlan {
  /** The step that takes the first success. */
  join: number;
  /** The step that the join waits for at the end of this branch. */
  end: number;
}

export interface RepeatPlan {
  /** Whether the rounds are over; the scope holds the newest output. */
  until: (scope: Scope) => Evaluated<boolean>;
  delayMs: number;
  roundsMax: number;
}

/** How a step keeps the run that it starts. */
export interface ChildPlan {
  /** What becomes of the child when the step lets go of it before its end. */
  onParentClose: "cancel" | "abandon" | "wait";
  /** The step launches: its input names the callable, and what kind it must be of. */
  launches?: "action" | "chain";
  /** What the runs are of, where it is no callable: what a fan-out does for each of its items (contracts/compile-inner.ts). */
  inner?: ChainPlan;
}

/** What a step asks of people. */
export interface AssignmentTerms {
  title: string;
  instructions: string;
  assignees: readonly string[];
  groups: readonly string[];
  /** Times that it was escalated; absent: none. */
  escalated?: number;
}

/** What ends a step that calls nothing. */
export type WaitPlan =
  | {
      kind: "timer";
      /** When it ends, by its encoded input, if it became ready at `readyAtMs`. */
      endsAtMs: (input: Uint8Array, readyAtMs: number) => number;
    }
  /** Ended by a message that is sent to `mailbox`, which several steps may share: each takes one. */
  /** `answered`: its sender may wait for an answer. */
  | { kind: "signal"; mailbox: string; answered?: true }
  /** Likewise, once: by whoever was given the step's token. */
  | { kind: "callback"; mailbox: string }
  /** Over at once, with its input as its output: what its expressions say is all that it does. */
  | { kind: "choice" }
  /** Likewise; what it puts out answers whoever sent what the step `to` took, or the run's caller. */
  | { kind: "respond"; to?: number }
  /** Ended by a person; `level`: escalations that have happened. */
  | {
      kind: "human";
      read: (input: Uint8Array, level: number) => AssignmentTerms;
      escalations?: readonly EscalationPlan[];
    };

/** What happens while nobody ends the wait. */
export interface EscalationPlan {
  /** Since the step became ready. */
  afterMs: number;
  /** Others may do it from then on. */
  handsOver: boolean;
}

/** What a plan was compiled from, so that another thread can compile it too. */
export interface PlanSource {
  /** An encoded ChainSpec. */
  spec: Uint8Array;
  /** The chain's own contract and those of its callees, by full method name. */
  contracts: ReadonlyMap<string, { readonly descriptorSet: Uint8Array }>;
  publicUrl?: string;
  /** It is no chain: `spec` is an encoded Upcaster, and the contracts are those that it leads from and to. */
  upcasts?: true;
  /** Of a plan within the chain's: the ids of the steps that lead to it. */
  inner?: readonly string[];
}

/** Marks values that only the mesh reads: where a run that stands for an item stands, and the outputs of its items together. */
export const internalContract = "~";

export interface ChainPlan {
  method: string;
  /** Version of the chain; 0 for a lone action, whose plan has the one step "call". */
  version: number;
  contract: string;
  outputContract: string;
  runTimeoutMs: number;
  /** The time of a run counts from its first start rather than from its acceptance. */
  timedFromStart?: true;
  /** A failure that nothing catches breaks the run instead of failing it; it then waits for an operator for so long. */
  brokenTtlMs?: number;
  steps: readonly StepPlan[];
  /** Absent for a lone action. */
  source?: PlanSource;
  /** The encoded output message. */
  bindOutput: (scope: Scope) => Evaluated<Uint8Array>;
  /** The run stands for an item of a fan-out: its step's expressions read what that fan-out's step, in the run above, does. */
  within?: { step: number; above: () => ChainPlan };
}

/** Runs as the API shows them, made from the stored state and its history. */
import {
  type Attempt,
  type CompensationFailure,
  EventKind,
  type Failure,
  type GetRunResponse,
  type Progress,
  type Run,
  type RunEvent,
  type RunOrigin,
  RunOriginKind,
  RunStatus,
  type Step,
  StepStatus,
  type Timestamp,
} from "@taskmesh/proto";
import { isIdleUndo, isUndoing } from "../engine/compensation.js";
import { seenBy } from "../engine/joins.js";
import { type ChainPlan, internalContract, type Scope, type StepPlan, type Value } from "../engine/plan.js";
import { isFinal, type Origin, type RunState, type StepState } from "../engine/run-state.js";
import { aboutRun, errorOf } from "../engine/turn.js";
import { toPayload } from "../pipeline/effects.js";
import type { StoredEvent } from "../store/run-reads.js";
import type { StoredRun } from "../store/runs.js";
import { itemCounts } from "./item-view.js";
import { isEstimated, percentOf } from "./run-progress.js";

/** An instant; undefined for 0, which stands for "not yet". */
export function toTimestamp(ms: number): Timestamp | undefined {
  if (ms <= 0 || !Number.isFinite(ms)) return undefined;
  const seconds = Math.floor(ms / 1000);
  return { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) };
}

type Summary = Pick<
  RunState,
  "id" | "namespace" | "status" | "priority" | "labels" | "acceptedAtMs" | "endedAtMs" | "deadlineAtMs" | "lastSeq"
> &
  Partial<
    Pick<
      RunState,
      | "failure"
      | "cancel"
      | "parent"
      | "broken"
      | "undo"
      | "origin"
      | "successor"
      | "customId"
      | "starter"
      | "startAtMs"
    >
  >;

/** The run without its steps. */
export function summarizeRun(
  run: Summary,
  pinned: Pick<StoredRun, "method" | "chainVersion" | "contract">,
  plan?: ChainPlan,
): Run {
  return {
    namespace: run.namespace,
    runId: run.id,
    method: pinned.method,
    chainVersion: pinned.chainVersion,
    contract: pinned.contract,
    status: run.status,
    failure: run.failure ?? run.undo?.failure,
    labels: { ...run.labels },
    priority: run.priority,
    acceptedAt: toTimestamp(run.acceptedAtMs),
    endedAt: toTimestamp(run.endedAtMs),
    deadlineAt: toTimestamp(run.deadlineAtMs),
    cancelRequested:
      [run.status, run.undo?.status].includes(RunStatus.RUN_STATUS_CANCELLED) || run.cancel !== undefined,
    lastSeq: BigInt(run.lastSeq),
    progress: undefined,
    parentRunId: run.parent?.runId ?? "",
    parentStepId: run.parent?.stepId ?? "",
    parentItem: run.parent?.item ?? 0,
    depth: run.parent?.depth ?? 0,
    origin: run.origin && toOrigin(run.origin),
    replacedBy: run.successor?.runId ?? "",
    successorRunIds: [],
    customId: run.customId ?? "",
    starter: run.starter ?? "",
    startAt: toTimestamp(run.startAtMs ?? 0),
    brokenSince: toTimestamp(run.broken?.sinceMs ?? 0),
    brokenUntil: toTimestamp(run.broken?.untilMs ?? 0),
    compensating: run.undo !== undefined && isUndoing({ undo: run.undo, endedAtMs: run.endedAtMs }),
    compensationFailures: plan && run.undo ? undoFailures(plan, run.undo.failures) : [],
    brokenSteps: (plan && run.broken?.steps.map((index) => plan.steps[index]!.id)) ?? [],
  };
}

const originKinds: Record<Origin["kind"], RunOriginKind> = {
  restart: RunOriginKind.RUN_ORIGIN_KIND_RESTART,
  clone: RunOriginKind.RUN_ORIGIN_KIND_CLONE,
  "custom-id": RunOriginKind.RUN_ORIGIN_KIND_CUSTOM_ID,
};

const toOrigin = ({ runId, kind, stepId = "" }: Origin): RunOrigin => ({ runId, kind: originKinds[kind], stepId });

const undoFailures = (plan: ChainPlan, failures: NonNullable<RunState["undo"]>["failures"]): CompensationFailure[] =>
  failures.map(({ step, failure }) => ({ stepId: plan.steps[plan.steps[step]!.undoes!]!.id, failure }));

/** The run with steps and attempts. */
export function describeRun(
  found: StoredRun & { plan: ChainPlan },
  events: readonly StoredEvent[],
  show: {
    output: Value | undefined;
    payloads: boolean;
    /** How far running steps are, by index. */
    progress: ReadonlyMap<number, Progress>;
    /** How runs stand that its steps started. */
    children: ReadonlyMap<string, RunStatus>;
    /** Runs that were made from it. */
    successors: readonly string[];
  },
): GetRunResponse {
  const { run, plan } = found;
  const histories = historiesOf(plan, events);
  const percent = percentOf(run.steps, plan, show.progress, isFinal(run.status));
  return {
    run: {
      ...summarizeRun(run, found, plan),
      progress: { percent, message: "", estimated: isEstimated(show.progress) },
      successorRunIds: [...show.successors],
    },
    input: show.payloads ? shown(run.input) : undefined,
    output: show.payloads && show.output ? shown(show.output) : undefined,
    steps: shownSteps(run, plan).map((step) => ({
      ...describeStep(run, plan, step, histories[step.index]!, show.payloads),
      progress: show.progress.get(step.index),
      childStatus: show.children.get(run.steps[step.index]!.lease) ?? RunStatus.RUN_STATUS_UNSPECIFIED,
    })),
  };
}

/** An undo is shown once it has begun. */
const shownSteps = ({ steps }: RunState, plan: ChainPlan): StepPlan[] =>
  plan.steps.filter((step) => !isIdleUndo(step, steps[step.index]!));

function describeStep(
  run: RunState,
  plan: ChainPlan,
  stepPlan: StepPlan,
  history: History,
  payloads: boolean,
): Omit<Step, "childStatus"> {
  const step = run.steps[stepPlan.index]!;
  const output = run.outputs[stepPlan.index];
  const input = payloads ? inputOf(run, plan, stepPlan, step) : undefined;
  return {
    stepId: stepPlan.id,
    method: stepPlan.method,
    status: step.status,
    attempt: step.attempt,
    lostAttempts: step.lost,
    input: input && toPayload(input),
    output: payloads && output && !step.each ? toPayload(writtenAs(stepPlan.contract, output)) : undefined,
    items: step.each && itemCounts(step.each, run.items?.get(stepPlan.index)?.size ?? 0),
    failure: history.failure,
    startedAt: toTimestamp(history.startedAtMs),
    endedAt: toTimestamp(step.endedAtMs),
    attempts: [...history.attempts.values()],
    retryAt: step.status === StepStatus.STEP_STATUS_RETRYING ? toTimestamp(step.retryAtMs) : undefined,
    needs: stepPlan.needs.map((need) => plan.steps[need]!.id),
    progress: undefined,
    undoes: stepPlan.undoes === undefined ? "" : plan.steps[stepPlan.undoes]!.id,
    waitUntil: toTimestamp(waitUntilMs(stepPlan, step)),
    childRunId: [...history.attempts.values()].at(-1)?.childRunId ?? "",
  };
}

/** A value as the API shows it; those that only the mesh reads are not shown. */
export const shown = (value: Value): ReturnType<typeof toPayload> =>
  value.contract === internalContract ? undefined : toPayload(value);

/**
 * A stored value with the revision that it is to be read with. Outputs are stored without one: they were checked against the revision that their
 * step is pinned to, which the pinned plan names, and a name in each row would be as long as most outputs.
 */
export const writtenAs = (contract: string, value: Value): Value =>
  value.contract === "" ? { ...value, contract } : value;

/** Inputs are not stored: they are what the expressions make of stored values, then as now. */
function inputOf(run: RunState, plan: ChainPlan, stepPlan: StepPlan, step: StepState): Value | undefined {
  if (step.input) return step.input;
  // A step that answers puts out what goes in, and its type may be that of an output alone.
  if (stepPlan.each || stepPlan.wait?.kind === "respond") return undefined;
  if (step.attempt === 0 && (!stepPlan.wait || !hasBegun(step))) return undefined;
  const scope: Scope = {
    run: aboutRun(run, plan.method),
    input: run.input,
    outputs: seenBy(stepPlan, step, run.outputs),
    ...errorOf(stepPlan, run),
  };
  const bound = stepPlan.bindInput(scope);
  if (bound.kind !== "value") return undefined;
  return { contract: stepPlan.contract, sizeBytes: bound.value.length, sha256: new Uint8Array(0), bytes: bound.value };
}

/** When a wait ends, one way or the other; 0: with the run at the latest. */
function waitUntilMs({ scheduleToCloseMs }: StepPlan, { wait, readyAtMs }: StepState): number {
  if (wait === undefined || wait.endsAtMs > 0) return wait?.endsAtMs ?? 0;
  return scheduleToCloseMs === undefined ? 0 : readyAtMs + scheduleToCloseMs;
}

/** A step without attempts has an input once it was not skipped. */
const hasBegun = ({ status, readyAtMs }: StepState): boolean =>
  readyAtMs > 0 && status !== StepStatus.STEP_STATUS_SKIPPED;

interface History {
  attempts: Map<number, Attempt>;
  failure?: Failure;
  startedAtMs: number;
}

function historiesOf(plan: ChainPlan, events: readonly StoredEvent[]): History[] {
  const histories: History[] = plan.steps.map(() => ({ attempts: new Map(), startedAtMs: 0 }));
  for (const event of events) {
    const own = histories[event.step];
    // What happened to items is shown with them.
    const ofItem = plan.steps[event.step]?.each !== undefined && !endsStep.has(event.kind);
    if (own && !ofItem) applyToAttempt(own, event);
    for (const move of event.body.moves) {
      if (move.status !== StepStatus.STEP_STATUS_DISPATCHED) continue;
      const history = histories[move.step];
      if (!history) continue;
      history.startedAtMs ||= event.atMs;
      attemptOf(history, move.attempt, event.atMs);
    }
  }
  return histories;
}

const endsStep = new Set([
  EventKind.EVENT_KIND_STEP_FAILED,
  EventKind.EVENT_KIND_STEP_EXPIRED,
  EventKind.EVENT_KIND_STEP_CAUGHT,
]);

function attemptOf(history: History, attempt: number, atMs: number): Attempt {
  const known = history.attempts.get(attempt);
  if (known) return known;
  const made: Attempt = {
    attempt,
    status: StepStatus.STEP_STATUS_DISPATCHED,
    dispatchedAt: toTimestamp(atMs),
    endedAt: undefined,
    failure: undefined,
    sessionId: "",
    executionMs: 0,
    childRunId: "",
  };
  history.attempts.set(attempt, made);
  return made;
}

const attemptEnds: Partial<Record<EventKind, StepStatus>> = {
  [EventKind.EVENT_KIND_STEP_SUCCEEDED]: StepStatus.STEP_STATUS_SUCCEEDED,
  [EventKind.EVENT_KIND_STEP_ROUND]: StepStatus.STEP_STATUS_SUCCEEDED,
  [EventKind.EVENT_KIND_ATTEMPT_FAILED]: StepStatus.STEP_STATUS_FAILED,
  [EventKind.EVENT_KIND_ATTEMPT_LOST]: StepStatus.STEP_STATUS_FAILED,
  [EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT]: StepStatus.STEP_STATUS_EXPIRED,
  [EventKind.EVENT_KIND_STEP_EXPIRED]: StepStatus.STEP_STATUS_EXPIRED,
  [EventKind.EVENT_KIND_STEP_CANCELLED]: StepStatus.STEP_STATUS_CANCELLED,
};

const stepFailures = new Set([
  EventKind.EVENT_KIND_STEP_FAILED,
  EventKind.EVENT_KIND_STEP_EXPIRED,
  EventKind.EVENT_KIND_STEP_CAUGHT,
]);

function applyToAttempt(history: History, event: StoredEvent): void {
  const { kind, body, atMs } = event;
  if (stepFailures.has(kind)) {
    if (body.failure) history.failure = body.failure;
  }
  if (event.attempt === 0 || kind === EventKind.EVENT_KIND_COMPLETION_LATE) return;
  const attempt = attemptOf(history, event.attempt, atMs);
  if (body.session) attempt.sessionId = body.session;
  if (body.executionMs) attempt.executionMs = body.executionMs;
  if (body.failure) attempt.failure = body.failure;
  if (kind === EventKind.EVENT_KIND_CHILD_STARTED) {
    history.startedAtMs ||= atMs;
    attempt.status = StepStatus.STEP_STATUS_RUNNING;
    attempt.childRunId = body.note;
  }
  if (kind === EventKind.EVENT_KIND_STEP_BOUND) attempt.status = StepStatus.STEP_STATUS_RUNNING;
  const ended = attemptEnds[kind];
  if (ended === undefined || attempt.endedAt) return;
  attempt.status = ended;
  attempt.endedAt = toTimestamp(atMs);
}

/** A history row as watchers see it. */
export function toRunEvent(event: StoredEvent, plan: ChainPlan): RunEvent {
  const { body } = event;
  return {
    seq: BigInt(event.seq),
    at: toTimestamp(event.atMs),
    kind: event.kind,
    stepId: plan.steps[event.step]?.id ?? "",
    item: event.item,
    attempt: event.attempt,
    payload: event.payload && shown(writtenAs(plan.steps[event.step]?.contract ?? "", event.payload)),
    failure: body.failure,
    sessionId: body.session,
    runStatus: body.runStatus,
    moves: body.moves.map(({ step, status, attempt, retryAtMs }) => ({
      stepId: plan.steps[step]?.id ?? "",
      status,
      attempt,
      retryAt: retryAtMs === undefined ? undefined : toTimestamp(retryAtMs),
    })),
    executionMs: body.executionMs,
    note: notedKinds.has(event.kind) ? body.note : "",
    actor: body.by,
    childRunId: event.kind === EventKind.EVENT_KIND_CHILD_STARTED ? body.note : "",
    otherRunId: body.other,
  };
}

/** Other notes are for operators who read the table: they are no promise to callers. */
const notedKinds = new Set([
  EventKind.EVENT_KIND_SIGNAL_RECEIVED,
  EventKind.EVENT_KIND_CALLBACK_RECEIVED,
  EventKind.EVENT_KIND_ASSIGNMENT_CLAIMED,
  EventKind.EVENT_KIND_ASSIGNMENT_RELEASED,
  EventKind.EVENT_KIND_ASSIGNMENT_COMMENTED,
  EventKind.EVENT_KIND_ASSIGNMENT_COMPLETED,
  EventKind.EVENT_KIND_ASSIGNMENT_ESCALATED,
  EventKind.EVENT_KIND_CANCEL_REQUESTED,
  EventKind.EVENT_KIND_RUN_PAUSED,
  EventKind.EVENT_KIND_RUN_RESUMED,
  EventKind.EVENT_KIND_RUN_TERMINATED,
  EventKind.EVENT_KIND_RUN_CHANGED,
  EventKind.EVENT_KIND_STEP_RETRIED,
  EventKind.EVENT_KIND_STEP_OVERRIDDEN,
  EventKind.EVENT_KIND_RUN_ACCEPTED,
  EventKind.EVENT_KIND_RUN_REPLACED,
]);

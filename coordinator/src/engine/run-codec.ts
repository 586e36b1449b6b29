/**
 * The engine's state as the bytes of the run row, written with every commit of the run and so kept short: arrays rather than objects, instants
 * as milliseconds since the run was accepted, and what a step does not have (all the rest of its array) left out.
 *
 * A field is only ever added at the end, so that a newer coordinator reads an older row (and the other way round) during an upgrade.
 */
import { Failure } from "@taskmesh/proto";
import type { Value } from "./plan.js";
import {
  type EachState,
  type Messages,
  type Origin,
  type ParentRef,
  pendingStep,
  type RunState,
  type StepState,
  StepStatus,
  type WaitState,
} from "./run-state.js";
import { at, plainStepText } from "./step-text.js";
import { loadTrouble, type StoredTrouble, storeTrouble, type Trouble } from "./trouble-codec.js";

type StoredValue = [contract: string, sizeBytes: number, sha256: string, reference: string];
/** 0: pending. Instants are 0 where there is none, else 1 + the milliseconds since acceptance. */
type StoredStep =
  | 0
  | [
      status: number,
      attempt?: number,
      lease?: string,
      readyAt?: number,
      attemptAt?: number,
      endedAt?: number,
      startedAt?: number,
      session?: string,
      failures?: number,
      lost?: number,
      retryAt?: number,
      late?: number,
      input?: StoredValue | 0,
      checkpointed?: 0 | 1,
      wait?: StoredWait | 0,
      flow?: StoredFlow | 0,
      extendedMs?: number,
    ];
/** `via`: 1 + the index, 0: none. */
type StoredFlow = [via: number, rounds: number] | [via: number, rounds: number, level: number];
type StoredWait = [endsAt: number] | [endsAt: number, claimedBy: string];

interface StoredMessages {
  kept: [mailbox: string, key: string, seq: number][];
  keys: readonly string[];
  taken?: Messages["taken"];
}

type StoredParent = [runId: string, stepId: string, depth: number, launched?: 0 | 1 | 2, item?: number];

interface StoredState extends StoredTrouble {
  now: number;
  steps: StoredStep[];
  trace?: Readonly<Record<string, string>>;
  cancel?: { reason: string; graceUntilMs: number };
  failure?: unknown;
  evaluatingOutput?: true;
  startAt?: number;
  timed?: [timeoutMs: number, startedAtMs: number];
  secret?: string;
  messages?: StoredMessages;
  /** Under this name alone: readers look for it in the text (store/run-reads.ts). */
  answered?: number;
  parent?: StoredParent;
  closing?: { status: number; failure?: unknown };
  origin?: [runId: string, kind: Origin["kind"], stepId?: string];
  successor?: [runId: string, hash: string];
  customId?: string;
  /** Fan-outs: [step, total, next, started, succeeded, failed, bytes, opening, mark]. */
  each?: [...number[], string][];
}

/** The JSON text of what the run row's columns do not say: a StoredState. */
export function encodeRunState(run: RunState): string {
  const { steps, acceptedAtMs } = run;
  let text = `{"now":${run.nowMs},"steps":[`;
  for (let i = 0; i < steps.length; i++) {
    if (i > 0) text += ",";
    text += plainStepText(steps[i]!, acceptedAtMs) ?? JSON.stringify(storeStep(steps[i]!, acceptedAtMs));
  }
  const rest = JSON.stringify(storeRest(run));
  return rest === "{}" ? `${text}]}` : `${text}],${rest.slice(1)}`;
}

/** All but the clock and the steps. */
function storeRest(run: RunState): Omit<StoredState, "now" | "steps"> {
  const stored: Omit<StoredState, "now" | "steps"> = {};
  if (run.trace) stored.trace = run.trace;
  if (run.cancel) stored.cancel = run.cancel;
  if (run.failure) stored.failure = Failure.toJSON(run.failure);
  if (run.evaluatingOutput) stored.evaluatingOutput = true;
  if (run.startAtMs !== undefined) stored.startAt = run.startAtMs;
  if (run.timed) stored.timed = [run.timed.timeoutMs, run.timed.startedAtMs];
  if (run.secret) stored.secret = run.secret;
  if (run.messages) {
    const kept = run.messages.kept.map(({ mailbox, key, seq }): [string, string, number] => [mailbox, key, seq]);
    const { keys, taken } = run.messages;
    stored.messages = { kept, keys, ...(taken ? { taken } : {}) };
  }
  if (run.answered !== undefined) stored.answered = run.answered;
  if (run.parent) stored.parent = storeParent(run.parent);
  if (run.origin) stored.origin = storeOrigin(run.origin);
  if (run.successor) stored.successor = [run.successor.runId, run.successor.hash];
  if (run.customId !== undefined) stored.customId = run.customId;
  if (run.closing) stored.closing = storeClosing(run.closing);
  for (let i = 0; i < run.steps.length; i++) {
    const { each } = run.steps[i]!;
    if (!each) continue;
    stored.each ??= [];
    stored.each.push(storeEach(i, each));
  }
  storeTrouble(run, stored);
  return stored;
}

const storeOrigin = ({ runId, kind, stepId }: Origin): NonNullable<StoredState["origin"]> =>
  stepId === undefined ? [runId, kind] : [runId, kind, stepId];

function storeClosing({ status, failure }: NonNullable<RunState["closing"]>): NonNullable<StoredState["closing"]> {
  return failure ? { status, failure: Failure.toJSON(failure) } : { status };
}

type EachNumbers = [number, number, number, number, number, number, number, number];

const storeEach = (step: number, e: EachState): [...number[], string] => {
  return [step, e.total, e.next, e.started, e.succeeded, e.failed, e.bytes, e.opening ? 1 : 0, e.mark];
};

/** The JSON text of an item's row; its input is a column of its own. */
export function encodeItem(item: StepState, acceptedAtMs: number): string {
  const { input: _, key, ...state } = item;
  return JSON.stringify(key === undefined ? [storeStep(state, acceptedAtMs)] : [storeStep(state, acceptedAtMs), key]);
}

/** The item that `encodeItem` wrote. */
export function decodeItem(text: string, acceptedAtMs: number, input: Value | undefined): StepState {
  const [row, key] = JSON.parse(text) as [StoredStep, string?];
  return { ...loadStep(row, acceptedAtMs), ...(input ? { input } : {}), ...(key === undefined ? {} : { key }) };
}

function storeStep(s: StepState, originMs: number): StoredStep {
  // A step that an operator reset keeps its count of attempts.
  if (s.status === StepStatus.STEP_STATUS_PENDING && s.attempt === 0 && !s.input) return 0;
  const input = s.input ? storeValue(s.input) : 0;
  const row: (number | string | StoredValue | StoredWait | StoredFlow)[] = [
    s.status,
    s.attempt,
    s.lease,
    at(s.readyAtMs, originMs),
    at(s.attemptAtMs, originMs),
    at(s.endedAtMs, originMs),
    at(s.startedAtMs, originMs),
    s.session,
    s.failures,
    s.lost,
    at(s.retryAtMs, originMs),
    s.late,
    input,
    s.checkpointed ? 1 : 0,
    s.wait ? storeWait(s.wait, originMs) : 0,
    storeFlow(s),
    s.extendedMs ?? 0,
  ];
  let length = row.length;
  while (length > 1 && (row[length - 1] === 0 || row[length - 1] === "")) length -= 1;
  row.length = length;
  return row as StoredStep;
}

function storeFlow({ via = -1, rounds = 0, level = 0 }: StepState): StoredFlow | 0 {
  if (level > 0) return [via + 1, rounds, level];
  return via < 0 && rounds === 0 ? 0 : [via + 1, rounds];
}

const storeWait = ({ endsAtMs, claimedBy }: WaitState, originMs: number): StoredWait =>
  claimedBy === undefined ? [at(endsAtMs, originMs)] : [at(endsAtMs, originMs), claimedBy];

/** Inputs that were evaluated off the engine are stored before, so a reference says all. */
function storeValue(value: Value): StoredValue {
  if (value.reference === undefined) throw new Error("a step's stored input must be a reference");
  return [value.contract, value.sizeBytes, Buffer.from(value.sha256).toString("base64"), value.reference];
}

/** The parts of the state that `encodeRunState` wrote, for a run accepted at `acceptedAtMs`. */
export function decodeRunState(
  text: string,
  acceptedAtMs: number,
): Pick<RunState, "nowMs" | "steps" | "evaluatingOutput"> &
  Partial<
    Pick<
      RunState,
      | "trace"
      | "cancel"
      | "failure"
      | "messages"
      | "answered"
      | "secret"
      | "startAtMs"
      | "timed"
      | "parent"
      | "closing"
      | "origin"
      | "successor"
      | "customId"
    >
  > &
  Trouble {
  const stored = JSON.parse(text) as StoredState;
  const steps = stored.steps.map((row) => loadStep(row, acceptedAtMs));
  for (const row of stored.each ?? []) {
    const mark = row.at(-1) as string;
    const [step, total, next, started, succeeded, failed, bytes, opening] = row.slice(0, -1) as EachNumbers;
    steps[step]!.each = { total, next, started, succeeded, failed, bytes, opening: opening === 1, mark };
  }
  return {
    nowMs: stored.now,
    steps,
    evaluatingOutput: stored.evaluatingOutput === true,
    ...(stored.trace ? { trace: stored.trace } : {}),
    ...(stored.cancel ? { cancel: stored.cancel } : {}),
    ...(stored.failure === undefined ? {} : { failure: Failure.fromJSON(stored.failure) }),
    ...(stored.startAt === undefined ? {} : { startAtMs: stored.startAt }),
    ...(stored.timed ? { timed: { timeoutMs: stored.timed[0], startedAtMs: stored.timed[1] } } : {}),
    ...(stored.secret ? { secret: stored.secret } : {}),
    ...(stored.messages ? { messages: loadMessages(stored.messages) } : {}),
    ...(stored.answered === undefined ? {} : { answered: stored.answered }),
    ...(stored.parent ? { parent: loadParent(stored.parent) } : {}),
    ...(stored.origin ? { origin: loadOrigin(stored.origin) } : {}),
    ...(stored.successor ? { successor: { runId: stored.successor[0], hash: stored.successor[1] } } : {}),
    ...(stored.customId === undefined ? {} : { customId: stored.customId }),
    ...(stored.closing ? { closing: loadClosing(stored.closing) } : {}),
    ...loadTrouble(stored),
  };
}

function storeParent({ runId, stepId, depth, launched, detached, item }: ParentRef): StoredParent {
  const how = detached ? 2 : launched ? 1 : 0;
  if (item) return [runId, stepId, depth, how, item];
  return launched ? [runId, stepId, depth, how] : [runId, stepId, depth];
}

function loadParent([runId, stepId, depth, launched, item]: StoredParent): ParentRef {
  const how = launched ? { launched: true as const, ...(launched === 2 ? { detached: true as const } : {}) } : {};
  return { runId, stepId, depth, ...how, ...(item ? { item } : {}) };
}

function loadOrigin([runId, kind, stepId]: NonNullable<StoredState["origin"]>): Origin {
  return { runId, kind, ...(stepId === undefined ? {} : { stepId }) };
}

function loadClosing({ status, failure }: NonNullable<StoredState["closing"]>): NonNullable<RunState["closing"]> {
  return { status, ...(failure === undefined ? {} : { failure: Failure.fromJSON(failure) }) };
}

/** Their values are in the history. */
function loadMessages({ kept, keys, taken }: StoredMessages): Messages {
  const loaded = kept.map(([mailbox, key, seq]) => ({ mailbox, key, seq, value: unread }));
  return { kept: loaded, keys, ...(taken ? { taken } : {}) };
}

/** In place of a value that was not read from the history yet. */
export const unread: Value = { contract: "", sizeBytes: 0, sha256: new Uint8Array(0) };

function loadStep(row: StoredStep, originMs: number): StepState {
  if (row === 0) return pendingStep();
  const at = (stored: number | undefined): number => (stored ? stored - 1 + originMs : 0);
  const [
    status,
    attempt,
    lease,
    readyAt,
    attemptAt,
    endedAt,
    startedAt,
    session,
    failures,
    lost,
    retryAt,
    late,
    input,
    checkpointed,
    wait,
    flow,
    extendedMs,
  ] = row;
  const step: StepState = {
    status,
    attempt: attempt ?? 0,
    lease: lease ?? "",
    readyAtMs: at(readyAt),
    attemptAtMs: at(attemptAt),
    endedAtMs: at(endedAt),
    startedAtMs: at(startedAt),
    session: session ?? "",
    failures: failures ?? 0,
    lost: lost ?? 0,
    retryAtMs: at(retryAt),
    late: late ?? 0,
  };
  if (input) {
    const [contract, sizeBytes, sha256, reference] = input;
    step.input = { contract, sizeBytes, sha256: Buffer.from(sha256, "base64"), reference };
  }
  if (checkpointed) step.checkpointed = true;
  if (wait) step.wait = { endsAtMs: at(wait[0]), ...(wait[1] === undefined ? {} : { claimedBy: wait[1] }) };
  if (flow && flow[0] > 0) step.via = flow[0] - 1;
  if (flow && flow[1] > 0) step.rounds = flow[1];
  if (flow && flow[2] !== undefined) step.level = flow[2];
  if (extendedMs) step.extendedMs = extendedMs;
  return step;
}

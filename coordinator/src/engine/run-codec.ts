/**
 * The engine's state as the bytes of the run row. Arrays rather than objects, since it is written with every commit of the run;
 * a field is only ever added at the end, so that a newer coordinator reads an older row (and the other way round) during an upgrade.
 */
import { Failure } from "@taskmesh/proto";
import type { Value } from "./plan.js";
import { pendingStep, type RunState, type StepState, StepStatus } from "./run-state.js";

type StoredValue = [contract: string, sizeBytes: number, sha256: string, reference: string];
type StoredStep =
  | 0
  | [
      status: number,
      attempt: number,
      lease: string,
      failures: number,
      lost: number,
      readyAtMs: number,
      attemptAtMs: number,
      startedAtMs: number,
      session: string,
      retryAtMs: number,
      endedAtMs: number,
      late: number,
      input?: StoredValue | undefined,
    ];

interface StoredState {
  now: number;
  steps: StoredStep[];
  trace?: Readonly<Record<string, string>>;
  cancel?: { reason: string; graceUntilMs: number };
  failure?: unknown;
  evaluatingOutput?: true;
}

/** The JSON text of what the run row's columns do not say. */
export function encodeRunState(run: RunState): string {
  const stored: StoredState = { now: run.nowMs, steps: run.steps.map(storeStep) };
  if (run.trace) stored.trace = run.trace;
  if (run.cancel) stored.cancel = run.cancel;
  if (run.failure) stored.failure = Failure.toJSON(run.failure);
  if (run.evaluatingOutput) stored.evaluatingOutput = true;
  return JSON.stringify(stored);
}

function storeStep(s: StepState): StoredStep {
  if (s.status === StepStatus.STEP_STATUS_PENDING) return 0;
  const input = s.input && storeValue(s.input);
  const {
    status,
    attempt,
    lease,
    failures,
    lost,
    readyAtMs,
    attemptAtMs,
    startedAtMs,
    session,
    retryAtMs,
    endedAtMs,
    late,
  } = s;
  const row: StoredStep = [
    status,
    attempt,
    lease,
    failures,
    lost,
    readyAtMs,
    attemptAtMs,
    startedAtMs,
    session,
    retryAtMs,
    endedAtMs,
    late,
  ];
  if (input) row.push(input);
  return row;
}

/** Inputs that were evaluated off the engine are stored before, so a reference says all. */
function storeValue(value: Value): StoredValue {
  if (value.reference === undefined) throw new Error("a step's stored input must be a reference");
  return [value.contract, value.sizeBytes, Buffer.from(value.sha256).toString("base64"), value.reference];
}

/** The parts of the state that `encodeRunState` wrote. */
export function decodeRunState(
  text: string,
): Pick<RunState, "nowMs" | "steps" | "evaluatingOutput"> & Partial<Pick<RunState, "trace" | "cancel" | "failure">> {
  const stored = JSON.parse(text) as StoredState;
  return {
    nowMs: stored.now,
    steps: stored.steps.map(loadStep),
    evaluatingOutput: stored.evaluatingOutput === true,
    ...(stored.trace ? { trace: stored.trace } : {}),
    ...(stored.cancel ? { cancel: stored.cancel } : {}),
    ...(stored.failure === undefined ? {} : { failure: Failure.fromJSON(stored.failure) }),
  };
}

function loadStep(row: StoredStep): StepState {
  if (row === 0) return pendingStep();
  const [
    status,
    attempt,
    lease,
    failures,
    lost,
    readyAtMs,
    attemptAtMs,
    startedAtMs,
    session,
    retryAtMs,
    endedAtMs,
    late,
    input,
  ] = row;
  const step: StepState = {
    status,
    attempt,
    lease,
    failures,
    lost,
    readyAtMs,
    attemptAtMs,
    startedAtMs,
    session,
    retryAtMs,
    endedAtMs,
    late,
  };
  if (input) {
    const [contract, sizeBytes, sha256, reference] = input;
    step.input = { contract, sizeBytes, sha256: Buffer.from(sha256, "base64"), reference };
  }
  return step;
}

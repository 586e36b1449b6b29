/**
 * Unit tests of actions without a mesh: `runAction` runs a handler as a worker would, with the same checks, encoding and limits.
 *
 *   const { output } = await runAction(score, { text: "a b" });
 */
import { Failure, LogLevel, type LogLine } from "@taskmesh/proto";
import { toCheckpoint } from "./checkpoint.js";
import { compileChecks } from "./checks.js";
import { AttemptContext, type ProgressReport } from "./context.js";
import type { Action } from "./define.js";
import { type Descriptors, parseDescriptors } from "./descriptors.js";
import { type ActionChecks, type Outcome, perform } from "./perform.js";

/** Options of `runAction`. */
export interface RunActionOptions {
  /** The contracts, as given to `startWorker`. With them input and output are also checked against the rules written in the .proto. */
  descriptors?: Descriptors;
  /** Default 1. */
  attempt?: number;
  /** Default "run-under-test". */
  runId?: string;
  /** Default "call". */
  stepId?: string;
  /** Index of the item in a fan-out step; default 0. */
  item?: number;
  /** Default "lease-under-test". */
  lease?: string;
  /** Default "default". */
  namespace?: string;
  /** Milliseconds that the attempt may take; default: unbounded. The signal aborts when they are over, `extendTimeout` moves that. */
  startToCloseMs?: number;
  /** Cancels the attempt when it aborts, as a cancelled run would. */
  signal?: AbortSignal;
  /** What an earlier attempt kept, as `loadCheckpoint` gives it. */
  checkpoint?: { type: string; value: Uint8Array };
  /** W3C trace headers that `context.trace.headers()` returns; default none. */
  traceHeaders?: Record<string, string>;
}

/** What a handler logged, as text and fields. */
export interface TestLogLine {
  level: "debug" | "info" | "warn" | "error";
  message: string;
  fields: Record<string, unknown>;
}

/** How the attempt ended, and what it said meanwhile. Exactly one of `output`, `failure` and `cancelled` is set. */
export interface RunActionResult<Output> {
  output?: Output;
  /** What the handler of an rpc that returns a stream emitted, in order; the last is `output`, unless the generator returned another. */
  outputs: Output[];
  /** The failure as the mesh would record it. */
  failure?: Failure;
  /** The handler stopped because `signal` was aborted. */
  cancelled?: { message: string };
  logs: TestLogLine[];
  /** Every progress report, oldest first. */
  progress: ProgressReport[];
  /** What the handler kept last for the next attempt. */
  checkpoint?: { type: string; value: Uint8Array };
}

/** Runs one attempt of an action. Rejects only for faulty options; whatever the handler does is in the result. */
export async function runAction<Input, Output>(
  action: Action<Input, Output>,
  input: Input,
  options: RunActionOptions = {},
): Promise<RunActionResult<Output>> {
  const checks: ActionChecks = options.descriptors
    ? compileChecks(parseDescriptors(options.descriptors).registry, action.method)
    : { input: () => undefined, output: () => undefined };
  const progress: ProgressReport[] = [];
  const context = contextFor(action.method, options, progress);
  const cancel = () => context.abort("CANCELLED");
  if (options.signal?.aborted) cancel();
  options.signal?.addEventListener("abort", cancel, { once: true });
  const stopClock = startClock(context);
  try {
    const bytes = action.entry.requestSerialize(input);
    const outputs: Output[] = [];
    const emit = async (emitted: Uint8Array): Promise<void> => {
      outputs.push(action.entry.responseDeserialize(emitted as Buffer));
    };
    const outcome = await new Promise<Outcome>((resolve) => perform(action, checks, bytes, context, resolve, emit));
    const logs = context.lines().map(toTestLine);
    const { checkpoint } = context;
    const kept = checkpoint && { type: checkpoint.typeUrl, value: checkpoint.value };
    return { ...toResult(action, outcome), outputs, logs, progress, ...(kept && { checkpoint: kept }) };
  } finally {
    stopClock();
    options.signal?.removeEventListener("abort", cancel);
  }
}

/** Aborts the attempt when its time is over, whatever it was extended to meanwhile. Returns how to stop it. */
function startClock(context: AttemptContext): () => void {
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    const leftMs = context.remainingMs();
    if (leftMs <= 0) context.abort("TIMED_OUT");
    else if (leftMs < Number.POSITIVE_INFINITY) timer = setTimeout(look, Math.min(leftMs, timerMsMax));
  };
  look();
  return () => clearTimeout(timer);
}

/** A timer that is set for longer goes off at once. */
const timerMsMax = 2 ** 31 - 1;

function contextFor(method: string, options: RunActionOptions, reports: ProgressReport[]): AttemptContext {
  const { traceHeaders } = options;
  const facts = {
    attempt: options.attempt ?? 1,
    lease: options.lease ?? "lease-under-test",
    runId: options.runId ?? "run-under-test",
    stepId: options.stepId ?? "call",
    item: options.item ?? 0,
    method,
    namespace: options.namespace ?? "default",
    deadlineAtMs: performance.now() + (options.startToCloseMs ?? Number.POSITIVE_INFINITY),
    ...(options.checkpoint && { checkpoint: toCheckpoint(options.checkpoint.type, options.checkpoint.value) }),
  };
  return new AttemptContext(facts, {
    onProgress: (report) => reports.push(report),
    ...(traceHeaders && { traceHeaders: () => traceHeaders }),
  });
}

function toResult<Input, Output>(
  action: Action<Input, Output>,
  outcome: Outcome,
): Pick<RunActionResult<Output>, "output" | "failure" | "cancelled"> {
  switch (outcome.kind) {
    case "output":
      return { output: action.entry.responseDeserialize(outcome.bytes as Buffer) };
    case "failure":
      return { failure: Failure.fromPartial(outcome.failure) };
    case "cancelled":
      return { cancelled: { message: outcome.message } };
  }
}

const levelNames: Partial<Record<LogLevel, TestLogLine["level"]>> = {
  [LogLevel.LOG_LEVEL_DEBUG]: "debug",
  [LogLevel.LOG_LEVEL_INFO]: "info",
  [LogLevel.LOG_LEVEL_WARN]: "warn",
  [LogLevel.LOG_LEVEL_ERROR]: "error",
};

function toTestLine(line: LogLine): TestLogLine {
  const fields: unknown = line.fieldsJson === "" ? {} : JSON.parse(line.fieldsJson);
  return { level: levelNames[line.level] ?? "info", message: line.message, fields: fields as Record<string, unknown> };
}

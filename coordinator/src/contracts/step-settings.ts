/**
 * Times, retries and places of a step: checked, with defaults filled in.
 *
 * A setting comes from the step, else from what the action's author wrote, else from here. Everything is bounded by the run's deadline in
 * the end, so the bounds below only keep out what can't be meant.
 */
import type { ActionOptions, Duration, ExponentialBackoff, RetryPolicy, StepSpec } from "@taskmesh/proto";
import type { RetryPlan } from "../engine/plan.js";

/** A fault of one setting; `path` inside the step, "retry.jitter". */
export interface SettingFault {
  path: string;
  message: string;
  expected: string;
  found: string;
}

/** Longest of all durations: 366 days. */
export const durationMsMax = 366 * 24 * 3_600_000;
export const runTimeoutMsDefault = 24 * 3_600_000;
const startToCloseMsDefault = 3_600_000;
const attemptsMaxBound = 1_000;
const nonRetryableBound = 100;

/** What a step without a policy does when an attempt fails. */
export const retryDefault: RetryPlan = {
  kind: "exponential",
  initialMs: 1_000,
  incrementMs: 0,
  factor: 2,
  capMs: 60_000,
  jitter: 0.2,
  attemptsMax: 3,
  nonRetryable: [],
};

export interface StepSettings {
  retry: RetryPlan;
  scheduleToStartMs?: number;
  startToCloseMs: number;
  heartbeatMs?: number;
  scheduleToCloseMs?: number;
  priority?: number;
  taskQueue: string;
  exclusive: boolean;
}

type SettingsSource = Pick<
  StepSpec,
  "retry" | "scheduleToStart" | "startToClose" | "heartbeat" | "scheduleToClose" | "taskQueue" | "priority"
>;

/** Settings of a step, `options` being those of its action. Faults go to `faults`. */
export function stepSettings(
  step: SettingsSource,
  options: ActionOptions | undefined,
  service: string,
  faults: SettingFault[],
): StepSettings {
  const time = (duration: Duration | undefined, path: string) => durationMs(duration, path, 1, faults);
  const scheduleToStartMs = time(step.scheduleToStart, "schedule_to_start");
  const scheduleToCloseMs = time(step.scheduleToClose, "schedule_to_close");
  const heartbeatMs = time(step.heartbeat ?? options?.heartbeat, "heartbeat");
  const startToCloseMs = time(step.startToClose ?? options?.startToClose, "start_to_close");
  const taskQueue = step.taskQueue === "" ? service : step.taskQueue;
  // Queues are named in tables and logs; subjects carry their ids.
  if (taskQueue.length > 255 || /\p{Cc}|\p{Surrogate}/u.test(taskQueue)) {
    faults.push({
      path: "task_queue",
      message: "not the name of a task queue",
      expected: "at most 255 characters, no control characters",
      found: JSON.stringify(taskQueue.slice(0, 60)),
    });
  }
  if (step.priority < -100 || step.priority > 100) {
    const expected = "a priority from -100 to 100";
    faults.push({ path: "priority", message: `${step.priority} is out of range`, expected, found: `${step.priority}` });
  }
  return {
    retry: retryPlan(step.retry ?? options?.retry, faults),
    ...(scheduleToStartMs === undefined ? {} : { scheduleToStartMs }),
    startToCloseMs: startToCloseMs ?? startToCloseMsDefault,
    ...(heartbeatMs === undefined ? {} : { heartbeatMs }),
    ...(scheduleToCloseMs === undefined ? {} : { scheduleToCloseMs }),
    ...(step.priority === 0 ? {} : { priority: step.priority }),
    taskQueue,
    exclusive: options?.exclusive ?? false,
  };
}

/** Whole milliseconds, rounded up so that no positive time becomes none; undefined: not set, or faulty. */
export function durationMs(
  duration: Duration | undefined,
  path: string,
  leastMs: number,
  faults: SettingFault[],
): number | undefined {
  if (duration === undefined) return undefined;
  const ms = Math.ceil(Number(duration.seconds) * 1_000 + duration.nanos / 1e6);
  const sane = Math.abs(duration.nanos) < 1e9 && ms >= leastMs && ms <= durationMsMax;
  if (sane) return ms;
  const found = `${Number(duration.seconds) + duration.nanos / 1e9}s`;
  const expected = leastMs > 0 ? "a positive time of at most 366 days" : "no negative time, at most 366 days";
  faults.push({ path, message: `${found} is out of range`, expected, found });
  return undefined;
}

/** The retry policy with its defaults. */
export function retryPlan(policy: RetryPolicy | undefined, faults: SettingFault[]): RetryPlan {
  if (policy === undefined) return retryDefault;
  const number = (value: number, path: string, low: number, high: number) => {
    if (Number.isFinite(value) && value >= low && value <= high) return value;
    const expected = `a number from ${low} to ${high}`;
    faults.push({ path: `retry.${path}`, message: `${value} is out of range`, expected, found: `${value}` });
    return low;
  };
  const budgetMs = durationMs(policy.budget, "retry.budget", 1, faults);
  if (policy.nonRetryable.length > nonRetryableBound) {
    const [found, expected] = [`${policy.nonRetryable.length}`, `at most ${nonRetryableBound} reasons`];
    faults.push({ path: "retry.non_retryable", message: "too many reasons", expected, found });
  }
  const attempts = number(policy.maxAttempts ?? retryDefault.attemptsMax, "max_attempts", 1, attemptsMaxBound);
  return {
    ...backoff(policy, faults, number),
    jitter: number(policy.jitter ?? retryDefault.jitter, "jitter", 0, 1),
    attemptsMax: attempts,
    ...(budgetMs === undefined ? {} : { budgetMs }),
    nonRetryable: policy.nonRetryable,
  };
}

type Backoff = Pick<RetryPlan, "kind" | "initialMs" | "incrementMs" | "factor" | "capMs">;

function backoff(
  { backoff: chosen }: RetryPolicy,
  faults: SettingFault[],
  number: (value: number, path: string, low: number, high: number) => number,
): Backoff {
  const { initialMs, capMs, factor } = retryDefault;
  const time = (duration: Duration | undefined, path: string, otherwise: number) =>
    durationMs(duration, `retry.${path}`, 0, faults) ?? otherwise;
  switch (chosen?.$case) {
    case undefined:
      return { kind: "exponential", initialMs, incrementMs: 0, factor, capMs };
    case "fixed": {
      const delay = time(chosen.value.delay, "fixed.delay", initialMs);
      return { kind: "fixed", initialMs: delay, incrementMs: 0, factor: 1, capMs: delay };
    }
    case "linear": {
      const initial = time(chosen.value.initial, "linear.initial", initialMs);
      const incrementMs = time(chosen.value.increment, "linear.increment", initial);
      const cap = Math.max(initial, time(chosen.value.cap, "linear.cap", capMs));
      return { kind: "linear", initialMs: initial, incrementMs, factor: 1, capMs: cap };
    }
    case "exponential": {
      const value: ExponentialBackoff = chosen.value;
      const initial = time(value.initial, "exponential.initial", initialMs);
      const growth = value.factor === 0 ? factor : number(value.factor, "exponential.factor", 1, 1_000);
      const cap = Math.max(initial, time(value.cap, "exponential.cap", capMs));
      return { kind: "exponential", initialMs: initial, incrementMs: 0, factor: growth, capMs: cap };
    }
  }
}

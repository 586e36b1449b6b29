/** Chains as YAML text, and times as people write them. */
import {
  type ChainSpec,
  type CompensateSpec,
  type Duration,
  type Each,
  type Expression,
  type FailureRule,
  type HumanSpec,
  Join,
  OnUnhandled,
  ParentClose,
  type RetryPolicy,
  RunTimeoutFrom,
  type StepSpec,
} from "@taskmesh/proto";
import { stringify } from "yaml";

/** Writes a chain as YAML that parseChainDocument reads back to an equal spec. */
export function formatChainDocument(chain: ChainSpec): string {
  return stringify(
    present({
      description: chain.description,
      contract:
        chain.contract &&
        present({
          name: chain.contract.name,
          input: filled(chain.contract.input),
          output: filled(chain.contract.output),
        }),
      run_timeout: time(chain.runTimeout),
      run_timeout_from: choice(RunTimeoutFrom[chain.runTimeoutFrom], "RUN_TIMEOUT_FROM_"),
      on_unhandled:
        chain.onUnhandled === OnUnhandled.ON_UNHANDLED_BREAK
          ? "BREAK"
          : chain.onUnhandled === OnUnhandled.ON_UNHANDLED_FAIL
            ? "FAIL"
            : "",
      broken_ttl: time(chain.brokenTtl),
      steps: chain.steps.map(formatStep),
      output: formatExpressions(chain.output),
    }),
    { lineWidth: 0 },
  );
}

function formatStep(step: StepSpec): Record<string, unknown> {
  return present({
    id: step.id,
    when: step.when,
    call: step.call,
    input: formatExpressions(step.input),
    needs: step.needs.length > 0 ? step.needs : undefined,
    retry: step.retry && formatRetry(step.retry),
    schedule_to_start: time(step.scheduleToStart),
    start_to_close: time(step.startToClose),
    heartbeat: time(step.heartbeat),
    schedule_to_close: time(step.scheduleToClose),
    task_queue: step.taskQueue,
    priority: step.priority === 0 ? undefined : step.priority,
    signal: step.signal && {
      ...present({ name: step.signal.name }),
      ...present({ output: filled(step.signal.output), answer: filled(step.signal.answer) }),
    },
    respond: step.respond && {
      ...present({ to: step.respond.to }),
      ...present({ output: formatExpressions(step.respond.output) }),
    },
    human: step.human && formatHuman(step.human),
    callback: step.callback && present({ output: filled(step.callback.output) }),
    wait: step.wait && formatExpressions(present({ ...step.wait }) as Record<string, Expression>),
    join: choice(Join[step.join], "JOIN_"),
    switch: step.switch && {
      cases: step.switch.cases.map(({ when, steps }) => present({ when, steps: listed(steps) })),
      ...present({ otherwise: listed(step.switch.otherwise) }),
    },
    repeat:
      step.repeat &&
      present({
        until: step.repeat.until,
        delay: time(step.repeat.delay),
        max_rounds: step.repeat.maxRounds || undefined,
      }),
    parent_close: choice(ParentClose[step.parentClose], "PARENT_CLOSE_"),
    each: step.each && formatEach(step.each),
    compensate: step.compensate && formatCompensate(step.compensate),
    on_failure: step.onFailure.length > 0 ? step.onFailure.map(formatRule) : undefined,
  });
}

function formatCompensate(undo: CompensateSpec): Record<string, unknown> {
  return present({
    call: undo.call,
    input: formatExpressions(undo.input),
    retry: undo.retry && formatRetry(undo.retry),
    start_to_close: time(undo.startToClose),
    schedule_to_close: time(undo.scheduleToClose),
    task_queue: undo.taskQueue,
  });
}

function formatRule(rule: FailureRule): Record<string, unknown> {
  return present({
    reasons: rule.reasons.length > 0 ? rule.reasons : undefined,
    continue: rule.continue || undefined,
    output: formatExpressions(rule.output),
  });
}

function formatEach(each: Each): Record<string, unknown> {
  return present({
    items: each.items,
    entries: each.entries,
    max_parallel: each.maxParallel || undefined,
    tolerated_failures: each.toleratedFailures || undefined,
    tolerated_share: each.toleratedShare || undefined,
    each: each.each && formatEach(each.each),
  });
}

function formatHuman({ output, escalations, ...texts }: HumanSpec): Record<string, unknown> {
  const later = escalations.map(({ after, steps, ...others }) => ({
    ...present({ after: time(after) }),
    ...formatExpressions(present(others) as Record<string, Expression>),
    ...present({ steps: listed(steps) }),
  }));
  return {
    ...formatExpressions(present(texts) as Record<string, Expression>),
    ...present({ output: filled(output), escalations: later.length > 0 ? later : undefined }),
  };
}

function formatRetry(retry: RetryPolicy): Record<string, unknown> {
  const { backoff } = retry;
  const times = Object.entries(backoff?.value ?? {}).map(([key, value]): [string, unknown] => [
    key,
    typeof value === "number" ? value || undefined : time(value as Duration | undefined),
  ]);
  return present({
    ...(backoff === undefined ? {} : { [backoff.$case]: present(Object.fromEntries(times)) }),
    jitter: retry.jitter,
    max_attempts: retry.maxAttempts,
    budget: time(retry.budget),
    non_retryable: retry.nonRetryable.length > 0 ? retry.nonRetryable : undefined,
  });
}

function formatExpressions(fields: Record<string, Expression>): Record<string, unknown> | undefined {
  return filled(
    Object.fromEntries(
      Object.entries(fields).map(([name, { kind }]) => {
        if (kind?.$case === "cel") return [name, kind.value];
        const value: unknown = kind?.value;
        return [name, typeof value === "number" || typeof value === "boolean" ? value : { literal: value ?? null }];
      }),
    ),
  );
}

const listed = (names: readonly string[]) => (names.length > 0 ? names : undefined);

/** The name of an enum's value as people write it, "" for the one that says nothing. */
const choice = (name: string | undefined, prefix: string): string => {
  const bare = name?.replace(prefix, "") ?? "";
  return bare === "UNSPECIFIED" ? "" : bare;
};
const time = (value: Duration | undefined) => value && formatDuration(value);
const filled = <T extends object>(value: T): T | undefined => (Object.keys(value).length > 0 ? value : undefined);
const present = (value: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined && v !== ""));

const units: Record<string, bigint> = {
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
  d: 86_400_000_000_000n,
};

/** "2026-01-31T12:00:00Z" as a literal, in the JSON form of google.protobuf.Timestamp; undefined for anything else. */
export function literalInstant(value: unknown): { literal: string } | undefined {
  if (typeof value !== "string" || Number.isNaN(Date.parse(value))) return undefined;
  const isInstant = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/.test(value);
  return isInstant ? { literal: value } : undefined;
}

/** "1h30m" to the JSON form of google.protobuf.Duration; undefined if it is no time. */
export function parseDuration(time: string): string | undefined {
  if (!/^-?(\d{1,12}(\.\d{1,9})?(ms|s|m|h|d))+$/.test(time)) return undefined;
  let nanos = 0n;
  for (const [, whole, fraction, unit] of time.matchAll(/(\d+)(?:\.(\d+))?(ms|s|m|h|d)/g)) {
    const scaled = BigInt(`${whole}${(fraction ?? "").padEnd(9, "0")}`);
    nanos += (scaled * units[unit!]!) / 1_000_000_000n;
  }
  const seconds = nanos / 1_000_000_000n;
  if (seconds > 315_576_000_000n) return undefined; // more than a Duration holds
  const rest = String(nanos % 1_000_000_000n)
    .padStart(9, "0")
    .replace(/0+$/, "");
  return `${time.startsWith("-") ? "-" : ""}${seconds}${rest === "" ? "" : `.${rest}`}s`;
}

/** "90s" as people write it: "1m30s". */
export function formatDuration({ seconds, nanos }: Duration): string {
  const negative = seconds < 0n || nanos < 0;
  let whole = negative ? -seconds : seconds;
  const fraction = Math.abs(nanos);
  let out = "";
  if (fraction === 0 && whole > 0n) {
    for (const [unit, size] of [
      ["h", 3_600n],
      ["m", 60n],
    ] as const) {
      if (whole >= size) out += `${whole / size}${unit}`;
      whole %= size;
    }
    if (whole > 0n) out += `${whole}s`;
  } else if (fraction !== 0 && fraction % 1_000_000 === 0 && whole < 10n) {
    out = `${Number(whole) * 1_000 + fraction / 1_000_000}ms`;
  } else out = `${whole}${fraction === 0 ? "" : `.${String(fraction).padStart(9, "0").replace(/0+$/, "")}`}s`;
  return `${negative ? "-" : ""}${out}`;
}

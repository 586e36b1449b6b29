/** Plans and runs for tests of the engine: plans are values, so nothing is mocked; time, leases and room are what the test says. */
import type { EventKind, Failure } from "@taskmesh/proto";
import { type Acceptance, accept, advance } from "./advance.js";
import type { ChainPlan, Evaluated, RetryPlan, StepPlan, Value } from "./plan.js";
import type { Advance, Context, Effect, Outcome, Report, RunEvent, RunRecord } from "./run-event.js";
import type { RunState, StepState } from "./run-state.js";

export const noRetry: RetryPlan = {
  kind: "fixed",
  initialMs: 100,
  incrementMs: 0,
  factor: 1,
  capMs: 1_000_000,
  jitter: 0,
  attemptsMax: 1,
  nonRetryable: [],
};

export type StepSpec = Partial<Omit<StepPlan, "index" | "id" | "needs" | "neededBy" | "retry">> & {
  needs?: readonly string[];
  retry?: Partial<RetryPlan>;
};

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

export const value = (content: string): Value => {
  const bytes = text(content);
  return { contract: "c", sizeBytes: bytes.length, sha256: new Uint8Array(32), bytes };
};

export const evaluated = <T>(result: T): Evaluated<T> => ({ kind: "value", value: result });

export const failure = (reason: string, retryable = true): Failure => ({
  reason,
  message: `${reason} happened`,
  retryable,
  details: [],
  cause: undefined,
});

/** A chain of these steps, by id; each succeeds with any output but "bad". */
export function planOf(specs: Record<string, StepSpec>, overrides: Partial<ChainPlan> = {}): ChainPlan {
  const ids = Object.keys(specs);
  const steps = ids.map((id, index): StepPlan => {
    const { needs = [], retry = {}, ...rest } = specs[id]!;
    return {
      index,
      id,
      method: `test.v1.TestActions/${id}`,
      contract: `contract-${id}`,
      taskQueue: "test",
      needs: needs.map((need) => ids.indexOf(need)),
      neededBy: ids.flatMap((other, at) => (specs[other]!.needs?.includes(id) ? [at] : [])),
      retry: { ...noRetry, ...retry },
      startToCloseMs: 60_000,
      exclusive: false,
      bindInput: () => evaluated(text(`input of ${id}`)),
      checkOutput: (bytes) => (new TextDecoder().decode(bytes) === "bad" ? "it is bad" : undefined),
      ...rest,
    };
  });
  return {
    method: "test.v1.Chains/Test",
    version: 1,
    contract: "chain",
    outputContract: "chain-output",
    runTimeoutMs: 3_600_000,
    steps,
    bindOutput: () => evaluated(text("output")),
    ...overrides,
  };
}

/** When runs of `startRun` are accepted. */
export const startMs = 1_700_000_000_000;

/** One run under test. */
export interface RunBench {
  readonly plan: ChainPlan;
  run: RunState;
  nowMs: number;
  /** Places that lanes have; Infinity unless the test says otherwise. */
  room: number;
  random: number;
  /** What the last event led to. */
  last: Advance;
  /** Everything so far. */
  readonly records: RunRecord[];
  readonly effects: Effect[];
  /** What was applied. */
  readonly events: RunEvent[];
  /** Leases that hold a place now. */
  readonly places: Set<string>;
  apply(event: RunEvent): Advance;
  step(id: string): StepState;
  /** The newest attempt of the step, as its worker names it. */
  report(id: string): Report;
  complete(id: string, outcome?: Outcome | string, report?: Report): Advance;
  fail(id: string, reason?: string, retryable?: boolean): Advance;
  bind(id: string, session?: string, startedAtMs?: number, sinceReportMs?: number, startToCloseMs?: number): Advance;
  /** Lets time pass, and the sweeper look. */
  wakeAt(ms: number): Advance;
  /** Kinds of the last event's records. */
  kinds(): EventKind[];
  /** Effects of one kind that the last event had. */
  effectsOf<K extends Effect["kind"]>(kind: K): Extract<Effect, { kind: K }>[];
}

/** Accepts a run of the plan, at `startMs` unless told otherwise. */
export function startRun(
  plan: ChainPlan,
  options: Partial<Acceptance> & { room?: number; random?: number; nowMs?: number } = {},
): RunBench {
  const { room = Number.POSITIVE_INFINITY, random = 0, nowMs = startMs, ...acceptance } = options;
  let leases = 0;
  const context = (): Context => ({
    nowMs: bench.nowMs,
    lease: () => `lease-${++leases}`,
    childId: () => `child-${++leases}`,
    random: () => bench.random,
    admit(_step, lease) {
      if (bench.places.size >= bench.room) return false;
      bench.places.add(lease);
      return true;
    },
  });
  const take = (result: Advance): Advance => {
    bench.last = result;
    bench.run = result.run;
    bench.records.push(...result.records);
    bench.effects.push(...result.effects);
    for (const effect of result.effects) if (effect.kind === "free") bench.places.delete(effect.lease);
    return result;
  };
  const bench = {
    plan,
    nowMs,
    room,
    random,
    records: [],
    effects: [],
    events: [],
    places: new Set(),
    apply(event) {
      bench.events.push(event);
      return take(advance(bench.run, plan, event, context()));
    },
    step: (id) => bench.run.steps[plan.steps.findIndex((step) => step.id === id)]!,
    report: (id) => ({ stepId: id, item: 0, attempt: bench.step(id).attempt, lease: bench.step(id).lease }),
    complete(id, outcome = "ok", report = bench.report(id)) {
      const said: Outcome = typeof outcome === "string" ? { kind: "output", value: value(outcome) } : outcome;
      return bench.apply({ kind: "complete", report, outcome: said, executionMs: 5, session: "s1" });
    },
    fail: (id, reason = "BROKEN", retryable = true) =>
      bench.complete(id, { kind: "failure", failure: failure(reason, retryable) }),
    bind(id, session = "s1", startedAtMs = bench.nowMs, sinceReportMs = 0, startToCloseMs) {
      const asked = startToCloseMs === undefined ? {} : { startToCloseMs };
      return bench.apply({ kind: "bind", report: bench.report(id), session, startedAtMs, sinceReportMs, ...asked });
    },
    wakeAt(ms) {
      bench.nowMs = ms;
      return bench.apply({ kind: "wake" });
    },
    kinds: () => bench.last.records.map((record) => record.kind),
    effectsOf: (kind) => bench.last.effects.filter((effect) => effect.kind === kind) as never,
  } as Partial<RunBench> as RunBench;
  const given = { id: "run", namespaceId: 1, namespace: "default", input: value("in"), labels: {}, priority: 0 };
  take(accept(plan, { ...given, ...acceptance }, context()));
  return bench;
}

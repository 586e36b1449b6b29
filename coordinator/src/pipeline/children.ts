/**
 * Runs that steps of other runs started: begins them, asks them to stop, and tells their parents how they ended.
 *
 *   parent's commit ── start-child, cancel-child ──► this ──► the child's start or cancel, as work of the pipeline
 *   child's commit ─── tell-parent ───────────────► this ──► `child-ended`, an event of the parent
 *
 * K1. Each of these is done until it is committed or refused for good; only then its batch is confirmed. What a dead coordinator has left is
 *     derived again: by the engine from a run that goes on (`redispatch`), here from one that has ended (`settleEnded`).
 * K2. Each may be done twice: a child's id is known before it begins, a cancelled run stays cancelled, a parent hears an attempt's end once.
 * K3. A round of the audit finds children that never began and ends that were never told, whatever the reason.
 */
import { type DbClock, type Logger, status, type TraceHeaders } from "@taskmesh/runtime";
import type { Value } from "../engine/plan.js";
import type { Effect, RunEvent } from "../engine/run-event.js";
import { isFinal, type RunState, RunStatus, StepStatus } from "../engine/run-state.js";
import { meshFailure } from "../engine/turn.js";
import type { RunStore } from "../store/run-store.js";
import type { Pipeline } from "./pipeline.js";
import type { Plans, StartCommand } from "./ports.js";
import type { Settled } from "./work.js";

export interface ChildrenDeps {
  store: RunStore;
  pipeline: Pipeline;
  plans: Plans;
  clock: DbClock;
  log: Logger;
  /** W3C trace context of an attempt; undefined: the run has none. */
  traceOf(run: RunState, stepId: string, attempt: number): TraceHeaders | undefined;
}

type StartChild = Extract<Effect, { kind: "start-child" }>;

export interface Children {
  /** Begins the child of a committed attempt. Calls `done` when nothing of it can be lost. */
  start(run: RunState, effect: StartChild, done: () => void): void;
  /** Asks a child to stop. */
  cancel(childId: string, done: () => void): void;
  /** Tells the parent of a run that has ended. */
  tell(run: RunState, output: Value | undefined, done: () => void): void;
  /** What a run that has ended may still owe its parent and its children. Rejects where that can't be read. */
  settleEnded(runId: string): Promise<void>;
  /** Likewise, until it is done. */
  settle(runId: string, done: () => void): void;
  /** One round of the audit, over children whose attempt is `oldMs` old. Answers how many needed help. */
  audit(oldMs: number): Promise<number>;
  stop(): void;
}

/** Tries of one thing; they take about a minute. Beyond that it is the audit's. */
const triesMax = 20;
const pauseMsMax = 5_000;
/** Children that one round of the audit looks at. */
const lookedAtMax = 5_000;

export function createChildren(deps: ChildrenDeps): Children {
  const { store, pipeline, log } = deps;
  let stopped = false;
  let auditedTo = "";

  const submit = (runId: string, event: RunEvent): Promise<Settled> =>
    new Promise((settle, fail) => {
      pipeline.submit({ kind: "event", runId, event, fresh: false, tries: 0, bytes: 256, settle, fail });
    });

  /** Repeats `act` until it succeeds; the batch stays pending if it never does (K1). */
  const persist = async (what: string, runId: string, act: () => Promise<unknown>, done: () => void): Promise<void> => {
    for (let tries = 0; tries < triesMax && !stopped; tries++) {
      try {
        await act();
        return done();
      } catch (error) {
        if (tries % 5 === 0) log.warn({ err: error, run_id: runId }, `${what} failed; trying again`);
        await pause(Math.min(pauseMsMax, 100 * 2 ** tries));
      }
    }
  };

  const begin = async (run: RunState, effect: StartChild): Promise<void> => {
    const { childId, step, input, deadlineAtMs, depth } = effect;
    if (effect.again && (await store.runExists(childId))) return;
    const plan = await deps.plans.current(run.namespaceId, step.method);
    if (!plan) {
      const failure = meshFailure("METHOD_UNKNOWN", `no chain ${step.method} is registered any more`, false);
      await submit(run.id, endedEvent(step.id, childId, RunStatus.RUN_STATUS_FAILED, undefined, failure));
      return;
    }
    const trace = deps.traceOf(run, step.id, effect.attempt);
    await startRun(run, effect, {
      namespaceId: run.namespaceId,
      namespace: run.namespace,
      plan,
      input,
      labels: {},
      priority: step.priority ?? run.priority,
      deadlineAtMs,
      parent: { runId: run.id, stepId: step.id, depth },
      ...(run.starter === undefined ? {} : { starter: run.starter }),
      ...(trace ? { trace: { ...trace } } : {}),
    });
  };

  const startRun = async (run: RunState, { childId, step }: StartChild, command: StartCommand): Promise<void> => {
    try {
      await new Promise<void>((resolve, fail) => {
        const bytes = 512 + (command.input.bytes?.length ?? 0);
        const work = { kind: "start" as const, runId: childId, command, internal: true as const, tries: 0, bytes };
        pipeline.submit({ ...work, settle: () => resolve(), taken: resolve, fail });
      });
    } catch (error) {
      // What the database or the engine refuses will be refused for ever.
      if (!isFinalRefusal(error)) throw error;
      const failure = meshFailure("DATA_ERROR", `the run can't be started: ${messageOf(error)}`, false);
      await submit(run.id, endedEvent(step.id, childId, RunStatus.RUN_STATUS_FAILED, undefined, failure));
    }
  };

  const cancelOnce = (childId: string) =>
    submit(childId, { kind: "cancel", reason: "the step that started the run has let go of it" });

  const tellOnce = async (run: RunState, output: Value | undefined): Promise<void> => {
    const { parent, status: ended, failure } = run;
    if (parent) await submit(parent.runId, endedEvent(parent.stepId, run.id, ended, output, failure));
  };

  const settleEnded = async (runId: string): Promise<void> => {
    const found = (await store.loadRuns([runId])).get(runId);
    if (!found || !isFinal(found.run.status)) return;
    const { run, method, chainVersion, contract } = found;
    if (run.parent) await tellOnce(run, await store.readResult(runId));
    const plan = await deps.plans.pinned(run.namespaceId, method, chainVersion, contract);
    const asked = plan.steps.filter(({ child, index }) => {
      const { status: left, lease } = run.steps[index]!;
      return child?.onParentClose === "cancel" && left === StepStatus.STEP_STATUS_CANCELLED && lease !== "";
    });
    await Promise.all(asked.map(({ index }) => cancelOnce(run.steps[index]!.lease)));
  };

  return {
    start(run, effect, done) {
      void persist("the start of a child", effect.childId, () => begin(run, effect), done);
    },
    cancel(childId, done) {
      void persist("the cancel of a child", childId, () => cancelOnce(childId), done);
    },
    tell(run, output, done) {
      void persist("the report to a parent", run.id, () => tellOnce(run, output), done);
    },
    settleEnded,
    settle(runId, done) {
      void persist("what an ended run owes", runId, () => settleEnded(runId), done);
    },
    async audit(oldMs) {
      const page = await store.readChildren({ oldMs, afterChildId: auditedTo, limit: lookedAtMax });
      auditedTo = page.length < lookedAtMax ? "" : page.at(-1)!.childId;
      let helped = 0;
      for (const { runId, stepId, attempt, childId, started, ended } of page) {
        if (started && !ended) continue;
        helped += 1;
        if (ended) await settleEnded(childId);
        else {
          const report = { stepId, item: 0, attempt, lease: childId };
          await submit(runId, { kind: "redispatch", report, why: "the audit found that its run never began" });
        }
      }
      return helped;
    },
    stop() {
      stopped = true;
    },
  };
}

function endedEvent(
  stepId: string,
  childId: string,
  ended: RunStatus,
  output: Value | undefined,
  failure: RunState["failure"],
): RunEvent {
  const about = { ...(output ? { output } : {}), ...(failure ? { failure } : {}) };
  return { kind: "child-ended", stepId, childId, status: ended, ...about };
}

function isFinalRefusal(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return code === status.INVALID_ARGUMENT || code === status.INTERNAL;
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Not `sleep`: a process that stops does not wait for it. */
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref());

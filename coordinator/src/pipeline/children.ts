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
import type { StepPlan, Value } from "../engine/plan.js";
import { answerOfCaller } from "../engine/responds.js";
import type { Effect, RunEvent } from "../engine/run-event.js";
import { isFinal, type ParentRef, type RunState, RunStatus, StepStatus } from "../engine/run-state.js";
import { meshFailure } from "../engine/turn.js";
import type { RunStore } from "../store/run-store.js";
import type { Pipeline } from "./pipeline.js";
import type { Launcher, Plans, StartCommand } from "./ports.js";
import type { Settled } from "./work.js";

export interface ChildrenDeps {
  store: RunStore;
  pipeline: Pipeline;
  plans: Plans;
  clock: DbClock;
  log: Logger;
  /** W3C trace context of an attempt; undefined: the run has none. */
  traceOf(run: RunState, stepId: string, item: number, attempt: number): TraceHeaders | undefined;
  /** What steps launch by name; absent: nothing can be. */
  launcher?: Launcher | undefined;
}

type StartChild = Extract<Effect, { kind: "start-child" }>;

export interface Children {
  /** Begins the child of a committed attempt. Calls `done` when nothing of it can be lost. */
  start(run: RunState, effect: StartChild, done: () => void): void;
  /** Asks a child to stop. */
  cancel(childId: string, done: () => void): void;
  /** Asks children to stop whose items are over: who was to ask them may have died. */
  settleItems(run: RunState, step: StepPlan, done: () => void): void;
  /** Tells the parent of a run that has ended, or answered its caller; `contract`: the one that the output is written with. */
  tell(run: RunState, output: Value | undefined, contract: string, done: () => void): void;
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
/** Children of items that are asked to stop at once. */
const askedAtOnceMax = 200;

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
    const { childId, step, input } = effect;
    const begun = effect.again && (await store.runExists(childId));
    if (step.child?.launches) return launch(run, effect, step.child.launches, begun);
    if (begun) return;
    const about = aboutChild(run, effect);
    const plan = step.child?.inner ?? (await deps.plans.current(run.namespaceId, step.method));
    if (!plan) {
      const failure = meshFailure("METHOD_UNKNOWN", `no chain ${step.method} is registered any more`, false);
      await submit(run.id, endedEvent(about.parent, childId, RunStatus.RUN_STATUS_FAILED, undefined, failure));
      return;
    }
    await startRun(run, effect, { plan, input, ...about });
  };

  /** What the child has from its parent. */
  const aboutChild = (run: RunState, { step, item = 0, attempt, deadlineAtMs, depth }: StartChild) => {
    const trace = deps.traceOf(run, step.id, item, attempt);
    const parent: ParentRef = { runId: run.id, stepId: step.id, depth, ...(item > 0 ? { item } : {}) };
    return {
      namespaceId: run.namespaceId,
      namespace: run.namespace,
      labels: {},
      priority: step.priority ?? run.priority,
      deadlineAtMs,
      parent,
      ...(run.starter === undefined ? {} : { starter: run.starter }),
      ...(trace ? { trace: { ...trace } } : {}),
    };
  };

  /** Begins the run that the step's input names. One that is detached tells at once that it has begun, and by then has. */
  const launch = async (run: RunState, effect: StartChild, kind: "action" | "chain", begun: boolean): Promise<void> => {
    const { childId, step } = effect;
    const { launcher } = deps;
    if (!launcher) throw new Error(`step ${step.id} launches, and nothing can be launched here`);
    const { deadlineAtMs, ...about } = aboutChild(run, effect);
    const request = await launcher.read(run.namespaceId, kind, effect.input);
    if (!begun) {
      const found = await launcher.prepare(run.namespaceId, request);
      if ("failure" in found) {
        await submit(run.id, {
          ...endedEvent(about.parent, childId, RunStatus.RUN_STATUS_FAILED, undefined, found.failure),
          refused: true,
        });
        return;
      }
      const { labels, timeoutMs, detached } = request;
      await startRun(run, effect, {
        ...{ ...about, ...found, labels },
        parent: { ...about.parent, launched: true, ...(detached ? { detached } : {}) },
        ...(detached ? {} : { deadlineAtMs }),
        ...(timeoutMs === undefined ? {} : { timeoutMs }),
      });
    }
    if (request.detached) await submit(run.id, await launchEnded(run.namespaceId, about.parent, childId, undefined));
  };

  /** The end of a launched run, as the step hears it. */
  const launchEnded = async (
    namespaceId: number,
    parent: Pick<ParentRef, "stepId" | "item">,
    childId: string,
    output: Value | undefined,
  ) => {
    const answer = await deps.launcher!.answer(namespaceId, childId, output);
    return "failure" in answer
      ? endedEvent(parent, childId, RunStatus.RUN_STATUS_FAILED, undefined, answer.failure)
      : endedEvent(parent, childId, RunStatus.RUN_STATUS_SUCCEEDED, answer, undefined);
  };

  const startRun = async (run: RunState, { childId }: StartChild, command: ChildCommand): Promise<void> => {
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
      await submit(run.id, endedEvent(command.parent, childId, RunStatus.RUN_STATUS_FAILED, undefined, failure));
    }
  };

  const cancelOnce = (childId: string) =>
    submit(childId, { kind: "cancel", reason: "the step that started the run has let go of it" });

  const tellOnce = async (run: RunState, output: Value | undefined, contract: string): Promise<void> => {
    const { parent, failure } = run;
    if (!parent) return;
    // An answer stands, whatever becomes of the run behind it.
    const answer = answerOfCaller(run);
    const ended = answer ? RunStatus.RUN_STATUS_SUCCEEDED : run.status;
    const result = answer ?? output;
    const written = result && { ...result, contract: result.contract || contract };
    // A detached one may end before its step has heard that it began, and means no more by it.
    const event =
      parent.launched && (written || parent.detached)
        ? await launchEnded(run.namespaceId, parent, run.id, parent.detached ? undefined : written)
        : endedEvent(parent, run.id, ended, result, answer ? undefined : failure);
    await submit(parent.runId, event);
  };

  /** Those that live though no attempt names them any more: the history knows who was begun. */
  const settleItemsOnce = async (runId: string, step: number): Promise<void> => {
    for (let after = ""; ; ) {
      const left = await store.readLeftChildren({ runId, step, afterChildId: after, limit: askedAtOnceMax });
      await Promise.all(left.map(cancelOnce));
      if (left.length < askedAtOnceMax) return;
      after = left.at(-1)!;
    }
  };

  const settleEnded = async (runId: string): Promise<void> => {
    const found = (await store.loadRuns([runId])).get(runId);
    if (!found || !isFinal(found.run.status)) return;
    const { run, method, chainVersion, contract } = found;
    if (run.parent) await tellOnce(run, await store.readResult(runId), contract);
    const plan = await deps.plans.pinned(run.namespaceId, method, chainVersion, contract);
    const asked = plan.steps.filter(({ child, index }) => {
      const { status: left, lease } = run.steps[index]!;
      return child?.onParentClose === "cancel" && left === StepStatus.STEP_STATUS_CANCELLED && lease !== "";
    });
    await Promise.all(asked.map(({ index }) => cancelOnce(run.steps[index]!.lease)));
    for (const { child, each, index } of plan.steps)
      if (each && child?.onParentClose === "cancel") await settleItemsOnce(runId, index);
  };

  return {
    start(run, effect, done) {
      void persist("the start of a child", effect.childId, () => begin(run, effect), done);
    },
    cancel(childId, done) {
      void persist("the cancel of a child", childId, () => cancelOnce(childId), done);
    },
    settleItems(run, { index }, done) {
      void persist("the cancel of children of items", run.id, () => settleItemsOnce(run.id, index), done);
    },
    tell(run, output, contract, done) {
      void persist("the report to a parent", run.id, () => tellOnce(run, output, contract), done);
    },
    settleEnded,
    settle(runId, done) {
      void persist("what an ended run owes", runId, () => settleEnded(runId), done);
    },
    async audit(oldMs) {
      const page = await store.readChildren({ oldMs, afterChildId: auditedTo, limit: lookedAtMax });
      auditedTo = page.length < lookedAtMax ? "" : page.at(-1)!.childId;
      let helped = 0;
      for (const { runId, stepId, item, attempt, childId, started, ended } of page) {
        if (started && !ended) continue;
        helped += 1;
        if (ended) await settleEnded(childId);
        else {
          const report = { stepId, item, attempt, lease: childId };
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

type ChildCommand = StartCommand & { parent: ParentRef };

function endedEvent(
  { stepId, item }: Pick<ParentRef, "stepId" | "item">,
  childId: string,
  ended: RunStatus,
  output: Value | undefined,
  failure: RunState["failure"],
): Extract<RunEvent, { kind: "child-ended" }> {
  const about = { ...(output ? { output } : {}), ...(failure ? { failure } : {}), ...(item ? { item } : {}) };
  return { kind: "child-ended", stepId, childId, status: ended, ...about };
}

function isFinalRefusal(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return code === status.INVALID_ARGUMENT || code === status.INTERNAL;
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Not `sleep`: a process that stops does not wait for it. */
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms).unref());

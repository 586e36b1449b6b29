/**
 * Evaluations that the engine asked for: over payloads that are stored elsewhere, or too costly for its tick. The result is stored as a payload and
 * comes back as an event; nothing is lost if this process dies in between, since the run says that it waits for it. Namespaces take turns.
 */
import { type Failure, StepStatus } from "@taskmesh/proto";
import { type Logger, payloadBytesMax, sha256, sleep } from "@taskmesh/runtime";
import { encodeItems } from "../contracts/cel/items.js";
import { placeOf } from "../contracts/compile-inner.js";
import { createEvaluationThread } from "../contracts/evaluation.js";
import { ruleFor } from "../engine/catch.js";
import { itemsReference } from "../engine/items.js";
import { seenBy } from "../engine/joins.js";
import {
  type ChainPlan,
  type Evaluated,
  internalContract,
  type Scope,
  type StepPlan,
  type Value,
} from "../engine/plan.js";
import type { Evaluation } from "../engine/run-event.js";
import type { RunState } from "../engine/run-state.js";
import { stepIndex } from "../engine/step-index.js";
import { inlineInputBytesMax } from "../engine/step-input.js";
import { aboutRun, errorOf } from "../engine/turn.js";
import { FairQueue } from "../fair-queue.js";
import type { RunStore } from "../store/run-store.js";
import type { Pipeline } from "./pipeline.js";
import { runFields } from "./run-fields.js";
import { createUpcast, type Upcast } from "./upcaster.js";

export interface EvaluatorDeps {
  store: RunStore;
  pipeline: Pipeline;
  log: Logger;
}

export interface Evaluator {
  /** Evaluates a step's condition and input, or the output for "". Calls `done` when the result is committed, or was not wanted any more. */
  evaluate(run: RunState, plan: ChainPlan, stepId: string, done: () => void): void;
  /** What is wrong with a stored output of a step; undefined: nothing. */
  checkStored(run: RunState, plan: ChainPlan, stepId: string, value: Value): Promise<string | undefined>;
  /** Makes an input one of another revision. */
  upcast: Upcast;
  /** The input that a step has, or would have now; undefined: something that it reads has not happened. Rejects if a payload can't be read. */
  inputOf(run: RunState, plan: ChainPlan, step: StepPlan): Promise<Evaluated<Value> | undefined>;
  /** Ends the thread. What is not evaluated yet is asked for again by whoever takes the run over. */
  stop(): Promise<void>;
}

/** Evaluations at once: each may hold a few payloads of up to 64 MiB. */
const atOnceMax = 4;
const triesMax = 10;
/** Items over sources of more bytes than this are opened by the thread. */
const inlineScopeBytesMax = 256 * 1024;
/** Items that are undone one after the other: their inputs need not be there long before. */
const undoneAtOnceMax = 300;

export function createEvaluator(deps: EvaluatorDeps): Evaluator {
  const thread = createEvaluationThread();
  const waiting = new FairQueue<() => Promise<void>>();
  let running = 0;

  const next = (): void => {
    while (running < atOnceMax && waiting.size > 0) {
      running += 1;
      void waiting.take()!().finally(() => {
        running -= 1;
        next();
      });
    }
  };

  const load = async (run: RunState, plan: ChainPlan, value: Value): Promise<Value> => {
    if (value.bytes !== undefined || value.reference === undefined) return value;
    if (value.reference.startsWith(itemsReference)) return loadItems(run, plan, value);
    const bytes = await deps.store.getPayload(run.namespaceId, value.reference);
    if (!bytes) throw new Missing(`payload ${value.reference} is not stored`);
    return { ...value, bytes };
  };

  /** The outputs of a fan-out's items as one value. */
  const loadItems = async (run: RunState, plan: ChainPlan, value: Value): Promise<Value> => {
    if (value.sizeBytes > payloadBytesMax)
      throw new TooLarge(`the outputs of its items have ${value.sizeBytes} bytes; at most ${payloadBytesMax} are read`);
    const index = Number(value.reference!.slice(itemsReference.length));
    const outputs = await deps.store.readItemOutputs(run.id, index);
    const whole: { key: string; bytes: Uint8Array }[] = [];
    for (const { key, value: one } of outputs) whole.push({ key, bytes: (await load(run, plan, one)).bytes! });
    const bytes = encodeItems(whole, plan.steps[index]!.each!.kind);
    return { ...value, sizeBytes: bytes.length, bytes };
  };

  /** Items of a fan-out that are to be undone next. */
  const undoneItems = async (
    run: RunState,
    plan: ChainPlan,
    step: number,
    from: number,
  ): Promise<NonNullable<Scope["undone"]>> => {
    const rows = await deps.store.readDoneItems({ runId: run.id, step, from, limit: undoneAtOnceMax });
    const items: { index: number; output: Value }[] = [];
    for (let bytes = 0, n = 0; n < rows.length && bytes < inlineScopeBytesMax; n++) {
      const output = await load(run, plan, rows[n]!.value);
      bytes += output.sizeBytes;
      items.push({ index: rows[n]!.item, output });
    }
    return { total: run.steps[step]!.each!.succeeded, items };
  };

  /** The inputs of the next items of a fan-out. */
  const open = async (run: RunState, plan: ChainPlan, step: StepPlan, given: Scope): Promise<Evaluation> => {
    const from = run.steps[step.index]!.each?.next ?? 0;
    const scope =
      step.undoes === undefined ? given : { ...given, undone: await undoneItems(run, plan, step.undoes, from) };
    const small = scopeBytes(scope) <= inlineScopeBytesMax;
    const cheap = small ? step.each!.open(scope, from) : ({ kind: "deferred" } as const);
    const opened = cheap.kind === "deferred" ? await thread.items(plan, step.index, scope, from) : cheap;
    if (opened.kind === "failed") return failed(opened.error);
    if (opened.kind === "deferred") return tooCostly;
    const items: Extract<Evaluation, { kind: "items" }>["items"] = [];
    for (const { key, input } of opened.value.items) {
      const made = input.kind === "failed" ? failureOf(input.error) : await inputValue(run, step, input.value);
      items.push({ input: made, ...(key === undefined ? {} : { key }) });
    }
    return { kind: "items", from, total: opened.value.total, items };
  };

  const inputValue = async (run: RunState, step: StepPlan, bytes: Uint8Array): Promise<Value> => {
    const contract = step.child?.inner ? internalContract : step.contract;
    const value = { contract, sizeBytes: bytes.length, sha256: new Uint8Array(0) };
    if (bytes.length <= inlineInputBytesMax) return { ...value, bytes };
    return { ...value, sha256: sha256(bytes), reference: await deps.store.putPayload(run.namespaceId, bytes) };
  };

  /** What the fan-out's step in the run above reads, and which of its items this run stands for. */
  const scopeAbove = async (run: RunState, { step, above }: NonNullable<ChainPlan["within"]>): Promise<Scope> => {
    const parentId = run.parent?.runId ?? "";
    const parent = (await deps.store.loadRuns([parentId])).get(parentId)?.run;
    if (!parent) throw new Missing(`run ${parentId} is not stored`);
    const plan = above();
    const scope = await scopeFor(parent, plan, plan.steps[step]);
    return { ...scope, above: [...(scope.above ?? []), placeOf(run.input.bytes)] };
  };

  const scopeFor = async (run: RunState, plan: ChainPlan, step: StepPlan | undefined): Promise<Scope> => {
    if (step && plan.within) return scopeAbove(run, plan.within);
    const outputs = (step ? seenBy(step, run.steps[step.index]!, run.outputs) : run.outputs).slice();
    for (const index of step ? step.needs : plan.steps.keys()) {
      const output = outputs[index];
      if (output) outputs[index] = await load(run, plan, output);
    }
    const input = await load(run, plan, run.input);
    return { run: aboutRun(run, plan.method), input, outputs, ...errorOf(step, run) };
  };

  const compute = async (run: RunState, plan: ChainPlan, stepId: string): Promise<Evaluation> => {
    // A lone action passes its input in and its output out: the payload that is stored is the result.
    const whole = plan.version === 0 ? (stepId === "" ? run.outputs[0] : run.input) : undefined;
    if (whole?.reference !== undefined) return { kind: "value", value: whole };
    const index = stepId === "" ? undefined : stepIndex(plan, stepId);
    const step = index === undefined ? undefined : plan.steps[index]!;
    const scope = await scopeFor(run, plan, step);
    const failure = index === undefined ? undefined : run.catching?.[index];
    const condition = step && !failure && (await decide(plan, step, scope));
    if (condition && condition.kind === "failed") return failed(condition.error);
    if (condition && condition.kind === "value" && !condition.value) return { kind: "skip" };
    if (step?.each && !failure) return open(run, plan, step, scope);
    const bound = await (step && failure
      ? bindFallback(plan, step, { ...scope, error: failure })
      : bind(plan, step, scope));
    if (bound.kind === "failed") return failed(bound.error);
    if (bound.kind === "deferred") return tooCostly;
    if (bound.value.length > payloadBytesMax) {
      return failed({
        reason: "EXPRESSION_FAILED",
        message: `the message has ${bound.value.length} bytes; at most ${payloadBytesMax} are kept`,
      });
    }
    const reference = await deps.store.putPayload(run.namespaceId, bound.value);
    const contract = step ? step.contract : plan.outputContract;
    return {
      kind: "value",
      value: {
        contract,
        sizeBytes: bound.value.length,
        sha256: sha256(bound.value),
        reference,
        // The engine reads what a wait is about, once.
        ...(step?.wait ? { bytes: bound.value } : {}),
      },
    };
  };

  /** What is cheap now that the bytes are here is done at once, the rest by the thread. */
  const decide = async (plan: ChainPlan, step: StepPlan, scope: Scope): Promise<Evaluated<boolean> | undefined> => {
    const cheap = step.condition?.(scope);
    return cheap?.kind === "deferred" ? thread.condition(plan, step.index, scope) : cheap;
  };

  const bind = async (plan: ChainPlan, step: StepPlan | undefined, scope: Scope): Promise<Evaluated<Uint8Array>> => {
    const cheap = step ? step.bindInput(scope) : plan.bindOutput(scope);
    if (cheap.kind !== "deferred") return cheap;
    return step ? thread.input(plan, step.index, scope) : thread.output(plan, scope);
  };

  const bindFallback = async (plan: ChainPlan, step: StepPlan, scope: Scope): Promise<Evaluated<Uint8Array>> => {
    const rule = scope.error && ruleFor(step, scope.error);
    const cheap = rule?.bindOutput?.(scope);
    if (!rule || !cheap)
      return { kind: "failed", error: { reason: "EXPRESSION_FAILED", message: "no rule is for it" } };
    return cheap.kind === "deferred" ? thread.fallback(plan, step.index, step.catches!.indexOf(rule), scope) : cheap;
  };

  const attempt = async (run: RunState, plan: ChainPlan, stepId: string): Promise<void> => {
    for (let tries = 0; tries < triesMax; tries++) {
      try {
        const evaluation = await compute(run, plan, stepId);
        await report(run.id, stepId, evaluation);
        return;
      } catch (error) {
        if (error instanceof TooLarge)
          return report(run.id, stepId, failed({ reason: "EXPRESSION_FAILED", message: error.message }));
        if (error instanceof Missing)
          return report(run.id, stepId, failed({ reason: "PAYLOAD_UNREADABLE", message: error.message }));
        deps.log.warn({ err: error, ...runFields(run), step_id: stepId }, "an evaluation failed; trying again");
        await sleep(200 * 2 ** Math.min(tries, 5));
      }
    }
  };

  const report = (runId: string, stepId: string, evaluation: Evaluation): Promise<void> =>
    new Promise((resolve) => {
      const done = (): void => resolve();
      const event = { kind: "evaluated" as const, stepId, evaluation };
      deps.pipeline.submit({
        kind: "event",
        runId,
        event,
        fresh: false,
        tries: 0,
        bytes: 512 + (evaluation.kind === "items" ? itemsBytes(evaluation.items) : 0),
        settle: done,
        fail: done,
      });
    });

  return {
    evaluate(run, plan, stepId, done) {
      waiting.add(run.namespaceId, () => attempt(run, plan, stepId).finally(done));
      next();
    },
    async checkStored(run, plan, stepId, value) {
      const index = stepIndex(plan, stepId);
      if (index === undefined) return undefined;
      const bytes = await deps.store.getPayload(run.namespaceId, value.reference ?? "");
      if (!bytes) return `the output refers to payload ${JSON.stringify(value.reference)}, which is not stored`;
      if (bytes.length !== value.sizeBytes)
        return `the stored output has ${bytes.length} bytes, announced were ${value.sizeBytes}`;
      return plan.steps[index]!.checkOutput(bytes);
    },
    upcast: createUpcast(deps.store, thread),
    async inputOf(run, plan, step) {
      const { input, status } = run.steps[step.index]!;
      if (input) return { kind: "value", value: await load(run, plan, input) };
      const begun = status !== StepStatus.STEP_STATUS_PENDING;
      const isOver = (index: number): boolean => endedSteps.has(run.steps[index]!.status);
      if (step.each || !(begun || step.needs.every(isOver))) return undefined;
      // A lone action is given its run's input as it is.
      if (plan.version === 0) return { kind: "value", value: await load(run, plan, run.input) };
      const bound = await bind(plan, step, await scopeFor(run, plan, step));
      if (bound.kind !== "value") return bound;
      const { contract } = step;
      return {
        kind: "value",
        value: { contract, sizeBytes: bound.value.length, sha256: sha256(bound.value), bytes: bound.value },
      };
    },
    stop: () => thread.stop(),
  };
}

const endedSteps: ReadonlySet<StepStatus> = new Set([
  StepStatus.STEP_STATUS_SUCCEEDED,
  StepStatus.STEP_STATUS_FAILED,
  StepStatus.STEP_STATUS_SKIPPED,
  StepStatus.STEP_STATUS_CANCELLED,
  StepStatus.STEP_STATUS_EXPIRED,
]);

class Missing extends Error {}
class TooLarge extends Error {}

const itemsBytes = (items: Extract<Evaluation, { kind: "items" }>["items"]): number =>
  items.reduce((sum, { input }) => sum + 200 + ("contract" in input ? (input.bytes?.length ?? 0) : 0), 0);

const scopeBytes = ({ input, outputs }: Scope): number =>
  outputs.reduce((sum, output) => sum + (output?.bytes?.length ?? 0), input.bytes?.length ?? 0);

const failureOf = ({ reason, message }: { reason: string; message: string }): Failure => {
  return { reason, message, retryable: false, details: [], cause: undefined };
};

const failed = (error: { reason: string; message: string }): Evaluation => ({
  kind: "failed",
  failure: failureOf(error),
});

const tooCostly = failed({ reason: "EXPRESSION_FAILED", message: "the expression costs too much" });

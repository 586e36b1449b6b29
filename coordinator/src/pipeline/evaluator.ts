/**
 * Evaluations that the engine asked for: over payloads that are stored elsewhere, or too costly for its tick. The result is stored as a payload and
 * comes back as an event; nothing is lost if this process dies in between, since the run says that it waits for it.
 */
import { type Logger, payloadBytesMax, sha256, sleep } from "@taskmesh/runtime";
import { createEvaluationThread } from "../contracts/evaluation.js";
import { seenBy } from "../engine/joins.js";
import type { ChainPlan, Evaluated, Scope, StepPlan, Value } from "../engine/plan.js";
import type { Evaluation } from "../engine/run-event.js";
import type { RunState } from "../engine/run-state.js";
import { stepIndex } from "../engine/step-index.js";
import { aboutRun } from "../engine/turn.js";
import type { RunStore } from "../store/run-store.js";
import type { Pipeline } from "./pipeline.js";

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
  /** Ends the thread. What is not evaluated yet is asked for again by whoever takes the run over. */
  stop(): Promise<void>;
}

/** Evaluations at once: each may hold a few payloads of up to 64 MiB. */
const atOnceMax = 4;
const triesMax = 10;

export function createEvaluator(deps: EvaluatorDeps): Evaluator {
  const thread = createEvaluationThread();
  const waiting: (() => Promise<void>)[] = [];
  let running = 0;

  const next = (): void => {
    while (running < atOnceMax && waiting.length > 0) {
      running += 1;
      void waiting.shift()!().finally(() => {
        running -= 1;
        next();
      });
    }
  };

  const load = async (run: RunState, value: Value): Promise<Value> => {
    if (value.bytes !== undefined || value.reference === undefined) return value;
    const bytes = await deps.store.getPayload(run.namespaceId, value.reference);
    if (!bytes) throw new Missing(`payload ${value.reference} is not stored`);
    return { ...value, bytes };
  };

  const scopeFor = async (run: RunState, plan: ChainPlan, step: StepPlan | undefined): Promise<Scope> => {
    const outputs = (step ? seenBy(step, run.steps[step.index]!, run.outputs) : run.outputs).slice();
    for (const index of step ? step.needs : plan.steps.keys()) {
      const output = outputs[index];
      if (output) outputs[index] = await load(run, output);
    }
    return { run: aboutRun(run, plan.method), input: await load(run, run.input), outputs };
  };

  const compute = async (run: RunState, plan: ChainPlan, stepId: string): Promise<Evaluation> => {
    // A lone action passes its input in and its output out: the payload that is stored is the result.
    const whole = plan.version === 0 ? (stepId === "" ? run.outputs[0] : run.input) : undefined;
    if (whole?.reference !== undefined) return { kind: "value", value: whole };
    const index = stepId === "" ? undefined : stepIndex(plan, stepId);
    const step = index === undefined ? undefined : plan.steps[index]!;
    const scope = await scopeFor(run, plan, step);
    const condition = step && (await decide(plan, step, scope));
    if (condition?.kind === "failed") return failed(condition.error);
    if (condition?.kind === "value" && !condition.value) return { kind: "skip" };
    const bound = await bind(plan, step, scope);
    if (bound.kind === "failed") return failed(bound.error);
    if (bound.kind === "deferred")
      return failed({ reason: "EXPRESSION_FAILED", message: "the expression costs too much" });
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

  const attempt = async (run: RunState, plan: ChainPlan, stepId: string): Promise<void> => {
    for (let tries = 0; tries < triesMax; tries++) {
      try {
        const evaluation = await compute(run, plan, stepId);
        await report(run.id, stepId, evaluation);
        return;
      } catch (error) {
        if (error instanceof Missing)
          return report(run.id, stepId, failed({ reason: "PAYLOAD_UNREADABLE", message: error.message }));
        deps.log.warn({ err: error, runId: run.id, stepId }, "an evaluation failed; trying again");
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
        bytes: 512,
        settle: done,
        fail: done,
      });
    });

  return {
    evaluate(run, plan, stepId, done) {
      waiting.push(() => attempt(run, plan, stepId).finally(done));
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
    stop: () => thread.stop(),
  };
}

class Missing extends Error {}

const failed = ({ reason, message }: { reason: string; message: string }): Evaluation => ({
  kind: "failed",
  failure: { reason, message, retryable: false, details: [], cause: undefined },
});

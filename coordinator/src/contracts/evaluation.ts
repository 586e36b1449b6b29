/**
 * Evaluates in a thread what plans deferred: over large payloads, or costly. One thread, one evaluation at a time, each under a deadline; a
 * thread that exceeds it or runs out of memory is ended, and the next evaluation gets a new one. So an expression can fail its step and
 * nothing else. Namespaces take turns, so one with many costly expressions delays another's by one of its own at a time.
 *
 *   pipeline ── scope, plan ──► this ── message ──► evaluation-thread.ts: compiles the same chain with `force`, evaluates
 *
 * E1. Every evaluation is answered exactly once, with a value or a failure; promises never reject.
 * E2. A plan is sent to a thread once; the thread keeps it for as long as the two agree on it (`plansMax`).
 */
import type { Worker } from "node:worker_threads";
import type { ChainPlan, Evaluated, EvaluationError, OpenedItems, Scope } from "../engine/plan.js";
import { FairQueue } from "../fair-queue.js";
import { startThread } from "../thread.js";
import { innerPath } from "./compile-inner.js";

/** What is evaluated: a step's condition or input by its index, or the chain's output. */
export type EvaluationTask =
  | { kind: "condition" | "input"; step: number }
  /** The items of a fan-out from this one on. */
  | { kind: "items"; step: number; from: number }
  | { kind: "fallback"; step: number; rule: number }
  | { kind: "output" };

type Result = Evaluated<Uint8Array | boolean | OpenedItems>;

/** From here to the thread. */
export interface EvaluationRequest {
  id: number;
  plan: string;
  /** Sent with the first request of a plan. */
  source?: {
    spec: Uint8Array;
    method: string;
    contracts: [method: string, descriptorSet: Uint8Array][];
    publicUrl: string;
    /** The plan is an upcaster's: `contracts` are both revisions of `method`, the older one first. */
    upcasts: boolean;
    /** Steps that lead to the plan within the chain's. */
    inner: readonly string[];
  };
  task: EvaluationTask;
  scope: Scope;
}

/** The thread has compiled the plan and begins: from now on the time counts. */
export interface EvaluationStart {
  starts: number;
}

/** What comes back. */
export interface EvaluationAnswer {
  id: number;
  result: Result;
}

export interface EvaluationThread {
  /** Evaluates a condition, whatever it costs within the deadline. */
  condition(plan: ChainPlan, step: number, scope: Scope): Promise<Evaluated<boolean>>;
  /** Encodes a step's input. */
  input(plan: ChainPlan, step: number, scope: Scope): Promise<Evaluated<Uint8Array>>;
  /** Binds the inputs of a fan-out's items, from one of them on. */
  items(plan: ChainPlan, step: number, scope: Scope, from: number): Promise<Evaluated<OpenedItems>>;
  /** Encodes what a rule of a step's on_failure gives instead of its output. */
  fallback(plan: ChainPlan, step: number, rule: number, scope: Scope): Promise<Evaluated<Uint8Array>>;
  /** Encodes the chain's output. */
  output(plan: ChainPlan, scope: Scope): Promise<Evaluated<Uint8Array>>;
  /** Ends the thread; what is still waiting fails. Safe to repeat. */
  stop(): Promise<void>;
}

export interface EvaluationOptions {
  /** Longest evaluation in milliseconds, compiling the chain not counted; default 10 s. */
  timeoutMs?: number;
}

/** Plans that a thread keeps. When it has more, it is given a fresh start instead of a bookkeeping of its own. */
const plansMax = 200;
/** Heap of the thread: a few payloads of 64 MiB, decoded. An expression that makes more ends its thread, not its coordinator. */
const heapMiB = 1_024;
/** Longest start of a thread, compiling included. */
const startTimeoutMs = 60_000;

interface Job {
  request: EvaluationRequest;
  plan: ChainPlan;
  resolve: (result: Result) => void;
}

/** Makes it; the thread starts with the first evaluation. */
export function createEvaluationThread({ timeoutMs = 10_000 }: EvaluationOptions = {}): EvaluationThread {
  const waiting = new FairQueue<Job>();
  let running: Job | undefined;
  let thread: Worker | undefined;
  let sent = new Set<string>();
  let timer: NodeJS.Timeout | undefined;
  let ids = 0;
  let stopped = false;

  const finish = (result: Result): void => {
    clearTimeout(timer);
    const job = running;
    running = undefined;
    job?.resolve(result);
    next();
  };
  const discard = (): Promise<number> | undefined => {
    const ended = thread;
    thread = undefined;
    sent = new Set();
    ended?.removeAllListeners();
    // An ended thread may still say why; nobody waits for it any more.
    ended?.on("error", () => undefined);
    return ended?.terminate();
  };
  const open = (): Worker => {
    const opened = startThread("evaluation-thread", import.meta.url, undefined, { maxOldGenerationSizeMb: heapMiB });
    opened.on("message", (answer: EvaluationAnswer | EvaluationStart) => {
      if ("starts" in answer) arm(timeoutMs, `the expression took longer than ${timeoutMs} ms`);
      else if (answer.id === running?.request.id) finish(answer.result);
    });
    const broken = (error: unknown): void => {
      void discard();
      finish(failure(`the evaluation ended its thread: ${error instanceof Error ? error.message : String(error)}`));
    };
    opened.on("error", broken);
    opened.on("exit", broken);
    opened.unref();
    return opened;
  };
  const arm = (ms: number, message: string): void => {
    clearTimeout(timer);
    if (running === undefined) return;
    timer = setTimeout(() => {
      void discard();
      finish(failure(message));
    }, ms);
  };
  const next = (): void => {
    if (running !== undefined || stopped) return;
    running = waiting.take();
    if (running === undefined) return;
    if (sent.size >= plansMax) void discard();
    const { plan, request } = running;
    arm(startTimeoutMs, "the thread did not start");
    thread ??= open();
    if (!sent.has(request.plan) && plan.source !== undefined) {
      const contracts = [...plan.source.contracts].map(([method, { descriptorSet }]): [string, Uint8Array] => [
        method,
        descriptorSet,
      ]);
      const { spec, publicUrl = "", inner = [], upcasts = false } = plan.source;
      request.source = { spec, method: innerPath(plan.method).chain, contracts, publicUrl, inner, upcasts };
      sent.add(request.plan);
    }
    thread.postMessage(request);
  };
  const evaluate = (plan: ChainPlan, task: EvaluationTask, scope: Scope): Promise<Result> =>
    new Promise((resolve) => {
      if (stopped) return resolve(failure("the coordinator is stopping"));
      if (plan.source === undefined) return resolve(failure("the plan has no expressions"));
      const name = `${plan.method}/${plan.version}/${plan.contract}`;
      waiting.add(scope.run.namespace, { request: { id: ++ids, plan: name, task, scope }, plan, resolve });
      next();
    });

  return {
    condition: async (plan, step, scope) => narrow(await evaluate(plan, { kind: "condition", step }, scope), "boolean"),
    input: async (plan, step, scope) => narrow(await evaluate(plan, { kind: "input", step }, scope), "object"),
    items: async (plan, step, scope, from) =>
      narrow(await evaluate(plan, { kind: "items", step, from }, scope), "object"),
    fallback: async (plan, step, rule, scope) =>
      narrow(await evaluate(plan, { kind: "fallback", step, rule }, scope), "object"),
    output: async (plan, scope) => narrow(await evaluate(plan, { kind: "output" }, scope), "object"),
    async stop() {
      stopped = true;
      const ended = discard();
      for (const job of waiting.clear()) job.resolve(failure("the coordinator is stopping"));
      finish(failure("the coordinator is stopping"));
      await ended;
    },
  };
}

function failure(message: string): { kind: "failed"; error: EvaluationError } {
  return { kind: "failed", error: { reason: "EXPRESSION_FAILED", message } };
}

/** The thread answers a condition with a boolean and a message with bytes; anything else is a fault of ours. */
function narrow<T extends Uint8Array | boolean | OpenedItems>(
  result: Result,
  type: "boolean" | "object",
): Evaluated<T> {
  if (result.kind !== "value") return result;
  if (typeof result.value !== type) throw new Error(`the evaluation gave a ${typeof result.value}`);
  return { kind: "value", value: result.value as T };
}

/**
 * A run of a chain without a mesh: the real engine, and stubs for workers. No server, no database, no clock: time is skipped to whatever
 * happens next, so that a wait of a month or ten retries an hour apart cost nothing.
 *
 * R1. Everything of the chain is real: types are checked as when it is saved, conditions, inputs and outputs are evaluated, retries and limits
 *     are the engine's own.
 * R2. A rehearsal is the same each time: chance is a constant, and what happens at one instant happens in the order in which it was caused.
 */
import type { JsonValue } from "@bufbuild/protobuf";
import { EventKind, type Failure } from "@taskmesh/proto";
import { sha256 } from "@taskmesh/runtime";
import { signalMailbox } from "../contracts/compile-wait.js";
import { accept, advance } from "../engine/advance.js";
import { ruleFor } from "../engine/catch.js";
import { isIdleUndo } from "../engine/compensation.js";
import type { Evaluated, Scope, Value } from "../engine/plan.js";
import type { Advance, Context, Effect, Evaluation, Outcome, RunEvent, RunRecord } from "../engine/run-event.js";
import { isFinal, type RunState, RunStatus, StepStatus } from "../engine/run-state.js";
import { errorOf } from "../engine/turn.js";
import { mailboxOf } from "../engine/waits.js";
import { decodeSide, encodeSide, type Prepared, prepare, type Rehearsed } from "./setup.js";
import { readAnswer, type Stub, StubFailure } from "./stub.js";

/** When a rehearsal begins, unless told otherwise: a Monday. */
const beginsAt = new Date("2030-01-07T09:00:00Z");
/** Events of one rehearsal at most: a chain that goes on for ever ends its test. */
const eventsMax = 100_000;

export interface RehearseOptions {
  /** FileDescriptorSets of the actions: what `taskmesh gen` wrote, `builtinDescriptors` of `@taskmesh/actions`. */
  descriptors: readonly Uint8Array[];
  /** Stubs of the actions that the chain calls; a call without one fails the rehearsal. */
  actions?: readonly Stub[];
  /** Chains that the chain calls, each after those that it calls itself. A stub of the same name stands for one. */
  chains?: readonly Rehearsed[];
  /** The chain's input as canonical protobuf JSON; default: an empty message. */
  input?: unknown;
  /** Messages from outside: signals by their name, callbacks by their step's id. `afterMs`: since the start; default 0. */
  signals?: readonly { name: string; message?: unknown; afterMs?: number }[];
  /** Asks to cancel the run, so many milliseconds after its start. */
  cancelAfterMs?: number;
  startAt?: Date;
}

type Name<T extends string> = T extends `${"RUN" | "STEP"}_STATUS_${infer N}` ? N : never;

/** What became of one step. */
export interface RehearsedStep {
  status: Name<keyof typeof StepStatus>;
  /** Attempts that were begun. */
  attempts: number;
  /** Input of each attempt, as JSON. */
  inputs: JsonValue[];
  /** As JSON, if it succeeded. */
  output?: JsonValue;
  /** Of the last attempt that failed. */
  failure?: { reason: string; message: string };
  /** What became of the chains that it called, one an attempt. */
  children: Rehearsal[];
  /** Milliseconds from the start of the run to the step's first attempt or wait, and to its end. */
  startedMs: number;
  endedMs: number;
}

/** What became of the run. */
export interface Rehearsal {
  status: Name<keyof typeof RunStatus>;
  /** As JSON, if it succeeded. */
  output?: JsonValue;
  failure?: { reason: string; message: string };
  /** Ids of the steps that did something, in the order in which they began. */
  path: string[];
  steps: Record<string, RehearsedStep>;
  /** Rehearsed time from start to end. */
  elapsedMs: number;
}

/** Runs a chain with stubs. Rejects if the chain, its input or a stub's answer breaks a contract, or a stub is missing. */
export async function rehearse(chain: Rehearsed, options: RehearseOptions): Promise<Rehearsal> {
  const stage = new Stage(prepare(chain, options.descriptors, options.chains), options);
  return stage.play();
}

interface Planned {
  atMs: number;
  no: number;
  event: RunEvent;
}

class Stage {
  readonly #prepared: Prepared;
  readonly #options: RehearseOptions;
  readonly #stubs: ReadonlyMap<string, Stub>;
  readonly #calls = new Map<string, number>();
  readonly #startMs: number;
  readonly #planned: Planned[] = [];
  readonly #path: string[] = [];
  readonly #steps = new Map<string, RehearsedStep>();
  #nowMs: number;
  /** The run's, once it has ended well. */
  #output: Value | undefined;
  #leases = 0;
  #made = 0;

  constructor(prepared: Prepared, options: RehearseOptions) {
    this.#prepared = prepared;
    this.#options = options;
    this.#stubs = new Map(options.actions?.map((stub) => [stub.method, stub]));
    this.#startMs = (options.startAt ?? beginsAt).getTime();
    this.#nowMs = this.#startMs;
  }

  async play(): Promise<Rehearsal> {
    const { plan, contract } = this.#prepared;
    const input = encodeSide(contract, "input", this.#options.input ?? {}, "the input");
    const about = { id: "rehearsal", namespaceId: 1, namespace: "default", labels: {}, priority: 0 };
    let run = await this.#take(
      accept(plan, { ...about, input: toValue(contract.fingerprint, input) }, this.#context()),
    );
    for (const signal of this.#options.signals ?? []) this.#plan(signal.afterMs ?? 0, this.#signal(signal));
    if (this.#options.cancelAfterMs !== undefined)
      this.#plan(this.#options.cancelAfterMs, { kind: "cancel", reason: "cancelled in the rehearsal" });
    for (let events = 0; !isFinal(run.status); events++) {
      if (events === eventsMax) throw new Error(`the rehearsal does not end: ${events} events`);
      run = await this.#take(advance(run, plan, this.#next(run), this.#context()));
    }
    return this.#result(run);
  }

  /** What happens next; time is skipped to it. */
  #next(run: RunState): RunEvent {
    this.#planned.sort((a, b) => a.atMs - b.atMs || a.no - b.no);
    const first = this.#planned[0];
    if (first && first.atMs <= Math.max(run.wakeupAtMs, this.#nowMs)) {
      this.#planned.shift();
      this.#nowMs = Math.max(this.#nowMs, first.atMs);
      return first.event;
    }
    this.#nowMs = Math.max(this.#nowMs, run.wakeupAtMs);
    return { kind: "wake" };
  }

  /** `ms` after the start of the run. */
  #plan(ms: number, event: RunEvent): void {
    this.#planned.push({ atMs: this.#startMs + ms, no: this.#made++, event });
  }

  #context(): Context {
    return {
      nowMs: this.#nowMs,
      lease: () => `lease-${++this.#leases}`,
      random: () => 0.5,
      admit: () => true,
      childId,
    };
  }

  async #take({ run, records, effects }: Advance): Promise<RunState> {
    for (const record of records) this.#note(record);
    for (const effect of effects) await this.#perform(run, effect);
    return run;
  }

  async #perform(run: RunState, effect: Effect): Promise<void> {
    if (effect.kind === "dispatch") return this.#call(effect);
    if (effect.kind !== "evaluate") return;
    const evaluation = this.#evaluate(run, effect.stepId);
    this.#plan(this.#nowMs - this.#startMs, { kind: "evaluated", stepId: effect.stepId, evaluation });
  }

  /** What the mesh does in a thread. */
  #evaluate(run: RunState, stepId: string): Evaluation {
    const { forced } = this.#prepared;
    const about = { id: run.id, namespace: run.namespace, method: forced.method, acceptedAtMs: run.acceptedAtMs };
    const step = forced.steps.find(({ id }) => id === stepId);
    const caught = step && run.catching?.[step.index];
    const scope: Scope = { run: about, input: run.input, outputs: run.outputs, ...errorOf(step, run, caught) };
    const condition = caught ? undefined : step?.condition?.(scope);
    if (condition?.kind === "value" && !condition.value) return { kind: "skip" };
    const bound: Evaluated<unknown> =
      condition !== undefined && condition.kind !== "value"
        ? condition
        : step
          ? (caught ? ruleFor(step, caught)!.bindOutput! : step.bindInput)(scope)
          : forced.bindOutput(scope);
    if (bound.kind === "value")
      return { kind: "value", value: toValue(step?.contract ?? forced.outputContract, bound.value as Uint8Array) };
    const error =
      bound.kind === "failed" ? bound.error : { reason: "EXPRESSION_FAILED", message: "the expression costs too much" };
    return { kind: "failed", failure: failureOf(error.reason, error.message, false) };
  }

  async #call({ step, attempt, lease, input }: Extract<Effect, { kind: "dispatch" }>): Promise<void> {
    const contract = this.#prepared.contractOf(step.method);
    const bytes = input.bytes ?? new Uint8Array();
    const seen = this.#stepOf(step.id);
    seen.inputs.push(decodeSide(contract, "input", bytes));
    seen.attempts = attempt;
    const { ms, outcome } = await this.#answer(step.id, step.method, attempt, bytes);
    const report = { stepId: step.id, item: 0, attempt, lease };
    const late = ms >= step.startToCloseMs;
    const limit = `the handler did not end within ${step.startToCloseMs} ms`;
    this.#plan(this.#nowMs - this.#startMs + Math.min(ms, step.startToCloseMs), {
      kind: "complete",
      report,
      outcome: late ? { kind: "failure", failure: failureOf("START_TO_CLOSE_TIMEOUT", limit, true) } : outcome,
      executionMs: Math.min(ms, step.startToCloseMs),
      session: "rehearsal",
    });
  }

  async #answer(
    stepId: string,
    method: string,
    attempt: number,
    bytes: Uint8Array,
  ): Promise<{ ms: number; outcome: Outcome }> {
    const stub = this.#stubs.get(method);
    const chain = this.#prepared.chains.get(method);
    if (!stub && chain) return this.#callChain(stepId, method, chain, bytes);
    if (!stub) throw new Error(`step ${stepId} calls ${method}, which has no stub`);
    const contract = this.#prepared.contractOf(method);
    const call = (this.#calls.get(method) ?? 0) + 1;
    this.#calls.set(method, call);
    const input = stub.deserialize ? stub.deserialize(bytes) : decodeSide(contract, "input", bytes);
    let answer: unknown;
    try {
      answer = await stub.handler(input as never, { stepId, attempt, call, nowMs: this.#nowMs });
    } catch (error) {
      answer = error instanceof StubFailure ? error : new StubFailure("HANDLER_ERROR", String(error), true);
    }
    const { ms, output } = readAnswer(answer);
    if (output instanceof StubFailure)
      return { ms, outcome: { kind: "failure", failure: failureOf(output.reason, output.message, output.retryable) } };
    if (output === undefined) return { ms, outcome: { kind: "cancelled", message: "" } };
    const encoded = stub.serialize
      ? stub.serialize(output)
      : encodeSide(contract, "output", output, `the answer of the stub`);
    return { ms, outcome: { kind: "output", value: toValue(contract.fingerprint, encoded) } };
  }

  /** A chain that is called is rehearsed too, with the same stubs. */
  async #callChain(stepId: string, method: string, chain: Rehearsed, bytes: Uint8Array) {
    const contract = this.#prepared.contractOf(method);
    const { descriptors, actions = [], chains = [] } = this.#options;
    const run = await rehearse(chain, {
      ...{ descriptors, actions, chains },
      input: decodeSide(contract, "input", bytes),
      startAt: new Date(this.#nowMs),
    });
    this.#stepOf(stepId).children.push(run);
    const { status, output, failure = { reason: status, message: `the chain ended ${status}` }, elapsedMs } = run;
    if (status !== "SUCCEEDED") {
      const failed = failureOf(failure.reason, failure.message, false);
      return { ms: elapsedMs, outcome: { kind: "failure" as const, failure: failed } };
    }
    const encoded = encodeSide(contract, "output", output, `the output of ${method}`);
    return { ms: elapsedMs, outcome: { kind: "output" as const, value: toValue(contract.fingerprint, encoded) } };
  }

  #signal({ name, message }: { name: string; message?: unknown }): RunEvent {
    const taker = this.#prepared.plan.steps.find(
      ({ id, wait }) =>
        (wait?.kind === "signal" && wait.mailbox === signalMailbox(name)) || (wait?.kind === "callback" && id === name),
    );
    const mailbox = taker && mailboxOf(taker);
    if (!taker || mailbox === undefined) throw new Error(`no step of the chain waits for ${JSON.stringify(name)}`);
    const contract = this.#prepared.contractOf(taker.method);
    const bytes = encodeSide(contract, "output", message ?? {}, `the signal ${name}`);
    return { kind: "message", mailbox, name, key: "", value: toValue(contract.fingerprint, bytes) };
  }

  #stepOf(id: string): RehearsedStep {
    const known = this.#steps.get(id);
    if (known) return known;
    this.#path.push(id);
    const begun: RehearsedStep = {
      status: "PENDING",
      attempts: 0,
      inputs: [],
      children: [],
      startedMs: this.#nowMs - this.#startMs,
      endedMs: 0,
    };
    this.#steps.set(id, begun);
    return begun;
  }

  #note(record: RunRecord): void {
    const { steps } = this.#prepared.plan;
    for (const { step, status } of record.moves)
      if (status === StepStatus.STEP_STATUS_WAITING) this.#stepOf(steps[step]!.id);
    if (record.kind === EventKind.EVENT_KIND_RUN_ENDED) this.#output = record.payload;
    if (record.step < 0) return;
    const failed = record.failure && { reason: record.failure.reason, message: record.failure.message };
    if (failed) this.#stepOf(steps[record.step]!.id).failure = failed;
    if (record.kind === EventKind.EVENT_KIND_STEP_SUCCEEDED) this.#stepOf(steps[record.step]!.id);
  }

  #result(run: RunState): Rehearsal {
    const { plan, contract } = this.#prepared;
    const steps: Record<string, RehearsedStep> = {};
    plan.steps.forEach((step, index) => {
      const { id, method } = step;
      const state = run.steps[index]!;
      if (isIdleUndo(step, state)) return;
      const output = run.outputs[index]?.bytes;
      const begun = this.#steps.get(id) ?? { attempts: 0, inputs: [], children: [], startedMs: 0 };
      steps[id] = {
        ...begun,
        status: statusName(StepStatus[state.status]!),
        endedMs: state.endedAtMs === 0 ? 0 : state.endedAtMs - this.#startMs,
        ...(output ? { output: decodeSide(this.#prepared.contractOf(method), "output", output) } : {}),
      };
    });
    const output = run.status === RunStatus.RUN_STATUS_SUCCEEDED ? this.#output : undefined;
    return {
      status: statusName(RunStatus[run.status]!),
      ...(output?.bytes ? { output: decodeSide(contract, "output", output.bytes) } : {}),
      ...(run.failure ? { failure: { reason: run.failure.reason, message: run.failure.message } } : {}),
      path: this.#path,
      steps,
      elapsedMs: run.endedAtMs - this.#startMs,
    };
  }
}

/** Chains that are called are rehearsed by themselves: the engine is not asked to start them. */
const childId = (): string => {
  throw new Error("a rehearsed chain starts no runs");
};

const statusName = <T extends string>(name: string): T => name.replace(/^(RUN|STEP)_STATUS_/, "") as T;

const failureOf = (reason: string, message: string, retryable: boolean): Failure => ({
  reason,
  message,
  retryable,
  details: [],
  cause: undefined,
});

/** Everything is in memory; the reference is for what the mesh would store elsewhere. */
const toValue = (contract: string, bytes: Uint8Array): Value => ({
  contract,
  sizeBytes: bytes.length,
  sha256: sha256(bytes),
  bytes,
});

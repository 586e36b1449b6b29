/** Performs what committed runs set in motion: starts go out, evaluations begin, waiters are told. */
import type { StartStep } from "@taskmesh/proto";
import { type Carrier, encodeStartStep, type PublishOutcome, type TraceHeaders } from "@taskmesh/runtime";
import type { Value } from "../engine/plan.js";
import type { Effect, Report } from "../engine/run-event.js";
import { type RunState, stateOf } from "../engine/run-state.js";
import type { Children } from "./children.js";
import type { Draft } from "./fold.js";
import type { Notices } from "./notices.js";
import type { Upcast } from "./upcaster.js";
import type { Windows } from "./windows.js";

export interface EffectsDeps {
  carrier: Pick<Carrier, "publishStart">;
  /** How each publish of a start ended. */
  sent(outcome: PublishOutcome): void;
  windows: Windows;
  notices: Notices;
  coordinatorId: string;
  nowMs(): number;
  /** The start may or may not be out: give the attempt a new lease. Calls `done` when that is committed. */
  redispatch(run: RunState, report: Report, why: string, done: () => void): void;
  /** The start can't be sent at all. */
  refused(run: RunState, report: Report, why: string, done: () => void): void;
  evaluate(run: RunState, draft: Draft, stepId: string, done: () => void): void;
  ended(draft: Draft): void;
  /** The run's caller has its answer. */
  answered(draft: Draft): void;
  /** Begins the run of an attempt, asks it to stop, tells the step that it has ended; each calls `done` when it can't be lost any more. */
  children: Pick<Children, "start" | "cancel" | "tell" | "settleItems">;
  /** The run waits for an operator. */
  broken(draft: Draft): void;
  /** W3C trace context of an attempt; undefined: the run has none. */
  traceOf(run: RunState, report: Report): TraceHeaders | undefined;
  /** What an earlier attempt kept for the next. */
  checkpointOf(run: RunState, report: Report): Promise<StartStep["checkpoint"]>;
  /** Makes an input one for workers of another revision. */
  upcast: Upcast;
  /** Something is due then. */
  wakeAt(ms: number): void;
}

type Dispatch = Extract<Effect, { kind: "dispatch" }>;

/** Performs the effects of one committed draft; `confirmed` is called once when none of them can be lost any more. */
export function performEffects(deps: EffectsDeps, draft: Draft, confirmed: () => void): void {
  const { run, effects } = draft.write;
  let open = 1;
  const done = (): void => {
    open -= 1;
    if (open === 0) confirmed();
  };
  for (const effect of effects) {
    if (effect.kind === "free") deps.windows.free(effect.lease);
    else if (effect.kind === "dispatch" && !effect.claimed && isCurrent(run, effect)) {
      open += 1;
      sendStart(deps, run, effect, done);
    } else if (effect.kind === "evaluate") {
      open += 1;
      deps.evaluate(run, draft, effect.stepId, done);
    } else if (isKin(effect)) {
      open += 1;
      performKin(deps, draft, effect, done);
    } else if (effect.kind === "enqueue") deps.windows.queued(run, effect.step);
    else if (effect.kind === "ended") deps.ended(draft);
    else if (effect.kind === "answered") deps.answered(draft);
    else if (effect.kind === "broken" && run.broken) deps.broken(draft);
  }
  if (run.wakeupAtMs > 0) deps.wakeAt(run.wakeupAtMs);
  deps.notices.notify(run.id);
  done();
}

type Kin = Extract<Effect, { kind: "start-child" | "cancel-child" | "tell-parent" | "settle-children" }>;

const kinKinds: ReadonlySet<string> = new Set(["start-child", "cancel-child", "tell-parent", "settle-children"]);
const isKin = (effect: Effect): effect is Kin => kinKinds.has(effect.kind);

function performKin({ children }: EffectsDeps, { write, plan }: Draft, effect: Kin, done: () => void): void {
  const { run } = write;
  if (effect.kind === "cancel-child") children.cancel(effect.childId, done);
  else if (effect.kind === "tell-parent") children.tell(run, effect.output, plan.outputContract, done);
  else if (effect.kind === "settle-children") children.settleItems(run, effect.step, done);
  // A later event of the same batch may have given the attempt up.
  else if (isCurrent(run, { ...effect, lease: effect.childId })) children.start(run, effect, done);
  else done();
}

/** A later event of the same batch may have superseded the lease: then nobody must run under it. */
function isCurrent(run: RunState, effect: Pick<Dispatch, "step" | "item" | "lease">): boolean {
  return stateOf(run, effect.step.index, effect.item ?? 0)?.lease === effect.lease && run.endedAtMs === 0;
}

function sendStart(deps: EffectsDeps, run: RunState, effect: Dispatch, done: () => void): void {
  const { step, attempt, lease } = effect;
  const { item = 0 } = effect;
  const report = { stepId: step.id, item, attempt, lease };
  const place = deps.windows.placeOf(lease);
  if (!place) return deps.redispatch(run, report, "it lost its place before it was sent", done);
  const publish = (checkpoint?: StartStep["checkpoint"], given = effect): void => {
    const headers = deps.traceOf(run, report);
    const bytes = encodeStartStep(toStartStep(run, given, deps.coordinatorId, deps.nowMs(), checkpoint));
    const { lane, packMax } = place;
    deps.carrier.publishStart({ lane, packMax, id: lease, bytes, ...(headers ? { headers } : {}) }, (outcome) => {
      deps.sent(outcome);
      switch (outcome.kind) {
        case "stored":
          return done();
        case "unknown":
          return deps.redispatch(run, report, outcome.message, done);
        case "refused":
          return deps.refused(run, report, outcome.message, done);
      }
    });
  };
  const { upcast } = place;
  if (!effect.resume && !upcast) return publish();
  const unread = (): void => deps.redispatch(run, report, "its checkpoint or input could not be read", done);
  const checkpoint = effect.resume ? deps.checkpointOf(run, report) : Promise.resolve(undefined);
  const input = upcast ? deps.upcast(run, upcast, effect.input) : undefined;
  Promise.all([checkpoint, input]).then(([kept, made]) => {
    if (made === undefined) publish(kept);
    else if (made.kind === "value") publish(kept, { ...effect, input: made.value });
    else deps.refused(run, report, made.kind === "failed" ? made.error.message : "the upcaster did not end", done);
  }, unread);
}

/** The message that asks a worker to run an attempt. */
export function toStartStep(
  run: RunState,
  effect: Dispatch,
  reportTo: string,
  nowMs: number,
  checkpoint?: StartStep["checkpoint"],
): StartStep {
  const { step, attempt, lease, input, runMethod } = effect;
  return {
    namespaceId: run.namespaceId,
    runId: run.id,
    stepId: step.id,
    item: effect.item ?? 0,
    attempt,
    lease,
    method: step.method,
    input: toPayload(input),
    reportTo,
    startToCloseMs: step.startToCloseMs,
    heartbeatTimeoutMs: step.heartbeatMs ?? 0,
    runRemainingMs: BigInt(Math.max(0, Math.ceil(endsAtMs(run, effect) - nowMs))),
    exclusive: step.exclusive,
    checkpoint,
    runMethod,
  };
}

/** When what the step does makes no sense any more: the run's deadline; an undo has its own. */
function endsAtMs(run: RunState, { step, item = 0 }: Dispatch): number {
  const { index, undoes, scheduleToCloseMs = 0 } = step;
  if (undoes === undefined) return run.deadlineAtMs;
  return (stateOf(run, index, item)?.readyAtMs ?? 0) + scheduleToCloseMs;
}

/** A value as the wire's envelope. */
export function toPayload(value: Value): StartStep["input"] {
  return {
    contract: value.contract,
    keyId: "",
    sizeBytes: BigInt(value.sizeBytes),
    sha256: value.sha256 as Buffer,
    data:
      value.bytes === undefined
        ? { $case: "reference", value: value.reference ?? "" }
        : { $case: "inline", value: value.bytes as Buffer },
  };
}

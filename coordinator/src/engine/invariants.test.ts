/**
 * The engine against chance: random graphs, and events in an order that no healthy mesh would send. What must hold after every event,
 * and at the end, is said in run-state.ts as E1 to E6, and in the heads of the files that the letters of the checks name.
 */
import { EventKind } from "@taskmesh/proto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { nextWakeupAtMs } from "./deadlines.js";
import type { Evaluated, WaitPlan } from "./plan.js";
import { evaluated, failure, planOf, type RunBench, type StepSpec, startMs, startRun, value } from "./plan-fixture.js";
import { answerToSignal } from "./responds.js";
import { decodeRunState, encodeRunState, unread } from "./run-codec.js";
import type { Operation, Report, RunEvent, RunRecord } from "./run-event.js";
import {
  inFlight,
  isEvaluating,
  isFinal,
  isHeld,
  isOver,
  type RunState,
  RunStatus,
  StepStatus,
  timeoutGraceMs,
} from "./run-state.js";

const stepsMax = 8;
const runTimeoutMs = 600_000;
const stored = { contract: "c", sizeBytes: 3, sha256: Buffer.alloc(32), reference: "p1" };

/** Failures are rare: most runs are to get somewhere. */
const answer = fc.constantFrom(...Array<"yes">(8).fill("yes"), "no", "no", "deferred", "failed");
const given = fc.constantFrom(...Array<"yes">(12).fill("yes"), "deferred", "deferred", "failed");

function toEvaluated<T>(said: string, result: T): Evaluated<T> {
  if (said === "deferred") return { kind: "deferred" };
  if (said === "failed") return { kind: "failed", error: { reason: "EXPRESSION_FAILED", message: "no" } };
  return evaluated(result);
}

/** In one of so many draws; in all others nothing. */
const onceIn = <T>(draws: number, arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: draws - 1, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });

const timeLimit = onceIn(5, fc.integer({ min: 1, max: 30_000 }));

const stepSpec = fc.record({
  needs: fc.integer({ min: 0, max: 2 ** stepsMax - 1 }),
  condition: fc.option(answer, { freq: 2 }),
  input: given,
  exclusive: fc.boolean(),
  attemptsMax: fc.integer({ min: 1, max: 4 }),
  delayMs: fc.integer({ min: 0, max: 20_000 }),
  scheduleToStartMs: timeLimit,
  scheduleToCloseMs: timeLimit,
  heartbeatMs: timeLimit,
  startToCloseMs: fc.integer({ min: 1, max: 30_000 }),
  /** A step that waits so long instead of calling. */
  waitMs: onceIn(8, fc.constantFrom(0, 1, 200, 20_000, 10 * runTimeoutMs)),
  /** A step that waits for a message in one of two mailboxes. */
  mailbox: onceIn(3, fc.constantFrom("m0", "m1", "m1", "person", "person", "person")),
  /** When it is escalated that no person has done it, and whether others may do it then. */
  escalations: fc.array(fc.record({ sinceMs: fc.constantFrom(1, 100, 5_000), handsOver: fc.boolean() }), {
    maxLength: 2,
  }),
  /** A step that begins with an escalation of a step before it, if that has one of this number. */
  hangsOn: onceIn(2, fc.integer({ min: 1, max: 2 })),
  /** A step that answers the run's caller, or whoever sent what the newest such step before it took. */
  responds: onceIn(5, fc.constantFrom("caller", "sender", "sender")),
  child: onceIn(4, fc.constantFrom("cancel", "abandon", "wait")),
  launches: fc.boolean(),
  join: onceIn(3, fc.constantFrom("any", "first")),
  /** Whether a call's output ends a step that repeats. */
  until: onceIn(5, answer),
  /** How a failure is caught, if it is: without an output, or by one whose evaluation goes like this. */
  caught: onceIn(3, fc.constantFrom("continue", "yes", "yes", "deferred", "failed")),
  anyReason: fc.boolean(),
  /** Whether the step can be undone, and how the input of that comes. */
  undone: onceIn(3, fc.constantFrom("yes", "yes", "deferred", "failed")),
});

type DrawnStep = typeof stepSpec extends fc.Arbitrary<infer T> ? T : never;

function humanOf({ escalations }: DrawnStep): WaitPlan {
  let afterMs = 0;
  return {
    kind: "human",
    read: (_input, level) => ({ title: "", instructions: "", assignees: [`level ${level}`], groups: [] }),
    escalations: escalations.map(({ sinceMs, handsOver }) => {
      afterMs += sinceMs;
      return { afterMs, handsOver };
    }),
  };
}

/** What the step waits for; nothing: it calls. */
function waitOf(drawn: DrawnStep): WaitPlan | undefined {
  const { waitMs, mailbox } = drawn;
  if (mailbox === "person") return humanOf(drawn);
  if (mailbox !== undefined) return { kind: "signal", mailbox, ...(mailbox === "m1" ? { answered: true } : {}) };
  return waitMs === undefined ? undefined : timer(waitMs);
}

const timer = (ms: number): WaitPlan => ({ kind: "timer", endsAtMs: (_input, readyAtMs) => readyAtMs + ms });

/** A graph without cycles: a step needs only steps before it. */
const planArbitrary = fc
  .record({
    specs: fc.array(stepSpec, { minLength: 1, maxLength: stepsMax }),
    output: given,
    timed: fc.boolean(),
    brokenTtlMs: fc.option(fc.integer({ min: 1, max: 100_000 }), { nil: undefined, freq: 2 }),
  })
  .map(({ specs, output, timed, brokenTtlMs }) => {
    const steps: Record<string, StepSpec> = {};
    specs.forEach((drawn, index) => {
      const { needs, condition, input, attemptsMax, delayMs, exclusive, startToCloseMs, ...more } = drawn;
      const { waitMs: _ms, mailbox: _mailbox, escalations: _escalations, hangsOn, responds, ...other } = more;
      const { child, launches, join, until, caught, anyReason, undone: _, ...limits } = other;
      const wait = waitOf(drawn);
      const bindOutput = (): Evaluated<Uint8Array> => toEvaluated(caught ?? "", new Uint8Array([index]));
      const reasons = anyReason ? [] : ["BROKEN", "SCHEDULE_TO_CLOSE_TIMEOUT"];
      const needed = Array.from({ length: index }, (_, at) => at).filter((at) => (needs >> at) & 1);
      const ending = until && (() => toEvaluated(until, until === "yes"));
      steps[`s${index}`] = {
        needs: needed.map((at) => `s${at}`),
        ...(join && needed.length > 1 ? { join: { of: needed, cancelsOthers: join === "first" } } : {}),
        ...(ending ? { repeat: { until: ending, delayMs, roundsMax: 3 } } : {}),
        ...(condition === null ? {} : { condition: () => toEvaluated(condition, condition === "yes") }),
        bindInput: () => toEvaluated(input, new Uint8Array([index])),
        retry: { attemptsMax, initialMs: delayMs, jitter: 0.5 },
        exclusive,
        startToCloseMs,
        ...(wait ? { wait } : {}),
        ...(child && !wait ? { child: { onParentClose: child, ...(launches ? { launches: "chain" } : {}) } } : {}),
        ...(caught === undefined ? {} : { catches: [caught === "continue" ? { reasons } : { reasons, bindOutput }] }),
        ...(Object.fromEntries(Object.entries(limits).filter(([, ms]) => ms !== undefined)) as StepSpec),
      };
      if (responds) placeRespond(steps, index, responds);
      else if (hangsOn) hangOn(steps, index, hangsOn);
    });
    placeRaces(steps);
    specs.forEach(({ undone }, index) => {
      if (undone !== undefined && !steps[`s${index}`]!.wait) placeUndo(steps, index, undone);
    });
    const from = timed ? { timedFromStart: true as const } : {};
    const more = { ...from, ...(brokenTtlMs === undefined ? {} : { brokenTtlMs }) };
    return planOf(steps, { runTimeoutMs, ...more, bindOutput: () => toEvaluated(output, new Uint8Array([9])) });
  });

/** Time that an undo has. */
const undoMs = 30_000;

function placeUndo(steps: Record<string, StepSpec>, undoes: number, input: string): void {
  const undo = Object.keys(steps).length;
  Object.assign(steps[`s${undoes}`]!, { undo });
  steps[`s${undo}`] = {
    needs: [`s${undoes}`],
    undoes,
    bindInput: () => toEvaluated(input, new Uint8Array([undo])),
    retry: { attemptsMax: 2 },
    startToCloseMs: 20_000,
    scheduleToCloseMs: undoMs,
  };
}

/** The step answers instead of what it was to do. */
function placeRespond(steps: Record<string, StepSpec>, index: number, whom: "caller" | "sender"): void {
  const step = steps[`s${index}`]!;
  const to = Object.values(steps).findLastIndex(({ wait }) => wait?.kind === "signal" && wait.answered);
  const { child: _child, repeat: _repeat, join: _join, ...rest } = step;
  const isTo = whom === "sender" && to >= 0 && to < index;
  const needs = isTo ? [...new Set([...(step.needs ?? []), `s${to}`])] : (step.needs ?? []);
  steps[`s${index}`] = { ...rest, needs, wait: { kind: "respond", ...(isTo ? { to } : {}) } };
}

function hangOn(steps: Record<string, StepSpec>, index: number, level: number): void {
  const step = steps[`s${index}`]!;
  const has = ({ wait }: StepSpec): boolean => wait?.kind === "human" && (wait.escalations?.length ?? 0) >= level;
  const of = Object.values(steps).slice(0, index).findLastIndex(has);
  if (of < 0 || step.join) return;
  Object.assign(step, { needs: [...new Set([...(step.needs ?? []), `s${of}`])], escalation: { of, level } });
}

/** Steps that only a race needs are its branches. */
function placeRaces(steps: Record<string, StepSpec>): void {
  const specs = Object.values(steps);
  for (const [join, spec] of specs.entries()) {
    if (!spec.join?.cancelsOthers) continue;
    for (const end of spec.join.of) {
      const users = specs.filter(({ needs }) => needs?.includes(`s${end}`)).length;
      if (users === 1) Object.assign(specs[end]!, { race: { join, end } });
    }
  }
}

/** One thing that happens: to the step of that number; `pick` chooses among what it may be about. */
const happening = fc.record({
  what: fc.constantFrom(
    ...([
      "complete",
      "complete",
      "complete",
      "fail",
      "final",
      "stopped",
      "bad",
      "bind",
      "bind",
      "silent",
      "lose",
      "lose",
    ] as const),
    ...([
      "claim",
      "claim",
      "redispatch",
      "redispatch",
      "redispatch-all",
      "admit",
      "evaluated",
      "skip",
      "cancel",
      "pause",
      "resume",
      "resume",
      "retry",
      "retry",
      "override",
      "update",
      "terminate",
      "wake",
      "wake",
      "message",
      "message",
      "person",
      "person",
    ] as const),
    ...(["child-succeeded", "child-succeeded", "child-failed"] as const),
  ),
  // Plans are mostly small, and a graph begins with its first steps.
  step: fc.oneof({ weight: 2, arbitrary: fc.nat({ max: 2 }) }, fc.nat({ max: stepsMax + 4 })),
  pick: fc.nat({ max: 5 }),
  elapsedMs: fc.constantFrom(0, 0, 1, 100, 5_000, 11_000, -3_000),
  room: fc.integer({ min: 0, max: 10 }),
  random: fc.double({ min: 0, max: 0.999, noNaN: true }),
});
type Happening = typeof happening extends fc.Arbitrary<infer T> ? T : never;

/** Reports that anyone may still send: those of every attempt that was ever sent out, and a forged one. */
function reportFor(bench: RunBench, { step, pick }: Happening): Report {
  const stepId = `s${step}`;
  const sent = bench.effects.filter((e) => e.kind === "dispatch").filter((e) => e.step.id === stepId);
  const chosen = sent[sent.length - 1 - pick] ?? sent.at(-1);
  return { stepId, item: 0, attempt: chosen?.attempt ?? 1, lease: chosen?.lease ?? "forged" };
}

function eventOf(bench: RunBench, drawn: Happening): RunEvent {
  const report = reportFor(bench, drawn);
  const session = `session-${drawn.pick}`;
  const outcome = (kind: string) => {
    if (kind === "stopped") return { kind: "cancelled" as const, message: "" };
    if (kind === "fail" || kind === "final") {
      return { kind: "failure" as const, failure: failure("BROKEN", kind === "fail") };
    }
    const bytes = new TextEncoder().encode(kind === "bad" ? "bad" : "ok");
    return { kind: "output" as const, value: { contract: "c", sizeBytes: 2, sha256: new Uint8Array(32), bytes } };
  };
  switch (drawn.what) {
    case "complete":
    case "fail":
    case "final":
    case "stopped":
    case "bad":
      return { kind: "complete", report, outcome: outcome(drawn.what), executionMs: 1, session };
    case "bind":
    case "silent": {
      const sinceReportMs = drawn.what === "silent" ? 1e6 : 0;
      // Limits are up to 30 s: some handlers ask for less than they have, some for more, and some for more again.
      const startToCloseMs = drawn.room > 3 ? (drawn.room - 3) * 9_000 : 0;
      return { kind: "bind", report, session, startedAtMs: bench.nowMs - 10, sinceReportMs, startToCloseMs };
    }
    case "lose":
      return { kind: "lose", report, why: "lapsed" };
    case "claim":
      return { kind: "claim", report, session };
    case "redispatch":
      return { kind: "redispatch", report, why: "unknown" };
    case "redispatch-all":
      return { kind: "redispatch", why: "wiped", ...(drawn.pick > 2 ? { beforeMs: bench.nowMs } : {}) };
    case "admit":
      return { kind: "admit", step: drawn.step };
    case "evaluated":
    case "skip": {
      const evaluation = drawn.what === "skip" ? { kind: "skip" as const } : { kind: "value" as const, value: stored };
      return { kind: "evaluated", stepId: drawn.pick === 0 ? "" : `s${drawn.step}`, evaluation };
    }
    case "child-succeeded":
    case "child-failed":
      return childEnded(bench, drawn);
    case "cancel":
      return { kind: "cancel", reason: "enough" };
    case "wake":
      return { kind: "wake" };
    case "person":
      return personDoes(drawn);
    case "message":
      return messageOf(bench, drawn);
    case "pause":
    case "resume":
      return operation({ kind: drawn.what });
    case "terminate":
      // Rarely: it would end most runs before anything happens to them.
      return operation({ kind: drawn.pick === 0 ? "terminate" : "resume" });
    case "update":
      return operation({ kind: "update", priority: drawn.pick });
    case "retry": {
      const input = drawn.pick === 1 ? { input: stored } : {};
      return operation({ kind: "retry", steps: drawn.pick < 2 ? [`s${drawn.step}`] : [], ...input });
    }
    case "override":
      return operation({ kind: "skip", step: `s${drawn.step}`, ...(drawn.pick > 2 ? { output: stored } : {}) });
  }
}

function personDoes({ step, pick }: Pick<Happening, "step" | "pick">): RunEvent {
  const kind = (["claim", "claim", "release", "complete"] as const)[pick % 4]!;
  const act = kind === "complete" ? { kind, value: value("form") } : { kind };
  return { kind: "assignment", stepId: `s${step}`, person: `person-${pick % 2}`, act };
}

const operation = (what: Operation): RunEvent => ({ kind: "operate", operation: what, by: "", reason: "" });

/** A message with a value of its own; some repeat the key of an earlier one. */
function messageOf(bench: RunBench, { step, pick }: Pick<Happening, "step" | "pick">): RunEvent {
  const mailbox = `m${step % 2}`;
  const key = pick === 0 ? "" : `key-${pick}`;
  return { kind: "message", mailbox, name: mailbox, key, value: value(`message-${bench.run.lastSeq}`) };
}

/** How any child that the step ever had ends; its parent may hear so at any time, and more than once. */
function childEnded(bench: RunBench, { step, pick, what }: Happening): RunEvent {
  const stepId = `s${step}`;
  const started = bench.effects.filter((e) => e.kind === "start-child").filter((e) => e.step.id === stepId);
  const { childId } = started[started.length - 1 - pick] ?? started.at(-1) ?? { childId: "forged" };
  if (what === "child-failed") {
    const status = pick > 3 ? RunStatus.RUN_STATUS_CANCELLED : RunStatus.RUN_STATUS_EXPIRED;
    const refused = pick === 2 ? { refused: true as const } : {};
    return { kind: "child-ended", stepId, childId, status, failure: failure("BROKEN"), ...refused };
  }
  return { kind: "child-ended", stepId, childId, status: RunStatus.RUN_STATUS_SUCCEEDED, output: stored };
}

const isOwn = ({ plan }: RunBench, step: number): boolean => plan.steps[step]?.undoes === undefined;

const count = <T>(items: readonly T[], wanted: (item: T) => boolean): number => items.filter(wanted).length;

/** What holds after each event. */
function checkTurn(bench: RunBench, before: RunState, drawn: string): void {
  const { run, last, plan } = bench;
  if (isFinal(before.status)) {
    expect(last.verdict, `E4 ${drawn}`).toBe("unchanged");
    expect(run, `E4 ${drawn}`).toBe(before);
  }
  if (last.verdict === "unchanged") expect(last.records.length + last.effects.length).toBe(0);
  run.steps.forEach((step, index) => {
    const was = before.steps[index]!;
    expect(step.attempt, "E3").toBeGreaterThanOrEqual(was.attempt);
    const mended = before.broken?.steps.includes(index) && drawn === "operate";
    if (isOver(was.status) && !mended) expect({ ...step, late: 0 }, "E4").toEqual({ ...was, late: 0 });
    if (inFlight(step.status)) expect(step.lease, "E1").not.toBe("");
    const { wait } = plan.steps[index]!;
    if (wait) expect(step.lease, "W1").toBe("");
    if (step.wait) expect([step.status, wait !== undefined], "W3").toEqual([StepStatus.STEP_STATUS_WAITING, true]);
    if (step.wait && was.wait) expect(step.wait.endsAtMs, "W2").toEqual(was.wait.endsAtMs);
    const { claimedBy } = was.wait ?? {};
    if (claimedBy !== undefined && step.wait?.claimedBy !== undefined)
      expect(step.wait.claimedBy, "H1: it is released before another has it").toBe(claimedBy);
  });
  const held = run.steps.filter(({ status }) => inFlight(status)).map(({ lease }) => lease);
  expect(new Set(held).size, "E1: a lease is one step's").toBe(held.length);
  for (const lease of bench.places) expect(held, "a place is held for a current lease only").toContain(lease);
  for (const effect of last.effects) {
    if (effect.kind === "start-child") {
      expect(run.steps[effect.step.index]!.lease, "S1: a child's id is the current lease").toBe(effect.childId);
      expect(effect.deadlineAtMs, "S3").toBeLessThanOrEqual(run.deadlineAtMs);
      if (!effect.again) expect(before.cancel ?? before.closing, "E6").toBeUndefined();
    }
    if (effect.kind !== "dispatch") continue;
    expect(run.steps[effect.step.index]!.lease, "what is sent carries the current lease").toBe(effect.lease);
    if (effect.step.undoes === undefined) expect(before.cancel, "E6").toBeUndefined();
    // What an operator lets go on may break again in the same turn.
    const held = isHeld(before.status) && isHeld(run.status) && drawn !== "operate";
    expect(held && !effect.claimed, "E7").toBe(false);
  }
  if (isFinal(run.status)) expect(run.wakeupAtMs, "E5").toBe(0);
  else {
    expect(run.wakeupAtMs, "E5").toBeGreaterThan(0);
    expect(run.wakeupAtMs, "E5").toBeLessThanOrEqual(nextWakeupAtMs(run, plan));
  }
  const { nowMs, steps, evaluatingOutput, cancel, failure: failed, messages, closing, startAtMs, timed } = run;
  const { catching, broken, extraMs, done, undo } = run;
  checkUndos(bench);
  checkAnswers(bench, before);
  for (const index of run.steps.keys()) {
    checkEscalation(bench, before, index);
    checkLimit(bench, before, index);
  }
  expect(broken !== undefined, "B1").toBe(run.status === RunStatus.RUN_STATUS_BROKEN);
  for (const index of broken?.steps ?? []) expect(isOver(run.steps[index]!.status), "B1").toBe(true);
  const state = {
    nowMs,
    steps,
    evaluatingOutput,
    ...(cancel ? { cancel } : {}),
    ...(closing ? { closing } : {}),
    ...(startAtMs === undefined ? {} : { startAtMs }),
    ...(timed ? { timed } : {}),
    ...(failed ? { failure: failed } : {}),
    ...(messages ? { messages: { ...messages, kept: messages.kept.map((one) => ({ ...one, value: unread })) } } : {}),
    ...(catching ? { catching } : {}),
    ...(broken ? { broken } : {}),
    ...(done ? { done } : {}),
    ...(undo ? { undo } : {}),
    ...(extraMs === undefined ? {} : { extraMs }),
    ...(run.answered === undefined ? {} : { answered: run.answered }),
  };
  expect(decodeRunState(encodeRunState(run), run.acceptedAtMs)).toEqual(state);
}

/** A1 to A3: who was answered stays answered, with what the step put out that did so. */
function checkAnswers({ run, plan, last }: RunBench, before: RunState): void {
  if (before.answered !== undefined) expect(run.answered, "A1").toBe(before.answered);
  const responded = count(last.records, ({ kind }) => kind === EventKind.EVENT_KIND_RUN_RESPONDED);
  expect(responded, "A1").toBe(run.answered === before.answered ? 0 : 1);
  if (run.answered !== undefined)
    expect([run.steps[run.answered]!.status, run.outputs[run.answered] !== undefined], "A3").toEqual([
      StepStatus.STEP_STATUS_SUCCEEDED,
      true,
    ]);
  for (const [, key] of before.messages?.taken ?? []) {
    const was = answerToSignal(before, plan, key);
    if (was.kind === "answered") expect(answerToSignal(run, plan, key), "A2").toEqual(was);
  }
}

/** X1 to X3: an assignment is escalated step by step, and only then begins what hangs on it. */
function checkEscalation({ run, plan, last }: RunBench, before: RunState, index: number): void {
  const [step, was] = [run.steps[index]!, before.steps[index]!];
  const { wait, escalation } = plan.steps[index]!;
  const [level, had] = [step.level ?? 0, was.level ?? 0];
  const isMended = before.broken?.steps.includes(index) && !run.broken?.steps.includes(index);
  if (!isMended) {
    const escalated = last.records.filter(
      (one) => one.step === index && one.kind === EventKind.EVENT_KIND_ASSIGNMENT_ESCALATED,
    );
    expect([escalated.length, escalated[0]?.note], "X1").toEqual(level > had ? [1, `${had + 1}`] : [0, undefined]);
    expect(level - had, "X1").toBe(escalated.length);
  }
  if (level > had && wait?.kind === "human" && wait.escalations?.[level - 1]?.handsOver)
    expect(step.wait?.claimedBy, "X2").toBeUndefined();
  const begins = was.attempt === 0 && step.attempt > 0;
  if (escalation && begins) expect(run.steps[escalation.of]!.level ?? 0, "X3").toBeGreaterThanOrEqual(escalation.level);
}

/** D1 to D3: an attempt has its limit, which only its holder moves. */
function checkLimit({ run, plan, last, events }: RunBench, before: RunState, index: number): void {
  const [step, was] = [run.steps[index]!, before.steps[index]!];
  const { startToCloseMs } = plan.steps[index]!;
  const event = events.at(-1)!;
  const isSame = step.lease === was.lease && step.session === was.session;
  const had = isSame && was.status === StepStatus.STEP_STATUS_RUNNING ? was.extendedMs : undefined;
  const asks = event.kind === "bind" && inFlight(was.status) && event.report.lease === was.lease;
  const asked = (asks && event.startToCloseMs) || 0;
  const granted = asked > Math.max(startToCloseMs, had ?? 0) ? asked : had;
  if (inFlight(step.status)) expect(step.extendedMs, "D2, D3").toBe(granted);
  const wasOverMs = was.startedAtMs + Math.max(startToCloseMs, was.extendedMs ?? 0) + timeoutGraceMs;
  const isTimedOut = last.records.some(
    (one) => one.step === index && one.failure?.reason === "START_TO_CLOSE_TIMEOUT" && one.attempt === was.attempt,
  );
  if (isTimedOut && was.status === StepStatus.STEP_STATUS_RUNNING)
    expect(run.nowMs, "D1").toBeGreaterThanOrEqual(wasOverMs);
  const goesOn = isSame && step.attempt === was.attempt && step.status === StepStatus.STEP_STATUS_RUNNING;
  const isOpen = !isFinal(run.status) && !run.cancel && !run.closing && !run.catching?.[index];
  if (event.kind === "wake" && goesOn && isOpen) expect(wasOverMs, "D1").toBeGreaterThan(run.nowMs);
}

/** U1 to U3: undos begin behind everything else, one at a time, the newest first. */
function checkUndos({ run, plan, records }: RunBench): void {
  const isPending = (index: number): boolean => run.steps[index]!.status === StepStatus.STEP_STATUS_PENDING;
  const begun = plan.steps.filter(({ index, undoes }) => undoes !== undefined && !isPending(index));
  const succeeded = records.filter(({ kind }) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED);
  const order = succeeded.flatMap(({ step }) => plan.steps[step]?.undo ?? []);
  const states = order.map((index) => (isPending(index) ? "-" : isOver(run.steps[index]!.status) ? "x" : "o")).join("");
  expect(states, "U2").toMatch(/^-*o?x*$/);
  expect(
    begun.every(({ index }) => order.includes(index)),
    "U1",
  ).toBe(true);
  if (begun.length > 0) {
    const open = plan.steps.filter(({ index, undoes }) => undoes === undefined && !isOver(run.steps[index]!.status));
    expect(open, "U2: nothing else goes on").toEqual([]);
  }
  if (!isFinal(run.status)) return;
  const terminated = records.some(({ kind }) => kind === EventKind.EVENT_KIND_RUN_TERMINATED);
  if (run.status === RunStatus.RUN_STATUS_SUCCEEDED) expect(begun, "U2").toEqual([]);
  else if (!terminated) expect(begun.length, "U2: none is left out").toBe(order.length);
}

/** M1, M2 and M4: each message is taken once or kept, in order, and nothing that was kept is lost. */
function checkMessages({ run, records, plan }: RunBench): void {
  const { kept = [] } = run.messages ?? {};
  const text = (content: { bytes?: Uint8Array }): string => new TextDecoder().decode(content.bytes);
  const takers = plan.steps.filter(({ wait }) => wait?.kind === "signal");
  // What stands in for a message (a fallback, an operator's word) is none.
  const took = ({ step, kind }: RunRecord): boolean => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED && step >= 0;
  const ended = new Set(records.filter(took).map(({ step }) => step));
  const taken = takers.flatMap(({ index }) => (ended.has(index) ? [text(run.outputs[index]!)] : []));
  const all = [...taken, ...kept.map(({ value: one }) => text(one))];
  expect(new Set(all).size, "M1").toBe(all.length);
  expect(all.length, "M1").toBe(count(records, (r) => r.kind === EventKind.EVENT_KIND_SIGNAL_RECEIVED));
  for (const mailbox of ["m0", "m1"]) {
    const seqs = kept.filter((one) => one.mailbox === mailbox).map(({ seq }) => seq);
    expect(seqs, "M2").toEqual([...seqs].sort((a, b) => a - b));
    const waiting = takers.some(
      ({ index, wait }) => run.steps[index]!.wait && (wait as { mailbox: string }).mailbox === mailbox,
    );
    expect(waiting && seqs.length > 0, "M4: nothing is kept while a step waits for it").toBe(false);
  }
  const keys = kept.map(({ key }) => key).filter((key) => key !== "");
  expect(new Set(keys).size, "M3").toBe(keys.length);
}

/** What holds of a whole history. */
function checkHistory(bench: RunBench): void {
  const { run, records, effects } = bench;
  expect(records.map(({ seq }) => seq)).toEqual(records.map((_, at) => at + 1));
  run.steps.forEach((step, index) => {
    const isOutput = ({ kind, payload }: (typeof records)[number]): boolean =>
      kind === EventKind.EVENT_KIND_STEP_SUCCEEDED ||
      ((kind === EventKind.EVENT_KIND_STEP_CAUGHT || kind === EventKind.EVENT_KIND_STEP_OVERRIDDEN) &&
        payload !== undefined);
    const successes = count(records, (r) => r.step === index && isOutput(r));
    const catches = count(records, (r) => r.step === index && r.kind === EventKind.EVENT_KIND_STEP_CAUGHT);
    const retried = count(records, (r) => r.step === index && r.kind === EventKind.EVENT_KIND_STEP_RETRIED);
    expect(catches, "K1: a failure is caught once").toBeLessThanOrEqual(1 + retried);
    expect(successes).toBe(step.status === StepStatus.STEP_STATUS_SUCCEEDED ? 1 : 0);
    expect(run.outputs[index] !== undefined).toBe(successes === 1);
  });
  expect(count(records, (r) => r.kind === EventKind.EVENT_KIND_RUN_ENDED)).toBe(isFinal(run.status) ? 1 : 0);
  const cancelSeq = records.find((r) => r.kind === EventKind.EVENT_KIND_CANCEL_REQUESTED)?.seq ?? Infinity;
  expect(
    count(records, (r) => r.seq > cancelSeq && r.kind === EventKind.EVENT_KIND_STEP_SUCCEEDED && isOwn(bench, r.step)),
    "E6",
  ).toBe(0);
  checkMessages(bench);
  const answers = records.filter(({ kind }) => kind === EventKind.EVENT_KIND_SIGNAL_ANSWERED);
  const senders = answers.map(({ step }) => (bench.plan.steps[step]!.wait as { to: number }).to);
  expect(new Set(senders).size, "A2: a message is answered once").toBe(senders.length);
  if (!isFinal(run.status)) return;
  const { payload, runStatus } = records.at(-1)!;
  if (runStatus === RunStatus.RUN_STATUS_SUCCEEDED && run.answered !== undefined)
    expect(payload, "A1: what the run puts out is what its caller was answered").toBe(run.outputs[run.answered]);
  expect(records.at(-1)?.kind, "nothing follows the end").toBe(EventKind.EVENT_KIND_RUN_ENDED);
  expect(bench.places.size, "every place was given back").toBe(0);
  const freed = effects.filter((e) => e.kind === "free").map((e) => e.lease);
  expect(new Set(freed).size, "no place was given back twice").toBe(freed.length);
  checkChildren(bench);
  const sent = effects.filter((e) => e.kind === "dispatch").map((e) => e.lease);
  for (const lease of sent) expect(freed, "each lease was given up").toContain(lease);
  for (const [made, undone] of [
    ["enqueue", "dequeue"],
    ["bind", "unbind"],
    ["assign", "unassign"],
    ["take", "give-back"],
  ] as const) {
    const rows = new Set<number>();
    for (const effect of effects) {
      if (effect.kind === made) rows.add((effect as { step: { index: number } }).step.index);
      if (effect.kind === undone) rows.delete((effect as { step: { index: number } }).step.index);
    }
    expect([...rows], `no row of ${made} outlives its run`).toEqual([]);
  }
}

/** S1, S4: no two attempts share a child, and one whose end was not heard was asked to stop, unless it may go on. */
function checkChildren({ run, plan, effects, events }: RunBench): void {
  const begun = effects.filter((e) => e.kind === "start-child" && !e.again);
  const ids = begun.map((e) => (e as { childId: string }).childId);
  expect(new Set(ids).size, "S1").toBe(ids.length);
  const heard = new Set(events.filter((e) => e.kind === "child-ended").map((e) => e.childId));
  const asked = new Set(effects.filter((e) => e.kind === "cancel-child").map((e) => e.childId));
  for (const [at, id] of ids.entries()) {
    const { index } = (begun[at] as { step: { index: number } }).step;
    if (plan.steps[index]!.child?.onParentClose !== "cancel" || heard.has(id)) continue;
    expect(asked, `S4: ${StepStatus[run.steps[index]!.status]}`).toContain(id);
  }
}

function play(bench: RunBench, happenings: readonly Happening[]): void {
  for (const drawn of happenings) {
    bench.nowMs += drawn.elapsedMs;
    bench.room = drawn.room;
    bench.random = drawn.random;
    const before = bench.run;
    const copy = JSON.stringify(before);
    const event = eventOf(bench, drawn);
    bench.apply(event);
    expect(JSON.stringify(before), "the run that came in is never written to").toBe(copy);
    checkTurn(bench, before, event.kind);
  }
}

/** A mesh that is well: everything asked for is answered, the queue is refilled, the sweeper looks when it must. */
function settle(bench: RunBench): number {
  bench.room = Number.POSITIVE_INFINITY;
  let turns = 0;
  const apply = (event: RunEvent): void => {
    const before = bench.run;
    bench.apply(event);
    checkTurn(bench, before, event.kind);
    turns += 1;
  };
  while (!isFinal(bench.run.status) && turns < 500) {
    const at = turns;
    bench.run.steps.forEach((_, index) => {
      const step = bench.run.steps[index]!;
      const stepId = `s${index}`;
      if (step.status === StepStatus.STEP_STATUS_READY) apply({ kind: "admit", step: index });
      else if (isEvaluating(step)) apply({ kind: "evaluated", stepId, evaluation: { kind: "value", value: stored } });
      else if (step.wait && bench.plan.steps[index]!.wait?.kind === "signal") {
        const { mailbox } = bench.plan.steps[index]!.wait as { mailbox: string };
        apply({ kind: "message", mailbox, name: "", key: "", value: value(`message-${bench.run.lastSeq}`) });
      } else if (inFlight(step.status) && bench.plan.steps[index]!.child) {
        const ended = { kind: "child-ended" as const, stepId, childId: step.lease, output: stored };
        apply({ ...ended, status: RunStatus.RUN_STATUS_SUCCEEDED });
      } else if (step.wait && bench.plan.steps[index]!.wait?.kind === "human") {
        const act = { kind: "complete" as const, value: stored };
        apply({ kind: "assignment", stepId, person: step.wait.claimedBy ?? "somebody", act });
      } else if (inFlight(step.status)) {
        const outcome = { kind: "output" as const, value: { ...stored, reference: "out" } };
        apply({ kind: "complete", report: bench.report(stepId), outcome, executionMs: 1, session: "s" });
      }
    });
    if (bench.run.evaluatingOutput)
      apply({ kind: "evaluated", stepId: "", evaluation: { kind: "value", value: stored } });
    if (isHeld(bench.run.status)) {
      if (bench.run.broken) apply(operation({ kind: "skip", step: `s${bench.run.broken.steps[0]}`, output: stored }));
      else apply(operation({ kind: "resume" }));
    }
    if (turns > at) continue;
    bench.nowMs = Math.max(bench.nowMs, bench.run.wakeupAtMs);
    apply({ kind: "wake" });
  }
  return turns;
}

const runs = { numRuns: 200 };

describe("whatever happens to a run", () => {
  it("E1 to E6 hold after every event", { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(planArbitrary, fc.array(happening, { maxLength: 40, size: "medium" }), (plan, happenings) => {
        const bench = startRun(plan, { room: 4 });
        play(bench, happenings);
        checkHistory(bench);
      }),
      runs,
    );
  });

  it("it ends in few turns once workers answer and time passes", { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(planArbitrary, fc.array(happening, { maxLength: 20, size: "medium" }), (plan, happenings) => {
        const bench = startRun(plan, { room: 4, startAtMs: startMs + 90 });
        play(bench, happenings);
        const turns = settle(bench);
        expect(isFinal(bench.run.status)).toBe(true);
        expect(turns).toBeLessThan(200);
        checkHistory(bench);
      }),
      runs,
    );
  });

  it("it ends by its deadline though nobody ever answers", { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(planArbitrary, fc.array(happening, { maxLength: 20, size: "medium" }), (plan, happenings) => {
        const bench = startRun(plan, { room: 4 });
        const { deadlineAtMs } = bench.run;
        play(bench, happenings);
        for (let looks = 0; !isFinal(bench.run.status); looks++) {
          expect(looks).toBeLessThan(500);
          const before = bench.run;
          bench.wakeAt(Math.max(bench.nowMs, bench.run.wakeupAtMs));
          checkTurn(bench, before, "wake");
        }
        // A BROKEN run has its own time, once per break: what was played before may have broken it more than once.
        const standing = (plan.brokenTtlMs ?? 0) + (bench.run.extraMs ?? 0);
        const undoing = plan.steps.filter(({ undoes }) => undoes !== undefined).length * undoMs;
        const latestMs = Math.max(deadlineAtMs, bench.run.acceptedAtMs + 40 * 11_000) + standing + undoing;
        expect(bench.run.endedAtMs).toBeLessThanOrEqual(latestMs);
        checkHistory(bench);
      }),
      runs,
    );
  });
});

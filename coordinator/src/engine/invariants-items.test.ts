/**
 * The engine against chance, with fan-outs: over calls and over runs, undone item by item, held, cancelled, closed. What must hold after every event is
 * F1 to F3 (items.ts), E1 to E6 (run-state.ts), S1 and S4 (children.ts), U1, U2 and U5 (compensation.ts).
 */
import { EventKind } from "@taskmesh/proto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { nextWakeupAtMs } from "./deadlines.js";
import { evaluated, failure, planOf, type RunBench, type StepSpec, startRun, value } from "./plan-fixture.js";
import { decodeItem, decodeRunState, encodeItem, encodeRunState } from "./run-codec.js";
import type { Operation, Report, RunEvent } from "./run-event.js";
import {
  inFlight,
  isEvaluating,
  isFinal,
  isHeld,
  isOver,
  type RunState,
  RunStatus,
  type StepState,
  StepStatus,
} from "./run-state.js";

const runTimeoutMs = 600_000;
const undoMs = 30_000;
const itemsMax = 5;

const stepSpec = fc.record({
  needs: fc.nat({ max: 15 }),
  /** Items of a fan-out; undefined: the step is none. */
  items: fc.option(fc.nat({ max: itemsMax }), { nil: undefined, freq: 4 }),
  child: fc.option(fc.constantFrom("cancel", "abandon", "wait"), { nil: undefined, freq: 2 }),
  undone: fc.option(fc.constantFrom("call", "run"), { nil: undefined, freq: 2 }),
  parallelMax: fc.integer({ min: 1, max: 3 }),
  toleratedCount: fc.constantFrom(0, 0, 1, 9),
  attemptsMax: fc.integer({ min: 1, max: 3 }),
  startToCloseMs: fc.integer({ min: 1, max: 30_000 }),
  scheduleToCloseMs: fc.oneof(
    { weight: 3, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 30_000 }) },
  ),
  caught: fc.boolean(),
});
type DrawnStep = typeof stepSpec extends fc.Arbitrary<infer T> ? T : never;

const each = (parallelMax: number, toleratedCount: number, toleratedShare = 0): NonNullable<StepSpec["each"]> => ({
  ...{ kind: "list", parallelMax, toleratedCount, toleratedShare },
  open: () => evaluated({ total: 0, items: [] }),
});

interface Drawn {
  plan: ReturnType<typeof planOf>;
  /** By step index. */
  totals: readonly (number | undefined)[];
}

const chains: fc.Arbitrary<Drawn> = fc
  .record({
    specs: fc.array(stepSpec, { minLength: 1, maxLength: 4 }),
    brokenTtlMs: fc.option(fc.integer({ min: 1, max: 100_000 }), { nil: undefined, freq: 2 }),
  })
  .map(({ specs, brokenTtlMs }) => {
    const steps: Record<string, StepSpec> = {};
    specs.forEach((drawn, index) => {
      steps[`s${index}`] = stepOf(drawn, index);
    });
    specs.forEach(({ undone, items }, index) => {
      if (undone) placeUndo(steps, index, { byRun: undone === "run", ofItems: items !== undefined });
    });
    const plan = planOf(steps, { runTimeoutMs, ...(brokenTtlMs === undefined ? {} : { brokenTtlMs }) });
    return { plan, totals: specs.map(({ items }) => items) };
  });

function stepOf(drawn: DrawnStep, index: number): StepSpec {
  const { needs, items, child, parallelMax, toleratedCount, attemptsMax, startToCloseMs, scheduleToCloseMs } = drawn;
  const needed = Array.from({ length: index }, (_, at) => at).filter((at) => (needs >> at) & 1);
  return {
    needs: needed.map((at) => `s${at}`),
    retry: { attemptsMax, initialMs: 100 },
    startToCloseMs,
    ...(scheduleToCloseMs === undefined ? {} : { scheduleToCloseMs }),
    ...(child ? { child: { onParentClose: child } } : {}),
    ...(items === undefined ? {} : { each: each(parallelMax, toleratedCount) }),
    ...(drawn.caught ? { catches: [{ reasons: ["BROKEN"] }] } : {}),
  };
}

function placeUndo(
  steps: Record<string, StepSpec>,
  undoes: number,
  { byRun, ofItems }: { byRun: boolean; ofItems: boolean },
): void {
  const undo = Object.keys(steps).length;
  Object.assign(steps[`s${undoes}`]!, { undo });
  steps[`s${undo}`] = {
    undoes,
    retry: { attemptsMax: 2, initialMs: 100 },
    startToCloseMs: 20_000,
    scheduleToCloseMs: undoMs,
    ...(byRun ? { child: { onParentClose: "cancel" } } : {}),
    ...(ofItems ? { each: each(1, 0, 1) } : {}),
  };
}

const happening = fc.record({
  what: fc.constantFrom(
    ...(["complete", "complete", "complete", "complete", "fail", "final", "bind", "bind", "lose", "claim"] as const),
    ...(["ended", "ended", "ended", "broke", "redispatch", "admit", "open", "open", "open", "open", "stale"] as const),
    ...(["cancel", "pause", "resume", "resume", "retry", "retry", "terminate", "wake", "wake"] as const),
  ),
  step: fc.nat({ max: 7 }),
  item: fc.nat({ max: itemsMax }),
  pick: fc.nat({ max: 3 }),
  elapsedMs: fc.constantFrom(0, 0, 1, 100, 5_000, 11_000, -3_000),
  room: fc.integer({ min: 0, max: 10 }),
});
type Happening = typeof happening extends fc.Arbitrary<infer T> ? T : never;

const stateAt = ({ run }: RunBench, step: number, item: number): StepState | undefined =>
  run.steps[step]?.each ? run.items?.get(step)?.get(item) : run.steps[step];

const operation = (what: Operation): RunEvent => ({ kind: "operate", operation: what, by: "", reason: "" });

/** A lease that was ever given to the step or item, mostly the current one. */
function reportFor(bench: RunBench, { step, item, pick }: Pick<Happening, "step" | "item" | "pick">): Report {
  const { lease = "", attempt = 1 } = stateAt(bench, step, item) ?? {};
  const older = bench.effects.filter((e) => e.kind === "dispatch").at(-1 - pick);
  const own = bench.plan.steps[step]?.each ? item : 0;
  if (pick < 3 || !older) return { stepId: `s${step}`, item: own, attempt, lease };
  return { stepId: `s${step}`, item: own, attempt: older.attempt, lease: older.lease };
}

/** The next items of the step, as the pipeline would have them; `wrong`: the third's input has a mistake. */
function opening(
  { run, plan }: RunBench,
  totals: Drawn["totals"],
  step: number,
  { count, wrong }: { count: number; wrong: boolean },
): RunEvent {
  const { undoes } = plan.steps[step] ?? {};
  const total = undoes === undefined ? (totals[step] ?? 0) : (run.steps[undoes]!.each?.succeeded ?? 0);
  const from = run.steps[step]?.each?.next ?? 0;
  const items = Array.from({ length: Math.min(count, total - from) }, (_, n) =>
    n === 2 && wrong && undoes === undefined
      ? { input: failure("EXPRESSION_FAILED") }
      : { input: value(`input ${from + n}`) },
  );
  return { kind: "evaluated", stepId: `s${step}`, evaluation: { kind: "items", from, total, items } };
}

function eventOf(bench: RunBench, totals: Drawn["totals"], drawn: Happening): RunEvent {
  const { what, step, item, pick } = drawn;
  const report = reportFor(bench, drawn);
  const stepId = `s${step}`;
  const session = `session-${pick}`;
  switch (what) {
    case "complete":
      return { kind: "complete", report, outcome: { kind: "output", value: value("ok") }, executionMs: 1, session };
    case "fail":
    case "final":
      return {
        ...{ kind: "complete", report, executionMs: 1, session },
        outcome: { kind: "failure", failure: failure("BROKEN", what === "fail") },
      };
    case "bind":
      return { kind: "bind", report, session, startedAtMs: bench.nowMs - 10, sinceReportMs: 0 };
    case "lose":
      return { kind: "lose", report, why: "lapsed" };
    case "claim":
      return { kind: "claim", report, session };
    case "ended":
      return { ...childEnded(stepId, item, report.lease), status: RunStatus.RUN_STATUS_SUCCEEDED, output: value("ok") };
    case "broke":
      return {
        ...childEnded(stepId, item, report.lease),
        status: RunStatus.RUN_STATUS_FAILED,
        failure: failure("BROKEN"),
      };
    case "redispatch":
      return { kind: "redispatch", why: "wiped", ...(pick === 0 ? { report } : {}) };
    case "admit":
      return { kind: "admit", step, item };
    case "open":
      return bench.plan.steps[step]?.each
        ? opening(bench, totals, step, { count: 1 + pick, wrong: true })
        : evaluatedNothing(stepId);
    case "stale":
      return stale(bench, step, pick);
    case "cancel":
      return { kind: "cancel", reason: "enough" };
    case "pause":
    case "resume":
      return operation({ kind: what });
    case "terminate":
      return operation({ kind: pick === 0 && item === 0 ? "terminate" : "resume" });
    case "retry":
      return operation({ kind: "retry", steps: [] });
    case "wake":
      return { kind: "wake" };
  }
}

const childEnded = (stepId: string, item: number, childId: string) => ({
  ...{ kind: "child-ended" as const, stepId, childId },
  ...(item > 0 ? { item } : {}),
});

/** Items that were asked for earlier, or that come too early. */
function stale({ run }: RunBench, step: number, pick: number): RunEvent {
  const next = run.steps[step]?.each?.next ?? 0;
  const from = next > pick ? next - 1 - pick : next + 1;
  const items = [{ input: value("stale") }];
  return { kind: "evaluated", stepId: `s${step}`, evaluation: { kind: "items", from, total: 9, items } };
}

const evaluatedNothing = (stepId: string): RunEvent => {
  return { kind: "evaluated", stepId, evaluation: { kind: "value", value: { ...value("x"), reference: "r" } } };
};

/** What holds after each event. */
function check(bench: RunBench, before: RunState): void {
  const { run, plan, last } = bench;
  if (isFinal(before.status)) expect(last.verdict, "E4").toBe("unchanged");
  for (const [index, step] of run.steps.entries()) checkFanOut(bench, before, step, index);
  const states = [...run.steps, ...[...(run.items?.values() ?? [])].flatMap((open) => [...open.values()])];
  const held = states.filter(({ status }) => inFlight(status)).map(({ lease }) => lease);
  const leases = held.filter((lease) => lease !== "");
  expect(new Set(leases).size, "E1: a lease is one attempt's").toBe(leases.length);
  for (const lease of bench.places) expect(leases, "a place is held for a current lease only").toContain(lease);
  for (const effect of last.effects) {
    if (effect.kind === "start-child") {
      const { index, undoes } = effect.step;
      const { item = 0 } = effect;
      const state = stateAt(bench, index, item);
      // What else the turn ended may have ended it too: its row is gone before it was there, so nothing begins (S2).
      const ended = last.effects.some((e) => e.kind === "unbind" && e.step.index === index && e.item === item);
      if (state || !ended) expect(state?.lease, "S1").toBe(effect.childId);
      if (undoes === undefined) expect(effect.deadlineAtMs, "S3").toBeLessThanOrEqual(run.deadlineAtMs);
      if (!effect.again && undoes === undefined)
        expect(before.cancel ?? before.closing ?? before.undo, "E6").toBeUndefined();
    }
    if (effect.kind === "dispatch" && effect.step.undoes === undefined) expect(before.cancel, "E6").toBeUndefined();
  }
  if (isFinal(run.status)) expect(run.wakeupAtMs, "E5").toBe(0);
  else {
    expect(run.wakeupAtMs, "E5").toBeGreaterThan(0);
    expect(run.wakeupAtMs, "E5").toBeLessThan(Number.POSITIVE_INFINITY);
    expect(run.wakeupAtMs, "E5").toBeLessThanOrEqual(Math.max(nextWakeupAtMs(run, plan), run.nowMs));
  }
  const { steps } = decodeRunState(encodeRunState(run), run.acceptedAtMs);
  expect(steps, "what is stored is what there is").toEqual(run.steps);
  checkUndos(bench);
}

function checkFanOut({ run, plan, events }: RunBench, before: RunState, step: StepState, index: number): void {
  const open = [...(run.items?.get(index)?.entries() ?? [])];
  if (isOver(step.status)) expect(open, "F3").toEqual([]);
  const was = before.steps[index]!;
  const isMended = before.broken?.steps.includes(index) && events.at(-1)?.kind === "operate";
  if (isOver(was.status) && !isMended) expect([step.status, step.each], "E4").toEqual([was.status, was.each]);
  for (const [, state] of open) {
    const copy = decodeItem(encodeItem(state, run.acceptedAtMs), run.acceptedAtMs, state.input);
    expect(copy, "what is stored is what there is").toEqual(state);
  }
  const { each: counts } = step;
  if (!counts) return;
  const { next, total, started, succeeded, failed } = counts;
  for (const [item] of open) expect(item, "F1").toBeLessThan(next);
  const counted = open.length + succeeded + failed;
  expect(counted <= next && next <= total && started <= next, "F1").toBe(true);
  const goesOn = step.status === StepStatus.STEP_STATUS_RUNNING && !run.cancel && !run.closing;
  if (goesOn) expect(counted, "F1: what was opened is open or counted").toBe(next);
  const pending = open.filter(([, { status }]) => status === StepStatus.STEP_STATUS_PENDING);
  for (const [item] of pending) expect(item, "F2: they start in order").toBeGreaterThanOrEqual(started);
  expect(open.length - pending.length, "F2").toBeLessThanOrEqual(plan.steps[index]!.each!.parallelMax);
}

/** U1, U2 and U5: undos begin behind everything else, one at a time, and each has something to undo. */
function checkUndos({ run, plan }: RunBench): void {
  const undos = plan.steps.filter(({ undoes }) => undoes !== undefined);
  const begun = undos.filter(({ index }) => run.steps[index]!.status !== StepStatus.STEP_STATUS_PENDING);
  if (begun.length === 0) return;
  const open = (index: number): boolean => !isOver(run.steps[index]!.status);
  expect(
    plan.steps.filter(({ index, undoes }) => undoes === undefined && open(index)),
    "U2: nothing else goes on",
  ).toEqual([]);
  expect(begun.filter(({ index }) => open(index)).length, "U2: one at a time").toBeLessThanOrEqual(1);
  for (const { undoes } of begun) {
    const { status, each: counts } = run.steps[undoes!]!;
    const didSomething = counts ? counts.succeeded > 0 : status === StepStatus.STEP_STATUS_SUCCEEDED;
    expect(didSomething, "U1, U5").toBe(true);
  }
}

/** What holds of a run that has ended. */
function checkEnd({ run, plan, records, effects, events, places }: RunBench): void {
  expect(records.filter(({ kind }) => kind === EventKind.EVENT_KIND_RUN_ENDED).length).toBe(1);
  expect(places.size, "every place was given back").toBe(0);
  for (const [made, undone] of [
    ["enqueue", "dequeue"],
    ["bind", "unbind"],
  ] as const) {
    const rows = new Set<string>();
    for (const effect of effects) {
      if (effect.kind !== made && effect.kind !== undone) continue;
      const row = `${effect.step.index}/${effect.item ?? 0}`;
      if (effect.kind === made) rows.add(row);
      else rows.delete(row);
    }
    expect([...rows], `no row of ${made} outlives its run`).toEqual([]);
  }
  const heard = new Set(events.flatMap((event) => (event.kind === "child-ended" ? [event.childId] : [])));
  const asked = new Set(effects.flatMap((effect) => (effect.kind === "cancel-child" ? [effect.childId] : [])));
  for (const effect of effects) {
    if (effect.kind !== "start-child" || effect.step.child?.onParentClose !== "cancel") continue;
    expect(heard.has(effect.childId) || asked.has(effect.childId), "S4").toBe(true);
  }
  const terminated = records.some(({ kind }) => kind === EventKind.EVENT_KIND_RUN_TERMINATED);
  if (terminated) return;
  for (const { index, undo, each: fanOut } of plan.steps) {
    const { status, each: counts } = run.steps[index]!;
    if (undo === undefined || run.status === RunStatus.RUN_STATUS_SUCCEEDED) continue;
    const caught = records.some(({ kind, step }) => kind === EventKind.EVENT_KIND_STEP_CAUGHT && step === index);
    const did = fanOut ? (counts?.succeeded ?? 0) : status === StepStatus.STEP_STATUS_SUCCEEDED && !caught ? 1 : 0;
    const { status: undone, each: undoneItems } = run.steps[undo]!;
    expect(undone !== StepStatus.STEP_STATUS_PENDING, "U2, U5: none is left out").toBe(did > 0);
    if (undoneItems) expect(undoneItems.succeeded + undoneItems.failed, "U5: each once").toBe(did);
  }
}

function play(bench: RunBench, totals: Drawn["totals"], happenings: readonly Happening[]): void {
  for (const drawn of happenings) {
    bench.nowMs += drawn.elapsedMs;
    bench.room = drawn.room;
    const before = bench.run;
    const copy = JSON.stringify(before);
    bench.apply(eventOf(bench, totals, drawn));
    expect(JSON.stringify(before), "the run that came in is never written to").toBe(copy);
    check(bench, before);
  }
}

/** A mesh that is well answers everything; answers how many turns that took. */
function settle(bench: RunBench, totals: Drawn["totals"]): number {
  bench.room = Number.POSITIVE_INFINITY;
  let turns = 0;
  const apply = (event: RunEvent): void => {
    const before = bench.run;
    bench.apply(event);
    check(bench, before);
    turns += 1;
  };
  const answer = (step: number, item: number): void => {
    const state = stateAt(bench, step, item);
    if (!state) return;
    const stepId = `s${step}`;
    if (state.status === StepStatus.STEP_STATUS_READY) apply({ kind: "admit", step, item });
    else if (!inFlight(state.status)) return;
    else if (bench.plan.steps[step]!.child) {
      const status = RunStatus.RUN_STATUS_SUCCEEDED;
      apply({ ...childEnded(stepId, item, state.lease), status, output: value("ok") });
    } else {
      const report = { stepId, item, attempt: state.attempt, lease: state.lease };
      const outcome = { kind: "output" as const, value: value("ok") };
      apply({ kind: "complete", report, outcome, executionMs: 1, session: "s" });
    }
  };
  while (!isFinal(bench.run.status) && turns < 600) {
    const at = turns;
    bench.plan.steps.forEach(({ each: fanOut }, step) => {
      const state = bench.run.steps[step]!;
      if (fanOut && (isEvaluating(state) || state.each?.opening))
        apply(opening(bench, totals, step, { count: 3, wrong: false }));
      else if (fanOut) for (let item = 0; item <= itemsMax; item++) answer(step, item);
      else answer(step, 0);
    });
    if (isHeld(bench.run.status))
      apply(operation(bench.run.broken ? { kind: "retry", steps: [] } : { kind: "resume" }));
    if (turns > at) continue;
    bench.nowMs = Math.max(bench.nowMs, bench.run.wakeupAtMs);
    apply({ kind: "wake" });
  }
  return turns;
}

const runs = { numRuns: 200 };

describe("whatever happens to a run with fan-outs", () => {
  it("F1 to F3 hold after every event, and it ends in few turns once everybody answers", { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(chains, fc.array(happening, { maxLength: 40, size: "medium" }), ({ plan, totals }, happenings) => {
        const bench = startRun(plan, { room: 4 });
        play(bench, totals, happenings);
        const turns = settle(bench, totals);
        expect(isFinal(bench.run.status)).toBe(true);
        expect(turns).toBeLessThan(600);
        checkEnd(bench);
      }),
      runs,
    );
  });

  it("it ends by its deadline, and its undos by theirs, though nobody ever answers", { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(chains, fc.array(happening, { maxLength: 25, size: "medium" }), ({ plan, totals }, happenings) => {
        const bench = startRun(plan, { room: 4 });
        const { deadlineAtMs } = bench.run;
        play(bench, totals, happenings);
        for (let looks = 0; !isFinal(bench.run.status); looks++) {
          expect(looks).toBeLessThan(1_000);
          // Inputs of undos come: nothing else bounds how long the pipeline may take to make them.
          const undoing = plan.steps.find(
            ({ index, undoes, each: fanOut }) =>
              undoes !== undefined && fanOut && bench.run.steps[index]!.each?.opening,
          );
          if (undoing) bench.apply(opening(bench, totals, undoing.index, { count: 3, wrong: false }));
          else bench.wakeAt(Math.max(bench.nowMs, bench.run.wakeupAtMs));
        }
        const standing = (plan.brokenTtlMs ?? 0) + (bench.run.extraMs ?? 0);
        const undoing = plan.steps.reduce((sum, { undoes }) => {
          return undoes === undefined ? sum : sum + undoMs * Math.max(1, bench.run.steps[undoes]!.each?.succeeded ?? 1);
        }, 0);
        const latestMs = Math.max(deadlineAtMs, bench.run.acceptedAtMs + 25 * 11_000) + standing + undoing;
        expect(bench.run.endedAtMs).toBeLessThanOrEqual(latestMs);
        checkEnd(bench);
      }),
      runs,
    );
  });
});

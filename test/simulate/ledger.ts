/**
 * What must hold whatever happens, checked where it happens: at each commit, each start that goes out, each answer to a caller.
 *
 * V1.  A run's version grows by one a commit; its history has no gap and no repetition.
 * V2.  Nothing changes a final run; its end is recorded once and is the last of its history.
 * V3.  A step succeeds once, by the report of a worker that held the attempt's lease; one that waits, by no attempt at all.
 * V4.  No start leaves before the commit that gave its lease.
 * V5.  A lease is one attempt's: of one run, step and number.
 * V6.  A step's attempts only grow in number; a step that is over stays as it is, unless an operator mends its run by it.
 * V7.  A step leaves PENDING once (a mended one anew), and (unless its run stops) not before all that it needs is over.
 * V8.  After a cancel was answered with OK nothing of the run is dispatched and no success is recorded.
 * V9.  A start that was answered with OK is stored, and one idempotency key is one run.
 * V10. Every run ends, soon after its deadline at the latest.
 * V11. The result of a run that succeeded is what its chain computes.
 * V12. A mesh at rest keeps no ready row, binding or unconfirmed batch.
 * V13. A value that the database refuses fails its own step, and nobody else's.
 * V14. While a run is paused or broken no step of it begins.
 * V15. Undos begin when everything else is over, one behind the other, in reverse order of what they undo; a run that did not succeed has undone
 *      all that it had done, and any other nothing. Of a fan-out that is each item that succeeded, the newest first.
 * V16. An item of a fan-out succeeds once, by the report of a worker that held its lease; no more are under way than may be, and none is both open
 *      and counted.
 * V17. A run that is no attempt any more ends soon, unless it may go on by itself.
 * V18. A run's caller is answered once, and so is who sent a signal: the answer is what a step has put out, and stays that.
 * V19. A form's escalations happen once each, and a step that hangs on one does not begin before.
 * V20. The limit of an attempt is moved by who holds it, and for this attempt alone; once the mesh has answered that, it waits so long.
 */
import { EventKind, type StartStep } from "@taskmesh/proto";
import type { ChainPlan } from "../../coordinator/src/engine/plan.js";
import { answerToSignal } from "../../coordinator/src/engine/responds.js";
import {
  inFlight,
  isFinal,
  isHeld,
  isOver,
  type RunState,
  RunStatus,
  type StepState,
  StepStatus,
} from "../../coordinator/src/engine/run-state.js";
import type { RunWrite } from "../../coordinator/src/store/commit.js";

/** An invariant that does not hold. */
export class Violation extends Error {}

/** What the ledger is told of a run when its mesh is at rest. */
export interface EndedRun {
  plan: ChainPlan;
  run: RunState;
  result: string | undefined;
  /** Undefined: nobody knows. */
  expected: string | undefined;
}

const holds = (condition: boolean, invariant: string, text: () => string): void => {
  if (!condition) throw new Violation(`${invariant}: ${text()}`);
};

const letsGoOn = new Set([EventKind.EVENT_KIND_STEP_RETRIED, EventKind.EVENT_KIND_RUN_RESUMED]);

/** Whether an operator let the run go on by one of these. */
const isMended = (records: RunWrite["records"]): boolean => records.some(({ kind }) => letsGoOn.has(kind));

export class Ledger {
  /** Leases in committed states, with the attempt that each is. */
  #leases = new Map<string, string>();
  /** Workers that were handed a start under the lease. */
  #holders = new Map<string, Set<string>>();
  /** Time that holders asked for, and instants until which the mesh has said it waits; by lease and session. */
  readonly #more = { asked: new Map<string, number>(), granted: new Map<string, number>() };
  #cancelled = new Set<string>();
  #acknowledged = new Set<string>();
  #keys = new Map<string, string>();
  #poisoned = new Set<string>();
  /** Undos of what has succeeded, in that order, by run. */
  #undone = new Map<string, number[]>();
  /** Items that succeeded, in that order, by run and step. */
  #items = new Map<string, number[]>();
  /** Escalations, by run and step. */
  #escalated = new Map<string, number>();
  readonly seen = {
    ...{ commits: 0, starts: 0, successes: 0, late: 0, items: 0, "undone items": 0 },
    ...{ answers: 0, "answers to signals": 0, escalations: 0, hanging: 0, extended: 0 },
  };

  /** A run is about to be written: `stored` is what the database has of it. */
  committed(plan: ChainPlan, stored: RunState | undefined, write: RunWrite, records: readonly EventKind[]): void {
    const { run } = write;
    this.seen.commits += 1;
    const at = (): string => `run ${run.id} at version ${write.expectedVersion}`;
    holds((stored?.version ?? 0) === write.expectedVersion, "V1", at);
    write.records.forEach((record, index) => {
      holds(record.seq === (stored?.lastSeq ?? 0) + 1 + index, "V1", () => `${at()}: history ${record.seq}`);
    });
    holds(run.lastSeq === (stored?.lastSeq ?? 0) + write.records.length, "V1", () => `${at()}: last ${run.lastSeq}`);
    holds(!stored || !isFinal(stored.status), "V2", at);
    const kinds = [...records, ...write.records.map(({ kind }) => kind)];
    const ends = kinds.filter((kind) => kind === EventKind.EVENT_KIND_RUN_ENDED).length;
    holds(ends === (isFinal(run.status) ? 1 : 0), "V2", () => `${at()}: ended ${ends} times`);
    if (ends > 0)
      holds(kinds.at(-1) === EventKind.EVENT_KIND_RUN_ENDED, "V2", () => `${at()}: something follows its end`);
    for (const record of write.records) {
      this.#checkItem(plan, stored, run, record);
      this.#noteUndo(plan, run, record);
    }
    this.#checkSteps(plan, stored, write, at);
    this.#checkItems(plan, stored, write, at);
    this.#checkAnswers(plan, stored, write, at);
    this.#checkRecords(plan, stored, write, at);
  }

  #doneItems(runId: string, step: number): number[] {
    const key = `${runId}/${step}`;
    const known = this.#items.get(key) ?? [];
    this.#items.set(key, known);
    return known;
  }

  /** What happened to an item. */
  #checkItem(plan: ChainPlan, stored: RunState | undefined, run: RunState, record: RunWrite["records"][number]): void {
    const { kind, step, item = 0 } = record;
    if (kind === EventKind.EVENT_KIND_STEP_RETRIED) this.#items.delete(`${run.id}/${step}`);
    const succeeded = kind === EventKind.EVENT_KIND_ITEM_SUCCEEDED;
    if (!succeeded && kind !== EventKind.EVENT_KIND_ITEM_FAILED) return;
    const { child, undoes } = plan.steps[step]!;
    const where = (): string => `run ${run.id}, step ${plan.steps[step]!.id}, item ${item}`;
    if (undoes !== undefined) {
      const undone = this.#doneItems(run.id, undoes).toReversed()[item];
      holds(`${undone}` === record.note, "V15", () => `${where()}: it undoes ${record.note}, not ${undone}`);
    }
    if (!succeeded) return;
    const done = this.#doneItems(run.id, step);
    holds(!done.includes(item), "V16", () => `${where()}: it succeeds again`);
    done.push(item);
    this.seen[undoes === undefined ? "items" : "undone items"] += 1;
    const lease = stored?.items?.get(step)?.get(item)?.lease ?? "";
    const held = child !== undefined || this.#holders.get(lease)?.has(record.session ?? "") === true;
    holds(held, "V16", () => `${where()}: ${record.session} never held its lease`);
    holds(!this.#cancelled.has(run.id) || undoes !== undefined, "V8", () => `${where()}: a success after its cancel`);
  }

  /** What is to be undone, in the order in which it was done; fan-outs that have done a part take their place when the undoing begins. */
  #noteUndo(plan: ChainPlan, run: RunState, { kind, step }: RunWrite["records"][number]): void {
    const known = this.#undone.get(run.id) ?? [];
    if (kind === EventKind.EVENT_KIND_STEP_SUCCEEDED) {
      const { undo, each } = plan.steps[step]!;
      const didNothing = each !== undefined && this.#doneItems(run.id, step).length === 0;
      if (undo !== undefined && !didNothing) this.#undone.set(run.id, [...known, undo]);
    }
    if (kind !== EventKind.EVENT_KIND_RUN_COMPENSATING || !run.done) return;
    const partly = plan.steps.flatMap(({ index, each, undo }) =>
      each && undo !== undefined && !known.includes(undo) && this.#doneItems(run.id, index).length > 0 ? [undo] : [],
    );
    const order = run.done.map((index) => plan.steps[index]!.undo!);
    const text = (): string => `run ${run.id} undoes ${order.join(", ")}, of ${[...known, ...partly].join(", ")}`;
    holds([...order].sort().join() === [...known, ...partly].sort().join(), "V15", text);
    holds(order.filter((undo) => known.includes(undo)).join() === known.join(), "V15", text);
    this.#undone.set(run.id, order);
  }

  /** How items stand. */
  #checkItems(plan: ChainPlan, stored: RunState | undefined, { run, items }: RunWrite, at: () => string): void {
    for (const { step, item } of items?.values() ?? []) {
      const state = run.items?.get(step)?.get(item);
      const was = stored?.items?.get(step)?.get(item);
      if (state === undefined) continue;
      const where = (): string => `${at()}, step ${plan.steps[step]!.id}, item ${item}`;
      this.#keepLease(`${run.id}/${step}/${item}/${state.attempt}`, state, where);
      holds(state.attempt >= (was?.attempt ?? 0), "V6", where);
      holds(!this.#doneItems(run.id, step).includes(item), "V16", () => `${where()}: it is open and over`);
      const isNew = state.attempt > (was?.attempt ?? 0) && plan.steps[step]!.undoes === undefined;
      holds(!(this.#cancelled.has(run.id) && isNew), "V8", () => `${where()}: a new attempt after its cancel`);
    }
    for (const [index, { each }] of run.steps.entries()) {
      if (!each) continue;
      const open = [...(run.items?.get(index)?.values() ?? [])];
      const under = open.filter(({ status }) => status !== StepStatus.STEP_STATUS_PENDING).length;
      const counted = open.length + each.succeeded + each.failed;
      const text = (): string => `${at()}, step ${plan.steps[index]!.id}: ${JSON.stringify(each)}, ${open.length} open`;
      holds(counted <= each.next && each.next <= each.total, "V16", text);
      holds(under <= plan.steps[index]!.each!.parallelMax, "V16", text);
      holds(each.succeeded === this.#doneItems(run.id, index).length, "V16", text);
    }
  }

  /** Who was answered, and what was escalated. */
  #checkAnswers(plan: ChainPlan, stored: RunState | undefined, { run, records }: RunWrite, at: () => string): void {
    const of = (wanted: EventKind) => records.filter(({ kind }) => kind === wanted);
    const isNew = run.answered !== stored?.answered;
    holds(stored?.answered === undefined || !isNew, "V18", () => `${at()}: its caller was answered by another step`);
    holds(of(EventKind.EVENT_KIND_RUN_RESPONDED).length === (isNew ? 1 : 0), "V18", at);
    const { answered = -1 } = run;
    const isOutput = answered < 0 || run.steps[answered]!.status === StepStatus.STEP_STATUS_SUCCEEDED;
    holds(isOutput, "V18", () => `${at()}: the answer is no output`);
    if (isNew) this.seen.answers += 1;
    for (const [, key] of stored?.messages?.taken ?? []) {
      const was = answerToSignal(stored!, plan, key);
      const is = answerToSignal(run, plan, key);
      const same = was.kind !== "answered" || (is.kind === "answered" && is.step === was.step);
      holds(same, "V18", () => `${at()}: the answer to ${key} was ${JSON.stringify(was)}, is ${JSON.stringify(is)}`);
    }
    this.seen["answers to signals"] += of(EventKind.EVENT_KIND_SIGNAL_ANSWERED).length;
    for (const { step } of of(EventKind.EVENT_KIND_STEP_RETRIED)) this.#escalated.delete(`${run.id}/${step}`);
    for (const { step, note } of of(EventKind.EVENT_KIND_ASSIGNMENT_ESCALATED)) {
      const known = this.#escalated.get(`${run.id}/${step}`) ?? 0;
      holds(`${known + 1}` === note, "V19", () => `${at()}, step ${step}: ${note} after ${known}`);
      this.#escalated.set(`${run.id}/${step}`, known + 1);
      this.seen.escalations += 1;
    }
    run.steps.forEach(({ level = 0 }, step) => {
      const known = this.#escalated.get(`${run.id}/${step}`) ?? 0;
      holds(level === known, "V19", () => `${at()}, step ${step}: level ${level} after ${known}`);
    });
  }

  #keepLease(name: string, step: StepState, where: () => string): void {
    const { lease, attempt, status, session, extendedMs = 0 } = step;
    const asked = inFlight(status) ? (this.#more.asked.get(`${lease}/${session}`) ?? 0) : extendedMs;
    holds(extendedMs <= asked, "V20", () => `${where()}: it has ${extendedMs} ms of ${asked} ms`);
    if (lease !== "" && attempt > 0) {
      const known = this.#leases.get(lease);
      holds(known === undefined || known === name, "V5", () => `${where()}: its lease is that of ${known}`);
      this.#leases.set(lease, name);
    }
    if (inFlight(status)) holds(lease !== "", "V5", () => `${where()}: in flight without a lease`);
  }

  #checkSteps(plan: ChainPlan, stored: RunState | undefined, { run, records }: RunWrite, at: () => string): void {
    const wasHeld = stored !== undefined && isHeld(stored.status) && isHeld(run.status) && !isMended(records);
    run.steps.forEach((step, index) => {
      const was = stored?.steps[index];
      const where = (): string => `${at()}, step ${plan.steps[index]!.id}`;
      if (!step.each) this.#keepLease(`${run.id}/${index}/0/${step.attempt}`, step, where);
      holds(step.attempt >= (was?.attempt ?? 0), "V6", where);
      const mended = stored?.broken?.steps.includes(index) === true && isMended(records);
      if (was && isOver(was.status) && !mended) {
        const same = was.status === step.status && was.attempt === step.attempt && was.endedAtMs === step.endedAtMs;
        holds(same, "V6", () => `${where()}: it was over`);
      }
      const pending = StepStatus.STEP_STATUS_PENDING;
      if (was && was.status !== pending && !mended)
        holds(step.status !== pending, "V7", () => `${where()}: it is pending again`);
      const begins = (was?.status ?? pending) === pending && step.status !== pending;
      if (begins && step.status !== StepStatus.STEP_STATUS_CANCELLED) {
        const { needs, join, escalation } = plan.steps[index]!;
        const isHung = escalation && (run.steps[escalation.of]!.level ?? 0) >= escalation.level;
        const hasOne = join?.of.some((at) => run.steps[at]!.status === StepStatus.STEP_STATUS_SUCCEEDED) === true;
        const awaited = needs.filter((need) => !(hasOne && join?.of.includes(need)));
        const open = awaited.filter((need) => !isOver(run.steps[need]!.status) && !(isHung && need === escalation.of));
        const isIdle = step.attempt === 0;
        holds(!escalation || isHung === true || isIdle, "V19", () => `${where()}: it began without its escalation`);
        if (isHung && !isIdle) this.seen.hanging += 1;
        holds(open.length === 0, "V7", () => `${where()}: it began before ${open.join(", ")}`);
      }
      const waited = was !== undefined && !inFlight(was.status) && step.attempt > was.attempt;
      holds(!(wasHeld && (waited || (begins && step.wait !== undefined))), "V14", where);
      if (begins && plan.steps[index]!.undoes !== undefined) this.#checkUndo(plan, run, index);
      if (this.#cancelled.has(run.id) && plan.steps[index]!.undoes === undefined) {
        holds(step.attempt === (was?.attempt ?? 0), "V8", () => `${where()}: a new attempt after its cancel`);
      }
    });
  }

  /** The mesh gave an attempt up, not the worker. */
  #checkTimeOut(
    stored: RunState | undefined,
    { nowMs }: RunState,
    { step, item = 0, attempt, session = "", failure }: RunWrite["records"][number],
    at: () => string,
  ): void {
    const was = item === 0 && !stored?.steps[step]?.each ? stored?.steps[step] : stored?.items?.get(step)?.get(item);
    if (failure?.reason !== "START_TO_CLOSE_TIMEOUT" || was === undefined || was.attempt !== attempt) return;
    const grantedMs = this.#more.granted.get(`${was.lease}/${session}`) ?? 0;
    holds(nowMs >= grantedMs, "V20", () => `${at()}, step ${step}: given up ${grantedMs - nowMs} ms early`);
  }

  #checkRecords(plan: ChainPlan, stored: RunState | undefined, { run, records }: RunWrite, at: () => string): void {
    for (const record of records) {
      if (record.kind === EventKind.EVENT_KIND_COMPLETION_LATE) this.seen.late += 1;
      if (record.kind === EventKind.EVENT_KIND_ATTEMPT_TIMED_OUT) this.#checkTimeOut(stored, run, record, at);
      const { reason } = record.failure ?? {};
      // A child's failure comes up under its own reason.
      if (reason === "DATA_ERROR" && !plan.steps[record.step]?.child)
        holds(this.#poisoned.has(`${run.id}/${record.step}`) || record.step < 0, "V13", () => `${at()}: no poison`);
      if (record.kind !== EventKind.EVENT_KIND_STEP_SUCCEEDED) continue;
      this.seen.successes += 1;
      const step = run.steps[record.step]!;
      const { undoes } = plan.steps[record.step]!;
      holds(!this.#cancelled.has(run.id) || undoes !== undefined, "V8", () => `${at()}: a success after its cancel`);
      holds(step.status === StepStatus.STEP_STATUS_SUCCEEDED && step.attempt === record.attempt, "V3", at);
      if (step.attempt === 0 && step.lease === "") continue;
      // A child's end is no report of a worker; V11 says whether its output is the right one.
      if (plan.steps[record.step]!.child) continue;
      const holders = this.#holders.get(step.lease);
      holds(holders?.has(record.session ?? "") ?? false, "V3", () => `${at()}: ${record.session} never held the lease`);
    }
  }

  #checkUndo(plan: ChainPlan, run: RunState, index: number): void {
    const order = this.#undone.get(run.id) ?? [];
    const at = order.indexOf(index);
    const where = (): string => `run ${run.id}, ${plan.steps[index]!.id}, of ${order.join(", ")}`;
    holds(at >= 0, "V15", () => `${where()}: what it undoes has not succeeded`);
    const isOpen = (other: number): boolean => !isOver(run.steps[other]!.status);
    holds(!order.slice(at + 1).some(isOpen), "V15", () => `${where()}: out of turn`);
    const isOwn = (other: number): boolean => plan.steps[other]!.undoes === undefined;
    holds(!run.steps.some((_, other) => isOwn(other) && isOpen(other)), "V15", () => `${where()}: something goes on`);
  }

  /** A coordinator sends a start. */
  published({ runId, item, attempt, lease }: StartStep, step: number): void {
    this.seen.starts += 1;
    const known = this.#leases.get(lease);
    holds(
      known === `${runId}/${step}/${item}/${attempt}`,
      "V4",
      () => `a start of ${runId}/${step}/${item}/${attempt}, known: ${known}`,
    );
  }

  /** A worker was handed the start. */
  held(lease: string, session: string): void {
    const holders = this.#holders.get(lease);
    if (holders) holders.add(session);
    else this.#holders.set(lease, new Set([session]));
  }

  /** A handler asks for so much time for its attempt. */
  asked(lease: string, session: string, ms: number): void {
    this.#more.asked.set(`${lease}/${session}`, ms);
  }

  /** The mesh has answered the beat that asked for it. */
  granted(lease: string, session: string, untilMs: number): void {
    if (!this.#more.granted.has(`${lease}/${session}`)) this.seen.extended += 1;
    this.#more.granted.set(`${lease}/${session}`, untilMs);
  }

  /** A worker reports something that the database refuses. */
  poisoned(runId: string, step: number): void {
    this.#poisoned.add(`${runId}/${step}`);
  }

  started(runId: string, key: string | undefined): void {
    this.#acknowledged.add(runId);
    if (key === undefined) return;
    const known = this.#keys.get(key);
    holds(known === undefined || known === runId, "V9", () => `key ${key} is of run ${known} and of ${runId}`);
    this.#keys.set(key, runId);
  }

  cancelled(runId: string): void {
    this.#cancelled.add(runId);
  }

  /** The mesh is at rest. */
  rest(runs: ReadonlyMap<string, EndedRun>, left: Readonly<Record<string, number>>): void {
    for (const id of this.#acknowledged) holds(runs.has(id), "V9", () => `run ${id} was accepted and is not stored`);
    for (const [id, { run, plan, result, expected }] of runs) {
      holds(isFinal(run.status), "V10", () => `run ${id} has not ended`);
      const wanted = run.status === RunStatus.RUN_STATUS_SUCCEEDED ? [] : this.#toUndo(id, plan);
      const begun = plan.steps.flatMap(({ index, undoes }) =>
        undoes !== undefined && run.steps[index]!.status !== StepStatus.STEP_STATUS_PENDING ? [index] : [],
      );
      const text = (): string => `run ${id} undid ${begun.join(", ")} of ${wanted.join(", ")}`;
      holds([...wanted].sort().join() === begun.sort().join(), "V15", text);
      for (const { index, undoes } of plan.steps) this.#checkUndone(run, index, undoes);
      if (result === undefined || expected === undefined) continue;
      holds(result === expected, "V11", () => `run ${id} of ${plan.steps.length} steps: ${result}, not ${expected}`);
    }
    for (const [what, count] of Object.entries(left)) holds(count === 0, "V12", () => `${count} ${what} are left`);
  }

  /** What a run that did not succeed has to undo, whatever it thought when it began. */
  #toUndo(id: string, plan: ChainPlan): number[] {
    const known = this.#undone.get(id) ?? [];
    const partly = plan.steps.flatMap(({ index, undo }) =>
      undo !== undefined && !known.includes(undo) && this.#doneItems(id, index).length > 0 ? [undo] : [],
    );
    return [...known, ...partly];
  }

  /** A run that its step had begun has ended, though not before. */
  letGo(child: RunState, latestMs: number): void {
    holds(child.endedAtMs <= latestMs, "V17", () => `run ${child.id} ended ${child.endedAtMs - latestMs} ms too late`);
  }

  /** Every item that an undo of a fan-out was for is over. */
  #checkUndone({ id, steps }: RunState, index: number, undoes: number | undefined): void {
    const { each } = steps[index]!;
    if (undoes === undefined || each === undefined) return;
    const wanted = this.#doneItems(id, undoes).length;
    const text = (): string => `run ${id} undid ${each.succeeded + each.failed} of ${wanted} items`;
    holds(each.succeeded + each.failed === wanted, "V15", text);
  }

  /** A run ended when it had to. */
  ended(run: RunState, latestMs: number): void {
    holds(run.endedAtMs <= latestMs, "V10", () => `run ${run.id} ended ${run.endedAtMs - latestMs} ms too late`);
  }
}

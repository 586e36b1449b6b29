/** Applies a batch of work to runs, one draft a run: several events of one run in one batch are one write. */
import { randomBytes } from "node:crypto";
import { AttemptLogs } from "@taskmesh/proto";
import { type Logger, sha256, status, statusError, uuidv7 } from "@taskmesh/runtime";
import { type Acceptance, accept, advance } from "../engine/advance.js";
import type { ChainPlan, Value } from "../engine/plan.js";
import type { Advance, Context, Effect, ItemChange, RunRecord } from "../engine/run-event.js";
import type { RunState } from "../engine/run-state.js";
import { stepIndex } from "../engine/step-index.js";
import type { RunWrite } from "../store/commit.js";
import { runFields } from "./run-fields.js";
import { messageRefused } from "./send-answer.js";
import { foldSuccessor, isSuccessor } from "./successors.js";
import type { Windows } from "./windows.js";
import type { EventWork, Settled, StartWork, Work } from "./work.js";

/** A run as the batch leaves it, before the commit says whether it counts. */
export interface Draft {
  plan: ChainPlan;
  write: RunWrite;
  /** Leases whose window places were taken for this draft. */
  taken: string[];
  work: { item: Work; settled?: Settled }[];
  /** The run that goes on in this one's place, stored with it or not at all. */
  successor?: Draft;
}

export interface Folded {
  drafts: Map<string, Draft>;
  /** Refused on a cached run: to be decided again on a fresh read. Or made from a run that the batch has another successor for. */
  again: Work[];
}

export interface FoldContext {
  /** The runs that the batch is about, as far as they exist. */
  runs: ReadonlyMap<string, { run: RunState; plan: ChainPlan }>;
  windows: Windows;
  nowMs: number;
  /** Runs that were read for this very batch: a refusal on them counts. */
  freshIds: ReadonlySet<string>;
  log: Logger;
}

/** Leases are random, not counted: after a lossy fail-over of the database a counter could give one twice. */
function newLease(): string {
  if (leaseUsed === leasePool.length) {
    leasePool = randomBytes(leaseBytes * 512);
    leaseUsed = 0;
  }
  leaseUsed += leaseBytes;
  return leasePool.toString("base64url", leaseUsed - leaseBytes, leaseUsed);
}
const leaseBytes = 12;
let leasePool = Buffer.alloc(0);
let leaseUsed = 0;

/** Folds the batch. Refusals that count are settled here; all else waits for the commit. */
export function foldBatch(batch: readonly Work[], context: FoldContext): Folded {
  const folded: Folded = { drafts: new Map(), again: [] };
  for (const item of batch) {
    // The engine never writes to what it is given, so work that makes it throw leaves no trace, and strangers go on.
    const taken: string[] = [];
    try {
      if (item.kind === "start") foldStart(item, folded, context, taken);
      else foldEvent(item, folded, context, taken);
    } catch (error) {
      for (const lease of taken) context.windows.free(lease);
      const run = context.runs.get(item.runId)?.run ?? { id: item.runId };
      context.log.error({ err: error, ...runFields(run) }, "the engine can't apply an event");
      item.fail(internal(error));
    }
  }
  return folded;
}

const internal = (cause: unknown): Error =>
  statusError({ code: status.INTERNAL, reason: "INTERNAL", message: "the run can't go on with this", cause });

function foldStart(item: StartWork, folded: Folded, context: FoldContext, taken: string[]): void {
  // A child may be started by several at once, under the id that its parent gave it: they are one start.
  const known = folded.drafts.get(item.runId);
  if (known) {
    known.work.push({ item });
    return;
  }
  if (isSuccessor(item)) return foldSuccessor(item, folded, context, taken);
  const { command } = item;
  const run = { id: item.runId, namespaceId: command.namespaceId };
  const engine = engineContext(run, taken, context);
  const draft = startDraft(item, acceptanceOf(item), engine, taken);
  if (draft) folded.drafts.set(item.runId, draft);
  else for (const lease of taken) context.windows.free(lease);
}

/** What the run of a start begins with. */
export function acceptanceOf({ runId, command }: StartWork): Acceptance {
  return {
    id: runId,
    namespaceId: command.namespaceId,
    namespace: command.namespace,
    input: command.input,
    labels: command.labels,
    priority: command.priority,
    ...(command.startAtMs === undefined ? {} : { startAtMs: command.startAtMs }),
    ...(command.timeoutMs === undefined ? {} : { timeoutMs: command.timeoutMs }),
    ...(command.deadlineAtMs === undefined ? {} : { deadlineAtMs: command.deadlineAtMs }),
    ...(command.parent ? { parent: command.parent } : {}),
    ...(command.trace ? { trace: command.trace } : {}),
    ...(command.starter === undefined ? {} : { starter: command.starter }),
    ...(command.customId === undefined ? {} : { customId: command.customId.name }),
  };
}

/** The draft of a run that is accepted; undefined: the message that comes with it is refused, and whoever sent it told so. */
export function startDraft(
  item: StartWork,
  acceptance: Acceptance,
  engine: Context,
  taken: string[],
): Draft | undefined {
  const { plan, idempotencyKey, customId, message } = item.command;
  const accepted = accept(plan, acceptance, engine);
  const write = writeOf(accepted, plan, 0);
  if (message) {
    const sent = advance(accepted.run, plan, { kind: "message", ...message }, engine);
    if (sent.verdict === "unchanged") {
      item.fail(messageRefused(sent.why, message.name));
      return undefined;
    }
    mergeWrite(write, sent);
  }
  if (customId) write.customId = customId;
  else if (idempotencyKey !== undefined && item.requestHash)
    write.idempotency = { key: idempotencyKey, requestHash: item.requestHash };
  return { plan, write, taken, work: [{ item }] };
}

function foldEvent(item: EventWork, folded: Folded, context: FoldContext, taken: string[]): void {
  const draft = folded.drafts.get(item.runId);
  const cached = draft ? undefined : context.runs.get(item.runId);
  const run = draft?.write.run ?? cached?.run;
  const plan = draft?.plan ?? cached?.plan;
  if (!run || !plan || (item.namespaceId !== undefined && item.namespaceId !== run.namespaceId)) {
    item.settle({ verdict: "unknown-run" });
    return;
  }
  const result = advance(run, plan, item.event, engineContext(run, taken, context));
  if (result.verdict === "unchanged") {
    const settled: Settled = { verdict: "unchanged", why: result.why, run };
    if (draft) draft.work.push({ item, settled });
    else if (item.fresh || context.freshIds.has(item.runId)) item.settle(settled);
    else folded.again.push(item);
    return;
  }
  const into = draft ?? { plan, write: writeOf(result, plan, run.version), taken: [], work: [] };
  if (draft) mergeWrite(draft.write, result);
  else folded.drafts.set(item.runId, into);
  into.taken.push(...taken);
  into.work.push({ item, settled: { verdict: "changed", run: result.run, plan, effects: result.effects } });
  addLogs(into.write, plan, item);
}

export function writeOf(result: Advance, plan: ChainPlan, expectedVersion: number): RunWrite {
  const { method, version, contract } = plan;
  const { run, records, effects } = result;
  seal(records, effects);
  const write: RunWrite = { run, expectedVersion, method, chainVersion: version, contract, records, effects, logs: [] };
  return result.items ? mergeItems(write, result.items) : write;
}

export function mergeWrite(write: RunWrite, result: Advance): void {
  seal(result.records, result.effects);
  write.run = result.run;
  write.records.push(...result.records);
  for (const effect of result.effects) write.effects.push(effect);
  if (result.items) mergeItems(write, result.items);
}

/** Items as the write leaves them: what opened one of them stays the reason why it has no row. */
function mergeItems(write: RunWrite, changes: readonly ItemChange[]): RunWrite {
  write.items ??= new Map();
  for (const change of changes) {
    const key = `${change.step}/${change.item}`;
    const opened = write.items.get(key)?.opened ?? change.opened;
    write.items.set(key, { ...change, opened });
  }
  return write;
}

/** Hashes the values that the engine made: they are about to be stored or sent. */
function seal(records: RunRecord[], effects: Effect[]): void {
  for (const record of records) if (record.payload) hash(record.payload);
  for (const effect of effects) if (effect.kind === "dispatch" || effect.kind === "start-child") hash(effect.input);
}

function hash(value: Value): void {
  if (value.sha256.length === 0 && value.bytes) value.sha256 = sha256(value.bytes);
}

function addLogs(write: RunWrite, plan: ChainPlan, item: EventWork): void {
  const step = item.logs && stepIndex(plan, item.logs.stepId);
  if (item.logs === undefined || step === undefined) return;
  write.logs.push({
    step,
    item: item.logs.item,
    attempt: item.logs.attempt,
    lines: AttemptLogs.encode(item.logs).finish(),
  });
}

export function engineContext(
  run: Pick<RunState, "id" | "namespaceId">,
  taken: string[],
  context: FoldContext,
): Context {
  const { windows, nowMs } = context;
  return {
    nowMs,
    lease: newLease,
    childId: () => uuidv7(nowMs),
    random: Math.random,
    admit(step, lease, fromQueue) {
      if (!windows.take(run, step, lease, fromQueue, nowMs)) return false;
      taken.push(lease);
      return true;
    },
  };
}

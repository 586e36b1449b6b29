/** RunService: starts, shows, watches and cancels runs. Reading is done here; whatever changes a run goes through the intake. */
import {
  EventKind,
  type GetResultRequest,
  type GetResultResponse,
  type GetRunRequest,
  type GetRunResponse,
  type ListRunsRequest,
  type ListRunsResponse,
  type RunServiceServer,
  RunStatus,
  type StartRunRequest,
  type WatchRunRequest,
  type WatchRunResponse,
} from "@taskmesh/proto";
import { status, statusError } from "@taskmesh/runtime";
import type { Violation } from "../contracts/check.js";
import type { Contract } from "../contracts/contract.js";
import type { ChainPlan } from "../engine/plan.js";
import { answerOfCaller } from "../engine/responds.js";
import { isFinal, type RunState, StepStatus } from "../engine/run-state.js";
import { stepIndex } from "../engine/step-index.js";
import { isRunId } from "../pipeline/completions.js";
import { runNotFound } from "../pipeline/intake.js";
import type { Notices } from "../pipeline/notices.js";
import type { Intake, Plans } from "../pipeline/ports.js";
import type { Results, RunResult } from "../pipeline/results.js";
import { readSuccessors } from "../store/custom-ids.js";
import type { Database } from "../store/db.js";
import { readProgress } from "../store/reports.js";
import { listRuns, readEnd, readEvents, readLogs, readStanding, readStatuses } from "../store/run-reads.js";
import { completeCallback } from "./callbacks.js";
import { type CallContext, type Send, serverStream, unary } from "./calls.js";
import { readUsual, withEstimates } from "./estimates.js";
import { findPlanned, findRun } from "./find-run.js";
import { hasControl, invalid, readGiven } from "./given-value.js";
import { listItems } from "./item-view.js";
import { readPageToken, writePageToken } from "./page-token.js";
import { checkLabels, checkPriority } from "./request-checks.js";
import { checkAsked, runOperations } from "./run-operations.js";
import { currentReports } from "./run-progress.js";
import { describeRun, shown, summarizeRun, toRunEvent } from "./run-view.js";
import { readSignal, signalRun } from "./signals.js";
import { readCustomId, readStarter } from "./start-ids.js";
import { successorCalls } from "./successors.js";
import { WatchProgress } from "./watch-progress.js";

export interface RunServiceDeps {
  db: Database;
  intake: Intake;
  plans: Plans;
  notices: Notices;
  results: Results;
  namespaces: { resolve(name: string): Promise<{ id: number; name: string }> };
  /** The pinned revision of a contract. */
  contractOf(namespaceId: number, fingerprint: string): Promise<Contract | undefined>;
  /** The database's clock, in epoch milliseconds. */
  now(): number;
  /** Aborts when the coordinator drains: watchers are told to go elsewhere. */
  draining(): AbortSignal;
}

const pageSizeDefault = 100;
const pageSizeMax = 1_000;
const waitMsMax = 60_000;
/** Runs made from one that are shown with it. */
const successorsMax = 100;
/** Events read at once for one watcher. */
const watchPageMax = 200;
const bounds = { keyChars: 256, timeoutMs: 10 * 365 * 24 * 3600 * 1000 };

/** Makes the service. */
export function createRunService(deps: RunServiceDeps): RunServiceServer {
  return {
    startRun: unary((request, context) => startRun(deps, request, context)),
    getRun: unary((request) => getRun(deps, request)),
    getResult: unary((request, context) => getResult(deps, request, context)),
    listRuns: unary((request) => list(deps, request)),
    cancelRun: unary(async ({ namespace, runId, reason, actor }) => {
      const { by } = checkAsked({ reason: "", actor });
      const { id } = await deps.namespaces.resolve(namespace);
      if (!isRunId(runId)) throw runNotFound(runId);
      await deps.intake.cancelRun(id, runId, reason.slice(0, 1_024), by === "" ? {} : { by });
      const stored = await findRun(deps, id, runId);
      return { run: summarizeRun(stored.run, stored) };
    }),
    ...runOperations(deps),
    ...successorCalls(deps),
    watchRun: serverStream((request, send, context) => watch(deps, request, send, context)),
    getLogs: unary(async ({ namespace, runId, stepId }) => {
      const { id } = await deps.namespaces.resolve(namespace);
      const { plan } = await findPlanned(deps, id, runId);
      const step = stepId === "" ? undefined : stepIndex(plan, stepId);
      if (stepId !== "" && step === undefined) {
        throw statusError({
          reason: "STEP_NOT_FOUND",
          message: `the run has no step ${JSON.stringify(stepId.slice(0, 64))}`,
        });
      }
      return { attempts: await readLogs(deps.db, runId, step) };
    }),
    completeCallback: unary(async (request) => {
      await completeCallback(deps, request);
      return {};
    }),
    signalRun: unary((request, context) => signalRun(deps, request, context)),
    listItems: unary(async (request) => {
      const { id } = await deps.namespaces.resolve(request.namespace);
      return listItems(deps.db, await findPlanned(deps, id, request.runId), request);
    }),
  };
}

/** Checks a request and starts its run; `runId`: one of `Intake.newRunId` that it is to have if it is new. */
export async function startRun(deps: RunServiceDeps, request: StartRunRequest, context: CallContext, runId?: string) {
  const namespace = await deps.namespaces.resolve(request.namespace);
  const { timeoutMs, startAtMs, customId, starter } = checkStart(request, context);
  const plan = await deps.plans.current(namespace.id, request.method);
  if (!plan) {
    const message = `no action or chain ${JSON.stringify(request.method.slice(0, 255))} is registered in namespace ${namespace.name}`;
    throw statusError({ reason: "METHOD_NOT_FOUND", message });
  }
  const contract = await deps.contractOf(namespace.id, plan.contract);
  if (!contract) throw new Error(`contract ${plan.contract} of ${plan.method} is not stored`);
  const input = await readGiven(deps.db, namespace.id, { contract, side: "input" }, request.input);
  const message = request.signal && (await readSignal(deps, namespace.id, plan, request.signal));
  const started = await deps.intake.startRun({
    namespaceId: namespace.id,
    namespace: namespace.name,
    plan,
    input,
    ...(request.idempotencyKey === "" ? {} : { idempotencyKey: request.idempotencyKey }),
    labels: request.labels,
    priority: request.priority,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(startAtMs === undefined ? {} : { startAtMs }),
    ...(context.trace ? { trace: context.trace } : {}),
    ...(message ? { message } : {}),
    ...(runId === undefined ? {} : { runId }),
    ...(customId ? { customId } : {}),
    ...(starter === undefined ? {} : { starter }),
  });
  context.aboutRun(started.runId);
  return started;
}

/** Checks all but the input. */
function checkStart(request: StartRunRequest, context: CallContext) {
  const violations: Violation[] = [];
  const bad = (field: string, message: string): void => void violations.push({ field, message });
  if (request.idempotencyKey.length > bounds.keyChars)
    bad("idempotency_key", `has ${request.idempotencyKey.length} characters; at most ${bounds.keyChars} are allowed`);
  if (hasControl(request.idempotencyKey)) bad("idempotency_key", "has control characters; use printable ones");
  checkLabels(request.labels, "labels", bad);
  checkPriority(request.priority, bad);
  const { timeout } = request;
  const timeoutMs = timeout ? Number(timeout.seconds) * 1000 + Math.floor(timeout.nanos / 1e6) : undefined;
  if (timeoutMs !== undefined && !(timeoutMs > 0 && timeoutMs <= bounds.timeoutMs))
    bad("timeout", "must be above zero and at most ten years");
  const { startAt } = request;
  const startAtMs = startAt ? Number(startAt.seconds) * 1000 + Math.ceil(startAt.nanos / 1e6) : undefined;
  if (startAtMs !== undefined && startAtMs > Date.now() + bounds.timeoutMs) bad("start_at", "is over ten years ahead");
  const customId = readCustomId(request, bad);
  const starter = readStarter(request.starter, context, bad);
  if (violations.length > 0) throw invalid("ARGUMENT_INVALID", violations);
  return { timeoutMs, startAtMs, customId, starter };
}

async function getRun(deps: RunServiceDeps, request: GetRunRequest): Promise<GetRunResponse> {
  const { id } = await deps.namespaces.resolve(request.namespace);
  const found = await findPlanned(deps, id, request.runId);
  const events = await readEvents(deps.db, request.runId, { afterSeq: 0, limit: 20_000, payloads: false });
  const end = isFinal(found.run.status) ? await readEnd(deps.db, request.runId) : undefined;
  const { run, plan } = found;
  const reports = currentReports(run.steps, plan, end ? [] : await readProgress(deps.db, request.runId));
  const usual = await readUsual(deps.db, id, run.steps, plan, reports);
  const progress = withEstimates(run.steps, plan, reports, { usual, nowMs: deps.now() });
  const children = await readStatuses(deps.db, childrenOf(found));
  const successors = await readSuccessors(deps.db, request.runId, successorsMax);
  const { omitPayloads } = request;
  const output = end?.payload ?? answerOfCaller(found.run);
  return describeRun(found, events, { output, payloads: !omitPayloads, progress, children, successors });
}

/** Runs that its steps have under way. */
const childrenOf = ({ run, plan }: { run: RunState; plan: ChainPlan }): string[] =>
  run.steps.flatMap(({ status, lease }, index) =>
    plan.steps[index]!.child && status === StepStatus.STEP_STATUS_RUNNING ? [lease] : [],
  );

/** The end of a run, or its present status after the request's `wait`. */
export async function getResult(
  deps: RunServiceDeps,
  request: GetResultRequest,
  context: CallContext,
): Promise<GetResultResponse> {
  const { id } = await deps.namespaces.resolve(request.namespace);
  const { wait, runId } = request;
  const waitMs = Math.min(waitMsMax, wait ? Number(wait.seconds) * 1000 + wait.nanos / 1e6 : 0);
  if (waitMs <= 0) return lookForEnd(deps, id, runId);
  const endAt = performance.now() + waitMs;
  const given = new AbortController();
  let ended: RunResult | undefined;
  // Listened for before the first look, so that an end in between is not missed.
  const stop = deps.results.onEnd(runId, (result) => {
    ended = result;
    given.abort();
  });
  try {
    for (;;) {
      const found = await lookForEnd(deps, id, runId);
      if (found.status >= RunStatus.RUN_STATUS_BROKEN || found.output) return found;
      const left = endAt - performance.now();
      if (left <= 0 || context.signal.aborted || deps.draining().aborted) return found;
      await deps.notices.pause([context.signal, deps.draining(), given.signal], left);
      if (ended) return { status: ended.status, output: ended.output && shown(ended.output), failure: ended.failure };
    }
  } finally {
    stop();
  }
}

async function lookForEnd(deps: RunServiceDeps, namespaceId: number, runId: string): Promise<GetResultResponse> {
  if (!isRunId(runId)) throw runNotFound(runId);
  const row = await readStanding(deps.db, runId);
  if (!row || row.namespaceId !== namespaceId) throw runNotFound(runId);
  const { status, answered } = row;
  if (isFinal(status) && !(answered && status !== RunStatus.RUN_STATUS_SUCCEEDED)) {
    const end = await readEnd(deps.db, runId);
    return { status, output: end?.payload && shown(end.payload), failure: end?.body.failure };
  }
  if (!answered && status !== RunStatus.RUN_STATUS_BROKEN) return { status, output: undefined, failure: undefined };
  const { run } = await findRun(deps, namespaceId, runId);
  const answer = answerOfCaller(run);
  return { status: run.status, output: answer && shown(answer), failure: run.failure };
}

async function list(deps: RunServiceDeps, request: ListRunsRequest): Promise<ListRunsResponse> {
  const { id } = await deps.namespaces.resolve(request.namespace);
  if (request.pageSize > pageSizeMax) {
    throw invalid("ARGUMENT_INVALID", [
      { field: "page_size", message: `is ${request.pageSize}; at most ${pageSizeMax} is allowed` },
    ]);
  }
  const limit = request.pageSize || pageSizeDefault;
  const beforeId = request.pageToken === "" ? undefined : readPageToken(request.pageToken);
  const { acceptedAfter, acceptedBefore } = request;
  const runs = await listRuns(deps.db, {
    namespaceId: id,
    ...(beforeId === undefined ? {} : { beforeId }),
    statuses: request.statuses,
    ...(request.method === "" ? {} : { method: request.method }),
    labels: request.labels,
    ...(request.customId === "" ? {} : { customId: request.customId }),
    ...(request.starter === "" ? {} : { starter: request.starter }),
    ...(acceptedAfter ? { acceptedAfterMs: Number(acceptedAfter.seconds) * 1000 + acceptedAfter.nanos / 1e6 } : {}),
    ...(acceptedBefore ? { acceptedBeforeMs: Number(acceptedBefore.seconds) * 1000 + acceptedBefore.nanos / 1e6 } : {}),
    limit: limit + 1,
  });
  const page = runs.slice(0, limit);
  const last = page.at(-1);
  return {
    runs: page.map((run) => summarizeRun({ ...run, namespace: request.namespace }, run)),
    nextPageToken: runs.length > limit && last ? writePageToken(last.id) : "",
  };
}

/** Gapless: the history is read behind a cursor; notices only say when to look again. */
async function watch(
  deps: RunServiceDeps,
  request: WatchRunRequest,
  send: Send<WatchRunResponse>,
  context: CallContext,
): Promise<void> {
  const { id } = await deps.namespaces.resolve(request.namespace);
  const { plan } = await findPlanned(deps, id, request.runId);
  const draining = deps.draining();
  const gone = (): boolean => context.signal.aborted || draining.aborted;
  let afterSeq = Number(request.afterSeq);
  const watched = new WatchProgress({ db: deps.db, namespaceId: id, runId: request.runId, plan, now: deps.now });
  for (;;) {
    const stop = new AbortController();
    const news = deps.notices.wait(request.runId, [context.signal, draining, stop.signal]);
    const events = await readEvents(deps.db, request.runId, { afterSeq, limit: watchPageMax, payloads: true });
    for (const event of events) {
      await send({ event: toRunEvent(event, plan), progress: undefined });
      afterSeq = event.seq;
    }
    const ended = events.at(-1)?.kind === EventKind.EVENT_KIND_RUN_ENDED;
    const progress = ended || events.length === watchPageMax ? undefined : await watched.look(events.length > 0);
    if (progress) await send({ event: undefined, progress });
    if (ended || events.length === watchPageMax || gone()) stop.abort();
    if (ended || (events.length === 0 && (await hasEnded(deps, request.runId, afterSeq)))) {
      stop.abort();
      return;
    }
    if (draining.aborted)
      throw statusError({
        code: status.UNAVAILABLE,
        reason: "DRAINING",
        message: "watch again at another coordinator",
      });
    if (context.signal.aborted) return;
    await news;
  }
}

async function hasEnded(deps: RunServiceDeps, runId: string, afterSeq: number): Promise<boolean> {
  const [row] = await deps.db.query<{ done: boolean }>(
    "select ended_at is not null and last_seq <= $2::int as done from runs where id = $1::uuid",
    [runId, afterSeq],
  );
  return row?.done ?? true;
}

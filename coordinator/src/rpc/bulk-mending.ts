/** Bulk operations that mend: a value for a broken step of each run of a group, or a new run in the place of each. */
import { BulkKind, RunFilter, RunStatus, RunVersion, type StartBulkOperationRequest } from "@taskmesh/proto";
import type { Operation } from "../engine/run-event.js";
import { isFinal } from "../engine/run-state.js";
import { stepIndex } from "../engine/step-index.js";
import type { Intake, Operated, Plans } from "../pipeline/ports.js";
import { type BulkRow, bulkRuns } from "../store/bulk-operations.js";
import type { Database } from "../store/db.js";
import { findPlanned } from "./find-run.js";
import { type RunOperationsDeps, valueFor } from "./run-operations.js";
import { restartRun } from "./successors.js";

/** What it needs beside the database. */
export interface Mending {
  plans: Plans;
  /** The pinned revision of a contract. */
  contractOf: RunOperationsDeps["contractOf"];
}

const { BULK_KIND_RETRY, BULK_KIND_SKIP, BULK_KIND_RESTART } = BulkKind;
const mendingKinds = [BULK_KIND_RETRY, BULK_KIND_SKIP, BULK_KIND_RESTART];
const isBroken = RunStatus.RUN_STATUS_BROKEN;

type Bad = (field: string, message: string) => void;

/** Checks the fields of a request that are about mending. */
export function checkMending(request: StartBulkOperationRequest, filter: RunFilter, bad: Bad): void {
  const { kind, stepId, value, version } = request;
  if (stepId !== "" && !mendingKinds.includes(kind)) bad("step_id", "is for RETRY, SKIP and RESTART alone");
  if (value && kind !== BULK_KIND_RETRY && kind !== BULK_KIND_SKIP) bad("value", "is for RETRY and SKIP alone");
  if (kind !== BULK_KIND_RESTART) {
    if (version !== RunVersion.RUN_VERSION_UNSPECIFIED) bad("version", "is for RESTART alone");
    return;
  }
  if (RunVersion[version] === undefined || version < 0) bad("version", "is neither PINNED nor NEWEST");
  const other = filter.statuses.find((one) => one !== isBroken && !isFinal(one));
  if (other !== undefined)
    bad("filter.statuses", `names ${RunStatus[other]}; only runs that are BROKEN or have ended are restarted`);
}

/** Whether runs that have ended are among those that the operation is for. */
export const takesEnded = ({ kind, filter }: StartBulkOperationRequest): boolean =>
  kind === BULK_KIND_RESTART && (filter?.statuses.some(isFinal) ?? false);

/** The filter, as far as BROKEN runs alone are meant. */
export function brokenOf({ kind, value }: StartBulkOperationRequest, filter: RunFilter): RunFilter {
  const alone = kind === BULK_KIND_SKIP || (kind === BULK_KIND_RETRY && value !== undefined);
  if (alone || (kind === BULK_KIND_RESTART && filter.statuses.length === 0)) return { ...filter, statuses: [isBroken] };
  return filter;
}

type Deps = Mending & { db: Database };

/** Checks the value by the first run that the operation is for, so that a mistake is told at once. Rejects: INPUT_INVALID, OUTPUT_INVALID. */
export async function tryValue(
  deps: Deps,
  row: Pick<BulkRow, "namespaceId" | "lastId">,
  request: StartBulkOperationRequest,
): Promise<void> {
  if (!request.value) return;
  const filter = brokenOf(request, request.filter ?? RunFilter.create());
  const [runId] = await bulkRuns(deps.db, { ...row, cursor: null }, filter, 1);
  if (runId === undefined) return;
  const found = await findPlanned(deps, row.namespaceId, runId);
  const stepId = stepOf(found, request);
  if (stepIndex(found.plan, stepId) !== undefined) await givenFor(deps, found, stepId, request);
}

type Found = Awaited<ReturnType<typeof findPlanned>>;

const stepOf = ({ run, plan }: Found, { stepId }: StartBulkOperationRequest): string =>
  stepId === "" ? (plan.steps[run.broken?.steps[0] ?? -1]?.id ?? "") : stepId;

const givenFor = (deps: Deps, found: Found, stepId: string, { kind, value }: StartBulkOperationRequest) =>
  value && valueFor(deps, found, stepId, kind === BULK_KIND_RETRY ? "input" : "output", value);

interface At {
  namespaceId: number;
  runId: string;
  /** Of the bulk operation. */
  id: string;
}

/** What is done to the broken step of a run; undefined: the operation is about whole runs. */
export async function mendingOf(
  deps: Deps,
  { namespaceId, runId }: At,
  request: StartBulkOperationRequest,
): Promise<Operation | undefined> {
  const { kind, stepId, value } = request;
  if (kind === BULK_KIND_RETRY && !value) return { kind: "retry", steps: stepId === "" ? [] : [stepId] };
  if (kind !== BULK_KIND_RETRY && kind !== BULK_KIND_SKIP) return undefined;
  const found = await findPlanned(deps, namespaceId, runId);
  const step = stepOf(found, request);
  // Mended meanwhile: the engine says so, whatever the step.
  const given = step === "" ? undefined : await givenFor(deps, found, step, request);
  if (kind === BULK_KIND_SKIP) return { kind: "skip", step, ...(given ? { output: given } : {}) };
  return { kind: "retry", steps: [step], ...(given ? { input: given } : {}) };
}

/** A new run goes on from the run; done again, it is the same one. */
export async function restartOne(
  deps: Deps & { intake: Pick<Intake, "startRun"> },
  { namespaceId, runId, id }: At,
  { stepId, version, actor: by, reason }: StartBulkOperationRequest,
): Promise<Operated> {
  const key = { idempotencyKey: `bulk/${id}/${runId}`, operation: id };
  const made = await restartRun(deps, { namespaceId, runId, stepId, version, by, reason, ...key });
  return made.runId === runId ? "unchanged" : "changed";
}

/** RestartRun and CloneRun: runs that are made from others. What they may take over is decided by the engine, in the commit that does it. */
import { createHash } from "node:crypto";
import { type RunServiceServer, RunVersion } from "@taskmesh/proto";
import { type StatusError, statusError, type TraceHeaders } from "@taskmesh/runtime";
import { checkMessage, type Violation } from "../contracts/check.js";
import type { Contract } from "../contracts/contract.js";
import type { ChainPlan, Value } from "../engine/plan.js";
import type { RunState } from "../engine/run-state.js";
import { stepIndex } from "../engine/step-index.js";
import type { Intake, MadeFrom, Plans, StartCommand } from "../pipeline/ports.js";
import { unfitRestart } from "../pipeline/successors.js";
import type { Database } from "../store/db.js";
import { useItemPayloads } from "../store/payload-uses.js";
import { getPayload } from "../store/payloads.js";
import { type CallContext, unary } from "./calls.js";
import { findPlanned } from "./find-run.js";
import { hasControl, invalid, readGiven } from "./given-value.js";
import { type Asked, checkAsked } from "./run-operations.js";

export interface SuccessorDeps {
  db: Database;
  intake: Pick<Intake, "startRun">;
  plans: Plans;
  namespaces: { resolve(name: string): Promise<{ id: number; name: string }> };
  /** The pinned revision of a contract. */
  contractOf(namespaceId: number, fingerprint: string): Promise<Contract | undefined>;
}

/** What restarts alone need of it. */
export type Makers = Omit<SuccessorDeps, "namespaces">;

type Found = Awaited<ReturnType<typeof findPlanned>>;

const keyCharsMax = 256;

/** Makes them. */
export function successorCalls(deps: SuccessorDeps): Pick<RunServiceServer, "restartRun" | "cloneRun"> {
  const about = async (request: Asked & { version: RunVersion }, { trace }: CallContext) => {
    const asked = checkAsked(request);
    const { id } = await deps.namespaces.resolve(request.namespace);
    return { ...asked, namespaceId: id, runId: request.runId, version: request.version, ...(trace ? { trace } : {}) };
  };
  return {
    restartRun: unary(async (request, context) => {
      const { idempotencyKey, stepId } = request;
      if (idempotencyKey.length > keyCharsMax || hasControl(idempotencyKey))
        throw badField("idempotency_key", `must be at most ${keyCharsMax} printable characters`);
      const restart = { ...(await about(request, context)), stepId };
      return restartRun(deps, idempotencyKey === "" ? restart : { ...restart, idempotencyKey });
    }),
    cloneRun: unary(async (request, context) => {
      const { terminate, input: given } = request;
      const asked = await about(request, context);
      const { found, plan } = await findBoth(deps, asked);
      const contract = given && (await contractOf(deps, found, plan));
      const input = contract
        ? await readGiven(deps.db, asked.namespaceId, { contract, side: "input" }, given)
        : await inputOf(deps, found, plan, (violations) => invalid("INPUT_INVALID", violations));
      const kind = { kind: "clone", stepId: "", terminate } as const;
      const { startAtMs } = found.run;
      const times = startAtMs === undefined ? {} : { startAtMs };
      return deps.intake.startRun({ ...commandOf(asked, found, { plan, input, ...kind }), ...times });
    }),
  };
}

/** What a restart asks for; all but the step is checked. */
export interface Restart {
  namespaceId: number;
  runId: string;
  stepId: string;
  version: RunVersion;
  by: string;
  reason: string;
  idempotencyKey?: string;
  trace?: TraceHeaders;
  /** The bulk operation that asks for it. */
  operation?: string;
}

/** Starts a run that goes on from a step of another one. Rejects as `Intake.startRun` does, and STEP_NOT_FOUND, METHOD_NOT_FOUND. */
export async function restartRun(deps: Makers, asked: Restart): Promise<{ runId: string; existing: boolean }> {
  const { found, plan } = await findBoth(deps, asked);
  const { stepId } = asked;
  const step = plan.steps[stepIndex(plan, stepId) ?? -1];
  if (stepId !== "" && (!step || step.undoes !== undefined)) {
    const what = plan.version === 0 ? plan.method : `version ${plan.version} of ${plan.method}`;
    const message = `${what} has no step ${JSON.stringify(stepId.slice(0, 64))}`;
    throw statusError({ reason: "STEP_NOT_FOUND", message });
  }
  const input = await inputOf(deps, found, plan, ([first]) => {
    const problem = `the input of the run breaks the contract of the version asked for: ${first?.field ?? ""}: ${first?.message ?? ""}`;
    return unfitRestart(asked.runId, plan, [{ stepId: "", problem }]);
  });
  // Rows of items are copied by the database alone, which then names their payloads for longer.
  await useItemPayloads(deps.db, asked.namespaceId, asked.runId);
  const command = commandOf(asked, found, { plan, input, kind: "restart", stepId, terminate: true });
  const { idempotencyKey } = asked;
  return deps.intake.startRun({
    ...command,
    keptBytes: bytesOf(found.run),
    ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
  });
}

/** The run, and the plan of the version that is asked for. */
async function findBoth(
  deps: Makers,
  { namespaceId, runId, version }: Pick<Restart, "namespaceId" | "runId" | "version">,
): Promise<{ found: Found; plan: ChainPlan }> {
  if (RunVersion[version] === undefined || version < 0) throw badField("version", "is neither PINNED nor NEWEST");
  const found = await findPlanned(deps, namespaceId, runId);
  if (found.plan.within) throw badField("run_id", "stands for one item of a fan-out: name the run above it");
  if (version !== RunVersion.RUN_VERSION_NEWEST) return { found, plan: found.plan };
  const plan = await deps.plans.current(namespaceId, found.method);
  if (plan) return { found, plan };
  const message = `${found.method} is not registered any more; use the pinned version`;
  throw statusError({ reason: "METHOD_NOT_FOUND", message });
}

type New = Pick<MadeFrom, "kind" | "stepId" | "terminate"> & { plan: ChainPlan; input: Value };

/** Whoever started the run is the starter of what is made of it: who asked for that is in the history. */
function commandOf(
  asked: Omit<Restart, "stepId">,
  { run }: Found,
  { plan, input, ...about }: New,
): StartCommand & { from: MadeFrom } {
  const { runId, version, by, reason, operation, trace } = asked;
  const hash = createHash("sha256")
    .update(JSON.stringify([about, version, input.sizeBytes]))
    .update(input.sha256);
  const from = { ...about, runId, hash: hash.digest().toString("base64url", 0, 16), by, reason };
  const timeoutMs = timeoutOf(run);
  return {
    ...{ namespaceId: run.namespaceId, namespace: run.namespace, plan, input },
    ...{ labels: run.labels, priority: run.priority },
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(run.starter === undefined ? {} : { starter: run.starter }),
    ...(trace ? { trace: { ...trace } } : {}),
    from: operation === undefined ? from : { ...from, operation },
  };
}

/** The time that the run was given; undefined: as much as its parent had left, which says nothing. */
function timeoutOf({ timed, parent, deadlineAtMs, extraMs = 0, acceptedAtMs }: RunState): number | undefined {
  if (parent) return undefined;
  return timed ? timed.timeoutMs : deadlineAtMs - extraMs - acceptedAtMs;
}

/** Roughly what a restart writes. */
function bytesOf({ outputs, steps }: RunState): number {
  const items = steps.reduce((sum, { each }) => sum + (each ? each.bytes + 200 * each.total : 0), 0);
  return outputs.reduce((sum, output) => sum + (output?.bytes?.length ?? 0), items);
}

async function contractOf(deps: Makers, { run }: Found, plan: ChainPlan): Promise<Contract> {
  const contract = await deps.contractOf(run.namespaceId, plan.contract);
  if (!contract) throw new Error(`contract ${plan.contract} of ${plan.method} is not stored`);
  return contract;
}

/** The run's own input, if it passes the contract of the plan. */
async function inputOf(
  deps: Makers,
  found: Found,
  plan: ChainPlan,
  refuse: (violations: readonly Violation[]) => StatusError,
): Promise<Value> {
  const { run } = found;
  const { input } = run;
  if (plan.contract === found.contract) return input;
  const contract = await contractOf(deps, found, plan);
  const bytes = input.bytes ?? (await getPayload(deps.db, run.namespaceId, input.reference ?? ""));
  if (!bytes)
    throw statusError({ reason: "PAYLOAD_NOT_FOUND", message: `the input of run ${run.id} is not stored any more` });
  const violations = checkMessage(contract, "input")(bytes);
  if (violations.length > 0) throw refuse(violations);
  return { ...input, contract: contract.fingerprint };
}

const badField = (field: string, message: string) => invalid("ARGUMENT_INVALID", [{ field, message }]);

/** The calls of ContractService about upcasters: declared, checked, tried with live runs, shown and taken back. */
import {
  type ContractServiceServer,
  type DeclareUpcasterResponse,
  Upcaster,
  UpcastOutcome,
  type UpcastReport,
} from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import { checkMessage, describeViolations } from "../contracts/check.js";
import type { Contract } from "../contracts/contract.js";
import { knowsMessage } from "../contracts/knows.js";
import { compileUpcaster } from "../contracts/upcast.js";
import type { ChainPlan } from "../engine/plan.js";
import { type RunState, StepStatus } from "../engine/run-state.js";
import type { EngineRoom } from "../pipeline/engine-room.js";
import type { Plans } from "../pipeline/ports.js";
import { chainInvalid } from "../registry/chain-save.js";
import { bumpEpoch } from "../store/registry.js";
import { loadRuns } from "../store/runs.js";
import { deleteUpcaster, readLiveRunsOf, readUpcasters, type UpcasterRow, writeUpcaster } from "../store/upcasters.js";
import { unary } from "./calls.js";
import { methodOf } from "./canary-calls.js";
import { fingerprintForm, invalid, reasonOf, timestamp } from "./contract-request.js";
import type { ContractServiceOptions } from "./contract-service.js";

/** Live runs that an upcaster is tried with, loaded so many at once. */
const runsMax = 1_000;
const runsAtOnce = 20;
/** Reports in an answer. */
const reportsMax = 200;

export interface UpcasterOptions {
  /** What steps of live runs are given. Default: an upcaster is declared without being tried. */
  live?: { plans: Pick<Plans, "pinned">; inputs: EngineRoom["inputs"] };
}

/** Makes them. */
export function upcasterCalls(
  options: ContractServiceOptions,
): Pick<ContractServiceServer, "declareUpcaster" | "listUpcasters" | "deleteUpcaster"> {
  const { db, registry } = options;
  const { namespaces, catalogue, contracts } = registry;
  return {
    declareUpcaster: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const declared = upcasterOf(request.upcaster);
      const [from, to] = await Promise.all(
        [declared.fromContract, declared.toContract].map((one) =>
          revision(contracts, namespace.id, declared.method, one),
        ),
      );
      const { plan, problems, warnings } = compileUpcaster(declared, from!, to!);
      if (plan === undefined) throw chainInvalid(problems);
      refuseUnreadable(from!, to!);
      const tried = await tryWithRuns(options, namespace.id, plan, from!, to!);
      const stored = !request.dryRun && (tried.failed === 0 || request.force);
      if (stored) {
        const { method, fromContract, toContract, reason } = declared;
        const spec = Upcaster.encode(declared).finish();
        const row = { namespaceId: namespace.id, method, fromContract, toContract, spec, reason };
        await db.transaction(async (tx) => {
          await writeUpcaster(tx, row);
          await bumpEpoch(tx);
        });
        await catalogue.refresh();
      }
      return { upcaster: declared, stored, warnings, ...tried };
    }),
    listUpcasters: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const method = request.method === "" ? undefined : methodOf(request.method);
      return { upcasters: (await readUpcasters(db, namespace.id, method)).map(toProto) };
    }),
    deleteUpcaster: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const { method, fromContract, toContract } = request;
      const which = { namespaceId: namespace.id, method: methodOf(method), fromContract, toContract };
      for (const [field, value] of [
        ["from_contract", fromContract],
        ["to_contract", toContract],
      ] as const)
        if (!fingerprintForm.test(value)) throw invalid(field, "must be the fingerprint of a contract");
      const deleted = await db.transaction(async (tx) => {
        const was = await deleteUpcaster(tx, which);
        if (was) await bumpEpoch(tx);
        return was;
      });
      if (deleted) await catalogue.refresh();
      return { deleted };
    }),
  };
}

function upcasterOf(given: Upcaster | undefined): Upcaster {
  if (given === undefined) throw invalid("upcaster", "must be given");
  const { method, fromContract, toContract, input } = given;
  methodOf(method);
  for (const [field, value] of [
    ["from_contract", fromContract],
    ["to_contract", toContract],
  ] as const)
    if (!fingerprintForm.test(value)) throw invalid(`upcaster.${field}`, "must be the fingerprint of a contract");
  if (fromContract === toContract) throw invalid("upcaster.to_contract", "must be another revision than from_contract");
  // Maps have no order: equal declarations are equal bytes.
  const ordered = Object.fromEntries(Object.entries(input).sort(([a], [b]) => (a < b ? -1 : 1)));
  return { ...given, input: ordered, reason: reasonOf(given.reason, false), declaredAt: undefined };
}

async function revision(
  contracts: ContractServiceOptions["registry"]["contracts"],
  namespaceId: number,
  method: string,
  fingerprint: string,
): Promise<Contract> {
  const contract = await contracts.byFingerprint(namespaceId, fingerprint);
  if (contract?.method === method) return contract;
  const message = `${method} has no revision ${fingerprint} in the namespace: a worker registers it`;
  throw statusError({ reason: "CONTRACT_NOT_FOUND", message });
}

/** What workers of the newer revision return is read as the older one's output, by whoever is pinned to that. */
function refuseUnreadable(from: Contract, to: Contract): void {
  if (knowsMessage(to.output, from.output)) return;
  const what = `the output of this revision lacks fields of the older ${from.output.typeName}, or has them with other types`;
  throw invalid("upcaster.to_contract", what);
}

type Tried = Pick<DeclareUpcasterResponse, "reports" | "succeeded" | "failed" | "waiting" | "truncated">;

/** Applies it to the input of every step that is pinned to the older revision and not over, in live runs. */
async function tryWithRuns(
  { db, live }: ContractServiceOptions,
  namespaceId: number,
  upcaster: ChainPlan,
  from: Contract,
  to: Contract,
): Promise<Tried> {
  const reports: UpcastReport[] = [];
  if (live === undefined) return summary(reports, false);
  const which = { method: from.method, contract: from.fingerprint };
  const ids = await readLiveRunsOf(db, namespaceId, which, runsMax + 1);
  const check = checkMessage(to, "input");
  for (let at = 0; at < Math.min(ids.length, runsMax); at += runsAtOnce) {
    const page = ids.slice(at, Math.min(at + runsAtOnce, runsMax));
    for (const [id, { run, method, chainVersion, contract }] of await loadRuns(db, page)) {
      const plan = await live.plans.pinned(namespaceId, method, chainVersion, contract);
      for (const step of plan.steps) {
        if (step.method !== from.method || step.contract !== from.fingerprint || isOver(run, step.index)) continue;
        const about = { runId: id, method, stepId: step.id };
        reports.push({ ...about, ...(await tryStep(live.inputs, run, plan, step, upcaster, check)) });
      }
    }
  }
  return summary(reports, ids.length > runsMax);
}

type Check = ReturnType<typeof checkMessage>;

async function tryStep(
  inputs: EngineRoom["inputs"],
  run: RunState,
  plan: ChainPlan,
  step: ChainPlan["steps"][number],
  upcaster: ChainPlan,
  check: Check,
): Promise<Pick<UpcastReport, "outcome" | "message">> {
  try {
    const input = await inputs.inputOf(run, plan, step);
    if (input === undefined) return { outcome: UpcastOutcome.UPCAST_OUTCOME_WAITING, message: "" };
    if (input.kind !== "value")
      return failedWith(input.kind === "failed" ? input.error.message : "its input costs too much");
    const made = await inputs.upcast(run, upcaster, input.value);
    if (made.kind !== "value") return failedWith(made.kind === "failed" ? made.error.message : "it costs too much");
    const { bytes } = made.value;
    const wrong = bytes && describeViolations(check(bytes));
    return wrong === undefined ? { outcome: UpcastOutcome.UPCAST_OUTCOME_OK, message: "" } : failedWith(wrong);
  } catch (error) {
    return failedWith(error instanceof Error ? error.message : String(error));
  }
}

const failedWith = (message: string): Pick<UpcastReport, "outcome" | "message"> => ({
  outcome: UpcastOutcome.UPCAST_OUTCOME_FAILED,
  message: message.slice(0, 1_000),
});

function summary(reports: readonly UpcastReport[], truncated: boolean): Tried {
  const countOf = (outcome: UpcastOutcome): number => reports.filter((one) => one.outcome === outcome).length;
  const failedFirst = [...reports].sort((a, b) => Number(isFailed(b)) - Number(isFailed(a)));
  return {
    reports: failedFirst.slice(0, reportsMax),
    succeeded: countOf(UpcastOutcome.UPCAST_OUTCOME_OK),
    failed: countOf(UpcastOutcome.UPCAST_OUTCOME_FAILED),
    waiting: countOf(UpcastOutcome.UPCAST_OUTCOME_WAITING),
    truncated,
  };
}

const isFailed = ({ outcome }: UpcastReport): boolean => outcome === UpcastOutcome.UPCAST_OUTCOME_FAILED;

const endedSteps = new Set([
  StepStatus.STEP_STATUS_SUCCEEDED,
  StepStatus.STEP_STATUS_FAILED,
  StepStatus.STEP_STATUS_SKIPPED,
  StepStatus.STEP_STATUS_CANCELLED,
  StepStatus.STEP_STATUS_EXPIRED,
]);

const isOver = (run: RunState, index: number): boolean => {
  const step = run.steps[index];
  return step === undefined || endedSteps.has(step.status);
};

function toProto({ spec, declaredAtMs }: UpcasterRow): Upcaster {
  return { ...Upcaster.decode(spec), declaredAt: timestamp(declaredAtMs) };
}

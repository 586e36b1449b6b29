/** An upcaster before it is in force: checked between its revisions, tried with the live runs, stored. */
import {
  type ChainProblem,
  type DeclareUpcasterResponse,
  Upcaster,
  UpcastOutcome,
  type UpcastReport,
} from "@taskmesh/proto";
import { checkMessage, describeViolations } from "../contracts/check.js";
import type { Contract } from "../contracts/contract.js";
import { knowsMessage } from "../contracts/knows.js";
import { compileUpcaster } from "../contracts/upcast.js";
import type { ChainPlan } from "../engine/plan.js";
import { type RunState, StepStatus } from "../engine/run-state.js";
import type { Evaluator } from "../pipeline/evaluator.js";
import type { Plans } from "../pipeline/ports.js";
import type { Db } from "../store/db.js";
import { bumpEpoch } from "../store/registry.js";
import { loadRuns } from "../store/runs.js";
import { readLiveRunsOf, writeUpcaster } from "../store/upcasters.js";
import { chainInvalid } from "./chain-save.js";
import { invalid } from "./contract-request.js";

/** Live runs that an upcaster is tried with, loaded so many at once. */
const runsMax = 1_000;
const runsAtOnce = 20;
/** Reports in an answer. */
const reportsMax = 200;

/** What steps of live runs are given. */
export interface UpcasterLive {
  plans: Pick<Plans, "pinned">;
  inputs: Pick<Evaluator, "inputOf" | "upcast">;
}

/** The plan of an upcaster. Throws INVALID_ARGUMENT: CHAIN_INVALID for its expressions, ARGUMENT_INVALID where what the newer revision returns can't be read. */
export function checkUpcaster(
  declared: Upcaster,
  from: Contract,
  to: Contract,
): { plan: ChainPlan; warnings: ChainProblem[] } {
  const { plan, problems, warnings } = compileUpcaster(declared, from, to);
  if (plan === undefined) throw chainInvalid(problems);
  refuseUnreadable(from, to);
  return { plan, warnings };
}

/** The same fields in the same order: maps have none, and equal declarations are to be equal bytes. */
export const inOrder = <T>(input: Readonly<Record<string, T>>): Record<string, T> =>
  Object.fromEntries(Object.entries(input).sort(([a], [b]) => (a < b ? -1 : 1)));

/** Stores a declaration; every coordinator sees it with its next look at the registry. */
export async function storeUpcaster(db: Db, namespaceId: number, declared: Upcaster): Promise<void> {
  const { method, fromContract, toContract, reason } = declared;
  const spec = Upcaster.encode(declared).finish();
  await db.transaction(async (tx) => {
    await writeUpcaster(tx, { namespaceId, method, fromContract, toContract, spec, reason });
    await bumpEpoch(tx);
  });
}

/** What workers of the newer revision return is read as the older one's output, by whoever is pinned to that. */
function refuseUnreadable(from: Contract, to: Contract): void {
  if (knowsMessage(to.output, from.output)) return;
  const what = `the output of this revision lacks fields of the older ${from.output.typeName}, or has them with other types`;
  throw invalid("upcaster.to_contract", what);
}

/** How an upcaster does on live runs. */
export type Tried = Pick<DeclareUpcasterResponse, "reports" | "succeeded" | "failed" | "waiting" | "truncated">;

/** Applies it to the input of every step that is pinned to the older revision and not over, in live runs. */
export async function tryWithRuns(
  db: Db,
  live: UpcasterLive | undefined,
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
  inputs: UpcasterLive["inputs"],
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

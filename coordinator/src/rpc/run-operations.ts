/** The calls of RunService by which people act on runs. Each change goes through the intake and leaves a history row with who and why. */
import type { Run, RunServiceServer, UpdateRunRequest } from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import type { Violation } from "../contracts/check.js";
import type { Contract } from "../contracts/contract.js";
import type { Operation } from "../engine/run-event.js";
import { stepIndex } from "../engine/step-index.js";
import type { Intake, Plans } from "../pipeline/ports.js";
import type { Database } from "../store/db.js";
import { unary } from "./calls.js";
import { findPlanned } from "./find-run.js";
import { type Given, hasControl, invalid, readGiven } from "./given-value.js";
import { checkLabels, checkPriority } from "./request-checks.js";
import { summarizeRun } from "./run-view.js";

export interface RunOperationsDeps {
  db: Database;
  intake: Intake;
  plans: Plans;
  namespaces: { resolve(name: string): Promise<{ id: number; name: string }> };
  /** The pinned revision of a contract. */
  contractOf(namespaceId: number, fingerprint: string): Promise<Contract | undefined>;
}

/** What each of the requests says. */
export interface Asked {
  namespace: string;
  runId: string;
  reason: string;
  actor: string;
}

const reasonChars = 1_024;
const actorChars = 128;

type Operations = Pick<
  RunServiceServer,
  "pauseRun" | "resumeRun" | "terminateRun" | "updateRun" | "retryStep" | "skipStep"
>;

/** Makes them. */
export function runOperations(deps: RunOperationsDeps): Operations {
  const simple = (kind: "pause" | "resume" | "terminate") =>
    unary(async (request: Asked) => ({ run: await operate(deps, request, () => ({ kind })) }));
  return {
    pauseRun: simple("pause"),
    resumeRun: simple("resume"),
    terminateRun: simple("terminate"),
    updateRun: unary(async (request) => ({ run: await operate(deps, request, () => updateOf(request)) })),
    retryStep: unary(async (request) => {
      const { stepIds, input } = request;
      if (input && stepIds.length !== 1)
        throw badField("step_ids", "must name the one step that the input is for, since an input is given");
      return {
        run: await operate(deps, request, async (found) => {
          const value = input && (await valueFor(deps, found, stepIds[0]!, "input", input));
          return { kind: "retry", steps: stepIds, ...(value ? { input: value } : {}) };
        }),
      };
    }),
    skipStep: unary(async (request) => {
      const { stepId, output } = request;
      return {
        run: await operate(deps, request, async (found) => {
          const value = output && (await valueFor(deps, found, stepId, "output", output));
          return { kind: "skip", step: stepId, ...(value ? { output: value } : {}) };
        }),
      };
    }),
  };
}

type Found = Awaited<ReturnType<typeof findPlanned>>;

/** Does it, and answers the run as it is then. */
async function operate(
  deps: RunOperationsDeps,
  request: Asked,
  operationFor: (found: Found) => Operation | Promise<Operation>,
): Promise<Run> {
  const asked = checkAsked(request);
  const { id } = await deps.namespaces.resolve(request.namespace);
  const found = await findPlanned(deps, id, request.runId);
  const operation = await operationFor(found);
  await deps.intake.operate(id, request.runId, { kind: "operate", operation, ...asked });
  const after = await findPlanned(deps, id, request.runId);
  return summarizeRun(after.run, after, after.plan);
}

/** Who and why, within their bounds. */
export function checkAsked({ reason, actor }: Pick<Asked, "reason" | "actor">): { by: string; reason: string } {
  const violations: Violation[] = [];
  const bad = (field: string, message: string): void => void violations.push({ field, message });
  if (reason.length > reasonChars) bad("reason", `has ${reason.length} characters; at most ${reasonChars} are allowed`);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: NUL can't be stored
  if (/\u0000/.test(reason)) bad("reason", "has a NUL character");
  if (actor.length > actorChars || hasControl(actor))
    bad("actor", `must be at most ${actorChars} printable characters`);
  if (violations.length > 0) throw invalid("ARGUMENT_INVALID", violations);
  return { by: actor, reason };
}

const badField = (field: string, message: string) => invalid("ARGUMENT_INVALID", [{ field, message }]);

/** What an update asks for, within its bounds. */
export function updateOf({
  priority,
  setLabels,
  removeLabels,
}: Pick<UpdateRunRequest, "priority" | "setLabels" | "removeLabels">): Operation {
  const violations: Violation[] = [];
  const bad = (field: string, message: string): void => void violations.push({ field, message });
  const relabels = Object.keys(setLabels).length > 0 || removeLabels.length > 0;
  if (priority === undefined && !relabels)
    bad("priority", "nothing is asked for: give a priority, or labels to set or remove");
  if (priority !== undefined) checkPriority(priority, bad);
  checkLabels(setLabels, "set_labels", bad);
  if (violations.length > 0) throw invalid("ARGUMENT_INVALID", violations);
  return {
    kind: "update",
    ...(priority === undefined ? {} : { priority }),
    ...(relabels ? { setLabels, removeLabels } : {}),
  };
}

/** The message that is given for a step, by the contract that the run is pinned to. */
export async function valueFor(
  deps: Pick<RunOperationsDeps, "db" | "contractOf">,
  { run, plan }: Found,
  stepId: string,
  side: "input" | "output",
  given: NonNullable<Given>,
) {
  const step = plan.steps[stepIndex(plan, stepId) ?? -1];
  if (!step) {
    const message = `the run has no step ${JSON.stringify(stepId.slice(0, 64))}`;
    throw statusError({ reason: "STEP_NOT_FOUND", message });
  }
  if (step.each) {
    const message = `can't be given for the fan-out ${stepId}: ${side === "input" ? "its items have" : "its items give"} one each`;
    throw invalid(side === "input" ? "INPUT_INVALID" : "OUTPUT_INVALID", [{ field: side, message }]);
  }
  const contract = await deps.contractOf(run.namespaceId, step.contract);
  if (!contract) throw new Error(`contract ${step.contract} of ${step.method} is not stored`);
  // An input is part of the run's header, which holds no payloads.
  const wanted = side === "input" ? { stored: true } : { reason: "OUTPUT_INVALID" as const };
  return readGiven(deps.db, run.namespaceId, { contract, side, ...wanted }, given);
}

/** Answers to callbacks: found by their token alone. */
import type { CompleteCallbackRequest } from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import { readCallbackToken } from "../contracts/callback-token.js";
import type { Intake, Plans } from "../pipeline/ports.js";
import { loadRuns } from "../store/runs.js";
import { readGiven } from "./given-value.js";
import type { SignalDeps } from "./signals.js";

export interface CallbackDeps extends SignalDeps {
  plans: Plans;
  intake: Intake;
}

/** Gives the token's step its answer. Wrong tokens are all alike: they tell nothing of what exists. */
export async function completeCallback(deps: CallbackDeps, { token, value }: CompleteCallbackRequest): Promise<void> {
  const unknown = statusError({ reason: "CALLBACK_UNKNOWN", message: "there is no callback with this token" });
  const given = readCallbackToken(token);
  const stored = given && (await loadRuns(deps.db, [given.runId])).get(given.runId);
  const secret = stored?.run.secret;
  if (given === undefined || stored === undefined || secret === undefined) throw unknown;
  const { run, method, chainVersion, contract } = stored;
  const plan = await deps.plans.pinned(run.namespaceId, method, chainVersion, contract);
  const step = plan.steps.find(({ id, wait }) => wait?.kind === "callback" && given.isOf(secret, id));
  if (step?.wait?.kind !== "callback") throw unknown;
  const types = await deps.contractOf(run.namespaceId, step.contract);
  if (!types) throw new Error(`contract ${step.contract} of ${step.method} is not stored`);
  const read = await readGiven(deps.db, run.namespaceId, { contract: types, side: "output" }, value);
  const message = { mailbox: step.wait.mailbox, name: step.id, key: "", value: read, callback: step.index };
  await deps.intake.send(run.namespaceId, run.id, message);
}

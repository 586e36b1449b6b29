/** Parts of plans that chains and lone actions share. */
import type { Evaluated, Scope, StepPlan } from "../engine/plan.js";
import { checkMessage, describeViolations } from "./check.js";
import type { Contract } from "./contract.js";
import { hasRules } from "./fingerprint.js";
import type { StepSettings } from "./step-settings.js";

/** Everything of a step that does not depend on expressions. */
export function stepBase(
  contract: Contract,
  settings: StepSettings,
  place: Pick<StepPlan, "index" | "id" | "needs" | "neededBy">,
): Omit<StepPlan, "bindInput" | "condition"> {
  const check = checkMessage(contract, "output");
  return {
    ...place,
    method: contract.method,
    contract: contract.fingerprint,
    ...settings,
    checkOutput: (bytes) => describeViolations(check(bytes)),
  };
}

type Binding = (scope: Scope) => Evaluated<Uint8Array>;

/** Types are right by construction; rules are about values, so only types with rules are checked again. */
export function checkedBinding(bind: Binding, contract: Contract, side: "input" | "output"): Binding {
  if (!hasRules(contract[side])) return bind;
  const check = checkMessage(contract, side);
  return (scope) => {
    const bound = bind(scope);
    if (bound.kind !== "value") return bound;
    const fault = describeViolations(check(bound.value));
    if (fault === undefined) return bound;
    const message = `the ${side} of ${contract.method} breaks its contract: ${fault}`;
    return { kind: "failed", error: { reason: "EXPRESSION_FAILED", message } };
  };
}

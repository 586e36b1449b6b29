/** The plan of a callable that is run by itself. */
import { ParentClose } from "@taskmesh/proto";
import type { ChainPlan, Evaluated } from "../engine/plan.js";
import { childPlan, childSettings } from "./chain-callee.js";
import type { Contract } from "./contract.js";
import { launchesOf } from "./launch.js";
import { stepBase } from "./plan-parts.js";
import { runTimeoutMsDefault, stepSettings } from "./step-settings.js";

/** The plan of a lone action or of one callable: the one step "call", whose input and output are the run's. */
export function compileAction(contract: Contract): ChainPlan {
  const given = stepSettings(loneStep, contract.options, contract.service, []);
  const launches = launchesOf(contract.method) !== undefined;
  const settings = launches ? childSettings(loneStep, given) : given;
  const whole = (value: { bytes?: Uint8Array } | undefined): Evaluated<Uint8Array> =>
    value?.bytes === undefined ? { kind: "deferred" } : { kind: "value", value: value.bytes };
  return {
    method: contract.method,
    version: 0,
    contract: contract.fingerprint,
    outputContract: contract.fingerprint,
    runTimeoutMs: runTimeoutMsDefault,
    steps: [
      {
        ...stepBase(contract, settings, { index: 0, id: "call", needs: [], neededBy: [] }),
        ...(launches ? { child: childPlan({ ...loneStep, call: contract.method }) } : {}),
        bindInput: (scope) => whole(scope.input),
      },
    ],
    bindOutput: (scope) => whole(scope.outputs[0]),
  };
}

const loneStep = {
  retry: undefined,
  scheduleToStart: undefined,
  startToClose: undefined,
  heartbeat: undefined,
  scheduleToClose: undefined,
  taskQueue: "",
  priority: 0,
  parentClose: ParentClose.PARENT_CLOSE_UNSPECIFIED,
};

/** Steps that call a chain: what its runs as children of a step are bound by. */
import { ParentClose, type StepSpec } from "@taskmesh/proto";
import { nearestName } from "@taskmesh/runtime";
import type { ChildPlan } from "../engine/plan.js";
import type { ChainEnvironment } from "./compile-chain.js";
import type { Report } from "./compile-message.js";
import type { Contract } from "./contract.js";
import { launchesOf } from "./launch.js";
import { durationMsMax, retryDefault, type StepSettings } from "./step-settings.js";

/** Settings that are about workers, and how a message calls them. */
const workerSettings = [
  ["scheduleToStart", "schedule_to_start"],
  ["heartbeat", "heartbeat"],
  ["taskQueue", "task_queue"],
] as const;

/**
 * Checks the settings that only one kind of callee has. `calls`: what the step calls, undefined where nobody knows (then nothing is said).
 */
export function checkCallee(spec: StepSpec, path: string, calls: "action" | "chain" | undefined, report: Report): void {
  const refuse = (field: string, message: string, expected: string): void =>
    report({ reason: "CONFLICT", path: `${path}.${field}`, stepId: spec.id, field, message, expected });
  if (calls === "action" && spec.parentClose !== ParentClose.PARENT_CLOSE_UNSPECIFIED) {
    refuse("parent_close", `parent_close is for steps that call a chain, and ${spec.call} is an action`, "a chain");
  }
  if (calls !== "chain") return;
  for (const [key, field] of workerSettings) {
    if (spec[key] === undefined || spec[key] === "") continue;
    const why = launchesOf(spec.call) ? "is carried out by the mesh" : "is a chain: set it on the chain's own steps";
    refuse(field, `${field} is about workers, and ${spec.call} ${why}`, "an action");
  }
}

/** A child's steps are retried by themselves, and its own time limit counts: the step adds to both only what it says. */
export function childSettings(spec: Pick<StepSpec, "retry" | "startToClose">, settings: StepSettings): StepSettings {
  return {
    ...settings,
    retry: spec.retry === undefined ? { ...retryDefault, attemptsMax: 1 } : settings.retry,
    startToCloseMs: spec.startToClose === undefined ? durationMsMax : settings.startToCloseMs,
    exclusive: false,
  };
}

/** How the step keeps its child. */
export function childPlan({ call, parentClose }: Pick<StepSpec, "call" | "parentClose">): ChildPlan {
  const launches = launchesOf(call);
  const more = launches ? { launches } : {};
  switch (parentClose) {
    case ParentClose.PARENT_CLOSE_ABANDON:
      return { onParentClose: "abandon", ...more };
    case ParentClose.PARENT_CLOSE_WAIT:
      return { onParentClose: "wait", ...more };
    default:
      return { onParentClose: "cancel", ...more };
  }
}

/** What steps may call: what is registered, and the chain itself, which is not when it is saved for the first time. */
export function calleesOf(environment: ChainEnvironment, own: Contract | undefined): ChainEnvironment {
  const { contractFor, isChain } = environment;
  const isOwn = (method: string): boolean => method === own?.method;
  return {
    ...environment,
    contractFor: (method) => (isOwn(method) ? own : contractFor(method)),
    ...(isChain ? { isChain: (method: string) => isOwn(method) || isChain(method) } : {}),
  };
}

/** The method that was meant: nearest as a whole, or the only one with this service or this rpc name. */
export function nearestMethod(name: string, environment: ChainEnvironment): string | undefined {
  if (name === "" || name.length > 255) return undefined;
  const methods = [...(environment.methods?.() ?? [])];
  const near = nearestName(name, methods);
  if (near !== undefined) return near;
  const rpc = name.slice(name.lastIndexOf("/") + 1);
  const same = methods.filter((method) => method.slice(method.lastIndexOf("/") + 1) === rpc);
  return same.length === 1 ? same[0] : undefined;
}

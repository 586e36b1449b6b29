/**
 * Steps that answer (`respond`), checked: who is answered, and what an answer must be.
 *
 * An answer to the run's caller is the chain's own output message, so its step borrows the chain's contract; one to a signal's sender has the type
 * that the signal declares, and its step a contract of its own. In both the answer is what goes in, and what comes out.
 */
import type { ChainSpec, Expression, StepSpec } from "@taskmesh/proto";
import { nearestName } from "@taskmesh/runtime";
import type { ScopeTypes } from "./cel/scope-types.js";
import { type CheckedMessage, checkMapping, type Report } from "./compile-message.js";
import type { Contract } from "./contract.js";

/** A signal step whose sender is answered. */
export interface AnsweredSignal {
  index: number;
  /** What the answer is: field name to type. */
  types: Readonly<Record<string, string>>;
}

/** The signal steps that are answered, by id. */
export const answeredSignals = (steps: readonly StepSpec[]): Map<string, AnsweredSignal> =>
  new Map(
    steps.flatMap(({ id, signal }, index): [string, AnsweredSignal][] =>
      signal !== undefined && Object.keys(signal.answer).length > 0 ? [[id, { index, types: signal.answer }]] : [],
    ),
  );

/** Whom the step answers, and the fields of the answer; undefined, and reported, if there is nobody. */
export function responseOf(
  { id, respond }: StepSpec,
  path: string,
  answered: ReadonlyMap<string, AnsweredSignal>,
  report: Report,
): { to: AnsweredSignal | undefined; fields: Readonly<Record<string, Expression>> } | undefined {
  if (respond === undefined) return undefined;
  const { to, output } = respond;
  const signal = answered.get(to);
  if (to === "" || signal !== undefined) return { to: signal, fields: output };
  const message = `there is no signal step "${to.slice(0, 80)}" with an answer`;
  const suggestion = nearestName(to, answered.keys()) ?? "";
  const place = { path: `${path}.respond.to`, stepId: id, field: "respond.to" };
  report({ ...place, reason: "UNKNOWN_STEP", message, found: to, suggestion });
  return undefined;
}

/** The contract as a step that answers has it: what goes in is what comes out. */
export const responseContract = (contract: Contract): Contract =>
  Object.create(contract, { input: { value: contract.output, enumerable: true } }) as Contract;

/** Puts a step behind the signal that it answers, and refuses signals that promise an answer which no step gives. */
export function linkResponds(
  steps: readonly { spec: StepSpec; path: string; needs: Set<number> }[],
  answered: ReadonlyMap<string, AnsweredSignal>,
  report: Report,
): void {
  const given = new Set(steps.map(({ spec }) => spec.respond?.to ?? ""));
  for (const { spec, needs } of steps) {
    const signal = answered.get(spec.respond?.to ?? "");
    if (signal) needs.add(signal.index);
  }
  for (const [id, { index }] of answered) {
    if (given.has(id)) continue;
    const message = `no step answers the signal: give one "respond: {to: ${id}, …}", or take the answer away`;
    const place = { path: `${steps[index]!.path}.signal.answer`, stepId: id, field: "signal.answer" };
    report({ ...place, reason: "MISSING_VALUE", message });
  }
}

/** Checks the chain's output. One that a step gives to the caller need not be said again. */
export function checkOutput(spec: ChainSpec, contract: Contract, types: ScopeTypes, report: Report): CheckedMessage {
  const responds = spec.steps.some(({ respond }) => respond !== undefined && respond.to === "");
  if (responds && Object.keys(spec.output).length === 0) return { sources: [], reads: new Set() };
  const mapping = { target: contract.output, fields: spec.output, path: "output", stepId: "", types };
  return checkMapping({ ...mapping, guarded: new Set() }, report);
}

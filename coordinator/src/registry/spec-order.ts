/** Chains in the one form that is stored and hashed. */
import type { ChainSpec, Expression, StepSpec } from "@taskmesh/proto";

/** The same chain with the entries of its maps sorted by key: equal chains are equal bytes. */
export function specInOrder(spec: ChainSpec): ChainSpec {
  const { contract } = spec;
  const ordered = (step: StepSpec): StepSpec => ({
    ...step,
    input: sortedMap<Expression>(step.input),
    compensate: step.compensate && { ...step.compensate, input: sortedMap<Expression>(step.compensate.input) },
    onFailure: step.onFailure.map((rule) => ({ ...rule, output: sortedMap<Expression>(rule.output) })),
    signal: step.signal && {
      ...step.signal,
      output: sortedMap(step.signal.output),
      answer: sortedMap(step.signal.answer),
    },
    respond: step.respond && { ...step.respond, output: sortedMap<Expression>(step.respond.output) },
    human: step.human && { ...step.human, output: sortedMap(step.human.output) },
    callback: step.callback && { ...step.callback, output: sortedMap(step.callback.output) },
  });
  return {
    ...spec,
    contract: contract && { ...contract, input: sortedMap(contract.input), output: sortedMap(contract.output) },
    steps: spec.steps.map(ordered),
    output: sortedMap<Expression>(spec.output),
  };
}

function sortedMap<T>(map: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** The thread that evaluates; evaluation.ts holds the other end. */
import { parentPort } from "node:worker_threads";
import { ChainSpec, Upcaster } from "@taskmesh/proto";
import type { ChainPlan, Evaluated, OpenedItems, Scope, StepPlan } from "../engine/plan.js";
import { compileChain } from "./compile-chain.js";
import { innerOf } from "./compile-inner.js";
import { loadContract } from "./descriptors.js";
import type { EvaluationAnswer, EvaluationRequest, EvaluationStart } from "./evaluation.js";
import { compileUpcaster } from "./upcast.js";

const port = parentPort;
if (!port) throw new Error("evaluation-thread runs as a worker thread only");
const plans = new Map<string, ChainPlan>();

port.on("message", (request: EvaluationRequest) => {
  const answer: EvaluationAnswer = { id: request.id, result: evaluate(request) };
  port.postMessage(answer);
});
function evaluate(request: EvaluationRequest): EvaluationAnswer["result"] {
  try {
    const { source, scope, task } = request;
    if (source !== undefined) plans.set(request.plan, compile(source));
    const plan = plans.get(request.plan);
    if (plan === undefined) throw new Error("the plan was not sent");
    const start: EvaluationStart = { starts: request.id };
    port?.postMessage(start);
    if (task.kind === "output") return plan.bindOutput(scope);
    const step = plan.steps[task.step];
    if (step === undefined) throw new Error(`there is no step ${task.step}`);
    if (task.kind === "input") return step.bindInput(scope);
    if (task.kind === "items") return opened(step, scope, task.from);
    if (task.kind === "fallback") {
      const bind = step.catches?.[task.rule]?.bindOutput;
      if (bind === undefined) throw new Error(`step ${task.step} has no rule ${task.rule}`);
      return bind(scope);
    }
    return step.condition?.(scope) ?? { kind: "value", value: true };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { kind: "failed", error: { reason: "EXPRESSION_FAILED", message } };
  }
}

function opened({ each, id }: StepPlan, scope: Scope, from: number): Evaluated<OpenedItems> {
  if (each === undefined) throw new Error(`step ${id} is no fan-out`);
  return each.open(scope, from);
}

function compile({
  spec,
  method,
  contracts,
  publicUrl,
  inner,
  upcasts,
}: NonNullable<EvaluationRequest["source"]>): ChainPlan {
  if (upcasts) {
    const [from, to] = contracts.map(([, set]) => loadContract(set, method));
    const { plan } = compileUpcaster(Upcaster.decode(spec), from!, to!, { force: true });
    if (plan === undefined) throw new Error("the upcaster does not compile");
    return plan;
  }
  const loaded = new Map(contracts.map(([name, set]) => [name, loadContract(set, name)]));
  const own = loaded.get(method);
  const { plan, problems } = compileChain(ChainSpec.decode(spec), {
    contractFor: (name) => loaded.get(name),
    chainContract: own,
    resolveType: (name) => own?.registry.getMessage(name) ?? own?.registry.getEnum(name),
    force: true,
    pinned: true,
    allowReserved: true,
    publicUrl,
  });
  if (plan === undefined) throw new Error(`the chain does not compile: ${problems[0]?.message ?? ""}`);
  return innerOf(plan, inner);
}

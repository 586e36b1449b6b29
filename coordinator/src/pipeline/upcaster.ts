/** Inputs of one revision as those of another, for workers that know only the other one (contracts/upcast.ts). */
import { sha256 } from "@taskmesh/runtime";
import type { EvaluationThread } from "../contracts/evaluation.js";
import type { ChainPlan, Evaluated, Value } from "../engine/plan.js";
import type { RunState } from "../engine/run-state.js";
import { inlineInputBytesMax } from "../engine/step-input.js";
import { aboutRun } from "../engine/turn.js";
import type { RunStore } from "../store/run-store.js";

/** Applies an upcaster. Rejects if a payload can't be read or written now. */
export type Upcast = (run: RunState, plan: ChainPlan, input: Value) => Promise<Evaluated<Value>>;

/** Makes it. `thread` does what is too costly for the event loop. */
export function createUpcast(store: RunStore, thread: Pick<EvaluationThread, "output">): Upcast {
  return async (run, plan, input) => {
    const bytes = input.bytes ?? (await store.getPayload(run.namespaceId, input.reference ?? ""));
    if (bytes === undefined) return failure(`payload ${input.reference ?? ""} is not stored`);
    const scope = { run: aboutRun(run, plan.method), input: { ...input, bytes }, outputs: [] };
    const cheap =
      bytes.length <= inlineInputBytesMax ? plan.bindOutput(scope) : ({ kind: "deferred" } as Evaluated<Uint8Array>);
    const made = cheap.kind === "deferred" ? await thread.output(plan, scope) : cheap;
    if (made.kind === "deferred") return failure("it costs too much");
    if (made.kind === "failed") return made;
    const value = { contract: plan.outputContract, sizeBytes: made.value.length, sha256: sha256(made.value) };
    if (made.value.length <= inlineInputBytesMax) return { kind: "value", value: { ...value, bytes: made.value } };
    return { kind: "value", value: { ...value, reference: await store.putPayload(run.namespaceId, made.value) } };
  };
}

const failure = (why: string): { kind: "failed"; error: { reason: "EXPRESSION_FAILED"; message: string } } => ({
  kind: "failed",
  error: { reason: "EXPRESSION_FAILED", message: `upcaster: ${why}` },
});

/** The engine that runs expressions (@bufbuild/cel), as far as this folder uses it: one environment, and its value types. */
import { type CelInput, type CelResult, celEnv, celError, isCelError, parse, plan } from "@bufbuild/cel";
import { strings } from "@bufbuild/cel/ext";
import { engineFunctions } from "./engine-functions.js";
import { compilePattern } from "./patterns.js";

export { type CelInput, type CelValue, isCelError, isCelList, isCelMap, isCelUint } from "@bufbuild/cel";

const environment = celEnv({ funcs: [...strings, ...engineFunctions], re2: { compile: compilePattern } });

/** Plans an expression once, to be run many times. Throws what the engine's parser throws. */
export function planExpression(source: string): (variables: Record<string, CelInput>) => CelResult {
  return plan(environment, parse(source));
}

/** Runs a constant expression; the text of the error if it makes one. */
export function faultOfConstant(source: string): string | undefined {
  try {
    const result = planExpression(source)({});
    return isCelError(result) ? result.message : undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Runs a plan; what it throws becomes an error value. */
export function runPlan(
  plan: (variables: Record<string, CelInput>) => CelResult,
  variables: Record<string, CelInput>,
): CelResult {
  try {
    return plan(variables);
  } catch (error) {
    return celError(error);
  }
}

export type { CelResult };

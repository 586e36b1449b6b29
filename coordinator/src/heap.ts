/** How far the coordinator's heap grows between two full collections. */
import { setFlagsFromString } from "node:v8";

/**
 * Percent of what was alive after the last full collection. Left alone the runtime lets a heap under load grow to three and a half times
 * that, which is most of the process's memory; at three times it collects half as often again, for less than 1 % of the time.
 */
const growthPercent = 200;
const flag = "--heap-growing-percent";

/** Bounds it for this process; one started with a flag of its own keeps that. */
export function boundHeapGrowth(execArgv: readonly string[] = process.execArgv): void {
  if (!execArgv.some((argument) => argument.replaceAll("_", "-").startsWith(flag)))
    setFlagsFromString(`${flag}=${growthPercent}`);
}

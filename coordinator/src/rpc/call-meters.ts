/** How long calls took, by method and status; the series of each is found once. */
import { codeName, metrics, type status } from "@taskmesh/runtime";

type Distribution = ReturnType<typeof metrics.callSeconds.at>;

/** By path, then by code. Methods are those that are registered; more than this many have been renamed away. */
const meters = new Map<string, (Distribution | undefined)[]>();
const pathsMax = 2_000;

/** Counts a call that has been answered. `path`: "/package.Service/Method"; `startedAtMs`: on the clock of performance.now(). */
export function countCall(path: string, code: status, startedAtMs: number): void {
  let codes = meters.get(path);
  if (!codes) {
    if (meters.size >= pathsMax) meters.clear();
    codes = [];
    meters.set(path, codes);
  }
  codes[code] ??= metrics.callSeconds.at(path.slice(1), codeName(code));
  codes[code].record((performance.now() - startedAtMs) / 1_000);
}

/** One thing that a worker has to do right. */
import type { Kit } from "./kit.js";

export interface ConformanceCase {
  /** A sentence without its full stop: what the worker does. */
  name: string;
  /** Section of docs/worker-protocol.md that asks for it. */
  section: string;
  /** Drives the worker; throws a RuleBroken. What the case made it leaves ended: runs, faults, gates. */
  run(kit: Kit): Promise<void>;
}

/**
 * Whether a worker of one contract revision can run steps that are pinned to another revision of the same method.
 *
 * It can if it knows every field of the pinned revision, by number, name and type, in what it reads and in what it writes: then nothing
 * that a caller sends is lost, and nothing that the caller waits for is missing. Fields that only the worker knows do no harm: they
 * read as unset, and callers skip what they don't know. So workers that are upgraded go on with the runs and chains of before.
 */
import type { Contract } from "../contracts/contract.js";
import { knowsMessage } from "../contracts/knows.js";

/** Whether workers of `worker` can run what is pinned to `pinned`. */
export function contractServes(worker: Contract, pinned: Contract): boolean {
  if (worker.fingerprint === pinned.fingerprint) return true;
  if (worker.method !== pinned.method) return false;
  return knowsMessage(worker.input, pinned.input) && knowsMessage(worker.output, pinned.output);
}

/** Chains that call a chain, and can't read what its next version gives or give what it takes. */
import type { ChainProblem } from "@taskmesh/proto";
import { problemOf } from "../contracts/compile-message.js";
import type { Contract } from "../contracts/contract.js";
import type { Db } from "../store/db.js";
import { readPins } from "../store/gates.js";
import type { ContractCache } from "./contract-cache.js";
import { contractServes } from "./contract-serves.js";

/** Callers that are looked at, and named. */
const callersMax = 1_000;
const namedMax = 20;

/**
 * Warnings, one for each chain whose newest version is pinned to a contract of which `contract` lacks something: it goes on calling, and
 * reads defaults where fields are gone. Saving it again checks it against the new contract.
 */
export async function strandedCallers(
  { db, contracts }: { db: Db; contracts: ContractCache },
  namespaceId: number,
  contract: Contract,
): Promise<ChainProblem[]> {
  const found: ChainProblem[] = [];
  for (const pin of await readPins(db, namespaceId, [contract.method], [], callersMax)) {
    if (pin.chain === contract.method || found.length >= namedMax) continue;
    const pinned = await contracts.byFingerprint(namespaceId, pin.fingerprint);
    if (pinned === undefined || contractServes(contract, pinned)) continue;
    const message = `chain ${pin.chain} version ${pin.version} calls this chain by its earlier contract, and fields of that are gone: save it again`;
    found.push(problemOf({ reason: "BREAKS_CALLER", path: "contract", message, found: pin.chain }));
  }
  return found;
}

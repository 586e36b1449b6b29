/**
 * The contracts of a namespace as a list with a version. The registry's epoch tells whether anything may have changed, so asking often
 * costs one small read.
 */
import { createHash } from "node:crypto";
import type { ListContractsResponse, ListedContract } from "@taskmesh/proto";
import { readNewestContracts, setsHolding } from "../store/contract-list.js";
import type { Db } from "../store/db.js";
import { readEpoch } from "../store/registry.js";

/** Far above real meshes; the list of so many fits in one message. */
const contractsMax = 10_000;
/**
 * How an option google.api.http begins in the wire form of its method's options: field 72295728, a message. Where these bytes stand by
 * chance, a reader finds no rule; so it costs a look and nothing else.
 */
const httpTag = Buffer.from([0x82, 0xd3, 0xe4, 0x93, 0x02]);

export interface ContractList {
  /** The list, without entries if `knownVersion` is its version. */
  read(namespaceId: number, knownVersion: string): Promise<ListContractsResponse>;
}

interface Known {
  epoch: number;
  list: Promise<ListContractsResponse>;
}

/** Makes the list of every namespace; nothing is read before it is asked for. */
export function createContractList(db: Db): ContractList {
  const known = new Map<number, Known>();
  /** By descriptor hash: sets never change. */
  const declaresHttp = new Map<string, boolean>();

  const read = async (namespaceId: number): Promise<ListContractsResponse> => {
    const rows = await readNewestContracts(db, namespaceId, contractsMax);
    const missing = [...new Set(rows.map((row) => row.descriptorHash))].filter((hash) => !declaresHttp.has(hash));
    if (missing.length > 0) {
      const holding = await setsHolding(db, namespaceId, missing, httpTag);
      for (const hash of missing) declaresHttp.set(hash, holding.has(hash));
    }
    const contracts = rows.map(
      (row): ListedContract => ({
        method: row.method,
        contract: row.fingerprint,
        chain: row.kind === "chain",
        inputType: row.inputType,
        outputType: row.outputType,
        descriptorSet: row.descriptorHash,
        http: declaresHttp.get(row.descriptorHash) ?? false,
        place: row.place,
      }),
    );
    return { version: createHash("sha256").update(JSON.stringify(rows)).digest("hex"), contracts };
  };

  return {
    async read(namespaceId, knownVersion) {
      const epoch = await readEpoch(db);
      let entry = known.get(namespaceId);
      if (entry?.epoch !== epoch) {
        // The epoch was read before the rows: at worst they are read once more.
        entry = { epoch, list: read(namespaceId) };
        known.set(namespaceId, entry);
        const { list } = entry;
        list.catch(() => {
          if (known.get(namespaceId)?.list === list) known.delete(namespaceId);
        });
      }
      const list = await entry.list;
      return list.version === knownVersion ? { version: list.version, contracts: [] } : list;
    },
  };
}

/** Which other revisions of its methods a lane can serve (contract-serves.ts). Answers are kept: revisions never change. */
import type { Db } from "../store/db.js";
import { readFingerprints } from "../store/registry.js";
import type { ContractCache } from "./contract-cache.js";
import { contractServes } from "./contract-serves.js";
import { LruMap } from "./lru-map.js";

/** Newest revisions of a method that are looked at: runs that are pinned to older ones ended long ago. */
const revisionsMax = 50;
/** Pairs of revisions whose answer is kept. */
const answersMax = 10_000;

/** "method@fingerprint" of what workers of `contracts` can run besides, in a namespace. */
export type OtherRevisions = (namespaceId: number, contracts: readonly string[]) => Promise<string[]>;

/** Makes the search. */
export function createOtherRevisions(db: Db, contracts: ContractCache): OtherRevisions {
  const answers = new LruMap<string, boolean>(answersMax);
  const serves = async (namespaceId: number, worker: string, pinned: string): Promise<boolean> => {
    const key = `${namespaceId}/${worker}/${pinned}`;
    const known = answers.get(key);
    if (known !== undefined) return known;
    const [mine, theirs] = await Promise.all([
      contracts.byFingerprint(namespaceId, worker),
      contracts.byFingerprint(namespaceId, pinned),
    ]);
    const answer = mine !== undefined && theirs !== undefined && contractServes(mine, theirs);
    answers.set(key, answer);
    return answer;
  };
  return async (namespaceId, served) => {
    const own = new Map(served.map((entry): [string, string] => splitEntry(entry)));
    const rows = await readFingerprints(db, namespaceId, [...own.keys()], revisionsMax);
    const unknown = rows.filter(({ method, fingerprint }) => {
      const worker = own.get(method);
      return worker !== fingerprint && answers.get(`${namespaceId}/${worker}/${fingerprint}`) === undefined;
    });
    const workers = unknown.map(({ method }) => own.get(method)).filter((worker) => worker !== undefined);
    await contracts.warm(namespaceId, [...unknown.map((row) => row.fingerprint), ...workers]);
    const found: string[] = [];
    for (const { method, fingerprint } of rows) {
      const worker = own.get(method);
      if (worker === undefined || worker === fingerprint) continue;
      if (await serves(namespaceId, worker, fingerprint)) found.push(`${method}@${fingerprint}`);
    }
    return found;
  };
}

function splitEntry(entry: string): [string, string] {
  const at = entry.lastIndexOf("@");
  return [entry.slice(0, at), entry.slice(at + 1)];
}

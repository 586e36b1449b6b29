/** The calls of ContractService about canaries: which share of an action's starts its new revisions get. */
import type { Canary, ContractServiceServer } from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import { splitMethod } from "../contracts/contract.js";
import { fingerprintForm, invalid, reasonOf, timestamp } from "../registry/contract-request.js";
import { type CanaryRow, changeShare, insertCanary, readCanaries, readCanaryHistory } from "../store/canaries.js";
import type { Db } from "../store/db.js";
import { bumpEpoch, readCallable } from "../store/registry.js";
import { unary } from "./calls.js";
import type { ContractServiceOptions } from "./contract-service.js";

/** Settings that are shown. */
const historyMax = 100;
/** Settings that are looked through for the present ones. */
const lookedMax = 10_000;

/** Makes them. */
export function canaryCalls({
  db,
  registry: { namespaces, catalogue },
}: ContractServiceOptions): Pick<ContractServiceServer, "setCanary" | "clearCanary" | "listCanaries"> {
  const current = async (namespaceId: number, method?: string): Promise<Canary[]> => {
    const [history, live] = await Promise.all([
      readCanaryHistory(db, namespaceId, method, lookedMax),
      readCanaries(db),
    ]);
    const slots = catalogue.slotsOf(namespaceId);
    const newest = new Map<string, CanaryRow>();
    for (const row of history) if (!newest.has(row.method)) newest.set(row.method, row);
    const rows = [...newest.values()].filter((row) => row.share !== null);
    return rows
      .sort((a, b) => (a.method < b.method ? -1 : 1))
      .map((row) => {
        const own = live.filter((one) => one.namespaceId === namespaceId && one.method === row.method);
        const contracts = own.map(({ fingerprint }) => fingerprint).sort();
        const liveSlots = contracts.reduce((sum, one) => sum + (slots.get(`${row.method}@${one}`) ?? 0), 0);
        return { ...toProto(row), contracts, liveSlots };
      });
  };
  return {
    setCanary: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const { method, contract, share } = request;
      await requireAction(db, namespace.id, method);
      if (share > 100) throw invalid("share", "must be a percentage, from 0 to 100");
      if (contract !== "" && !fingerprintForm.test(contract))
        throw invalid("contract", "must be the fingerprint of a contract");
      const reason = reasonOf(request.reason, false);
      await db.transaction(async (tx) => {
        const set = contract === "" && (await changeShare(tx, namespace.id, { method, share, reason }));
        if (!set) await insertCanary(tx, namespace.id, { method, fingerprint: contract, share, reason });
        await bumpEpoch(tx);
      });
      await catalogue.refresh();
      const [canary] = await current(namespace.id, method);
      return { canary };
    }),
    clearCanary: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const { method } = request;
      await requireAction(db, namespace.id, method);
      const reason = reasonOf(request.reason, false);
      await db.transaction(async (tx) => {
        if (await changeShare(tx, namespace.id, { method, share: null, reason })) await bumpEpoch(tx);
      });
      await catalogue.refresh();
      return {};
    }),
    listCanaries: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const method = request.method === "" ? undefined : methodOf(request.method);
      const [canaries, history] = await Promise.all([
        current(namespace.id, method),
        readCanaryHistory(db, namespace.id, method, historyMax),
      ]);
      return { canaries, history: history.map(toProto) };
    }),
  };
}

/** The name of a method, as far as a request may give one. Throws INVALID_ARGUMENT. */
export function methodOf(method: string): string {
  if (!splitMethod(method)) throw invalid("method", "must be a full method name, package.Service/Method");
  return method;
}

async function requireAction(db: Db, namespaceId: number, method: string): Promise<void> {
  if ((await readCallable(db, namespaceId, methodOf(method))) === "action") return;
  throw statusError({ reason: "METHOD_NOT_FOUND", message: `there is no action ${method}` });
}

const toProto = ({ method, fingerprint, afterRevision, share, reason, changedAtMs }: CanaryRow): Canary => ({
  method,
  contract: fingerprint,
  afterRevision,
  share: share ?? 0,
  reason,
  changedAt: timestamp(changedAtMs),
  cleared: share === null,
  contracts: [],
  liveSlots: 0,
});

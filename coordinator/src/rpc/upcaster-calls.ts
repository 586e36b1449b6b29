/** The calls of ContractService about upcasters: declared, checked, tried with live runs, shown and taken back. */
import { type ContractServiceServer, Upcaster } from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import type { Contract } from "../contracts/contract.js";
import { fingerprintForm, invalid, reasonOf, timestamp } from "../registry/contract-request.js";
import { checkUpcaster, inOrder, storeUpcaster, tryWithRuns, type UpcasterLive } from "../registry/upcaster-trial.js";
import { bumpEpoch } from "../store/registry.js";
import { deleteUpcaster, readUpcasters, type UpcasterRow } from "../store/upcasters.js";
import { unary } from "./calls.js";
import { methodOf } from "./canary-calls.js";
import type { ContractServiceOptions } from "./contract-service.js";

export interface UpcasterOptions {
  /** What steps of live runs are given. Default: an upcaster is declared without being tried. */
  live?: UpcasterLive;
}

/** Makes them. */
export function upcasterCalls(
  options: ContractServiceOptions,
): Pick<ContractServiceServer, "declareUpcaster" | "listUpcasters" | "deleteUpcaster"> {
  const { db, registry } = options;
  const { namespaces, catalogue, contracts } = registry;
  return {
    declareUpcaster: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const declared = upcasterOf(request.upcaster);
      const [from, to] = await Promise.all(
        [declared.fromContract, declared.toContract].map((one) =>
          revision(contracts, namespace.id, declared.method, one),
        ),
      );
      const { plan, warnings } = checkUpcaster(declared, from!, to!);
      const tried = await tryWithRuns(db, options.live, namespace.id, plan, from!, to!);
      const stored = !request.dryRun && (tried.failed === 0 || request.force);
      if (stored) {
        await storeUpcaster(db, namespace.id, declared);
        await catalogue.refresh();
      }
      return { upcaster: declared, stored, warnings, ...tried };
    }),
    listUpcasters: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const method = request.method === "" ? undefined : methodOf(request.method);
      return { upcasters: (await readUpcasters(db, namespace.id, method)).map(toProto) };
    }),
    deleteUpcaster: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const { method, fromContract, toContract } = request;
      const which = { namespaceId: namespace.id, method: methodOf(method), fromContract, toContract };
      for (const [field, value] of [
        ["from_contract", fromContract],
        ["to_contract", toContract],
      ] as const)
        if (!fingerprintForm.test(value)) throw invalid(field, "must be the fingerprint of a contract");
      const deleted = await db.transaction(async (tx) => {
        const was = await deleteUpcaster(tx, which);
        if (was) await bumpEpoch(tx);
        return was;
      });
      if (deleted) await catalogue.refresh();
      return { deleted };
    }),
  };
}

function upcasterOf(given: Upcaster | undefined): Upcaster {
  if (given === undefined) throw invalid("upcaster", "must be given");
  const { method, fromContract, toContract, input } = given;
  methodOf(method);
  for (const [field, value] of [
    ["from_contract", fromContract],
    ["to_contract", toContract],
  ] as const)
    if (!fingerprintForm.test(value)) throw invalid(`upcaster.${field}`, "must be the fingerprint of a contract");
  if (fromContract === toContract) throw invalid("upcaster.to_contract", "must be another revision than from_contract");
  return {
    ...given,
    input: inOrder(input),
    reason: reasonOf(given.reason, false),
    declaredAt: undefined,
    byWorker: false,
  };
}

async function revision(
  contracts: ContractServiceOptions["registry"]["contracts"],
  namespaceId: number,
  method: string,
  fingerprint: string,
): Promise<Contract> {
  const contract = await contracts.byFingerprint(namespaceId, fingerprint);
  if (contract?.method === method) return contract;
  const message = `${method} has no revision ${fingerprint} in the namespace: a worker registers it`;
  throw statusError({ reason: "CONTRACT_NOT_FOUND", message });
}

function toProto({ spec, declaredAtMs }: UpcasterRow): Upcaster {
  return { ...Upcaster.decode(spec), declaredAt: timestamp(declaredAtMs) };
}

/** ContractService: what a new revision would break, what a namespace does about it, and which chains use what. */
import {
  type CheckContractsRequest,
  type CheckContractsResponse,
  type ContractDecision,
  type ContractGate,
  type ContractJudgement,
  type ContractServiceServer,
  ContractVerdict,
  type ContractViolation,
  GateMode as GateModeEnum,
} from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import { type Contract, isFullName, splitMethod } from "../contracts/contract.js";
import { evolutionRules, type Violation } from "../contracts/evolution/violation.js";
import { fingerprintForm, invalid, reasonOf, timestamp } from "../registry/contract-request.js";
import { judgementToProto, modeToProto, useToProto, violationToProto } from "../registry/gate-answers.js";
import { isUseOfName } from "../registry/lineage.js";
import { linkContracts, methodsMax } from "../registry/registration.js";
import type { Registry } from "../registry/registry.js";
import type { Db } from "../store/db.js";
import { type GateMode, insertGate, readGates, readVerdicts, type VerdictRow, writeVerdict } from "../store/gates.js";
import { bumpEpoch, knownContracts, readCallable, readCallables } from "../store/registry.js";
import { unary } from "./calls.js";
import { canaryCalls } from "./canary-calls.js";
import { type UpcasterOptions, upcasterCalls } from "./upcaster-calls.js";

/** Settings and decisions that are shown. */
const historyMax = 100;
/** Uses in one answer. */
const usesMax = 1_000;

export interface ContractServiceOptions extends UpcasterOptions {
  db: Db;
  registry: Pick<Registry, "namespaces" | "gate" | "lineage" | "catalogue" | "contracts">;
}

/** Makes the service. */
export function createContractService(options: ContractServiceOptions): ContractServiceServer {
  const { db, registry } = options;
  const { namespaces, gate, lineage, catalogue } = registry;
  const gateOf = async ({ id, name }: { id: number; name: string }): Promise<ContractGate> => {
    const { mode, reason, changedAtMs } = await gate.modeOf(id);
    const changedAt = changedAtMs === undefined ? {} : { changedAt: timestamp(changedAtMs) };
    return { namespace: name, mode: modeToProto[mode], reason, ...changedAt };
  };
  return {
    ...canaryCalls(options),
    ...upcasterCalls(options),
    checkContracts: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      return checkContracts(options, namespace.id, request);
    }),
    allowContract: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const { method, contract, reason } = request;
      if (!splitMethod(method)) throw invalid("method", "must be a full method name, package.Service/Method");
      if (!fingerprintForm.test(contract)) throw invalid("contract", "must be the fingerprint of a contract");
      const why = reasonOf(reason, true);
      if ((await readCallable(db, namespace.id, method)) !== "action") {
        throw statusError({ reason: "METHOD_NOT_FOUND", message: `there is no action ${method}` });
      }
      await db.transaction(async (tx) => {
        const before = await readVerdict(tx, namespace.id, method, contract);
        const about = { base: before?.base ?? "", violations: before?.violations ?? [] };
        await writeVerdict(tx, namespace.id, {
          method,
          fingerprint: contract,
          verdict: "allowed",
          reason: why,
          ...about,
        });
        await bumpEpoch(tx); // out of quarantine: its lanes are offered again
      });
      await catalogue.refresh();
      const row = await readVerdict(db, namespace.id, method, contract);
      return { decision: row && decision(row) };
    }),
    getContractGate: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const [current, rows, verdicts] = await Promise.all([
        gateOf(namespace),
        readGates(db, namespace.id, historyMax + 1),
        readVerdicts(db, namespace.id, { limit: historyMax }),
      ]);
      const history = rows.slice(1).map(({ mode, reason, changedAtMs }) => {
        return { namespace: namespace.name, mode: modeToProto[mode], reason, changedAt: timestamp(changedAtMs) };
      });
      return { gate: current, history, decisions: verdicts.map(decision) };
    }),
    setContractGate: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const mode = modes[request.mode];
      if (mode === undefined) throw invalid("mode", "must be REFUSE, QUARANTINE or ALLOW");
      await insertGate(db, namespace.id, mode, reasonOf(request.reason, mode === "allow"));
      return { gate: await gateOf(namespace) };
    }),
    findFieldUses: unary(async (request) => {
      const namespace = await namespaces.resolve(request.namespace);
      const { field } = request;
      if (!isFullName(field))
        throw invalid("field", "must be the name of a field or message, such as shop.v1.Order.total");
      const { uses, chains, truncated } = await lineage.find(namespace.id, isUseOfName(field), usesMax);
      return { uses: uses.map(useToProto), chains, truncated };
    }),
  };
}

const modes: Partial<Record<GateModeEnum, GateMode>> = {
  [GateModeEnum.GATE_MODE_REFUSE]: "refuse",
  [GateModeEnum.GATE_MODE_QUARANTINE]: "quarantine",
  [GateModeEnum.GATE_MODE_ALLOW]: "allow",
};

async function checkContracts(
  { db, registry }: ContractServiceOptions,
  namespaceId: number,
  { descriptorSet, methods }: CheckContractsRequest,
): Promise<CheckContractsResponse> {
  const { gate } = registry;
  const contracts = linkContracts(descriptorSet, methods.length > 0 ? [...new Set(methods)] : undefined);
  if (contracts.length > methodsMax) throw invalid("methods", `more than ${methodsMax} methods`);
  const names = contracts.map((contract) => contract.method);
  const [known, kinds, { mode }] = await Promise.all([
    knownContracts(db, namespaceId, "action", names),
    readCallables(db, namespaceId),
    gate.modeOf(namespaceId),
  ]);
  const stored = (contract: Contract) => known.get(`${contract.method}@${contract.fingerprint}`);
  const isTaken = (contract: Contract) => kinds.get(contract.method) === "chain";
  const unknown = contracts.filter((contract) => !stored(contract) && !isTaken(contract));
  const judged = await gate.judge(namespaceId, unknown);
  const answers = new Map(judged.map((judgement) => [judgement.method, judgementToProto(judgement)]));
  const judgements = contracts.map((contract): ContractJudgement => {
    if (isTaken(contract)) return takenByChain(contract);
    return answers.get(contract.method) ?? knownContract(contract, stored(contract)?.quarantined ?? false);
  });
  judgements.sort((a, b) => (a.method < b.method ? -1 : 1));
  return { mode: modeToProto[mode], judgements };
}

const bare = ({ method, fingerprint }: Contract, verdict: ContractVerdict): ContractJudgement => ({
  method,
  contract: fingerprint,
  verdict,
  baseRevision: 0,
  baseContract: "",
  violations: [],
  chains: [],
  liveRuns: 0,
  runIds: [],
  reason: "",
});

function knownContract(contract: Contract, quarantined: boolean): ContractJudgement {
  const { CONTRACT_VERDICT_QUARANTINED, CONTRACT_VERDICT_KNOWN } = ContractVerdict;
  return bare(contract, quarantined ? CONTRACT_VERDICT_QUARANTINED : CONTRACT_VERDICT_KNOWN);
}

/** Not a matter of evolution, and a registration would be refused for it all the same. */
function takenByChain(contract: Contract): ContractJudgement {
  const violation: ContractViolation = {
    rule: "METHOD_TAKEN",
    file: contract.rpc.parent.file.proto.name,
    line: 0,
    subject: contract.method,
    message: "is the name of a chain",
    fix: "name the action differently",
    sides: [],
  };
  return { ...bare(contract, ContractVerdict.CONTRACT_VERDICT_REFUSED), violations: [violation] };
}

async function readVerdict(
  db: Db,
  namespaceId: number,
  method: string,
  fingerprint: string,
): Promise<VerdictRow | undefined> {
  const rows = await readVerdicts(db, namespaceId, { methods: [method], limit: verdictsOfMethodMax });
  return rows.find((row) => row.fingerprint === fingerprint);
}

/** Decisions on one method that are read: far more than anybody makes. */
const verdictsOfMethodMax = 10_000;

const decision = ({ method, fingerprint, verdict, reason, decidedAtMs, violations }: VerdictRow): ContractDecision => ({
  method,
  contract: fingerprint,
  verdict:
    verdict === "allowed" ? ContractVerdict.CONTRACT_VERDICT_ALLOWED : ContractVerdict.CONTRACT_VERDICT_QUARANTINED,
  reason,
  decidedAt: timestamp(decidedAtMs),
  violations: violations.filter(isViolation).map(violationToProto),
});

/** A stored violation of a rule that this release knows. */
const isViolation = (value: unknown): value is Violation =>
  typeof value === "object" && value !== null && "rule" in value && String(value.rule) in evolutionRules;

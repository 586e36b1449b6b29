/** What the gate tells: judgements as messages, warnings of a registration, and the status that refuses one. */
import {
  ContractBreaking,
  type ContractJudgement,
  ContractSide,
  ContractVerdict,
  type ContractViolation,
  type FieldUse,
  FieldUseKind,
  GateMode as GateModeEnum,
  type ImpactedChain,
} from "@taskmesh/proto";
import { statusDetail, statusError } from "@taskmesh/runtime";
import { describeViolation, evolutionRules, type Violation } from "../contracts/evolution/violation.js";
import type { GateMode } from "../store/gates.js";
import type { Judgement } from "./gate.js";
import type { ChainImpact } from "./impact.js";
import type { ChainUse } from "./lineage.js";

/** Violations that one sentence for people lists. */
const listedMax = 5;
/** What the details of a status have room for beside the rest (status.ts). */
const detailBytesMax = 5_120;
/** Violations of one contract in an answer. */
const violationsMax = 500;

/** The mode as the API names it. */
export const modeToProto: Record<GateMode, GateModeEnum> = {
  refuse: GateModeEnum.GATE_MODE_REFUSE,
  quarantine: GateModeEnum.GATE_MODE_QUARANTINE,
  allow: GateModeEnum.GATE_MODE_ALLOW,
};

const verdicts: Record<Judgement["verdict"], ContractVerdict> = {
  new: ContractVerdict.CONTRACT_VERDICT_NEW,
  compatible: ContractVerdict.CONTRACT_VERDICT_COMPATIBLE,
  allowed: ContractVerdict.CONTRACT_VERDICT_ALLOWED,
  quarantined: ContractVerdict.CONTRACT_VERDICT_QUARANTINED,
  refused: ContractVerdict.CONTRACT_VERDICT_REFUSED,
};

/** A judgement as the API shows it. */
export function judgementToProto(judgement: Judgement): ContractJudgement {
  const { method, fingerprint, verdict, base, violations, impact, reason } = judgement;
  return {
    method,
    contract: fingerprint,
    verdict: verdicts[verdict],
    baseRevision: base?.revision ?? 0,
    baseContract: base?.fingerprint ?? "",
    violations: violations.slice(0, violationsMax).map(violationToProto),
    chains: (impact?.chains ?? []).map(chainToProto),
    liveRuns: impact?.liveRuns ?? 0,
    runIds: impact?.runIds ?? [],
    reason,
  };
}

const sideOf = { input: ContractSide.CONTRACT_SIDE_INPUT, output: ContractSide.CONTRACT_SIDE_OUTPUT } as const;

/** A violation as the API shows it. */
export function violationToProto({ rule, file, line, subject, message, sides }: Violation): ContractViolation {
  return { rule, file, line, subject, message, fix: evolutionRules[rule], sides: sides.map((side) => sideOf[side]) };
}

const useKinds = {
  read: FieldUseKind.FIELD_USE_KIND_READ,
  write: FieldUseKind.FIELD_USE_KIND_WRITE,
  pass: FieldUseKind.FIELD_USE_KIND_PASS,
} as const;

/** A use of a field as the API shows it. */
export function useToProto(use: ChainUse): FieldUse {
  const { chain, version, stepId, path, kind, type, field, expression, start, end, source } = use;
  const name = field === "" ? type : `${type}.${field}`;
  return { chain, version, stepId, path, kind: useKinds[kind], field: name, expression, start, end, source };
}

const chainToProto = ({
  name,
  version,
  current,
  steps,
  unserved,
  uses,
  liveRuns,
  runIds,
}: ChainImpact): ImpactedChain => ({
  name,
  version,
  current,
  steps,
  unserved,
  uses: uses.map(useToProto),
  liveRuns,
  runIds,
});

/** What a worker is told of a contract that is registered and gets no work. */
export const quarantineWarning = ({ method, fingerprint }: { method: string; fingerprint: string }): string =>
  `${method} is in quarantine, since it breaks the revision before it: nothing is dispatched to it until ` +
  `\`taskmesh contracts allow ${method} ${fingerprint} --reason …\``;

/** What is odd about contracts that pass. */
export function warningsOf(judgements: readonly Judgement[]): string[] {
  return judgements.flatMap((judgement) => {
    const { method, verdict, violations, base, impact, reason } = judgement;
    if (verdict === "quarantined") return [`${quarantineWarning(judgement)}; ${listed(violations)}`];
    if (verdict === "allowed") {
      const what = `${method} breaks revision ${base?.revision ?? 0}, which is allowed (${reason})`;
      return [`${what}: ${listed(violations)}${affected(judgement)}`];
    }
    if (impact === undefined || affected(judgement) === "") return [];
    return [`${method} can't take over everything from revision ${base?.revision ?? 0}${affected(judgement)}`];
  });
}

function listed(violations: readonly Violation[]): string {
  const more = violations.length > listedMax ? `; and ${violations.length - listedMax} more` : "";
  return `${violations.slice(0, listedMax).map(describeViolation).join("; ")}${more}`;
}

/** Which chains and runs need workers of the earlier revision, "" if none does. */
function affected({ impact }: Judgement): string {
  const chains = (impact?.chains ?? []).filter((chain) => chain.unserved);
  const runs = chains.reduce((sum, chain) => sum + chain.liveRuns, impact?.liveRuns ?? 0);
  const names = [...new Set(chains.map((chain) => chain.name))];
  if (names.length === 0 && runs === 0) return "";
  const more = names.length > listedMax ? ` and ${names.length - listedMax} more` : "";
  const which = names.length === 0 ? "" : `chains ${names.slice(0, listedMax).join(", ")}${more}`;
  const live = runs === 0 ? "" : `${runs} live runs`;
  return `; ${[which, live].filter((part) => part !== "").join(" and ")} need workers of an earlier revision`;
}

/** Throws FAILED_PRECONDITION / CONTRACT_BREAKING if the gate refuses any of the contracts. */
export function refuseBreaking(namespace: string, judgements: readonly Judgement[]): void {
  const refused = judgements.filter((one) => one.verdict === "refused");
  const [first] = refused;
  if (first === undefined) return;
  const others = refused.length > 1 ? ` (and ${refused.length - 1} more contracts)` : "";
  const message =
    `${first.method} breaks revision ${first.base?.revision ?? 0}${others}: ${listed(first.violations)}${affected(first)}. ` +
    "Nothing was registered. Evolve the contract compatibly, or declare it in a new package version; to let it pass all the same: " +
    `taskmesh contracts allow ${first.method} ${first.fingerprint} --reason …`;
  throw statusError({
    reason: "CONTRACT_BREAKING",
    message,
    metadata: { method: first.method, contract: first.fingerprint },
    details: [breakingDetail(namespace, refused)],
  });
}

/** As much of the judgements as a status has room for: the first ones whole, then ever less. */
function breakingDetail(namespace: string, refused: readonly Judgement[]): ReturnType<typeof statusDetail> {
  let judgements = refused.map(judgementToProto);
  for (let most = judgements.length * violationsMax; ; most = Math.floor(most / 2)) {
    const perContract = Math.max(1, Math.floor(most / judgements.length));
    judgements = judgements.slice(0, Math.max(1, most)).map((one) => ({
      ...one,
      violations: one.violations.slice(0, perContract),
      chains: one.chains.slice(0, perContract).map((chain) => ({ ...chain, uses: chain.uses.slice(0, perContract) })),
    }));
    const detail = { namespace, judgements };
    const size = ContractBreaking.encode(detail).finish().length;
    if (size <= detailBytesMax || most <= 1)
      return statusDetail("taskmesh.v1.ContractBreaking", ContractBreaking, detail);
  }
}

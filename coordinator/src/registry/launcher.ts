/**
 * What launching steps name, found and checked at run time (contracts/launch.ts); pipeline/children.ts begins it.
 *
 * L1. A launch is checked as a start from outside is: the callable exists, the input keeps its contract. What can never be right is a failure of
 *     the step, and final; what can't be known now is tried again.
 * L2. A chain that is given as data is compiled and stored before its run begins, so that every coordinator can go on with it.
 */
import { type DescMessage, fromBinary, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { ChainInvalid, ChainSpec, type Failure, launch } from "@taskmesh/proto";
import {
  describeChainProblem,
  inlineBytesMax,
  isStatusError,
  messageToJson,
  parseChainDocument,
  type StatusError,
  sha256,
} from "@taskmesh/runtime";
import { bytesToJson, describeViolations, jsonToBytes } from "../contracts/check.js";
import type { Contract } from "../contracts/contract.js";
import { launchContracts, startActionMethod, startChainMethod } from "../contracts/launch.js";
import type { ChainPlan, Value } from "../engine/plan.js";
import { meshFailure } from "../engine/turn.js";
import type { Launch, Launcher, LaunchRequest, Plans } from "../pipeline/ports.js";
import type { Db } from "../store/db.js";
import { getPayload, putPayload } from "../store/payloads.js";
import { readCallable } from "../store/registry.js";
import type { ChainSave } from "./chain-save.js";
import type { ContractCache } from "./contract-cache.js";

/** Largest output that goes up as JSON: it is made in memory, in one go. */
const outputBytesMax = 4 * 1024 * 1024;

export interface LauncherOptions {
  db: Db;
  contracts: ContractCache;
  plans: Plans;
  chainSave: Pick<ChainSave, "putGiven">;
}

/** Makes it. */
export function createLauncher(options: LauncherOptions): Launcher {
  const { db } = options;
  return {
    async read(namespaceId, kind, input) {
      const bytes = await bytesOf(db, namespaceId, input);
      return kind === "action" ? readAction(bytes) : readChain(bytes);
    },
    async prepare(namespaceId, request) {
      try {
        return await prepare(options, namespaceId, request);
      } catch (error) {
        if (isStatusError(error) && isRefusal(error)) return { failure: asFailure(error) };
        throw error;
      }
    },
    async answer(namespaceId, runId, output) {
      const json = output && (await outputJson(options, namespaceId, runId, output));
      if (json && "failure" in json) return json;
      const value: JsonObject = { runId, ...(json ? { output: json.value } : {}) };
      const encoded = jsonToBytes(contractOf(startChainMethod), "output", { value });
      if (!encoded.ok) return { failure: unreadable(runId, describeViolations(encoded.violations) ?? "") };
      return storedValue(db, namespaceId, "", encoded.bytes);
    },
  };
}

const contractOf = (method: string): Contract => launchContracts().get(method)!;

/** The message inside the request, whose JSON is that of a Value. */
function inputJson(method: string, bytes: Uint8Array): JsonValue {
  const contract = contractOf(method);
  const json = messageToJson(contract.input as DescMessage, fromBinary(contract.input, bytes), {
    registry: contract.registry,
  }) as JsonObject;
  return json["input"] ?? {};
}

function readAction(bytes: Uint8Array): LaunchRequest {
  const { action, labels, timeout, detached } = launch.StartActionRequest.decode(bytes);
  const input = inputJson(startActionMethod, bytes);
  return { kind: "action", method: action, input, labels, ...timeoutOf(timeout), detached };
}

function readChain(bytes: Uint8Array): LaunchRequest {
  const { chain, document, spec, labels, timeout, detached } = launch.StartChainRequest.decode(bytes);
  const given = spec ?? (document === "" ? undefined : document);
  const input = inputJson(startChainMethod, bytes);
  const about = { kind: "chain" as const, method: chain, input, labels, ...timeoutOf(timeout), detached };
  return given === undefined ? about : { ...about, given };
}

const timeoutOf = (timeout: { seconds: bigint; nanos: number } | undefined): { timeoutMs?: number } =>
  timeout ? { timeoutMs: Math.max(1, Math.ceil(Number(timeout.seconds) * 1_000 + timeout.nanos / 1e6)) } : {};

async function prepare(
  options: LauncherOptions,
  namespaceId: number,
  request: LaunchRequest,
): Promise<Launch | { failure: Failure }> {
  const plan = await planOf(options, namespaceId, request);
  if ("failure" in plan) return plan;
  const contract = await options.contracts.byFingerprint(namespaceId, plan.contract);
  if (!contract) throw new Error(`contract ${plan.contract} of ${plan.method} is not stored`);
  const read = jsonToBytes(contract, "input", { value: request.input });
  if (!read.ok) {
    const message = `the input of ${plan.method} breaks its contract: ${describeViolations(read.violations)}`;
    return { failure: meshFailure("INPUT_INVALID", message, false) };
  }
  return { plan, input: await storedValue(options.db, namespaceId, plan.contract, read.bytes) };
}

async function planOf(
  { db, plans, chainSave }: LauncherOptions,
  namespaceId: number,
  { kind, method, given }: LaunchRequest,
): Promise<ChainPlan | { failure: Failure }> {
  if (given !== undefined) {
    const spec = typeof given === "string" ? readDocument(given) : ChainSpec.fromPartial(given);
    if ("failure" in spec) return spec;
    const { name, version } = await chainSave.putGiven(namespaceId, spec);
    return plans.pinned(namespaceId, name, version, "");
  }
  const found = await readCallable(db, namespaceId, method);
  const plan = found === kind ? await plans.current(namespaceId, method) : undefined;
  if (plan) return plan;
  const name = JSON.stringify(method.slice(0, 255));
  const other =
    found === undefined
      ? `no ${kind} ${name} is registered`
      : `${name} is not ${kind === "action" ? "an action: start it by StartChain" : "a chain: start it by StartAction"}`;
  return { failure: meshFailure("METHOD_NOT_FOUND", other, false) };
}

/** Problems that a failure's message names. */
const problemsShown = 5;

function readDocument(text: string): ChainSpec | { failure: Failure } {
  const { spec, problems } = parseChainDocument(text);
  if (spec) return spec;
  const shown = problems.slice(0, problemsShown).map(({ line, column, message }) => `${line}:${column} ${message}`);
  return { failure: meshFailure("CHAIN_INVALID", shown.join("; "), false) };
}

/** Whether the same launch is refused for ever. */
const isRefusal = (error: StatusError): boolean =>
  error.reason === "CHAIN_INVALID" || error.reason === "INPUT_INVALID" || error.reason === "METHOD_NOT_FOUND";

/** What was refused, as a failure that names the first problems. */
function asFailure(error: StatusError): Failure {
  const problems = error.detail("taskmesh.v1.ChainInvalid", ChainInvalid)?.problems ?? [];
  const shown = problems.slice(0, problemsShown).map(describeChainProblem);
  const message = shown.length === 0 ? error.message : shown.join("; ");
  return { ...meshFailure(error.reason, message, false), details: [...error.details] };
}

async function outputJson(
  { db, contracts }: LauncherOptions,
  namespaceId: number,
  runId: string,
  output: Value,
): Promise<{ value: JsonValue } | { failure: Failure }> {
  if (output.sizeBytes > outputBytesMax) {
    const why = `it has ${output.sizeBytes} bytes; at most ${outputBytesMax} go up from a run that was launched by name`;
    return { failure: unreadable(runId, why) };
  }
  const contract = await contracts.byFingerprint(namespaceId, output.contract);
  if (!contract) throw new Error(`contract ${output.contract} of run ${runId} is not stored`);
  return { value: bytesToJson(contract, "output", await bytesOf(db, namespaceId, output)) };
}

const unreadable = (runId: string, why: string): Failure =>
  meshFailure("DATA_ERROR", `the output of run ${runId} can't be given: ${why}`, false);

async function bytesOf(db: Db, namespaceId: number, value: Value): Promise<Uint8Array> {
  const bytes = value.bytes ?? (await getPayload(db, namespaceId, value.reference ?? ""));
  if (!bytes) throw new Error(`payload ${value.reference} is not stored`);
  return bytes;
}

async function storedValue(db: Db, namespaceId: number, contract: string, bytes: Uint8Array): Promise<Value> {
  const value = { contract, sizeBytes: bytes.length, sha256: sha256(bytes) };
  if (bytes.length <= inlineBytesMax) return { ...value, bytes };
  return { ...value, reference: await putPayload(db, namespaceId, bytes) };
}

/**
 * Steps that no live worker can take: of a chain that is saved, and of the chains that it calls. A worker serves a step if it takes its contract
 * from the step's task queue; one that serves the action on another queue is of no use to it.
 */
import { type ChainProblem, ChainSpec } from "@taskmesh/proto";
import { nearestName } from "@taskmesh/runtime";
import { problemOf } from "../contracts/compile-message.js";
import { splitMethod } from "../contracts/contract.js";
import { launchesOf } from "../contracts/launch.js";
import { readChain } from "../store/chains.js";
import type { Db } from "../store/db.js";

/** Chains below a chain that are looked into; below them nothing is said. */
const chainsMax = 100;
/** Steps without workers for which a name is suggested: distances between names add up in a long chain. */
const suggestedMax = 20;

/** Live task queues by "method@fingerprint". */
export type ServedQueues = ReadonlyMap<string, ReadonlySet<string>>;

/** A chain as far as it says who is to do its work. */
interface Calls {
  steps: ChainSpec["steps"];
  pins: Readonly<Record<string, string>>;
}

/** A call of an action in a chain. */
interface Call {
  method: string;
  taskQueue: string;
  stepId: string;
  path: string;
  field: string;
}

/** What is known besides the chain. */
export interface Around {
  db: Db;
  namespaceId: number;
  /** Kind of every callable. */
  methods: ReadonlyMap<string, string>;
  served: ServedQueues;
}

/** Problems of the steps that wait for workers, in the order of the chain. */
export async function unservedSteps(chain: Calls, around: Around): Promise<ChainProblem[]> {
  const { served, methods } = around;
  const found: ChainProblem[] = [];
  const names = new Set([...served.keys()].map((callee) => callee.slice(0, callee.lastIndexOf("@"))));
  for (const call of callsOf(chain.steps)) {
    const fingerprint = chain.pins[call.method];
    if (fingerprint === undefined || !isActionOfWorkers(call.method, methods)) continue;
    const queues = served.get(`${call.method}@${fingerprint}`);
    if (queues?.has(call.taskQueue)) continue;
    const suggestion = found.length < suggestedMax ? suggestionFor(call, queues, names) : "";
    found.push(unservedProblem(call, queues, suggestion));
  }
  const below = new Map<string, Unserved | undefined>();
  for (const [index, { id, call }] of chain.steps.entries()) {
    if (methods.get(call) !== "chain") continue;
    if (!below.has(call)) below.set(call, await unservedBelow(call, around));
    const waits = below.get(call);
    if (waits === undefined) continue;
    const message = `the chain ${call} waits at its step "${waits.stepId}": no live worker serves ${waits.method}`;
    const place = { path: `steps[${index}].call`, stepId: id, field: "call", found: waits.method };
    found.push(problemOf({ reason: "NO_LIVE_WORKER", message, expected: "a live worker", ...place }));
  }
  return found;
}

function unservedProblem(call: Call, queues: ReadonlySet<string> | undefined, suggestion: string): ChainProblem {
  const { method, taskQueue, stepId, path, field } = call;
  const place = { path, stepId, field, suggestion };
  if (queues === undefined) {
    const message = `no live worker serves ${method}; the step waits until one does`;
    return problemOf({ reason: "NO_LIVE_WORKER", message, expected: "a live worker", found: "none", ...place });
  }
  const others = [...queues].slice(0, 3).join(", ");
  const message = `no live worker serves ${method} on task queue "${taskQueue}", only on ${others}; the step waits until one does`;
  return problemOf({ reason: "NO_LIVE_WORKER", message, expected: `task queue ${others}`, found: taskQueue, ...place });
}

const suggestionFor = (call: Call, queues: ReadonlySet<string> | undefined, names: ReadonlySet<string>): string =>
  queues === undefined
    ? (nearestName(call.method, names) ?? "")
    : (nearestName(call.taskQueue, queues) ?? [...queues][0] ?? "");

type Unserved = Pick<Call, "method" | "stepId">;

/** The first step of a chain, or of the chains that it calls, that no live worker takes. */
async function unservedBelow(
  name: string,
  { db, namespaceId, methods, served }: Around,
): Promise<Unserved | undefined> {
  const seen = new Set<string>([name]);
  for (const chain of seen) {
    const row = await readChain(db, namespaceId, chain, 0);
    if (row === undefined) continue;
    const { steps } = ChainSpec.decode(row.spec);
    for (const call of callsOf(steps)) {
      if (methods.get(call.method) === "chain") {
        if (seen.size < chainsMax) seen.add(call.method);
      } else if (isUnserved(call, row.pins, methods, served)) return call;
    }
  }
  return undefined;
}

function isUnserved(
  { method, taskQueue }: Call,
  pins: Calls["pins"],
  methods: Around["methods"],
  served: ServedQueues,
): boolean {
  const fingerprint = pins[method];
  if (fingerprint === undefined || !isActionOfWorkers(method, methods)) return false;
  return served.get(`${method}@${fingerprint}`)?.has(taskQueue) !== true;
}

/** What launches is carried out by the coordinator itself. */
const isActionOfWorkers = (method: string, methods: Around["methods"]): boolean =>
  methods.get(method) === "action" && !launchesOf(method);

function* callsOf(steps: ChainSpec["steps"]): Generator<Call> {
  for (const [index, { id, call, taskQueue, compensate }] of steps.entries()) {
    const place = { stepId: id, path: `steps[${index}].call` };
    yield { ...place, method: call, taskQueue: taskQueue || serviceOf(call), field: "call" };
    if (compensate === undefined) continue;
    const undo = { stepId: id, path: `steps[${index}].compensate.call`, field: "compensate" };
    yield { ...undo, method: compensate.call, taskQueue: compensate.taskQueue || serviceOf(compensate.call) };
  }
}

const serviceOf = (method: string): string => splitMethod(method)?.service ?? "";

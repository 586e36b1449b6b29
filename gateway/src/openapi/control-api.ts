/** The routes under /api/v1 and the probes, as operations of the document. A route that is missing here fails the tests. */
import type { JsonObject } from "@bufbuild/protobuf";
import { meshRef } from "./control-schemas.js";
import { rolloutOperations } from "./rollout-api.js";
import type { Schema } from "./schema.js";
import { refTo } from "./schema-book.js";

/** One operation, as short as it can be written. */
export interface ControlOperation {
  /** "get /api/v1/runs/{runId}" */
  route: string;
  id: string;
  tag: "Runs" | "Chains" | "Actions" | "Assignments" | "Operations";
  summary: string;
  /** Query parameters besides the namespace. */
  query?: readonly QueryParameter[];
  /** Schema of the JSON body. */
  body?: Schema;
  /** Whether the body may be left out. */
  bodyOptional?: boolean;
  /** Whether the body may be a YAML document too. */
  yaml?: boolean;
  /** Answers by status: a schema of JSON, or what else it is. */
  answers: Readonly<Record<number, Schema | { media: string; description: string } | undefined>>;
  /** No namespace, no credential: probes. */
  open?: boolean;
  /** Without a namespace. */
  global?: boolean;
  /** The header Idempotency-Key makes it safe to repeat. */
  keyed?: boolean;
}

export interface QueryParameter {
  name: string;
  description: string;
  schema: Schema;
  repeated?: boolean;
  required?: boolean;
}

const text = (name: string, description: string): QueryParameter => ({ name, description, schema: { type: "string" } });
const flag = (name: string, description: string): QueryParameter => ({
  name,
  description,
  schema: { type: "boolean" },
});
const whole = (name: string, description: string, minimum: number, maximum: number): QueryParameter => ({
  name,
  description,
  schema: { type: "integer", minimum, maximum },
});
const instant = (name: string, description: string): QueryParameter => ({
  name,
  description,
  schema: { type: "string", format: "date-time" },
});
const page = [
  whole("pageSize", "Most entries of a page; default 100.", 1, 1_000),
  text("pageToken", "`nextPageToken` of the page before."),
];
const wait = text("wait", "How long to wait, such as `30s`; at most 60 s.");
const omit = flag("omitPayloads", "Leaves payloads out.");

const runs: ControlOperation[] = [
  {
    ...{ route: "post /api/v1/runs", id: "startRun", tag: "Runs", summary: "Start a run" },
    body: refTo("StartRun"),
    answers: { 200: refTo("RunStarted"), 201: refTo("RunStarted") },
  },
  {
    ...{ route: "get /api/v1/runs", id: "listRuns", tag: "Runs", summary: "List runs, newest first" },
    query: [
      { ...text("status", "Statuses such as `RUNNING`, several by commas or repeated."), repeated: true },
      text("method", "Full method name."),
      { ...text("label", "`key=value` or `key:value`; all must match."), repeated: true },
      instant("acceptedAfter", "Accepted at or after."),
      instant("acceptedBefore", "Accepted before."),
      text("customId", "The run that has this custom id, or had it last."),
      text("starter", "Started by."),
      ...page,
    ],
    answers: { 200: refTo("RunPage") },
  },
  {
    ...{ route: "get /api/v1/runs/{runId}", id: "getRun", tag: "Runs", summary: "Show a run with its steps" },
    query: [omit],
    answers: { 200: refTo("RunView") },
  },
  {
    ...{
      route: "get /api/v1/runs/{runId}/result",
      id: "getResult",
      tag: "Runs",
      summary: "Wait for the result of a run",
    },
    query: [wait],
    answers: { 200: refTo("RunResult") },
  },
  {
    ...{
      route: "get /api/v1/runs/{runId}/events",
      id: "getEvents",
      tag: "Runs",
      summary: "Follow the events of a run",
    },
    query: [text("afterSeq", "The last event seen."), wait],
    answers: { 200: refTo("EventPage"), 204: undefined },
  },
  {
    ...{ route: "get /api/v1/runs/{runId}/logs", id: "getLogs", tag: "Runs", summary: "Show what handlers logged" },
    query: [text("stepId", "Only this step.")],
    answers: { 200: meshRef("GetLogsResponse") },
  },
  {
    ...{ route: "get /api/v1/runs/{runId}/steps/{stepId}/items", id: "listItems", tag: "Runs" },
    summary: "List the items of a fan-out",
    query: [...page, omit],
    answers: { 200: refTo("ItemPage") },
  },
  {
    ...{ route: "get /api/v1/runs/{runId}/steps/{stepId}/{side}", id: "getStepPayload", tag: "Runs" },
    summary: "Show one payload of one step, whole",
    answers: { 200: refTo("Json") },
  },
  {
    ...{ route: "post /api/v1/runs/{runId}/signals", id: "signalRun", tag: "Runs", summary: "Send a run a message" },
    body: refTo("SignalToSend"),
    answers: { 200: refTo("SignalAnswer") },
  },
  {
    ...{ route: "post /api/v1/runs/{runId}/cancel", id: "cancelRun", tag: "Runs", summary: "Cancel a run" },
    ...{ body: refTo("Cancel"), bodyOptional: true },
    answers: { 200: refTo("RunHeader") },
  },
  {
    ...{ route: "post /api/v1/callbacks/{token}", id: "completeCallback", tag: "Runs", open: true },
    summary: "Answer a callback; the token is the credential",
    ...{ body: refTo("Json"), bodyOptional: true },
    answers: { 200: refTo("CallbackAnswer") },
  },
];

const operate = (path: string, id: string, summary: string, body: string): ControlOperation => ({
  ...{ route: `post /api/v1/runs/{runId}/${path}`, id, tag: "Runs", summary, bodyOptional: true },
  body: refTo(body),
  answers: { 200: refTo("RunHeader") },
});

const successor = (path: string, id: string, summary: string, body: string): ControlOperation => ({
  ...operate(path, id, summary, body),
  answers: { 200: refTo("SuccessorStarted"), 201: refTo("SuccessorStarted") },
});

const runOperations: ControlOperation[] = [
  operate("pause", "pauseRun", "Start no further step of a run", "Reason"),
  operate("resume", "resumeRun", "Let a paused run go on", "Reason"),
  operate("terminate", "terminateRun", "End a run at once, without cleaning up", "Reason"),
  operate("update", "updateRun", "Change the priority or labels of a run", "RunUpdate"),
  operate("retry", "retryRun", "Run the steps again that broke a run", "Reason"),
  operate("steps/{stepId}/retry", "retryStep", "Run a step again, with another input if need be", "StepRetry"),
  operate(
    "steps/{stepId}/skip",
    "skipStep",
    "Go on without a step, with an output in its place if need be",
    "StepSkip",
  ),
  { ...successor("restart", "restartRun", "Do all of a run anew, in a new run", "Restart"), keyed: true },
  {
    ...successor("steps/{stepId}/restart", "restartFromStep", "Go on from a step of a run, in a new run", "Restart"),
    keyed: true,
  },
  successor("clone", "cloneRun", "Start a copy of a run, and cancel the run", "Clone"),
];

const bulkOperations: ControlOperation[] = [
  {
    ...{ route: "get /api/v1/broken", id: "groupBrokenRuns", tag: "Runs", summary: "What broke how many runs" },
    query: [flag("byStarter", "Also by who started them.")],
    answers: { 200: refTo("BrokenGroups") },
  },
  {
    ...{ route: "post /api/v1/operations", id: "startBulkOperation", tag: "Runs" },
    summary: "Do one thing to every run that a filter is for",
    body: refTo("BulkStart"),
    answers: { 202: refTo("BulkState") },
  },
  {
    ...{ route: "get /api/v1/operations/{operationId}", id: "getBulkOperation", tag: "Runs" },
    summary: "How far an operation over many runs is",
    answers: { 200: refTo("BulkState") },
  },
];

const chains: ControlOperation[] = [
  {
    ...{ route: "post /api/v1/chains", id: "applyChain", tag: "Chains", summary: "Store a chain", yaml: true },
    query: [flag("requireLiveWorkers", "Refuses a chain with steps that no live worker serves.")],
    body: meshRef("ChainSpec"),
    answers: { 200: refTo("ChainStored"), 201: refTo("ChainStored") },
  },
  {
    ...{
      route: "post /api/v1/chains/validate",
      id: "validateChain",
      tag: "Chains",
      summary: "Check a chain",
      yaml: true,
    },
    body: meshRef("ChainSpec"),
    answers: { 200: refTo("ChainCheck") },
  },
  {
    ...{ route: "get /api/v1/chains", id: "listChains", tag: "Chains", summary: "List chains by name" },
    query: page,
    answers: { 200: meshRef("ListChainsResponse") },
  },
  {
    ...{ route: "get /api/v1/chains/{service}/{method}", id: "getChain", tag: "Chains", summary: "Show a chain" },
    query: [whole("version", "0, the default: the newest.", 0, 4_294_967_295)],
    answers: { 200: refTo("ChainView") },
  },
];

const actions: ControlOperation[] = [
  {
    ...{ route: "get /api/v1/actions", id: "listActions", tag: "Actions", summary: "List the registered actions" },
    answers: { 200: meshRef("ListActionsResponse") },
  },
  {
    ...{ route: "get /api/v1/actions/{service}/{method}", id: "getAction", tag: "Actions" },
    summary: "Show an action with its contract and workers",
    answers: { 200: refTo("ActionView") },
  },
  {
    ...{ route: "get /api/v1/workers", id: "listWorkers", tag: "Actions", summary: "List the live workers" },
    answers: { 200: meshRef("ListWorkersResponse") },
  },
  {
    ...{ route: "get /api/v1/routes", id: "listRoutes", tag: "Actions" },
    summary: "List the routes that contracts declare, and what keeps one from being served",
    answers: { 200: refTo("RouteList") },
  },
];

const contracts: ControlOperation[] = [
  {
    ...{ route: "get /api/v1/contracts", id: "listContracts", tag: "Actions" },
    summary: "List the newest contract of every action and chain",
    answers: { 200: meshRef("ListContractsResponse") },
  },
  {
    ...{ route: "get /api/v1/contracts/{service}/{method}", id: "getContract", tag: "Actions" },
    summary: "Give out a contract with every file that it needs, as descriptors",
    answers: { 200: meshRef("GetContractResponse") },
  },
  {
    ...{ route: "post /api/v1/contracts/check", id: "checkContracts", tag: "Actions" },
    summary: "Judge contracts as if a worker registered them",
    body: meshRef("CheckContractsRequest"),
    answers: { 200: meshRef("CheckContractsResponse") },
  },
  {
    ...{ route: "post /api/v1/contracts/allow", id: "allowContract", tag: "Actions" },
    summary: "Let one revision of a contract pass the gate",
    body: meshRef("AllowContractRequest"),
    answers: { 200: meshRef("AllowContractResponse") },
  },
  {
    ...{ route: "get /api/v1/contracts/gate", id: "getContractGate", tag: "Actions" },
    summary: "Show the gate's mode and its decisions",
    answers: { 200: meshRef("GetContractGateResponse") },
  },
  {
    ...{ route: "put /api/v1/contracts/gate", id: "setContractGate", tag: "Actions", summary: "Set the gate's mode" },
    body: meshRef("SetContractGateRequest"),
    answers: { 200: meshRef("SetContractGateResponse") },
  },
  {
    ...{ route: "get /api/v1/contracts/uses", id: "findFieldUses", tag: "Actions" },
    summary: "Find the chains that use a field or message",
    query: [{ ...text("field", "Full name, such as `shop.v1.Order.total`."), required: true }],
    answers: { 200: meshRef("FindFieldUsesResponse") },
  },
];

const act = (name: string, summary: string, body: string): ControlOperation => ({
  ...{
    route: `post /api/v1/assignments/{runId}/{stepId}/${name}`,
    id: `${name}Assignment`,
    tag: "Assignments",
    summary,
  },
  body: refTo(body),
  answers: { 200: refTo("Nothing") },
});

const assignments: ControlOperation[] = [
  {
    ...{
      route: "get /api/v1/assignments",
      id: "listAssignments",
      tag: "Assignments",
      summary: "List what waits for people",
    },
    query: [
      text("person", "Only what this person may take or has."),
      { ...text("group", "The person's groups."), repeated: true },
      flag("unclaimed", "Only what nobody has claimed."),
      text("runId", "Only of this run."),
      ...page,
    ],
    answers: { 200: refTo("AssignmentPage") },
  },
  {
    ...{ route: "get /api/v1/assignments/{runId}/{stepId}", id: "getAssignment", tag: "Assignments" },
    summary: "Show an assignment with its form",
    answers: { 200: refTo("AssignmentView") },
  },
  act("claim", "Claim an assignment", "AssignmentClaim"),
  act("release", "Give a claimed assignment back", "AssignmentRelease"),
  act("comment", "Comment on an assignment", "AssignmentComment"),
  act("complete", "Complete an assignment", "AssignmentCompletion"),
];

const operations: ControlOperation[] = [
  {
    ...{ route: "get /api/v1/namespace", id: "getNamespace", tag: "Operations", summary: "Show the namespace" },
    answers: { 200: refTo("NamespaceView") },
  },
  {
    ...{ route: "patch /api/v1/namespace", id: "updateNamespace", tag: "Operations", summary: "Change the namespace" },
    body: refTo("NamespaceChange"),
    answers: { 200: refTo("NamespaceView") },
  },
  {
    ...{ route: "get /healthz", id: "isAlive", tag: "Operations", summary: "Whether the gateway lives", open: true },
    answers: { 200: refTo("Probe") },
  },
  {
    ...{ route: "get /readyz", id: "isReady", tag: "Operations", summary: "Whether a coordinator serves", open: true },
    answers: { 200: refTo("Probe"), 503: refTo("Probe") },
  },
  {
    ...{ route: "get /metrics", id: "getMetrics", tag: "Operations", summary: "The gateway's numbers", global: true },
    answers: { 200: { media: "text/plain", description: "Prometheus' text format." } },
  },
  {
    ...{ route: "get /", id: "getLinks", tag: "Operations", summary: "What there is", global: true },
    answers: { 200: refTo("Links") },
  },
  {
    ...{ route: "get /openapi.json", id: "getOpenApi", tag: "Operations", summary: "This document" },
    answers: { 200: { type: "object" }, 304: undefined },
  },
];

/** Every operation that is not made from a contract. */
export const controlOperations: readonly ControlOperation[] = [
  ...runs,
  ...runOperations,
  ...bulkOperations,
  ...chains,
  ...actions,
  ...contracts,
  ...rolloutOperations,
  ...assignments,
  ...operations,
];

/** Parameters of paths, by name. */
export const pathParameters: Readonly<Record<string, JsonObject>> = {
  runId: { description: "Id of a run.", schema: { type: "string" } },
  operationId: { description: "Id of a bulk operation.", schema: { type: "string", format: "uuid" } },
  stepId: { description: "Id of a step.", schema: { type: "string" } },
  side: { description: "Which payload.", schema: { type: "string", enum: ["input", "output"] } },
  token: { description: "Token of the callback.", schema: { type: "string" } },
  service: { description: "Full name of the service.", schema: { type: "string" } },
  method: { description: "Name of the method.", schema: { type: "string" } },
};

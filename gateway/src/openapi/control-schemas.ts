/** Schemas of what the control API takes and gives: the messages of taskmesh.v1 as routes show them, and what routes put around them. */
import type { DescEnum, DescMessage } from "@bufbuild/protobuf";
import { meshComments } from "@taskmesh/proto";
import { meshType } from "../render.js";
import type { Schema } from "./schema.js";
import { refTo, SchemaBook } from "./schema-book.js";

/** Messages that routes show as they are. */
const shown = [
  ...["Action", "Worker", "Revision", "ListActionsResponse", "ListWorkersResponse", "Namespace"],
  ...["ListContractsResponse", "ListedContract", "GetContractResponse"],
  ...["Assignment", "FormField", "Chain", "ChainSpec", "ChainProblem", "ListChainsResponse"],
  ...["BrokenGroup", "BulkOperation", "StartBulkOperationRequest"],
  ...["CheckContractsRequest", "CheckContractsResponse", "AllowContractRequest", "AllowContractResponse"],
  ...["GetContractGateResponse", "SetContractGateRequest", "SetContractGateResponse", "FindFieldUsesResponse"],
  ...["ListCanariesResponse", "SetCanaryRequest", "SetCanaryResponse", "ClearCanaryRequest", "ClearCanaryResponse"],
  ...["ListUpcastersResponse", "DeclareUpcasterRequest", "DeclareUpcasterResponse"],
  ...["DeleteUpcasterRequest", "DeleteUpcasterResponse"],
  ...["Run", "Step", "Attempt", "Item", "ItemCounts", "RunEvent", "RunProgress", "GetLogsResponse", "Failure"],
] as const;

/** Reference to a message of taskmesh.v1. */
export const meshRef = (name: string): Schema => refTo(`taskmesh.v1.${name}`);

const text: Schema = { type: "string" };
const flag: Schema = { type: "boolean" };
const list = (items: Schema): Schema => ({ type: "array", items });
const anyJson: Schema = refTo("Json");
const object = (properties: Record<string, Schema>, required: string[] = Object.keys(properties)): Schema => ({
  type: "object",
  properties,
  ...(required.length === 0 ? {} : { required }),
  additionalProperties: false,
});

/** Adds them all. */
export function addControlSchemas(book: SchemaBook): void {
  const roots = [...shown.map(meshType), meshType("StartRunRequest"), meshType("Signal"), ...rpcErrors()];
  book.add(roots, { id: "taskmesh", comment: commentOfMesh, instead: payloadAsJson });
  const comment = (name: string): string => meshComments[`taskmesh.v1.${name}`] ?? "";
  book.set("Json", {
    description:
      'A JSON value of the type that the contract says. One that can\'t be shown is `{"@payload": {"contract", "sizeBytes", "reference", "omitted"}}`.',
  });
  book.set("Problem", problemSchema);
  const problem = book.get("taskmesh.v1.ChainProblem");
  if (problem !== undefined) {
    const place = { type: "integer", minimum: 1, description: "Where it is in the YAML document." };
    Object.assign(problem["properties"] as object, { line: place, column: place });
  }
  const { payload: _, json: __, signal: ___, ...start } = propertiesOf(book, "StartRunRequest");
  const { payload: ____, json: _____, ...signal } = propertiesOf(book, "Signal");
  const message = { ...signal, value: { ...anyJson } };
  book.set("SignalMessage", { ...object(message, ["name"]), description: comment("Signal") });
  book.set("SignalToSend", {
    ...object({ ...message, wait: durationText }, ["name"]),
    description: `${comment("Signal")} With \`wait\` the answer has what the chain answers, if it comes in time.`,
  });
  book.set("StartRun", {
    ...object({ ...start, input: anyJson, signal: refTo("SignalMessage"), wait: durationText }, ["method"]),
    description:
      "A run to start: `input` is the input of the method as JSON; `wait` adds the result to the answer if it comes in time.",
  });
  for (const name of ["StartRunRequest", "Signal"]) book.remove(`taskmesh.v1.${name}`);
  addViews(book);
}

const durationText: Schema = {
  type: "string",
  description: "A length of time such as `30s`, `500ms` or `2m`; at most 60 s.",
};

function propertiesOf(book: SchemaBook, name: string): Record<string, Schema> {
  return { ...((book.get(`taskmesh.v1.${name}`)?.["properties"] ?? {}) as Record<string, Schema>) };
}

/** Details of the mesh's own that problem documents may hold. */
function rpcErrors(): DescMessage[] {
  return ["RunEnded", "IdempotencyKeyReused", "ChainInvalid", "RestartUnfit", "CustomIdTaken"].map(meshType);
}

/** Routes show the value of a payload, not its envelope. */
function payloadAsJson(desc: DescMessage | DescEnum): Schema | undefined {
  return desc.typeName === "taskmesh.v1.Payload" ? anyJson : undefined;
}

function commentOfMesh(desc: { kind: string; name: string }): string {
  const named = desc as { typeName?: string; parent?: { typeName: string }; name: string };
  const name = named.typeName ?? `${named.parent?.typeName ?? ""}.${named.name}`;
  return meshComments[name] ?? "";
}

const problemSchema: Schema = {
  type: "object",
  description: "Why a request was refused or a run did not succeed (RFC 9457).",
  properties: {
    type: { type: "string", description: "`urn:taskmesh:error:` and the reason." },
    title: { type: "string", description: "The reason in words." },
    status: { type: "integer", minimum: 400, maximum: 599 },
    detail: { type: "string", description: "This case in words." },
    reason: { type: "string", description: "What programs act on, such as `INPUT_INVALID`." },
    instance: { type: "string", description: "Path of the request." },
    requestId: { type: "string", description: "Also in the header Taskmesh-Request-Id and in the gateway's log." },
    errors: {
      type: "array",
      description: "The fields that are wrong.",
      items: object({ field: text, message: text, reason: text }, ["field", "message"]),
    },
    metadata: { type: "object", additionalProperties: text, description: "Facts that belong to the reason." },
    retryAfterMs: { type: "integer", minimum: 0, description: "When a retry makes sense, in milliseconds." },
    details: {
      type: "array",
      description: "Typed messages of the status.",
      items: { type: "object", properties: { "@type": text }, required: ["@type"] },
    },
    runId: { type: "string", description: "The run that did not succeed." },
    failure: meshRef("Failure"),
  },
  required: ["type", "title", "status", "detail", "reason"],
  additionalProperties: false,
};

/** Who acts and why; for people. */
const why: Record<string, Schema> = { reason: text, actor: text };

/** Properties of a message that a route reads; the message itself is left out of the document. */
function picked(name: string, names: readonly string[]): Record<string, Schema> {
  const other = new SchemaBook();
  other.add([meshType(name)], { id: "taskmesh", comment: commentOfMesh, instead: payloadAsJson });
  const properties = propertiesOf(other, name);
  return Object.fromEntries(names.map((one) => [one, properties[one] ?? {}]));
}

function addViews(book: SchemaBook): void {
  const result = { status: meshRef("RunStatus"), output: anyJson, failure: meshRef("Failure") };
  const views: Record<string, Schema> = {
    RunAccepted: { ...object({ runId: text }), description: "The run goes on; its result can be waited for." },
    RunStarted: object({ runId: text, existing: flag, ...result }, ["runId", "existing"]),
    RunResult: object({ runId: text, ...result }, ["runId", "status"]),
    RunView: object({ run: meshRef("Run"), input: anyJson, output: anyJson, steps: list(meshRef("Step")) }, [
      "run",
      "steps",
    ]),
    Reason: object(why, []),
    RunUpdate: object({ ...why, ...picked("UpdateRunRequest", ["priority", "setLabels", "removeLabels"]) }, []),
    BrokenGroups: object({ groups: list(meshRef("BrokenGroup")) }),
    BulkStart: object(
      {
        ...picked("StartBulkOperationRequest", [
          ...["operationId", "filter", "kind", "priority", "setLabels", "removeLabels", "reason", "actor"],
          ...["stepId", "version"],
        ]),
        value: { ...anyJson, description: "Of a RETRY: the input of the step; of a SKIP: its output." },
      },
      ["filter", "kind"],
    ),
    BulkState: object({ operation: meshRef("BulkOperation") }),
    StepRetry: object({ ...why, input: anyJson }, []),
    StepSkip: object({ ...why, output: anyJson }, []),
    Restart: object({ ...why, ...picked("RestartRunRequest", ["version"]) }, []),
    Clone: object({ ...why, ...picked("CloneRunRequest", ["version", "terminate"]), input: anyJson }, []),
    SuccessorStarted: object({ runId: text, existing: flag }),
    RunHeader: object({ run: { anyOf: [meshRef("Run"), object({ runId: text })] } }),
    RunPage: object({ runs: list(meshRef("Run")), nextPageToken: text }),
    EventPage: object({ events: list(meshRef("RunEvent")), nextAfterSeq: text, ended: flag }),
    ItemPage: object({ items: list(meshRef("Item")), nextPageToken: text, counts: meshRef("ItemCounts") }, [
      "items",
      "nextPageToken",
    ]),
    SignalAnswer: object({ delivered: flag, existing: flag, id: text, answer: anyJson }, ["delivered", "existing"]),
    CallbackAnswer: object({ accepted: flag }),
    Cancel: { ...object(why, []), description: "Who asks and why; for people." },
    AssignmentPage: object({ assignments: list(meshRef("Assignment")), nextPageToken: text }),
    AssignmentView: object({ assignment: meshRef("Assignment"), form: list(meshRef("FormField")) }),
    AssignmentClaim: object({ person: text, groups: list(text) }, ["person"]),
    AssignmentRelease: object({ person: text }),
    AssignmentComment: object({ person: text, text }),
    AssignmentCompletion: object({ person: text, groups: list(text), output: anyJson }, ["person"]),
    Nothing: object({}),
    NamespaceView: object({ namespace: meshRef("Namespace") }),
    NamespaceChange: object({ retentionDays: { type: "integer", minimum: 1, maximum: 36_500 } }),
    ChainView: object({ chain: meshRef("Chain") }),
    ChainStored: object({ chain: meshRef("Chain"), created: flag, warnings: list(meshRef("ChainProblem")) }),
    ChainCheck: object({ problems: list(meshRef("ChainProblem")), warnings: list(meshRef("ChainProblem")) }),
    Route: object({ verb: text, path: text, method: text, body: text, responseBody: text, problem: text }),
    RouteList: object({ routes: list(refTo("Route")) }),
    Probe: object({ status: text }),
    Links: object({ name: text, links: { type: "object", additionalProperties: text } }),
    ContractView: contractView,
    ActionView: object({
      action: meshRef("Action"),
      contract: refTo("ContractView"),
      proto: { type: "string", description: "The contract as a text to read." },
      workers: list(meshRef("Worker")),
      revisions: list(meshRef("Revision")),
    }),
  };
  for (const [name, schema] of Object.entries(views)) book.set(name, schema);
}

const contractView: Schema = object({
  id: text,
  method: text,
  inputType: text,
  outputType: text,
  description: text,
  messages: {
    type: "object",
    additionalProperties: object({
      description: text,
      fields: list(
        object(
          {
            ...{ name: text, protoName: text, number: { type: "integer" }, type: text, oneof: text },
            ...{ sensitive: flag, description: text },
          },
          ["name", "protoName", "number", "type", "description"],
        ),
      ),
    }),
  },
  enums: { type: "object", additionalProperties: object({ description: text, values: list(text) }) },
});

/**
 * The OpenAPI 3.1 document of a namespace: every action and chain, the routes that they declare, and the control API.
 *
 * O1. It depends on what is registered and on the gateway's configuration alone, and is written in one order: two gateways write the
 *     same bytes, and a difference between two documents is a difference between two meshes.
 * O2. A request that the document allows is not refused for its form, and an answer keeps it.
 */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { Contract } from "../contracts.js";
import type { HttpRoute } from "../http-routes.js";
import { type CallableDocument, declaredOperation, isDescribable, plainOperation } from "./callables.js";
import { type ControlOperation, controlOperations, pathParameters } from "./control-api.js";
import { addControlSchemas } from "./control-schemas.js";
import { type OpenApiPath, pathOfRoute } from "./path-of-route.js";
import { refTo, SchemaBook } from "./schema-book.js";

export interface DocumentOptions {
  namespace: string;
  /** Whether requests need a bearer token, a client certificate, or nothing. */
  credentials: { bearer: boolean; certificate: boolean };
}

/** Collects contracts and writes the document of them. */
export class DocumentBuilder {
  private readonly book = new SchemaBook();
  private readonly paths: Record<string, JsonObject> = {};
  private readonly tags = new Map<string, string>();
  /** Paths by the shape of their templates. */
  private readonly shapes = new Map<string, OpenApiPath>();

  constructor(private readonly options: DocumentOptions) {
    addControlSchemas(this.book);
    for (const operation of controlOperations) this.addControl(operation);
  }

  /** Adds a contract; the order of calls decides which of two types of one name keeps it. */
  add(contract: Contract, isChain: boolean, routes: readonly HttpRoute[]): void {
    const scope = this.book.add([contract.input, contract.output], { id: contract.id });
    const callable: CallableDocument = { contract, scope, isChain };
    const service = contract.method.slice(0, contract.method.indexOf("/"));
    if (!this.tags.has(service)) this.tags.set(service, serviceComment(contract));
    this.put(`/v1/${contract.method}`, "post", plainOperation(callable, this.resolve));
    let number = 0;
    for (const { binding } of routes) {
      number++;
      if (!isDescribable(binding)) continue;
      const known = this.shapes.get(binding.template.shape);
      const path = known ?? pathOfRoute(binding);
      this.shapes.set(binding.template.shape, path);
      this.put(path.path, binding.verb.toLowerCase(), declaredOperation(callable, binding, path, number, this.resolve));
    }
  }

  /** The document, in one order. */
  build(): JsonObject {
    const { namespace, credentials } = this.options;
    const tags = [...this.tags].sort(([a], [b]) => (a < b ? -1 : 1));
    return {
      openapi: "3.1.0",
      info: {
        title: `Taskmesh, namespace ${namespace}`,
        version: "1",
        description:
          "Every action and chain of the namespace as a JSON call, and the control API. Calls are durable runs: they go on when the connection breaks, " +
          "and one `Idempotency-Key` is one run. JSON is canonical protobuf JSON, read strictly.",
        license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      },
      servers: [{ url: "/" }],
      security: security(credentials),
      tags: [
        ...tags.map(([name, description]) => (description === "" ? { name } : { name, description })),
        ...controlTags.map(([name, description]) => ({ name, description })),
      ],
      paths: sorted(this.paths),
      components: {
        schemas: sorted(Object.fromEntries(this.book.entries())),
        responses: { Problem: problemResponse },
        parameters: sharedParameters,
        headers: { RunId: { description: "Id of the run behind the call.", schema: { type: "string" } } },
        securitySchemes: securitySchemes(credentials),
      },
    };
  }

  private readonly resolve = (ref: string) => this.book.get(ref.slice(ref.lastIndexOf("/") + 1));

  private put(path: string, verb: string, operation: JsonObject): void {
    const item = this.paths[path] ?? {};
    // What was there first stays: a plain call, then routes in the order in which they are served.
    if (item[verb] === undefined) item[verb] = operation;
    this.paths[path] = item;
  }

  private addControl(operation: ControlOperation): void {
    const [verb = "", path = ""] = operation.route.split(" ");
    this.put(path, verb, controlOperation(operation, path));
  }
}

const controlTags: [name: string, description: string][] = [
  ["Actions", "What can be called, and who serves it."],
  ["Assignments", "What waits for people."],
  ["Chains", "Graphs of calls."],
  ["Operations", "Namespaces, probes and numbers."],
  ["Runs", "Calls on their way, and those that have ended."],
];

function serviceComment({ rpc }: Contract): string {
  if (rpc === undefined) return "";
  const file = rpc.parent.file.proto;
  const path = [6, file.service.indexOf(rpc.parent.proto)].join(".");
  const location = file.sourceCodeInfo?.location.find((one) => one.path.join(".") === path);
  return (location?.leadingComments ?? "").trim();
}

function controlOperation(operation: ControlOperation, path: string): JsonObject {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? "");
  const query = (operation.query ?? []).map(({ name, description, schema, repeated, required }) => ({
    ...{ name, in: "query", description, ...(required === true ? { required } : {}) },
    schema: repeated === true ? { type: "array", items: schema } : schema,
  }));
  const isScoped = operation.open !== true && operation.global !== true;
  const parameters: JsonObject[] = [
    ...names.map((name) => ({ name, in: "path", required: true, ...pathParameters[name] })),
    ...query,
    ...(operation.keyed === true ? [parameter("idempotencyKey")] : []),
    ...(isScoped ? [parameter("namespace"), parameter("namespaceHeader")] : []),
  ];
  return {
    operationId: operation.id,
    tags: [operation.tag],
    summary: operation.summary,
    ...(operation.open === true ? { security: [] } : {}),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(operation.body === undefined ? {} : { requestBody: controlBody(operation) }),
    responses: controlAnswers(operation),
  };
}

function controlBody({ body, bodyOptional, yaml }: ControlOperation): JsonObject {
  const json = { "application/json": { schema: body ?? {} } };
  const asYaml = { "application/yaml": { schema: { type: "string" } } };
  return { required: bodyOptional !== true, content: { ...json, ...(yaml === true ? asYaml : {}) } };
}

function controlAnswers({ route, answers }: ControlOperation): JsonObject {
  const all: JsonObject = {};
  for (const [status, answer] of Object.entries(answers)) {
    if (answer === undefined)
      all[status] = { description: status === "304" ? "Nothing has changed." : "Nothing more to come." };
    else if (typeof answer["media"] === "string") {
      const content = { [answer["media"]]: { schema: { type: "string" } } };
      all[status] = { description: String(answer["description"]), content };
    } else
      all[status] = { description: words[status] ?? "The answer.", content: contentOf(route, answer as JsonObject) };
  }
  all["default"] = { $ref: "#/components/responses/Problem" };
  return all;
}

const words: Readonly<Record<string, string>> = { "201": "It is new.", "503": "Not now." };

function contentOf(route: string, schema: JsonObject): JsonObject {
  const json = { "application/json": { schema } };
  const stream = { "text/event-stream": { schema: { type: "string", description: "Server-sent events." } } };
  return route.endsWith("/events") ? { ...json, ...stream } : json;
}

const parameter = (name: string): JsonObject => ({ $ref: `#/components/parameters/${name}` });

const sharedParameters: JsonObject = {
  idempotencyKey: {
    ...{ name: "Idempotency-Key", in: "header", schema: { type: "string" } },
    description: "Calls with one key and one input are one run.",
  },
  namespace: {
    ...{ name: "namespace", in: "query", schema: { type: "string" } },
    description: "Default: the first namespace of the gateway.",
  },
  namespaceHeader: {
    ...{ name: "Taskmesh-Namespace", in: "header", schema: { type: "string" } },
    description: "Counts where the query names no namespace.",
  },
  prefer: {
    ...{ name: "Prefer", in: "header", schema: { type: "string" } },
    description: "`respond-async`: don't wait. `wait=10`: wait so many seconds, at most 60.",
  },
};

const problemResponse: JsonObject = {
  description: "A refusal, or a run that did not succeed.",
  content: {
    "application/problem+json": {
      schema: refTo("Problem"),
      example: {
        type: "urn:taskmesh:error:INPUT_INVALID",
        title: "The input of a run breaks the contract of its method.",
        status: 400,
        detail: 'txt: ScoreRequest has no field "txt"; did you mean "text"?',
        reason: "INPUT_INVALID",
        errors: [{ field: "txt", message: 'ScoreRequest has no field "txt"; did you mean "text"?' }],
      },
    },
  },
};

function security({ bearer, certificate }: DocumentOptions["credentials"]): JsonValue {
  const ways = [...(bearer ? [{ bearer: [] }] : []), ...(certificate ? [{ certificate: [] }] : [])];
  return ways.length === 0 ? [{}] : ways;
}

function securitySchemes({ bearer, certificate }: DocumentOptions["credentials"]): JsonObject {
  return {
    ...(bearer ? { bearer: { type: "http", scheme: "bearer" } } : {}),
    ...(certificate ? { certificate: { type: "mutualTLS" } } : {}),
  };
}

/** The same object with its keys in order; paths of one length stay beside each other. */
function sorted(object: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(object).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Actions and chains as operations: their plain call, and the routes that they declare. */
import type { DescField, DescMessage, JsonObject } from "@bufbuild/protobuf";
import { type HttpBinding, hasOwnJsonForm, isTextual } from "@taskmesh/runtime";
import { commentOf } from "../comments.js";
import { type Contract, returnsStream, splitMethod } from "../contracts.js";
import { exampleOf, type Resolve } from "./example.js";
import { type OpenApiPath, pathParametersOf } from "./path-of-route.js";
import { fieldSchema, type Schema, type SchemaScope } from "./schema.js";
import { refTo } from "./schema-book.js";

/** Query parameters that one operation shows; messages within messages soon make more than anybody reads. */
const PARAMETERS_MAX = 200;
/** Levels of messages that a parameter's name leads through. */
const PARAMETER_DEPTH_MAX = 4;

/** A contract with what the document knows of it. */
export interface CallableDocument {
  contract: Contract;
  scope: SchemaScope;
  isChain: boolean;
}

/** What OpenAPI can name of HTTP's methods. */
const openApiVerbs = new Set(["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE"]);

/** Whether OpenAPI has a word for the method. */
export const isDescribable = ({ verb }: HttpBinding): boolean => openApiVerbs.has(verb);

/** The operation of `POST /v1/{service}/{method}`. */
export function plainOperation(callable: CallableDocument, resolve: Resolve): JsonObject {
  const { contract, scope } = callable;
  return {
    ...headOf(callable, ""),
    parameters: [parameterRef("namespace"), ...callParameters],
    requestBody: bodyOf(scope.ref(contract.input), contract.input.fields.length > 0, resolve),
    responses: answersOf(contract, scope.ref(contract.output), resolve),
  };
}

/** The operation of a declared route. `number`: which of the contract's routes it is, from 1. */
export function declaredOperation(
  callable: CallableDocument,
  binding: HttpBinding,
  path: OpenApiPath,
  number: number,
  resolve: Resolve,
): JsonObject {
  const { contract, scope } = callable;
  const { body, responseBody } = binding;
  const answer = responseBody === undefined ? scope.ref(contract.output) : fieldSchema(responseBody, scope);
  const input = body === undefined ? undefined : body === "*" ? scope.ref(contract.input) : fieldSchema(body, scope);
  const query = body === "*" ? [] : queryParameters(binding, contract.input, scope);
  return {
    ...headOf(callable, `.http${number}`),
    parameters: [...pathParametersOf(binding, path.names, scope), ...query, ...callParameters],
    ...(input === undefined ? {} : { requestBody: bodyOf(input, false, resolve) }),
    // A field without a value is null.
    responses: answersOf(
      contract,
      responseBody === undefined ? answer : { anyOf: [answer, { type: "null" }] },
      resolve,
    ),
  };
}

function headOf({ contract, isChain }: CallableDocument, suffix: string): JsonObject {
  const [service, rpc] = splitMethod(contract.method);
  const comment = contract.rpc === undefined ? "" : commentOf(contract.rpc);
  const [first = ""] = comment.split(/(?<=[.!?])\s|\n\n/, 1);
  return {
    operationId: `${service}.${rpc}${suffix}`,
    tags: [service],
    summary:
      first === "" || first.length > 120 ? `${isChain ? "Run the chain" : "Call"} ${rpc}` : first.replaceAll("\n", " "),
    ...(comment === "" ? {} : { description: comment }),
  };
}

const parameterRef = (name: string): JsonObject => ({ $ref: `#/components/parameters/${name}` });
const callParameters = ["idempotencyKey", "prefer", "namespaceHeader"].map(parameterRef);

function bodyOf(schema: Schema, required: boolean, resolve: Resolve): JsonObject {
  const example = exampleOf(schema, resolve);
  return {
    required,
    content: { "application/json": { schema, ...(example === undefined ? {} : { example }) } },
  };
}

/** What a call of an rpc that returns a stream can be answered with besides its result. */
const streamed: JsonObject = {
  "text/event-stream": {
    schema: {
      type: "string",
      description:
        "An event `output` for each output as it is emitted, then `end`, or `problem` with a problem document.",
    },
  },
  "application/x-ndjson": {
    schema: { type: "string", description: "Lines with one field each: `output`, and last `end` or `problem`." },
  },
};

function answersOf(contract: Contract, schema: Schema, resolve: Resolve): JsonObject {
  const example = exampleOf(schema, resolve);
  const headers = { "Taskmesh-Run-Id": { $ref: "#/components/headers/RunId" } };
  return {
    "200": {
      description: "The output.",
      headers,
      content: {
        "application/json": { schema, ...(example === undefined ? {} : { example }) },
        ...(returnsStream(contract) ? streamed : {}),
      },
    },
    "202": {
      description: "The run goes on: the wait was over, or not wanted.",
      headers: { ...headers, Location: { description: "Where the run is shown.", schema: { type: "string" } } },
      content: { "application/json": { schema: refTo("RunAccepted") } },
    },
    default: { $ref: "#/components/responses/Problem" },
  };
}

/** A parameter for each field that is neither in the path nor in the body. */
function queryParameters(binding: HttpBinding, input: DescMessage, scope: SchemaScope): JsonObject[] {
  const inPath = new Set(binding.variables.map(({ fields }) => fields.map(({ name }) => name).join(".")));
  const parameters: JsonObject[] = [];
  const visit = (desc: DescMessage, before: readonly DescField[]) => {
    for (const field of desc.fields) {
      const path = [...before, field];
      if (parameters.length >= PARAMETERS_MAX || inPath.has(path.map(({ name }) => name).join("."))) continue;
      if (before.length === 0 && field === binding.body) continue;
      if (isTextual(field)) {
        const { description, ...schema } = fieldSchema(field, scope);
        const name = path.map(({ jsonName }) => jsonName).join(".");
        const words = typeof description === "string" ? { description } : {};
        parameters.push({ name, in: "query", ...words, schema });
      } else if (field.fieldKind === "message" && !hasOwnJsonForm(field.message)) {
        const isRound = before.some((other) => other.message === field.message) || field.message === input;
        if (!isRound && path.length < PARAMETER_DEPTH_MAX) visit(field.message, path);
      }
    }
  };
  visit(input, []);
  return parameters;
}

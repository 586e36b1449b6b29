/** Chains: validate, apply, list, show. A chain is sent as canonical JSON of ChainSpec, or as a YAML document. */
import { type JsonObject, toBinary } from "@bufbuild/protobuf";
import { Chain, ChainInvalid, ChainProblem, ChainServiceService, ChainSpec, ListChainsResponse } from "@taskmesh/proto";
import {
  type ChainDocument,
  describeChainProblem,
  isStatusError,
  parseChainDocument,
  StatusError,
  shorten,
  statusError,
} from "@taskmesh/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import { header, methodOfPath, Query, refuseQuery } from "../query.js";
import { meshType, readMessage, render } from "../render.js";
import { readJsonBody } from "../start.js";

/** A thousand steps with long expressions are some 2 MB. */
const DOCUMENT_BYTES_MAX = 4 * 1024 * 1024;
const PAGE_SIZE_MAX = 1_000;
const VERSION_MAX = 4_294_967_295;

/** Registers the routes. */
export function chainRoutes(app: FastifyInstance, context: GatewayContext): void {
  const limits = { bodyLimit: DOCUMENT_BYTES_MAX };
  app.post("/api/v1/chains", limits, (request, reply) => apply(context, request, reply));
  app.post("/api/v1/chains/validate", limits, (request) => validate(context, request));
  app.get("/api/v1/chains", (request) => list(context, request));
  app.get("/api/v1/chains/:service/:method", (request) => show(context, request));
}

async function apply(context: GatewayContext, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const query = new Query(request, ["requireLiveWorkers"]);
  const namespace = context.namespaceOf(request);
  const { spec, document } = readChain(request);
  const put = { namespace, spec, requireLiveWorkers: query.flag("requireLiveWorkers") };
  const options = context.callOptions(request);
  const answer = await context.upstream.call(ChainServiceService.putChain, put, options).catch((error: unknown) => {
    throw document === undefined ? error : placeRefusal(error, document);
  });
  const { chain, created } = answer;
  if (chain === undefined) throw new Error("PutChain answered without a chain");
  const location = `/api/v1/chains/${chain.name}?namespace=${encodeURIComponent(namespace)}&version=${chain.version}`;
  return reply
    .code(created ? 201 : 200)
    .header("location", location)
    .send({
      chain: render("Chain", Chain, chain),
      created,
      warnings: answer.warnings.map((warning) => problemToJson(warning, document)),
    });
}

async function validate(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  refuseQuery(request);
  const { spec, document } = readChain(request);
  const check = { namespace: context.namespaceOf(request), spec };
  const answer = await context.upstream.call(ChainServiceService.validateChain, check, context.callOptions(request));
  return {
    problems: answer.problems.map((problem) => problemToJson(problem, document)),
    warnings: answer.warnings.map((warning) => problemToJson(warning, document)),
  };
}

/** A problem with its place in the YAML text, where there is one. */
function problemToJson(problem: ChainProblem, document: ChainDocument | undefined): JsonObject {
  const json = render("ChainProblem", ChainProblem, problem);
  return document === undefined ? json : { ...json, ...placeOf(problem, document) };
}

function placeOf(problem: ChainProblem, { locate }: ChainDocument): { line: number; column: number } {
  const { line, column } = locate(problem.path, problem.expression === "" ? undefined : problem.start);
  return { line, column };
}

/** The refusal of a YAML document: its messages begin with `line:column`. */
function placeRefusal(error: unknown, document: ChainDocument): unknown {
  if (!isStatusError(error)) return error;
  const problems = error.detail("taskmesh.v1.ChainInvalid", ChainInvalid)?.problems;
  if (problems === undefined || problems.length === 0) return error;
  const fieldViolations = problems.map((problem) => {
    const { line, column } = placeOf(problem, document);
    return {
      field: problem.path,
      description: `${line}:${column}: ${describeChainProblem(problem)}`,
      reason: problem.reason,
    };
  });
  const { reason, message, details } = error;
  return new StatusError({ code: error.code, reason, message, details, fieldViolations, cause: error });
}

async function list(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const query = new Query(request, ["pageSize", "pageToken"]);
  const page = {
    namespace: context.namespaceOf(request),
    pageSize: query.integer("pageSize", 1, PAGE_SIZE_MAX) ?? 0,
    pageToken: query.text("pageToken") ?? "",
  };
  const answer = await context.upstream.call(ChainServiceService.listChains, page, context.callOptions(request));
  return render("ListChainsResponse", ListChainsResponse, answer);
}

async function show(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const query = new Query(request, ["version"]);
  const wanted = {
    namespace: context.namespaceOf(request),
    name: methodOfPath(request),
    version: query.integer("version", 0, VERSION_MAX) ?? 0,
  };
  const answer = await context.upstream.call(ChainServiceService.getChain, wanted, context.callOptions(request));
  return { chain: render("Chain", Chain, answer.chain ?? Chain.fromPartial({})) };
}

/** The chain in the body; `document` where it is YAML. Throws CHAIN_INVALID with every fault of its form. */
function readChain(request: FastifyRequest): { spec: ChainSpec; document?: ChainDocument } {
  if (/yaml/i.test(header(request, "content-type") ?? "")) return readYaml(request.body);
  const parsed = readMessage("ChainSpec", readJsonBody(request.body).value);
  if (parsed.ok) return { spec: ChainSpec.decode(toBinary(meshType("ChainSpec"), parsed.message)) };
  throw chainInvalid(parsed.violations.map(({ field, message }) => ({ field, description: message })));
}

function readYaml(body: unknown): { spec: ChainSpec; document: ChainDocument } {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(body as Buffer);
  } catch {
    throw chainInvalid([{ field: "", description: "the document is not valid UTF-8" }]);
  }
  const document = parseChainDocument(text);
  if (document.spec !== undefined) return { spec: document.spec, document };
  throw chainInvalid(
    document.problems.map(({ path, line, column, message, suggestion }) => {
      const hint = suggestion === "" ? "" : `; did you mean ${JSON.stringify(suggestion)}?`;
      return {
        field: path,
        description: `${line}:${column}: ${message}${message.includes("did you mean") ? "" : hint}`,
      };
    }),
  );
}

function chainInvalid(fieldViolations: readonly { field: string; description: string }[]): StatusError {
  const [first] = fieldViolations;
  const more = fieldViolations.length > 1 ? ` (and ${fieldViolations.length - 1} more)` : "";
  const message = `${first?.field || "the chain"}: ${shorten(first?.description ?? "is invalid", 300)}${more}`;
  return statusError({ reason: "CHAIN_INVALID", message, fieldViolations });
}

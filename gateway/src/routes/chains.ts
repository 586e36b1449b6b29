/** Chains: validate, apply, list, show. A chain is sent as canonical JSON of ChainSpec, or as a YAML document. */
import { type JsonObject, toBinary } from "@bufbuild/protobuf";
import {
  Chain,
  ChainProblem,
  ChainServiceService,
  ChainSpec,
  ListChainsResponse,
  ValidateChainResponse,
} from "@taskmesh/proto";
import { shorten, statusError } from "@taskmesh/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import { methodOfPath, Query } from "../query.js";
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
  const put = { namespace, spec: readSpec(request), requireLiveWorkers: query.flag("requireLiveWorkers") };
  const answer = await context.upstream.call(ChainServiceService.putChain, put, context.callOptions(request));
  const { chain, created } = answer;
  if (chain === undefined) throw new Error("PutChain answered without a chain");
  const location = `/api/v1/chains/${chain.name}?namespace=${encodeURIComponent(namespace)}&version=${chain.version}`;
  return reply
    .code(created ? 201 : 200)
    .header("location", location)
    .send({
      chain: render("Chain", Chain, chain),
      created,
      warnings: answer.warnings.map((warning) => render("ChainProblem", ChainProblem, warning)),
    });
}

async function validate(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  new Query(request, []);
  const check = { namespace: context.namespaceOf(request), spec: readSpec(request) };
  const answer = await context.upstream.call(ChainServiceService.validateChain, check, context.callOptions(request));
  return render("ValidateChainResponse", ValidateChainResponse, answer);
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

function readSpec(request: FastifyRequest): ChainSpec {
  const parsed = readMessage("ChainSpec", readJsonBody(request.body).value);
  if (parsed.ok) return ChainSpec.decode(toBinary(meshType("ChainSpec"), parsed.message));
  const [first] = parsed.violations;
  const fieldViolations = parsed.violations.map(({ field, message: description }) => ({ field, description }));
  const message = `${first?.field || "the chain"}: ${shorten(first?.message ?? "is invalid", 300)}`;
  throw statusError({ reason: "CHAIN_INVALID", message, fieldViolations });
}

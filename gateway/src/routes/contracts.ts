/** Contracts as they evolve: dry runs of the gate, its mode, decisions on single revisions, and which chains use a field. */
import { type JsonObject, toBinary } from "@bufbuild/protobuf";
import {
  AllowContractRequest,
  AllowContractResponse,
  CheckContractsRequest,
  CheckContractsResponse,
  FindFieldUsesResponse,
  GetContractGateResponse,
  GetContractResponse,
  ListContractsResponse,
  RegistryServiceService as registry,
  SetContractGateRequest,
  SetContractGateResponse,
  ContractServiceService as service,
} from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import { invalid, methodOfPath, Query, refuseQuery } from "../query.js";
import { meshType, readMessage, render } from "../render.js";
import { readJsonBody } from "../start.js";

/** Descriptors of 4 MiB as base64, and the rest. */
const SET_BYTES_MAX = 6 * 1024 * 1024;

/** Registers the routes. */
export function contractRoutes(app: FastifyInstance, context: GatewayContext): void {
  const { upstream } = context;
  app.get("/api/v1/contracts", async (request) => {
    refuseQuery(request);
    const wanted = { namespace: context.namespaceOf(request), knownVersion: "" };
    const answer = await upstream.call(registry.listContracts, wanted, context.callOptions(request));
    return render("ListContractsResponse", ListContractsResponse, answer);
  });
  app.get("/api/v1/contracts/:service/:method", async (request) => {
    refuseQuery(request);
    const method = methodOfPath(request);
    const wanted = { namespace: context.namespaceOf(request), contract: "", method };
    const answer = await upstream.call(registry.getContract, wanted, context.callOptions(request));
    return render("GetContractResponse", GetContractResponse, answer);
  });
  app.post("/api/v1/contracts/check", { bodyLimit: SET_BYTES_MAX }, async (request) => {
    const wanted = readBody(context, request, "CheckContractsRequest", CheckContractsRequest);
    const answer = await upstream.call(service.checkContracts, wanted, context.callOptions(request));
    return render("CheckContractsResponse", CheckContractsResponse, answer);
  });
  app.post("/api/v1/contracts/allow", async (request) => {
    const wanted = readBody(context, request, "AllowContractRequest", AllowContractRequest);
    const answer = await upstream.call(service.allowContract, wanted, context.callOptions(request));
    return render("AllowContractResponse", AllowContractResponse, answer);
  });
  app.get("/api/v1/contracts/gate", async (request) => {
    refuseQuery(request);
    const namespace = context.namespaceOf(request);
    const answer = await upstream.call(service.getContractGate, { namespace }, context.callOptions(request));
    return render("GetContractGateResponse", GetContractGateResponse, answer);
  });
  app.put("/api/v1/contracts/gate", async (request) => {
    const wanted = readBody(context, request, "SetContractGateRequest", SetContractGateRequest);
    const answer = await upstream.call(service.setContractGate, wanted, context.callOptions(request));
    return render("SetContractGateResponse", SetContractGateResponse, answer);
  });
  app.get("/api/v1/contracts/uses", (request) => findUses(context, request));
}

async function findUses(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const query = new Query(request, ["field"]);
  const field = query.text("field");
  if (field === undefined) throw invalid("field", "name a field or message, such as shop.v1.Order.total");
  const wanted = { namespace: context.namespaceOf(request), field };
  const answer = await context.upstream.call(service.findFieldUses, wanted, context.callOptions(request));
  return render("FindFieldUsesResponse", FindFieldUsesResponse, answer);
}

/** The request that the body is, as canonical protobuf JSON; its namespace is where every route has it. */
export function readBody<T extends { namespace: string }>(
  context: GatewayContext,
  request: FastifyRequest,
  name: string,
  codec: { decode(bytes: Uint8Array): T },
): T {
  refuseQuery(request);
  const parsed = readMessage(name, readJsonBody(request.body).value);
  if (!parsed.ok) {
    const [first] = parsed.violations;
    throw statusError({
      reason: "ARGUMENT_INVALID",
      message: `${first?.field || "the body"}: ${first?.message ?? "is invalid"}`,
      fieldViolations: parsed.violations.map(({ field, message }) => ({ field, description: message })),
    });
  }
  const message = codec.decode(toBinary(meshType(name), parsed.message));
  const namespace = context.namespaceOf(request);
  if (message.namespace !== "" && message.namespace !== namespace) {
    throw invalid("namespace", "is given as ?namespace= or as the header Taskmesh-Namespace");
  }
  return { ...message, namespace };
}

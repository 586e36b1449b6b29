/** How new revisions of contracts are brought in: canaries, and upcasters between revisions. */
import {
  ClearCanaryRequest,
  ClearCanaryResponse,
  DeclareUpcasterRequest,
  DeclareUpcasterResponse,
  DeleteUpcasterRequest,
  DeleteUpcasterResponse,
  ListCanariesResponse,
  ListUpcastersResponse,
  SetCanaryRequest,
  SetCanaryResponse,
  ContractServiceService as service,
} from "@taskmesh/proto";
import type { FastifyInstance } from "fastify";
import type { GatewayContext } from "../context.js";
import { Query } from "../query.js";
import { render } from "../render.js";
import { readBody } from "./contracts.js";

/** Registers the routes. */
export function rolloutRoutes(app: FastifyInstance, context: GatewayContext): void {
  const { upstream } = context;
  const methodOf = (request: Parameters<GatewayContext["namespaceOf"]>[0]) => {
    const method = new Query(request, ["method"]).text("method") ?? "";
    return { namespace: context.namespaceOf(request), method };
  };
  app.get("/api/v1/contracts/canaries", async (request) => {
    const answer = await upstream.call(service.listCanaries, methodOf(request), context.callOptions(request));
    return render("ListCanariesResponse", ListCanariesResponse, answer);
  });
  app.put("/api/v1/contracts/canaries", async (request) => {
    const wanted = readBody(context, request, "SetCanaryRequest", SetCanaryRequest);
    const answer = await upstream.call(service.setCanary, wanted, context.callOptions(request));
    return render("SetCanaryResponse", SetCanaryResponse, answer);
  });
  app.post("/api/v1/contracts/canaries/clear", async (request) => {
    const wanted = readBody(context, request, "ClearCanaryRequest", ClearCanaryRequest);
    const answer = await upstream.call(service.clearCanary, wanted, context.callOptions(request));
    return render("ClearCanaryResponse", ClearCanaryResponse, answer);
  });
  app.get("/api/v1/contracts/upcasters", async (request) => {
    const answer = await upstream.call(service.listUpcasters, methodOf(request), context.callOptions(request));
    return render("ListUpcastersResponse", ListUpcastersResponse, answer);
  });
  app.post("/api/v1/contracts/upcasters", async (request) => {
    const wanted = readBody(context, request, "DeclareUpcasterRequest", DeclareUpcasterRequest);
    const answer = await upstream.call(service.declareUpcaster, wanted, context.callOptions(request));
    return render("DeclareUpcasterResponse", DeclareUpcasterResponse, answer);
  });
  app.post("/api/v1/contracts/upcasters/delete", async (request) => {
    const wanted = readBody(context, request, "DeleteUpcasterRequest", DeleteUpcasterRequest);
    const answer = await upstream.call(service.deleteUpcaster, wanted, context.callOptions(request));
    return render("DeleteUpcasterResponse", DeleteUpcasterResponse, answer);
  });
}

/** The catalogue: actions, their contracts, and the live workers. */
import type { JsonObject } from "@bufbuild/protobuf";
import {
  Action,
  type DescribeActionResponse,
  ListActionsResponse,
  ListWorkersResponse,
  RegistryServiceService,
  Revision,
  Worker,
} from "@taskmesh/proto";
import type { FastifyInstance } from "fastify";
import type { GatewayContext } from "../context.js";
import { describeContract } from "../contract-view.js";
import { readContract } from "../contracts.js";
import { printContract } from "../proto-text.js";
import { methodOfPath, refuseQuery } from "../query.js";
import { render } from "../render.js";

/** Registers the routes. */
export function actionRoutes(app: FastifyInstance, context: GatewayContext): void {
  app.get("/api/v1/actions", async (request) => {
    refuseQuery(request);
    const namespace = context.namespaceOf(request);
    const options = context.callOptions(request);
    const answer = await context.upstream.call(RegistryServiceService.listActions, { namespace }, options);
    return render("ListActionsResponse", ListActionsResponse, answer);
  });

  app.get("/api/v1/actions/:service/:method", async (request) => {
    refuseQuery(request);
    const namespace = context.namespaceOf(request);
    const method = methodOfPath(request);
    const options = context.callOptions(request);
    const answer = await context.upstream.call(RegistryServiceService.describeAction, { namespace, method }, options);
    return describe(method, answer);
  });

  app.get("/api/v1/workers", async (request) => {
    refuseQuery(request);
    const namespace = context.namespaceOf(request);
    const options = context.callOptions(request);
    const answer = await context.upstream.call(RegistryServiceService.listWorkers, { namespace }, options);
    return render("ListWorkersResponse", ListWorkersResponse, answer);
  });
}

function describe(method: string, answer: DescribeActionResponse): JsonObject {
  const action = answer.action ?? Action.fromPartial({ method });
  const contract = readContract({
    contract: action.contract,
    method,
    descriptorSet: answer.descriptorSet,
    inputType: action.inputType,
    outputType: action.outputType,
  });
  return {
    action: render("Action", Action, action),
    contract: describeContract(contract),
    proto: printContract(contract),
    workers: answer.workers.map((worker) => render("Worker", Worker, worker)),
    revisions: answer.revisions.map((revision) => render("Revision", Revision, revision)),
  };
}

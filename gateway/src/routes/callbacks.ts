/** Callbacks: what an outside service posts to the URL that a run gave it. */
import type { JsonObject } from "@bufbuild/protobuf";
import { RunServiceService } from "@taskmesh/proto";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import { invalid } from "../query.js";
import { readJsonBody } from "../start.js";

/** Registers the route. Who has the token needs no other credential: services outside have none. */
export function callbackRoutes(app: FastifyInstance, context: GatewayContext): void {
  app.post("/api/v1/callbacks/:token", (request) => complete(context, request));
}

/** The body is the message, whole. Query parameters are let through: services add their own. */
async function complete(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const { token } = request.params as { token: string };
  const isEmpty = !Buffer.isBuffer(request.body) || request.body.length === 0;
  const { value, lossyIntegers } = isEmpty ? { value: {}, lossyIntegers: [] } : readJsonBody(request.body);
  const [lossy] = lossyIntegers;
  if (lossy !== undefined) throw invalid(lossy.join("."), "JSON would round this integer; write it as a string");
  const command = { token, value: { $case: "json" as const, value: JSON.stringify(value) } };
  await context.upstream.call(RunServiceService.completeCallback, command, context.callOptions(request));
  return { accepted: true };
}

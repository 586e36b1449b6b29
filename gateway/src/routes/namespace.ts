/** The namespace of a request and its settings. */
import type { JsonObject } from "@bufbuild/protobuf";
import { Namespace, RegistryServiceService } from "@taskmesh/proto";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import { invalid, refuseQuery } from "../query.js";
import { render } from "../render.js";
import { readJsonBody } from "../start.js";

/** Registers the routes. */
export function namespaceRoutes(app: FastifyInstance, context: GatewayContext): void {
  app.get("/api/v1/namespace", async (request) => {
    refuseQuery(request);
    const namespace = context.namespaceOf(request);
    const options = context.callOptions(request);
    return shown(await context.upstream.call(RegistryServiceService.getNamespace, { namespace }, options));
  });

  app.patch("/api/v1/namespace", async (request) => {
    refuseQuery(request);
    const change = { namespace: context.namespaceOf(request), retentionDays: readRetention(request) };
    const options = context.callOptions(request);
    return shown(await context.upstream.call(RegistryServiceService.updateNamespace, change, options));
  });
}

const shown = ({ namespace }: { namespace?: Namespace | undefined }): JsonObject => ({
  namespace: render("Namespace", Namespace, namespace ?? Namespace.fromPartial({})),
});

function readRetention(request: FastifyRequest): number {
  const { value: body } = readJsonBody(request.body);
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw invalid("", "expected an object with retentionDays");
  }
  for (const name of Object.keys(body)) {
    if (name !== "retentionDays") throw invalid(name.slice(0, 64), "there is only retentionDays");
  }
  const days = body["retentionDays"];
  if (typeof days === "number" && Number.isInteger(days) && days >= 0 && days < 2 ** 32) return days;
  throw invalid("retentionDays", "expected a whole number of days");
}

/** Many runs at once: what is BROKEN and why, and operations over all runs that a filter is for. */
import type { JsonObject } from "@bufbuild/protobuf";
import {
  BrokenGroup,
  BulkOperation,
  BulkServiceService,
  GetBulkOperationRequest,
  StartBulkOperationRequest,
} from "@taskmesh/proto";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { decodeBody } from "../body.js";
import type { GatewayContext } from "../context.js";
import { invalid, Query, refuseQuery } from "../query.js";
import { render } from "../render.js";
import { readJsonBody } from "../start.js";

const service = BulkServiceService;

/** Registers the routes. */
export function bulkRoutes(app: FastifyInstance, context: GatewayContext): void {
  app.get("/api/v1/broken", async (request) => {
    const query = new Query(request, ["byStarter"]);
    const about = { namespace: context.namespaceOf(request), byStarter: query.flag("byStarter") };
    const { groups } = await context.upstream.call(service.groupBrokenRuns, about, context.callOptions(request));
    return { groups: groups.map((group) => render("BrokenGroup", BrokenGroup, group)) };
  });

  app.post("/api/v1/operations", async (request, reply) => {
    const asked = { ...readStart(request), namespace: context.namespaceOf(request) };
    const { operation } = await context.upstream.call(service.startBulkOperation, asked, context.callOptions(request));
    reply.code(202);
    return shown(operation);
  });

  app.get("/api/v1/operations/:operationId", async (request) => {
    refuseQuery(request);
    const { operationId } = request.params as { operationId: string };
    const about = GetBulkOperationRequest.fromPartial({ namespace: context.namespaceOf(request), operationId });
    const { operation } = await context.upstream.call(service.getBulkOperation, about, context.callOptions(request));
    return shown(operation);
  });
}

const shown = (operation: BulkOperation | undefined): JsonObject => ({
  operation: render("BulkOperation", BulkOperation, operation ?? BulkOperation.create()),
});

/** Names of statuses and kinds may be written short, as the command line does. */
function readStart(request: FastifyRequest): StartBulkOperationRequest {
  refuseQuery(request);
  const { value: body, lossyIntegers } = readJsonBody(request.body);
  if (typeof body !== "object" || body === null || Array.isArray(body))
    throw invalid("", 'expected an object such as {"kind": "BULK_KIND_RETRY", "filter": {"brokenReason": "…"}}');
  if (body["namespace"] !== undefined) throw invalid("namespace", "belongs into the query or the header");
  for (const name of ["payload", "json"])
    if (Object.hasOwn(body, name)) throw invalid(name, 'the message for the step goes into "value", as JSON');
  const [lossy] = lossyIntegers;
  if (lossy !== undefined)
    throw invalid(lossy.join("."), "the integer is too large for a JSON number; write it as a string");
  const { value, ...fields } = body;
  const asked = decodeBody("StartBulkOperationRequest", StartBulkOperationRequest, fields, ["value"]);
  return value === undefined ? asked : { ...asked, value: { $case: "json", value: JSON.stringify(value) } };
}

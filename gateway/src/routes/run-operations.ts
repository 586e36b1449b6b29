/** What people do to runs: pause, resume, terminate, change, and mend what broke. */
import { randomUUID } from "node:crypto";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import {
  CloneRunRequest,
  PauseRunRequest,
  RestartRunRequest,
  RetryStepRequest,
  type Run,
  RunServiceService,
  SkipStepRequest,
  UpdateRunRequest,
} from "@taskmesh/proto";
import { shorten } from "@taskmesh/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { decodeBody } from "../body.js";
import type { GatewayContext } from "../context.js";
import { PAYLOAD_BYTES_MAX } from "../payloads.js";
import { header, invalid, refuseQuery, runIdOfPath } from "../query.js";
import { type JsonInput, readJsonBody } from "../start.js";

/** Registers the routes. */
export function runOperationRoutes(app: FastifyInstance, context: GatewayContext): void {
  const run = "/api/v1/runs/:runId";
  for (const verb of ["pause", "resume", "terminate"] as const) {
    const method = RunServiceService[`${verb}Run`];
    app.post(`${run}/${verb}`, async (request) => {
      const asked = decodeBody("PauseRunRequest", PauseRunRequest, readBody(request, ["reason", "actor"]).fields);
      const about = { ...asked, ...runOf(context, request) };
      return answer(context, request, await context.upstream.call(method, about, context.callOptions(request)));
    });
  }
  app.post(`${run}/update`, async (request) => {
    const { fields } = readBody(request, ["reason", "actor", "priority", "setLabels", "removeLabels"]);
    const asked = { ...decodeBody("UpdateRunRequest", UpdateRunRequest, fields), ...runOf(context, request) };
    const { updateRun } = RunServiceService;
    return answer(context, request, await context.upstream.call(updateRun, asked, context.callOptions(request)));
  });
  const large = { bodyLimit: PAYLOAD_BYTES_MAX };
  app.post(`${run}/retry`, large, (request) => retry(context, request, []));
  app.post(`${run}/steps/:stepId/retry`, large, (request) => retry(context, request, [stepOf(request)]));
  app.post(`${run}/steps/:stepId/skip`, large, (request) => skip(context, request));
  app.post(`${run}/restart`, (request, reply) => restart(context, request, reply, ""));
  app.post(`${run}/steps/:stepId/restart`, (request, reply) => restart(context, request, reply, stepOf(request)));
  app.post(`${run}/clone`, large, (request, reply) => clone(context, request, reply));
}

async function restart(
  context: GatewayContext,
  request: FastifyRequest,
  reply: FastifyReply,
  stepId: string,
): Promise<FastifyReply> {
  const { fields } = readBody(request, ["reason", "actor", "version"]);
  const asked = decodeBody("RestartRunRequest", RestartRunRequest, fields);
  // With a key of its own, a restart whose answer was lost can be repeated at another coordinator without a second run.
  const given = header(request, "idempotency-key") ?? "";
  const idempotencyKey = given === "" ? `gateway-${randomUUID()}` : given;
  const about = { ...asked, ...runOf(context, request), stepId, idempotencyKey };
  const made = await context.upstream.call(RunServiceService.restartRun, about, context.callOptions(request));
  return successor(context, request, reply, made);
}

async function clone(context: GatewayContext, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { fields, value } = readBody(request, ["reason", "actor", "version", "terminate", "input"], "input");
  const asked = decodeBody("CloneRunRequest", CloneRunRequest, fields);
  const input = value === undefined ? undefined : ({ $case: "json", value: JSON.stringify(value) } as const);
  const about = { ...asked, ...runOf(context, request), input };
  const made = await context.upstream.call(RunServiceService.cloneRun, about, context.callOptions(request));
  return successor(context, request, reply, made);
}

function successor(
  context: GatewayContext,
  request: FastifyRequest,
  reply: FastifyReply,
  { runId, existing }: { runId: string; existing: boolean },
): FastifyReply {
  const location = `/api/v1/runs/${runId}?namespace=${encodeURIComponent(context.namespaceOf(request))}`;
  return reply
    .code(existing ? 200 : 201)
    .header("location", location)
    .header("taskmesh-run-id", runId)
    .send({ runId, existing });
}

async function retry(context: GatewayContext, request: FastifyRequest, stepIds: string[]): Promise<JsonObject> {
  const allowed = ["reason", "actor", ...(stepIds.length > 0 ? ["input"] : [])];
  const { fields, value } = readBody(request, allowed, "input");
  const asked = decodeBody("RetryStepRequest", RetryStepRequest, fields);
  const input = value === undefined ? undefined : ({ $case: "json", value: JSON.stringify(value) } as const);
  const about = { ...asked, ...runOf(context, request), stepIds, input };
  const { retryStep } = RunServiceService;
  return answer(context, request, await context.upstream.call(retryStep, about, context.callOptions(request)));
}

async function skip(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const { fields, value } = readBody(request, ["reason", "actor", "output"], "output");
  const asked = decodeBody("SkipStepRequest", SkipStepRequest, fields);
  const output = value === undefined ? undefined : ({ $case: "json", value: JSON.stringify(value) } as const);
  const about = { ...asked, ...runOf(context, request), stepId: stepOf(request), output };
  const { skipStep } = RunServiceService;
  return answer(context, request, await context.upstream.call(skipStep, about, context.callOptions(request)));
}

const runOf = (context: GatewayContext, request: FastifyRequest) => ({
  namespace: context.namespaceOf(request),
  runId: runIdOfPath(request),
});

const stepOf = (request: FastifyRequest): string => (request.params as { stepId: string }).stepId;

async function answer(context: GatewayContext, request: FastifyRequest, { run }: { run?: Run | undefined }) {
  return run === undefined ? {} : { run: await context.view(request).header(run) };
}

/** The body's fields, those of a request message, and apart from them the message of a step that it carries. */
function readBody(
  request: FastifyRequest,
  allowed: readonly string[],
  message?: "input" | "output",
): { fields: JsonObject; value: JsonValue | undefined } {
  refuseQuery(request);
  const isEmpty = !Buffer.isBuffer(request.body) || request.body.length === 0;
  const body: JsonInput = isEmpty ? { value: {}, lossyIntegers: [] } : readJsonBody(request.body);
  const json = body.value;
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw invalid("", 'expected {"reason": "..."}');
  for (const name of Object.keys(json)) {
    const camel = name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    if (!allowed.includes(camel)) throw invalid(shorten(name), `there is only ${allowed.join(", ")}`);
  }
  const [lossy] = body.lossyIntegers;
  if (lossy !== undefined)
    throw invalid(lossy.join("."), "the integer is too large for a JSON number; write it as a string");
  if (message === undefined) return { fields: json, value: undefined };
  const { [message]: value, ...fields } = json;
  return { fields, value };
}

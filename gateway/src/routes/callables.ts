/**
 * `POST /v1/{service}/{method}`, any action or chain as a plain JSON call; and the routes that contracts declare with google.api.http.
 *
 * Contracts come and go while the server listens, and its router takes no routes then. So one route stands for all declared ones, and
 * finds them in the contract book.
 */
import { randomUUID } from "node:crypto";
import { METHODS } from "node:http";
import { type GetResultResponse, IdConflictPolicy, IdReusePolicy, RunStatus, StartRunRequest } from "@taskmesh/proto";
import { isJsonObject, isStatusError, type Reason, shorten, statusError } from "@taskmesh/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import type { Contract } from "../contracts.js";
import { failureHttpStatus } from "../failure-status.js";
import { type HttpRoute, isOwnPath } from "../http-routes.js";
import type { PathMatch } from "../path-tree.js";
import { PAYLOAD_BYTES_MAX, payloadToJson, readPayload } from "../payloads.js";
import { type Problem, problemOf, sendProblem } from "../problem.js";
import { header, invalid, methodOfPath, refuseQuery } from "../query.js";
import { failureToJson } from "../render.js";
import {
  inputInvalid,
  isEmptyBody,
  type JsonInput,
  readJsonBody,
  type StartedRun,
  startRun,
  WAIT_MS_MAX,
  waitForResult,
} from "../start.js";
import { transcode } from "../transcode.js";
import { streamFormOf, streamOutputs } from "./output-stream.js";

declare module "fastify" {
  interface FastifyRequest {
    /** The declared route that the request found. */
    declared: PathMatch<HttpRoute> | undefined;
  }
}

/** Answers a request that is no route of the mesh; `declared`: methods that contracts declare for its path. */
export type AnswerNotFound = (
  request: FastifyRequest,
  reply: FastifyReply,
  declared: readonly string[],
) => FastifyReply;

/** Registers the routes. */
export function callableRoutes(app: FastifyInstance, context: GatewayContext, notFound: AnswerNotFound): void {
  app.decorateRequest("declared", undefined);
  const limits = { bodyLimit: PAYLOAD_BYTES_MAX };
  app.post("/v1/:service/:method", limits, (request, reply) => callPlain(context, request, reply));
  for (const method of METHODS) {
    if (method !== "CONNECT" && !app.supportedMethods.includes(method)) app.addHttpMethod(method, { hasBody: true });
  }
  app.all(DECLARED_PATHS, {
    ...limits,
    // Before the body is read: what leads nowhere needs none.
    onRequest: async (request, reply) => {
      const { match, verbs } = await findDeclared(context, request);
      request.declared = match;
      return match === undefined ? notFound(request, reply, verbs) : undefined;
    },
    handler: (request, reply) => callDeclared(context, request, reply),
  });
}

/** Every path that is no other route. */
export const DECLARED_PATHS = "/*";

async function findDeclared(
  context: GatewayContext,
  request: FastifyRequest,
): Promise<{ match: PathMatch<HttpRoute> | undefined; verbs: string[] }> {
  const path = request.url.split("?", 1)[0]!;
  if (isOwnPath(path)) return { match: undefined, verbs: [] };
  const namespace = context.checkNamespace(header(request, "taskmesh-namespace"));
  const { routes } = await context.book.page(namespace, context.callOptions(request));
  const match = routes.find(request.method, path);
  return { match, verbs: match === undefined ? routes.verbsOf(path) : [] };
}

/** A plain call; where there is no such method, contracts may have declared the path. */
async function callPlain(context: GatewayContext, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  let call: Call;
  try {
    const method = methodOfPath(request);
    const namespace = context.namespaceOf(request);
    const contract = await context.contracts.current(namespace, method, context.callOptions(request));
    call = { namespace, contract, input: { value: {}, lossyIntegers: [] } };
  } catch (error) {
    if (!isStatusError(error) || !noSuchMethod.has(error.reason)) throw error;
    const { match } = await findDeclared(context, request);
    if (match === undefined) throw error;
    request.declared = match;
    return callDeclared(context, request, reply);
  }
  refuseQuery(request);
  // An input without fields needs no body.
  if (!isEmptyBody(request.body)) call.input = readJsonBody(request.body);
  return perform(context, request, reply, call);
}

/** Reasons of a path that names no method of the namespace. */
const noSuchMethod: ReadonlySet<string> = new Set(["METHOD_NOT_FOUND", "ARGUMENT_INVALID"]);

async function callDeclared(
  context: GatewayContext,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { value: route, segments } = request.declared!;
  const { binding, contract } = route;
  const body = isEmptyBody(request.body) ? undefined : readJsonBody(request.body);
  const question = request.url.indexOf("?");
  const query = question < 0 ? "" : request.url.slice(question + 1);
  const transcoded = transcode(binding, contract.input, { segments, query, body });
  if (!transcoded.ok) throw inputInvalid(transcoded.violations, "");
  const namespace = context.checkNamespace(header(request, "taskmesh-namespace"));
  return perform(context, request, reply, {
    namespace,
    contract,
    input: transcoded.input,
    answerField: binding.responseBody?.jsonName,
  });
}

interface Call {
  namespace: string;
  contract: Contract;
  input: JsonInput;
  /** The field of the output that is the answer; undefined: all of it. */
  answerField?: string | undefined;
}

async function perform(
  context: GatewayContext,
  request: FastifyRequest,
  reply: FastifyReply,
  call: Call,
): Promise<FastifyReply> {
  const { namespace, contract, input, answerField } = call;
  const options = context.callOptions(request);
  const waitMs = preferredWaitMs(header(request, "prefer"));
  const idempotencyKey = header(request, "idempotency-key") ?? "";
  const { method } = contract;
  const form = waitMs === 0 ? undefined : streamFormOf(request, contract);
  if (form !== undefined) {
    const key = idempotencyKey || `gateway-${randomUUID()}`;
    return streamOutputs(context, request, reply, form, {
      namespace,
      contract,
      input,
      idempotencyKey: key,
      answerField,
    });
  }
  const settings = StartRunRequest.fromPartial({ ...startHeaders(request), namespace, method, idempotencyKey });
  const run = await startRun(context, settings, input, "", options, contract);
  reply.header("taskmesh-run-id", run.runId);
  if (waitMs === 0) return accepted(reply, namespace, run);
  const result = await waitForResult(context, namespace, run.runId, waitMs, options);
  return answer(context, request, reply, { namespace, run, result, answerField });
}

/** What headers say of the run, in the words of gRPC's metadata: a plain call has no other place for it. */
function startHeaders(request: FastifyRequest): { starter: string; customId: string } & Partial<StartRunRequest> {
  const conflict = header(request, "taskmesh-id-conflict");
  const reuse = header(request, "taskmesh-id-reuse");
  return {
    starter: header(request, "taskmesh-starter") ?? "",
    customId: header(request, "taskmesh-custom-id") ?? "",
    ...(conflict === undefined ? {} : { idConflict: policyOf("taskmesh-id-conflict", conflict, idConflictPolicies) }),
    ...(reuse === undefined ? {} : { idReuse: policyOf("taskmesh-id-reuse", reuse, idReusePolicies) }),
  };
}

const idConflictPolicies = {
  fail: IdConflictPolicy.ID_CONFLICT_POLICY_FAIL,
  "use-existing": IdConflictPolicy.ID_CONFLICT_POLICY_USE_EXISTING,
  "terminate-existing": IdConflictPolicy.ID_CONFLICT_POLICY_TERMINATE_EXISTING,
};
const idReusePolicies = {
  allow: IdReusePolicy.ID_REUSE_POLICY_ALLOW,
  "allow-if-failed": IdReusePolicy.ID_REUSE_POLICY_ALLOW_IF_FAILED,
  reject: IdReusePolicy.ID_REUSE_POLICY_REJECT,
};

function policyOf<T>(name: string, given: string, known: Readonly<Record<string, T>>): T {
  const policy = Object.hasOwn(known, given) ? known[given] : undefined;
  if (policy !== undefined) return policy;
  throw invalid(name, `expected ${Object.keys(known).join(", ")}, found ${JSON.stringify(shorten(given))}`);
}

interface Ended {
  namespace: string;
  run: StartedRun;
  result: GetResultResponse;
  answerField: string | undefined;
}

async function answer(
  context: GatewayContext,
  request: FastifyRequest,
  reply: FastifyReply,
  ended: Ended,
): Promise<FastifyReply> {
  const { namespace, run, result, answerField } = ended;
  const options = context.callOptions(request);
  // A run that goes on, or has failed since, may have answered its caller.
  if (result.output !== undefined) {
    const id = result.output.contract;
    const contract =
      id === "" || id === run.contract.id ? run.contract : await context.contracts.revision(namespace, id, options);
    const bytes = await readPayload(context.upstream, namespace, result.output, options);
    // Who called for a result gets all of it: masking is for those who look on.
    const json = payloadToJson(contract, "output", bytes, false);
    if (answerField === undefined) return reply.send(json);
    // A field can be a bare string, number or null, which the library would not send as JSON by itself.
    const field = isJsonObject(json) ? (json[answerField] ?? null) : null;
    return reply.header("content-type", "application/json; charset=utf-8").send(JSON.stringify(field));
  }
  switch (result.status) {
    case RunStatus.RUN_STATUS_SUCCEEDED:
      return reply.send({});
    case RunStatus.RUN_STATUS_FAILED:
    case RunStatus.RUN_STATUS_CANCELLED:
    case RunStatus.RUN_STATUS_EXPIRED:
    case RunStatus.RUN_STATUS_BROKEN:
      return sendProblem(reply, runProblem(ended, result.status));
    case RunStatus.RUN_STATUS_RUNNING:
    case RunStatus.RUN_STATUS_PAUSED:
    case RunStatus.RUN_STATUS_UNSPECIFIED:
      return accepted(reply, namespace, run);
  }
}

type UnsuccessfulStatus =
  | RunStatus.RUN_STATUS_FAILED
  | RunStatus.RUN_STATUS_CANCELLED
  | RunStatus.RUN_STATUS_EXPIRED
  | RunStatus.RUN_STATUS_BROKEN;

const reasonOfStatus: Record<UnsuccessfulStatus, Reason> = {
  [RunStatus.RUN_STATUS_FAILED]: "RUN_FAILED",
  [RunStatus.RUN_STATUS_CANCELLED]: "RUN_CANCELLED",
  [RunStatus.RUN_STATUS_EXPIRED]: "RUN_EXPIRED",
  [RunStatus.RUN_STATUS_BROKEN]: "RUN_BROKEN",
};

function runProblem({ run, result }: Ended, status: UnsuccessfulStatus): Problem {
  const { failure } = result;
  const reason = reasonOfStatus[status];
  const message = failure === undefined ? `run ${run.runId} did not succeed` : `${failure.reason}: ${failure.message}`;
  const problem = problemOf(statusError({ reason, message }));
  problem["runId"] = run.runId;
  if (failure === undefined) return problem;
  problem["failure"] = failureToJson(failure, run.contract.registry);
  if (status === RunStatus.RUN_STATUS_FAILED) problem.status = failureHttpStatus(failure);
  return problem;
}

function accepted(reply: FastifyReply, namespace: string, run: StartedRun): FastifyReply {
  const location = `/api/v1/runs/${run.runId}?namespace=${encodeURIComponent(namespace)}`;
  return reply.code(202).header("location", location).send({ runId: run.runId });
}

/** How long to wait by the header Prefer (RFC 7240): `respond-async`, or `wait=` seconds; default the longest wait. */
function preferredWaitMs(prefer: string | undefined): number {
  for (const preference of (prefer ?? "").split(",")) {
    const [name, value] = preference.split(";", 1)[0]!.split("=");
    if (name?.trim().toLowerCase() === "respond-async") return 0;
    if (name?.trim().toLowerCase() !== "wait") continue;
    if (value === undefined || !/^\s*"?\d{1,6}"?\s*$/.test(value))
      throw invalid("Prefer", "wait needs a number of seconds");
    return Math.min(Number(value.replaceAll('"', "")) * 1_000, WAIT_MS_MAX);
  }
  return WAIT_MS_MAX;
}

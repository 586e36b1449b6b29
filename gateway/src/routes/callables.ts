/** `POST /v1/{service}/{method}`: any action or chain as a plain JSON call. */

import { type GetResultResponse, RunStatus } from "@taskmesh/proto";
import { type Reason, statusError } from "@taskmesh/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import { failureHttpStatus } from "../failure-status.js";
import { PAYLOAD_BYTES_MAX, payloadToJson, readPayload } from "../payloads.js";
import { type Problem, problemOf, sendProblem } from "../problem.js";
import { header, invalid, methodOfPath, refuseQuery } from "../query.js";
import { failureToJson } from "../render.js";
import { readJsonBody, type StartedRun, startRun, WAIT_MS_MAX, waitForResult } from "../start.js";

/** Registers the route. */
export function callableRoutes(app: FastifyInstance, context: GatewayContext): void {
  app.post("/v1/:service/:method", { bodyLimit: PAYLOAD_BYTES_MAX }, (request, reply) => call(context, request, reply));
}

async function call(context: GatewayContext, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  refuseQuery(request);
  const namespace = context.namespaceOf(request);
  const method = methodOfPath(request);
  const options = context.callOptions(request);
  const waitMs = preferredWaitMs(header(request, "prefer"));
  // An input without fields needs no body.
  const input = isEmpty(request.body) ? { value: {}, lossyIntegers: [] } : readJsonBody(request.body);
  const idempotencyKey = header(request, "idempotency-key") ?? "";
  const settings = { namespace, method, idempotencyKey, labels: {}, priority: 0, timeout: undefined };
  const run = await startRun(context, settings, input, "", options);
  reply.header("taskmesh-run-id", run.runId);
  if (waitMs === 0) return accepted(reply, namespace, run);
  const result = await waitForResult(context, namespace, run.runId, waitMs, options);
  return answer(context, request, reply, { namespace, run, result });
}

function isEmpty(body: unknown): boolean {
  return !Buffer.isBuffer(body) || body.length === 0;
}

interface Ended {
  namespace: string;
  run: StartedRun;
  result: GetResultResponse;
}

async function answer(
  context: GatewayContext,
  request: FastifyRequest,
  reply: FastifyReply,
  ended: Ended,
): Promise<FastifyReply> {
  const { namespace, run, result } = ended;
  const options = context.callOptions(request);
  switch (result.status) {
    case RunStatus.RUN_STATUS_SUCCEEDED: {
      if (result.output === undefined) return reply.send({});
      const id = result.output.contract;
      const contract =
        id === "" || id === run.contract.id ? run.contract : await context.contracts.revision(namespace, id, options);
      const bytes = await readPayload(context.upstream, namespace, result.output, options);
      // Who called for a result gets all of it: masking is for those who look on.
      return reply.send(payloadToJson(contract, "output", bytes, false));
    }
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
